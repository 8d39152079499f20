"""The plan of a run, as a caller gets it."""

from core.dry_run.planned import PlannedRun
from core.dry_run.report import report


class RunPlan(PlannedRun):
    """What a run would do; `print(plan)` shows it."""

    def __str__(self) -> str:
        return report(self)
