"""Workers as fresh interpreters.

Right for simulated devices, which import nothing, and where the fork server cannot be had.
"""

import multiprocessing
import os
from collections.abc import Callable, Mapping
from typing import Any

from core.processes.entry_points import bind_to_parent, call
from core.processes.process_start import (
    WorkerProcess,
    block_terminal_signals,
    born_with,
    new_process,
    start_process,
)

SPAWNED = "Workers are spawned, and import by themselves."
_SPAWN = multiprocessing.get_context("spawn")


class _Bound:
    """Whoever reads it in a pickle is bound to this process at once.

    What follows in the pickle names modules, and they take a third of a second to import, or
    hang: in which this process may die.
    """

    def __reduce__(self) -> tuple[Callable[[int], None], tuple[int]]:
        return bind_to_parent, (os.getpid(),)


class Spawning:
    """A fresh interpreter for each worker."""

    ready = True

    def start(
        self, target: Callable[..., None], arguments: Any, name: str, environment: Mapping[str, str]
    ) -> WorkerProcess:
        process = new_process(_SPAWN, call, (_Bound(), target, *arguments), name)
        block_terminal_signals()
        with born_with(environment):
            start_process(process)
        return WorkerProcess(process)
