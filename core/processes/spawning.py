"""Workers as fresh interpreters.

Right for simulated devices, which import nothing, and where the fork server cannot be had.
"""

import multiprocessing
from collections.abc import Callable, Mapping
from typing import Any

from core.processes.process_start import (
    WorkerProcess,
    block_terminal_signals,
    born_with,
    new_process,
    start_process,
)

SPAWNED = "Workers are spawned, and import by themselves."
_SPAWN = multiprocessing.get_context("spawn")


class Spawning:
    """A fresh interpreter for each worker."""

    ready = True

    def start(
        self, target: Callable[..., None], arguments: Any, name: str, environment: Mapping[str, str]
    ) -> WorkerProcess:
        process = new_process(_SPAWN, target, arguments, name)
        block_terminal_signals()
        with born_with(environment):
            start_process(process)
        return WorkerProcess(process)
