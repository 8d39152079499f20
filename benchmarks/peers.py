"""What a user would otherwise share tasks out with; device work is a sleep, as in our simulation.

Every peer gets warm processes, and a worker keeps `resident` LoRAs, the latest used first: the
same cost of a load as ours pays.
"""

import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

LORA_LOAD = 0.1  # seconds


@dataclass(frozen=True)
class Work:
    """One task of `seconds` on a device."""

    seconds: float
    lora: int | None = None


_loaded: OrderedDict[int, None] = OrderedDict()  # of this worker process
_resident = 1


def prepare(resident: int) -> None:
    """In a worker: how many LoRAs it keeps."""
    global _resident
    _resident = resident


def do(work: Work) -> None:
    """In a worker: one task."""
    if work.lora is not None:
        if work.lora not in _loaded:
            time.sleep(LORA_LOAD)
            while len(_loaded) >= _resident:
                _loaded.popitem(last=False)
        _loaded[work.lora] = None
        _loaded.move_to_end(work.lora)
    time.sleep(work.seconds)


@dataclass(frozen=True)
class Task:
    """A piece of work that is written down in the file `log`, when it begins and when it ends."""

    number: int
    seconds: float
    lora: int | None
    log: str


def do_logged(task: Task) -> None:
    """In a worker: one task."""
    _log(task, "begin")
    do(Work(task.seconds, task.lora))
    _log(task, "end")


def _log(task: Task, what: str) -> None:
    line = f"{what} {task.number} {os.getpid()} {time.time():.6f}\n"
    with open(task.log, "ab", buffering=0) as file:  # appended whole, whoever else writes
        file.write(line.encode())


def do_all(share: Sequence[Work]) -> None:
    for work in share:
        do(work)


Run = Callable[[Sequence[Work]], None]


class PoolPeers(AbstractContextManager["PoolPeers"]):
    """`multiprocessing.Pool` and `ProcessPoolExecutor`, used in the ways that people use them."""

    def __init__(self, workers: int, resident: int = 1) -> None:
        self._workers = workers
        context = get_context("spawn")
        self._pool = context.Pool(workers, prepare, (resident,))
        self._executor = ProcessPoolExecutor(
            workers, mp_context=context, initializer=prepare, initargs=(resident,)
        )
        self._pool.map(time.sleep, [0.5] * workers, chunksize=1)
        list(self._executor.map(time.sleep, [0.5] * workers))

    def __exit__(self, *_: Any) -> None:
        self._pool.terminate()
        self._executor.shutdown(cancel_futures=True)

    def pool_map(self, tasks: Sequence[Work]) -> None:
        """`Pool.map` with its own chunks."""
        self._pool.map(do, tasks)

    def executor(self, tasks: Sequence[Work]) -> None:
        """Pull, first in first out."""
        list(self._executor.map(do, tasks))

    def static_split(self, tasks: Sequence[Work]) -> None:
        """Equal parts by number, as accelerate's `split_between_processes` makes them."""
        each, more = divmod(len(tasks), self._workers)
        parts, start = [], 0
        for n in range(self._workers):
            end = start + each + (n < more)
            parts.append(tasks[start:end])
            start = end
        self._pool.map(do_all, parts, chunksize=1)

    def barriers(self, tasks: Sequence[Work]) -> None:
        """One task for every worker, then wait for all of them."""
        for start in range(0, len(tasks), self._workers):
            self._pool.map(do, tasks[start : start + self._workers], chunksize=1)


class RayPeer(AbstractContextManager["RayPeer"]):
    """An ActorPool of Ray; needs `pip install ray`."""

    def __init__(self, workers: int, resident: int = 1) -> None:
        import ray
        from ray.util import ActorPool

        self._ray = ray
        ray.init(num_cpus=workers, include_dashboard=False, logging_level=logging.ERROR)

        class Actor:
            def __init__(self) -> None:
                prepare(resident)

            def do(self, work: Work) -> None:
                do(work)

        remote: Any = ray.remote(num_cpus=1)(Actor)
        self._pool = ActorPool([remote.remote() for _ in range(workers)])
        self.actors([Work(0.5)] * workers)

    def __exit__(self, *_: Any) -> None:
        self._ray.shutdown()

    def actors(self, tasks: Sequence[Work]) -> None:
        list(self._pool.map_unordered(lambda actor, work: actor.do.remote(work), list(tasks)))
