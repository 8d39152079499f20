"""What a caller may expect of jobs: results as they come, cancelling, sharing the devices."""

import asyncio
import gc
import json
import os
import signal
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from core.batches import FEW_JOBS
from core.engine.backend import WorkerBackend
from core.engine.job import Job, Progress
from core.engine.task_times import OWN_ENOUGH
from core.events import Event, TaskEnded, TaskStarted
from core.messages import Lease
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.tasks import GenerateTask, Result, Status
from tests.conftest import PATIENCE, simulated, wait_until
from tests.inline_backend import InlineBackend
from tests.stub_backend import StubBackend, StubWorker

LONG = 10.0  # seconds, of tasks behind which no other one is given


def tasks(job: str, count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"{job} {n}", "output_path": f"{job}{n}.png"} for n in range(count)]


def job_of(lease: Lease) -> str:
    """The word that its tasks were named with."""
    assert isinstance(lease.task, GenerateTask)
    return lease.task.prompt.split()[0]


def ended(*how: Status) -> Counter[Status]:
    return Counter(how)


def statuses(results: list[Result]) -> list[str]:
    return [result.status for result in results]


class Machine:
    """A generator with workers that the test plays.

    Attributes:
        workers: one for each device, with its model loaded.
        events: what a listener was told.
    """

    def __init__(self, generator: MultiGPUImageGenerator, backend: StubBackend) -> None:
        self.generator = generator
        self.submit = generator.submit
        self.events: list[Event] = []
        generator.listener = self.events.append
        self.backend = backend
        self.running: Lease | None = None  # of the first worker
        names = [device.label for device in generator.devices]
        self.workers = [backend.worker(name).serve() for name in names]

    @property
    def worker(self) -> StubWorker:
        return self.workers[0]

    def work_until(self, met: Callable[[], Any]) -> list[Lease]:
        """Have all workers do what they get until something is the case; returns that, in order."""
        done: list[Lease] = []

        def has_work_or_end() -> Any:
            return met() or any(worker.has_mail for worker in self.workers)

        while wait_until(has_work_or_end, "work or the end") and not met():
            for worker in self.workers:
                if worker.has_mail:
                    done.append(worker.hear_lease())
                    worker.finish(done[-1], LONG)
        return done

    def finish(self, *jobs: Job) -> list[Lease]:
        return self.work_until(lambda: all(job.finished for job in jobs))

    def next_jobs(self, count: int) -> list[str]:
        """Whose the next tasks are that the first worker gets; the newest of them runs then."""
        self.backend.let_the_engine_act()
        found: list[str] = []
        while len(found) < count:
            if self.running is not None:
                self.worker.finish(self.running, LONG)
            self.running = self.worker.hear_lease()
            found.append(job_of(self.running))
        return found

    def no_worker_was_lost(self) -> bool:
        started = [len(workers) for workers in self.backend.started.values()]
        return started == [1] * len(self.workers) and not any(w.dead for w in self.workers)


