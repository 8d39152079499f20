"""What records cost: in the caller's thread, as one folder's recorder does it, side by side.

    python -m benchmarks.recording --rounds 40

Each round begins 64 leases at once and then keeps 64 results. `caller` is the CPU time of the
thread that deals tasks out, `process` that of all threads, both per task. `begin` is the time from
asking for a lease until it may be sent, with all 64 waiting.
"""

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from core.messages import Done
from core.store.attempt import Attempt
from core.store.folder_recorder import FolderRecorder
from core.store.ledger import Ledger
from core.store.ledger_entry import entry_for
from core.store.outputs import OutputPath, OutputRoot, publish
from core.store.results_table import ResultsTable
from core.tasks import GenerateTask

AT_ONCE = 64
PICTURE = b"a picture" * 100


@dataclass(frozen=True)
class Job:
    """A task as an admission would leave it."""

    position: int
    task: GenerateTask
    task_id: str
    output: OutputPath
    fingerprint: str = "f" * 64


def job(root: OutputRoot, position: int) -> Job:
    task = GenerateTask(prompt="a red house " * 10, seed=position, output_path=f"{position}.png")
    return Job(position, task, str(position), root.place(f"{position}.png"))


class Costs:
    """Seconds of one contender."""

    def __init__(self) -> None:
        self.caller, self.process, self.begins = 0.0, 0.0, list[float]()

    def measured(self, act: Callable[[], None], finish: Callable[[], None]) -> None:
        caller, process = time.thread_time(), time.process_time()
        act()
        self.caller += time.thread_time() - caller
        finish()
        self.process += time.process_time() - process

    def row(self, name: str, tasks: int) -> str:
        ms = [1000 * seconds for seconds in self.begins]
        return (
            f"| {name} | {1e6 * self.caller / tasks:.0f} | {1e6 * self.process / tasks:.0f} "
            f"| {median(ms):.2f} | {quantiles(ms, n=20)[-1]:.2f} |"
        )


class InCallersThread:
    """One commit per lease and per result, while the caller waits."""

    def __init__(self, folder: Path) -> None:
        self.root, self.ledger = OutputRoot(folder), Ledger.open(folder)
        self.costs = Costs()

    def round(self, jobs: list[Job]) -> None:
        batch = self.ledger.begin_batch([entry_for(job, "pending") for job in jobs])
        asked = time.perf_counter()
        self.costs.measured(partial(self._begin, jobs, asked), lambda: None)
        for job in jobs:
            job.output.file.with_name(f".partial-{job.task_id}").write_bytes(PICTURE)
        self.costs.measured(partial(self._keep, jobs, batch), lambda: None)

    def _begin(self, jobs: list[Job], asked: float) -> None:
        for job in jobs:
            self.root.prepare(os.path.dirname(job.output.path))
            name = f".partial-{job.task_id}"
            self.ledger.lease(job.task_id, job.output.key, 1, "gpu0", name)
            self.costs.begins.append(time.perf_counter() - asked)

    def _keep(self, jobs: list[Job], batch: int) -> None:
        for job in jobs:
            publish(job.output.file.with_name(f".partial-{job.task_id}"), job.output.file, SIZE)
            entry = entry_for(job, "done", worker="gpu0", size=SIZE, sha256="0" * 64)
            self.ledger.end_lease(job.task_id, "done", entry, batch)


class InItsOwn:
    """The recorder; results also get their lines in the table."""

    def __init__(self, folder: Path) -> None:
        self.root, self.ledger = OutputRoot(folder), Ledger.open(folder)
        self.table = ResultsTable(folder)
        self.recorder = FolderRecorder(self.ledger, self.root, self.table)
        self.costs = Costs()

    def round(self, jobs: list[Job]) -> None:
        batch = self.ledger.begin_batch([entry_for(job, "pending") for job in jobs])
        self.table.begin(batch, [])
        self.recorder.begin_batch(batch)
        attempts = [
            Attempt(j.task_id, batch, j, 1, "gpu0", self.recorder.partial_path(j, j.task_id))
            for j in jobs
        ]
        answers = threading.Semaphore(0)

        def begun(asked: float, refusal: Any) -> None:
            self.costs.begins.append(time.perf_counter() - asked)
            answers.release()

        def begin() -> None:
            for attempt in attempts:
                self.recorder.begin(attempt, partial(begun, time.perf_counter()))

        def keep() -> None:
            for attempt in attempts:
                done = Done(attempt.lease_id, SIZE, "0" * 64, 1.0)
                self.recorder.keep(attempt, done, lambda refusal: answers.release())

        def finish() -> None:
            for _ in attempts:
                answers.acquire()

        self.costs.measured(begin, finish)
        for attempt in attempts:
            Path(attempt.partial_path).write_bytes(PICTURE)
        self.costs.measured(keep, finish)
        self.recorder.end_batch(batch)


SIZE = len(PICTURE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--folder", type=Path, help="on the disk that is to be measured")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        callers = InCallersThread(Path(name) / "caller")
        own = InItsOwn(Path(name) / "recorder")
        for round_number in range(arguments.rounds):
            numbers = range(round_number * AT_ONCE, (round_number + 1) * AT_ONCE)
            callers.round([job(callers.root, n) for n in numbers])
            own.round([job(own.root, n) for n in numbers])
        own.recorder.close()
    tasks = arguments.rounds * AT_ONCE
    print("| records | caller, µs per task | process, µs per task | begin, ms | p95 |")
    print("| --- | ---: | ---: | ---: | ---: |")
    print(callers.costs.row("in the caller's thread", tasks))
    print(own.costs.row("in the recorder's", tasks))


if __name__ == "__main__":
    main()
