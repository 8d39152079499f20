"""Groups tasks that one worker may run at once: those for which its model makes one batch."""

from collections.abc import Hashable
from functools import lru_cache

from core.intake.admission import Admitted
from core.intake.task_kinds import kind_of


def group_of(job: Admitted) -> Hashable | None:
    """A key that is equal for tasks that may run together; None for one that runs alone."""
    return _one_for_all(kind_of(job.task).group_of(job.task, job.loras))


@lru_cache(maxsize=1024)
def _one_for_all(group: Hashable | None) -> Hashable | None:
    return group  # equal ones become one object: every task that waits holds one