Start = Callable[..., Machine]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a machine with so many workers, and has it go in the end."""
    with ExitStack() as stack:

        def started(workers: int = 1) -> Machine:
            backend = StubBackend()
            generator = generator_for(tmp_path, workers, backend)
            stack.callback(generator.stop, at_once=True)
            generator.start()
            return Machine(generator, backend)

        yield started


def generator_for(folder: Path, workers: int, backend: WorkerBackend) -> MultiGPUImageGenerator:
    config = simulated(scheduling={"speculative_copies": False})
    return MultiGPUImageGenerator(workers, config=config, output_dir=folder, backend=backend)


# -- results ---------------------------------------------------------------------


def test_results_come_as_they_are_made_and_lie_in_input_order(start: Start) -> None:
    machine = start(workers=2)
    job = machine.submit(tasks("a", 2))
    first, second = ((worker, worker.hear_lease()) for worker in machine.workers)
    coming = job.as_completed(PATIENCE)
    second[0].finish(second[1])
    assert next(coming).task_id == second[1].task_name
    first[0].finish(first[1])
    assert [result.task_id for result in coming] == [first[1].task_name]
    assert [result.position for result in job.results()] == [0, 1]
    # Who asks later gets all of them, in the order in which they came.
    assert [result.position for result in job.as_completed()] == [1, 0]


def test_who_stops_looking_stops_nothing(start: Start) -> None:
    machine = start()
    job = machine.submit(tasks("a", 3))
    machine.worker.finish(machine.worker.hear_lease())
    for _ in job.as_completed(PATIENCE):
        break
    machine.finish(job)
    assert statuses(job.results()) == ["done"] * 3


def test_a_timeout_is_the_callers_and_the_job_goes_on(start: Start) -> None:
    machine = start()
    job = machine.submit(tasks("a", 2))
    with pytest.raises(TimeoutError, match=r"The job is not finished after 0\.01 s"):
        job.results(timeout=0.01)
    assert not job.wait(0.01)
    coming = job.as_completed(timeout=0.01)
    with pytest.raises(TimeoutError, match=r"The job is not finished after 0\.01 s"):
        next(coming)
    assert job.results_so_far() == []
    machine.finish(job)
    assert statuses(job.results(timeout=0)) == ["done"] * 2


def test_a_job_may_be_awaited_and_looped_over_without_a_thread(
    start: Start, executor: ThreadPoolExecutor
) -> None:
    machine = start(workers=2)
    order: list[int] = []

    def has_seen(count: int) -> bool:
        return len(order) == count

    def play(job: Job) -> None:
        """The other way round, one after the other as they are seen."""
        held = [(worker, worker.hear_lease()) for worker in machine.workers]
        for number, (worker, lease) in enumerate(reversed(held)):
            worker.finish(lease)
            wait_until(partial(has_seen, number + 1), "that result")
        machine.finish(job)

    async def watch(job: Job) -> None:
        async for result in job:
            order.append(result.position)

    async def main() -> None:
        job, other = machine.submit(tasks("a", 2)), machine.submit(tasks("b", 3), priority=-1)
        executor.submit(play, other)
        results, others, _ = await asyncio.gather(job, other, watch(job))
        assert [(r.position, r.status) for r in results] == [(0, "done"), (1, "done")]
        assert statuses(others) == ["done"] * 3
        assert await job == results  # as often as one likes

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
    assert order == [1, 0]


def test_an_event_loop_that_closes_amid_a_job_stops_nothing(start: Start) -> None:
    machine = start()
    job = machine.submit(tasks("a", 2))

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(job, 0.01)

    asyncio.run(give_up())
    machine.finish(job)
    assert statuses(job.results()) == ["done"] * 2


def test_jobs_that_have_ended_are_gone_before_anybody_looks_for_garbage(tmp_path: Path) -> None:
    """A daemon's collector looks at everything so seldom that they would be many until then."""
    jobs: list[weakref.ref[Job]] = []

    async def draw(generator: MultiGPUImageGenerator, name: str) -> None:
        job = generator.submit(tasks(name, 2))
        jobs.append(weakref.ref(job))
        assert statuses(await job) == ["done"] * 2

    def are_gone() -> bool:
        """But for those that the generator has not asked yet whether they have ended."""
        return sum(job() is not None for job in jobs) <= FEW_JOBS

    was_enabled = gc.isenabled()
    gc.disable()
    try:
        with generator_for(tmp_path, 1, InlineBackend()) as generator:
            for number in range(3 * FEW_JOBS):
                asyncio.run(draw(generator, f"job{number}x"))
            wait_until(are_gone, "jobs to be let go")
    finally:
        if was_enabled:
            gc.enable()


def test_progress_counts_every_task_once(start: Start) -> None:
    machine = start()
    bad = {"prompt": "bad", "steps": "many"}
    job = machine.submit([*tasks("a", 3), bad])
    lease = machine.worker.hear_lease()
    assert job.progress == Progress(4, 1, 2, ended("failed"))
    machine.worker.finish(lease)
    machine.worker.hear_lease()
    wait_until(lambda: len(job.results_so_far()) == 2, "its record")
    assert job.progress == Progress(4, 1, 1, ended("failed", "done"))
    job.cancel(at_once=True)
    assert job.wait(PATIENCE)
    assert job.progress == Progress(4, 0, 0, ended("failed", "done", "interrupted", "interrupted"))


def test_a_job_with_nothing_to_do_is_finished(start: Start) -> None:
    machine = start()
    assert machine.submit([]).results(PATIENCE) == []
    [result] = machine.submit([{"prompt": ""}]).results(PATIENCE)
    assert result.status == "failed"


def test_events_say_of_which_job_they_are(start: Start) -> None:
    machine = start()
    first, second = machine.submit(tasks("a", 2)), machine.submit(tasks("b", 1))
    machine.finish(first, second)
    assert first.number != second.number
    for kind in (TaskStarted, TaskEnded):
        numbers = [event.job for event in machine.events if isinstance(event, kind)]
        assert Counter(numbers) == {first.number: 2, second.number: 1}


# -- cancelling ------------------------------------------------------------------


