"""The plan of a run, as a caller gets it."""

from typing import Any

from core.dry_run.planned import PlannedRun
from core.dry_run.report import report


class RunPlan(PlannedRun):
    """What a run would do; `print(plan)` shows it."""

    def __str__(self) -> str:
        return report(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What a notebook shows of a plan that a cell ends with."""
        printer.text(str(self))
