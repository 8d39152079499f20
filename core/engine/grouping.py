"""Groups tasks that one worker may run at once: those for which its model makes one batch."""

from collections.abc import Hashable

from core.intake.admission import Admitted
from core.intake.task_kinds import kind_of


def group_of(job: Admitted) -> Hashable | None:
    """A key that is equal for tasks that may run together; None for one that runs alone."""
    return kind_of(job.task).group_of(job.task, job.loras)