def test_a_cancelled_job_keeps_what_runs_and_leaves_others_alone(start: Start) -> None:
    machine = start()
    job, other = machine.submit(tasks("a", 3)), machine.submit(tasks("b", 2))
    running = machine.worker.hear_lease()
    job.cancel()
    machine.backend.let_the_engine_act()
    assert not job.finished
    machine.worker.finish(running)
    assert statuses(job.results(PATIENCE)) == ["done", "interrupted", "interrupted"]
    assert job.results()[2].error == "Not tried: the job was cancelled."
    machine.finish(other)
    assert statuses(other.results()) == ["done", "done"]
    assert machine.no_worker_was_lost()


def test_a_job_cancelled_at_once_waits_for_nobody(start: Start, tmp_path: Path) -> None:
    machine = start()
    job, other = machine.submit(tasks("a", 2)), machine.submit(tasks("b", 2))
    running = machine.worker.hear_lease()
    job.cancel(at_once=True)
    assert statuses(job.results(PATIENCE)) == ["interrupted"] * 2
    assert job.results()[0].error == "Not finished: the job was cancelled."
    machine.worker.finish(running)  # its worker does not know, and goes on with the other job
    machine.finish(other)
    assert statuses(other.results()) == ["done", "done"]
    assert machine.no_worker_was_lost()
    assert sorted(file.name for file in tmp_path.glob("*.png")) == ["b0.png", "b1.png"]
    # What was thrown away is to be had again.
    again = machine.submit(tasks("a", 2))
    machine.finish(again)
    assert statuses(again.results()) == ["done", "done"]


def test_a_finished_job_cannot_be_cancelled_any_more(start: Start) -> None:
    machine = start()
    job = machine.submit(tasks("a", 1))
    machine.finish(job)
    job.cancel()
    job.cancel(at_once=True)
    machine.backend.let_the_engine_act()
    assert statuses(job.results()) == ["done"]


def test_ctrl_c_of_one_batch_leaves_workers_and_other_jobs_and_the_next_batch_runs(
    start: Start, executor: ThreadPoolExecutor
) -> None:
    machine = start(workers=2)
    other = machine.submit(tasks("other", 2))
    held = [worker.hear_lease() for worker in machine.workers]  # all devices are busy with that

    def interrupt() -> None:
        """Once the batch is under way: it has a result, and a task on a device."""
        worker = machine.workers[1]
        worker.finish(held[1])
        worker.finish(worker.hear_lease())
        held[1] = worker.hear_lease()
        assert job_of(held[1]) == "mine"
        os.kill(os.getpid(), signal.SIGINT)

    interrupting = executor.submit(interrupt)
    with pytest.raises(KeyboardInterrupt):
        machine.generator.generate_batch(tasks("mine", 5))
        interrupting.result(PATIENCE)
    for worker, lease in zip(machine.workers, held, strict=True):
        worker.finish(lease)
    assert statuses(other.results(PATIENCE)) == ["done", "done"]
    following = executor.submit(machine.generator.generate_batch, tasks("mine", 5))
    drawn = machine.work_until(following.done)
    results = following.result()
    # What a device had finished when the interrupt came is kept; the rest is drawn now.
    assert results[0].status == "skipped" and all(result.success for result in results)
    assert len(drawn) == statuses(results).count("done") >= 3
    assert machine.no_worker_was_lost()


