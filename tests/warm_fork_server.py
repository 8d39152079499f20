"""What a warm command starts with an interpreter of its own, as forks of one that waits for it.

That is its fork server, which has imported what workers need, and each process that loads no model.
Tests of the fork server's own start have no warm commands.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.processes.preload_environment import PRELOAD_ROLE
from tests import births

if TYPE_CHECKING:
    from tests.warm_server import Kind

# Environment: as main starts its fork server; what a library's own threads are by it.
IMPORTING = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_CBWR": "AUTO,STRICT",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}


def import_models() -> None:
    """Import what `workers.preload` does for all roles; the fork server then finds it there."""
    from core.tasks import ROLES
    from workers.extras import hide_unneeded
    from workers.library_warnings import collect
    from workers.models.registry import import_for

    hide_unneeded(())
    collect()
    for role in ROLES:
        import_for(role)


def keep_ready(kind: "Kind", not_for_it: Sequence[int] = ()) -> None:
    """Have a child of this process wait until this process starts its fork server, or ends.

    Of simulated devices it becomes the fork server itself, and a second one is started.

    Args:
        not_for_it: file descriptors that it shall not have.
    """
    ours = births.keep_ready(births.FORK_SERVER if kind != "models" else None, not_for_it)
    births.Waiting(lambda: ours, lambda birth: _is_for(kind, birth)).take_over()


def _is_for(kind: "Kind", birth: births.Birth) -> bool:
    """Whether a process of that kind bears what is to be started now."""
    if birth.name == births.RESOURCE_TRACKER:  # a start of its own takes little
        return kind != "models"
    if birth.name == births.SPAWNED:
        return births.is_light()
    if kind != "models":
        return os.environ.get(PRELOAD_ROLE) == "simulated"
    return os.environ.get(PRELOAD_ROLE) not in (None, "simulated")
