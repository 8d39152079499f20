"""A caller's program: three jobs at once on one generator, and a fourth that is cancelled again
and again. Run as `jobs_program.py ORDERS`; run again, it continues.

Three jobs are waited for in three ways. The fourth is asked for anew until all of it is there.
An idle job that is waited for by nobody runs beside all of them, so that the table of records
has them together.
"""

import json
import random
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a process that nothing has warmed

from core.engine.job import Job
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.tasks import Result
from tests.chaos.planted import plant

NEVER_DONE = {"width": 1024, "height": 1024, "num_inference_steps": 1000}  # more than an hour
BETWEEN = 8  # results of the cancelled job between two cancels, at the most
Tasks = Sequence[dict[str, Any]]


class Program:
    """One run of it; what it finds against the promise lies in `found.jsonl` at once."""

    def __init__(self, orders: dict[str, Any], folder: Path) -> None:
        self._jobs: dict[str, Tasks] = orders["jobs"]
        self._folder = folder
        self._rng = random.Random(orders["seed"])
        self._config = orders["settings"]
        self._workers = orders["workers"]
        self._done: set[str] = set()  # jobs

    def run(self) -> None:
        with MultiGPUImageGenerator(
            self._workers, config=self._config, output_dir=self._folder / "out"
        ) as generator:
            idle = {"prompt": "idle", "output_path": "idle.png", **NEVER_DONE}
            beside = generator.submit([idle], priority=-1)
            waits = [self._wait_for_batch, self._wait_for_job, self._watch_job]
            threads = [
                threading.Thread(target=wait, args=(generator, name))
                for wait, name in zip(waits, "abc", strict=True)
            ]
            for thread in threads:
                thread.start()
            self._cancel_again_and_again(generator)
            for thread in threads:
                thread.join()
            beside.cancel(at_once=True)
            self.check([idle], beside.results())
            self.report("wrong", beside.progress.ended["interrupted"] != 1)

    def _wait_for_batch(self, generator: MultiGPUImageGenerator, name: str) -> None:
        self._ended(name, generator.generate_batch(self._jobs[name]))

    def _wait_for_job(self, generator: MultiGPUImageGenerator, name: str) -> None:
        self._ended(name, generator.submit(self._jobs[name]).results())

    def _watch_job(self, generator: MultiGPUImageGenerator, name: str) -> None:
        self._ended(name, list(generator.submit(self._jobs[name], priority=1).as_completed()))

    def _ended(self, name: str, results: list[Result]) -> None:
        self.check(self._jobs[name], results)
        self.report("wrong", sum(not result.success for result in results))
        self._done.add(name)

    def _cancel_again_and_again(self, generator: MultiGPUImageGenerator) -> None:
        results: list[Result] = []
        while not results or not all(result.success for result in results):
            last = len(self._done) == 3
            job = generator.submit(self._jobs["d"])
            if not last:
                self._cancel_at_random(job)
            results = job.results()
            self.check(self._jobs["d"], results)
            self.report("wrong", sum(r.status == "failed" for r in results))
            if last:
                break
        records = "".join(json.dumps(result.as_dict()) + "\n" for result in results)
        (self._folder / "d.jsonl").write_text(records)

    def _cancel_at_random(self, job: Job) -> None:
        due = self._rng.randint(0, BETWEEN)
        for result in job.as_completed():
            due -= result.status != "skipped"
            if due < 0:
                break
        job.cancel(at_once=self._rng.random() < 0.5)
        with (self._folder / "cancels").open("a") as cancels:
            cancels.write("x")

    def check(self, tasks: Tasks, results: Sequence[Result]) -> None:
        """Every input has one result, and what is done lies there."""
        positions = [result.position for result in results]
        self.report("lost", len(tasks) - len(set(positions)))
        self.report("duplicate", len(positions) - len(set(positions)))
        files = [Path(str(result.output_path)) for result in results if result.success]
        self.report("lost", sum(not file.is_file() for file in files))

    def report(self, kind: str, count: int) -> None:
        if count > 0:
            with (self._folder / "found.jsonl").open("a") as found:
                found.write(json.dumps([kind, count]) + "\n")


if __name__ == "__main__":
    orders_file = Path(sys.argv[1])
    given = json.loads(orders_file.read_text())
    plant(given["planted"])
    Program(given, orders_file.parent).run()