def test_a_stop_gives_every_job_its_results_and_records(start: Start, tmp_path: Path) -> None:
    machine = start()
    jobs = [machine.submit(tasks(name, 3)) for name in ("a", "b")]
    machine.worker.finish(machine.worker.hear_lease())
    next(jobs[0].as_completed(PATIENCE))
    machine.generator.stop(at_once=True)
    assert statuses(jobs[0].results(timeout=0)) == ["done", "interrupted", "interrupted"]
    assert statuses(jobs[1].results(timeout=0)) == ["interrupted"] * 3
    assert machine.worker.dead and machine.backend.closed
    listed = (tmp_path / "metadata.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["file_name"] for line in listed] == ["a0.png"]


# -- sharing ---------------------------------------------------------------------


def test_a_small_job_behind_a_huge_one_starts_within_one_tasks_time(start: Start) -> None:
    machine = start()
    huge = machine.submit(tasks("huge", 1000))
    machine.next_jobs(OWN_ENOUGH + 1)  # by now it is known how long a task takes
    small = machine.submit(tasks("small", 5))
    assert machine.next_jobs(1) == ["small"]
    assert small.progress.running == 1 and not huge.finished


def test_jobs_share_the_devices_equally(start: Start) -> None:
    machine = start()
    for name in ("a", "b"):
        machine.submit(tasks(name, 20))
    found = Counter(machine.next_jobs(12))
    assert abs(found["a"] - found["b"]) <= 1


def test_jobs_of_one_owner_share_that_owners_part(start: Start) -> None:
    machine = start()
    machine.submit(tasks("mine", 20))
    for name in ("yours", "yours-too"):
        machine.submit(tasks(name, 20), owner="you")
    found = Counter(machine.next_jobs(12))
    assert abs(found["mine"] - found["yours"] - found["yours-too"]) <= 1


def test_a_job_of_higher_priority_comes_first(start: Start) -> None:
    machine = start()
    machine.submit(tasks("low", 5))
    assert machine.next_jobs(1) == ["low"]  # which is not interrupted
    machine.submit(tasks("high", 3), priority=1)
    assert machine.next_jobs(5) == ["high"] * 3 + ["low"] * 2


def test_two_threads_at_once_share_the_devices(start: Start, executor: ThreadPoolExecutor) -> None:
    machine = start(workers=2)
    first = executor.submit(machine.generator.generate_batch, tasks("first", 8))
    held = [(worker, worker.hear_lease()) for worker in machine.workers]
    second = executor.submit(machine.generator.generate_batch, tasks("second", 8))
    for worker, lease in held:
        worker.finish(lease, LONG)
    done = machine.work_until(lambda: first.done() and second.done())
    assert statuses(first.result()) == statuses(second.result()) == ["done"] * 8
    found = [job_of(lease) for lease in done]
    # In turns from where the second batch came, and neither waits for the end of the other.
    came = found.index("second")
    assert "first" in found[came:] or came == found.count("first")


def test_many_threads_get_what_they_asked_for(tmp_path: Path) -> None:
    count, each = 4, 25
    barrier = threading.Barrier(count)
    with generator_for(tmp_path, 3, InlineBackend()) as generator:

        def draw(number: int) -> list[Result]:
            barrier.wait(PATIENCE)
            return generator.generate_batch(tasks(f"thread{number}-", each))

        with ThreadPoolExecutor(count) as threads:
            batches = list(threads.map(draw, range(count)))
    for number, results in enumerate(batches):
        assert statuses(results) == ["done"] * each
        names = [Path(str(result.output_path)).name for result in results]
        assert names == [f"thread{number}-{n}.png" for n in range(each)]
    assert len(list(tmp_path.glob("*.png"))) == count * each


def test_a_death_costs_only_the_job_whose_task_it_was_an_attempt(start: Start) -> None:
    machine = start(workers=2)
    job, other = machine.submit(tasks("a", 1)), machine.submit(tasks("b", 1))
    held = [(worker, worker.hear_lease()) for worker in machine.workers]
    [(dying, lost)] = [(worker, lease) for worker, lease in held if job_of(lease) == "a"]
    dying.die()
    again = machine.backend.worker(dying.slot, incarnation=2).serve()
    machine.workers = [again if worker is dying else worker for worker in machine.workers]
    for worker, lease in held:
        if lease is not lost:
            worker.finish(lease)
    machine.finish(job, other)
    assert [r.attempts for r in job.results()] == [2]
    assert [r.attempts for r in other.results()] == [1]


# -- output names ----------------------------------------------------------------


def test_of_two_jobs_that_ask_for_one_name_the_second_is_told_so(start: Start) -> None:
    machine = start()
    first = machine.submit([{"prompt": "a", "output_path": "x.png", "seed": 1}])
    lease = machine.worker.hear_lease()
    second = machine.submit([{"prompt": "b", "output_path": "x.png", "seed": 1}])
    [refused] = second.results(PATIENCE)
    assert refused.status == "failed"
    assert "'x.png' is also the output of task 0 of another batch" in str(refused.error)
    machine.worker.finish(lease)
    assert statuses(first.results(PATIENCE)) == ["done"]
    third = machine.submit([{"prompt": "b", "output_path": "x.png", "seed": 1}])  # it is free now
    machine.finish(third)
    assert statuses(third.results()) == ["done"]


def test_default_names_of_jobs_at_once_never_meet(start: Start) -> None:
    machine = start()
    jobs = [machine.submit([{"prompt": f"{job} {n}"} for n in range(3)]) for job in "ab"]
    machine.finish(*jobs)
    files = [result.output_path for job in jobs for result in job.results()]
    assert len(set(files)) == 6 and all(Path(str(file)).exists() for file in files)
