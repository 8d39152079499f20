"""Who gets which task, and when. The workers are played by the tests."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from core.engine.tail import TAIL
from core.engine.task_times import OWN_ENOUGH
from core.events import Event, TaskEnded, TaskStarted
from core.messages import Failed, Lease
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.store.outputs import publish
from core.tasks import Result
from tests.conftest import PATIENCE, simulated, submitted, wait_until, write_safetensors
from tests.lease_records import lease_records
from tests.stub_backend import StubBackend, StubWorker

TASKS = 20  # of a batch with one worker


@pytest.fixture
def backend() -> StubBackend:
    return StubBackend()


def generator_for(
    workers: int, folder: Path, backend: StubBackend, **settings: Any
) -> MultiGPUImageGenerator:
    config = simulated(**settings)
    return MultiGPUImageGenerator(workers, config=config, output_dir=folder, backend=backend)


class SlowDisk:
    """Gives a picture its name when the test lets it."""

    def __init__(self) -> None:
        self.published = 0
        self._asked, self._free = threading.Semaphore(0), threading.Semaphore(0)

    def publish(self, partial: Path, final: Path, size: int, sync: bool) -> None:
        self._asked.release()
        assert self._free.acquire(timeout=PATIENCE)
        publish(partial, final, size, sync)
        self.published += 1

    def wait_until_asked(self) -> None:
        """It is busy with the next picture."""
        assert self._asked.acquire(timeout=PATIENCE)

    def free(self, pictures: int = 1000) -> None:
        """Let it publish so many."""
        self._free.release(pictures)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    disk = SlowDisk()
    monkeypatch.setattr("core.store.replaced.publish", disk.publish)
    yield disk
    disk.free()


def test_devices_that_wait_get_work_before_pictures_are_published(
    tmp_path: Path, backend: StubBackend, executor: ThreadPoolExecutor, disk: SlowDisk
) -> None:
    """A disk may take long to sync, and one thread makes all records."""
    copies = {"speculative_copies": False}
    with generator_for(3, tmp_path, backend, scheduling=copies) as generator:
        batch = submitted(executor, generator, 6)
        workers = [backend.worker(f"cpu{n}").serve() for n in range(3)]
        first, *others = [(worker, worker.hear_lease()) for worker in workers]
        first[0].finish(first[1])
        leases = [first[0].hear_lease()]  # before the first picture is published
        disk.wait_until_asked()
        for worker, lease in others:  # both while the recorder waits for the disk
            worker.finish(lease)
        backend.let_the_engine_act()
        disk.free(1)
        leases += [worker.hear_lease() for worker, _ in others]
        assert disk.published == 1  # and two pictures more have waited longer
        disk.free()
        for worker, lease in zip(workers, leases, strict=True):
            worker.finish(lease)
            worker.leave_when_asked()
        assert all(r.success for r in batch.result(PATIENCE))


def test_a_device_whose_task_failed_does_not_wait_for_the_disk_either(
    tmp_path: Path, backend: StubBackend, executor: ThreadPoolExecutor, disk: SlowDisk
) -> None:
    with generator_for(2, tmp_path, backend) as generator:
        batch = submitted(executor, generator, 20)
        drawing, failing = (backend.worker(f"cpu{n}").serve() for n in range(2))
        bad = failing.hear_lease()
        drawing.finish(drawing.hear_lease())
        disk.wait_until_asked()
        drawing.finish(drawing.hear_lease())  # both while the recorder waits for the disk
        failing.say(Failed(bad.lease_id, "error", "simulated"))
        backend.let_the_engine_act()
        disk.free(1)
        for worker in (drawing, failing):
            worker.hear_lease()
        assert disk.published == 1
        disk.free()
        generator.stop(at_once=True)
    assert len(batch.result(PATIENCE)) == 20


def test_a_lora_that_one_worker_is_loading_is_not_loaded_by_the_next(
    tmp_path: Path, backend: StubBackend, executor: ThreadPoolExecutor
) -> None:
    """Which LoRAs a worker holds it says after its first picture; the others ask before."""
    loras = [write_safetensors(tmp_path / f"{n}.safetensors", size=4 + n) for n in range(3)]
    most_first = [loras[0]] * 5 + [loras[1]] * 2 + [loras[2]]
    tasks = [{"prompt": f"{n}", "lora_path": str(lora)} for n, lora in enumerate(most_first)]
    with generator_for(3, tmp_path / "o", backend) as generator:
        batch = executor.submit(generator.generate_batch, tasks)
        workers = [backend.worker(f"cpu{n}").serve() for n in range(3)]
        leases = [worker.hear_lease() for worker in workers]
        assert len({lease.lora_sha256 for lease in leases}) == 3
    assert {r.status for r in batch.result(PATIENCE)} == {"interrupted"}


def warmed_up(worker: StubWorker, seconds: float = 0.001) -> Lease:
    """It has shown how fast it is, and has a lease more."""
    for _ in range(OWN_ENOUGH):
        worker.finish(worker.hear_lease(), seconds)
    return worker.hear_lease()


@dataclass
class Alone:
    """A batch with one worker, which the test plays.

    Attributes:
        given: tasks that were given to it.
        ended: tasks with their result.
    """

    folder: Path
    backend: StubBackend
    given: int = 0
    ended: int = 0
    batch: "Future[list[Result]]" = field(default_factory=Future)

    def listen(self, event: Event) -> None:
        self.given += isinstance(event, TaskStarted)
        self.ended += isinstance(event, TaskEnded)

    def worker(self, incarnation: int = 1) -> StubWorker:
        return self.backend.worker(incarnation=incarnation).serve()

    def given_after(self, ended: int) -> int:
        """Tasks that were given once so many were published, and the engine has looked again."""
        wait_until(lambda: self.ended == ended, f"{ended} results")
        self.backend.let_the_engine_act()
        return self.given

    def outcome(self, lease: Lease) -> str:
        """What became of an attempt, once that is recorded."""

        def found() -> str:
            records = lease_records(self.folder)
            return next(r.outcome for r in records if r.lease_id == lease.lease_id)

        return str(wait_until(found, "the end of a lease"))


@pytest.fixture
def alone(tmp_path: Path, backend: StubBackend, executor: ThreadPoolExecutor) -> Iterator[Alone]:
    alone = Alone(tmp_path, backend)
    with generator_for(1, tmp_path, backend) as generator:
        generator.listener = alone.listen
        alone.batch = submitted(executor, generator, TASKS)
        yield alone
        generator.stop(at_once=True)


def test_a_device_goes_on_with_short_work_without_a_word_from_main(alone: Alone) -> None:
    worker = alone.worker()
    first = warmed_up(worker)
    second = worker.hear_lease()  # before it is done with the first
    assert alone.given_after(OWN_ENOUGH) == OWN_ENOUGH + 2
    assert not worker.has_mail
    worker.finish(first)
    third = worker.hear_lease()
    for lease in (second, third):
        worker.finish(lease)
    worker.hear_lease()


def test_nothing_waits_behind_long_work(alone: Alone) -> None:
    worker = alone.worker()
    warmed_up(worker, seconds=10.0)
    assert alone.given_after(OWN_ENOUGH) == OWN_ENOUGH + 1
    assert not worker.has_mail


def test_the_last_tasks_go_to_whoever_is_free_first(alone: Alone) -> None:
    worker = alone.worker()
    held, given = [warmed_up(worker)], OWN_ENOUGH + 1
    while given < TASKS:
        if TASKS - given > TAIL or not held:
            held.append(worker.hear_lease())
            given += 1
        else:
            assert alone.given_after(given - len(held)) == given
            assert not worker.has_mail
        worker.finish(held.pop(0))


def test_a_worker_that_does_not_read_is_sent_nothing_more(alone: Alone) -> None:
    """Its pipe would fill up, and main would wait for it."""
    worker = alone.worker()
    running = warmed_up(worker)
    wait_until(lambda: worker.has_mail, "what it goes on with")  # and does not read
    worker.finish(running)
    unread = OWN_ENOUGH + 2
    assert alone.given_after(OWN_ENOUGH + 1) == unread
    worker.hear_lease()
    wait_until(lambda: alone.given == unread + 1, "the engine's next look at it")
    worker.hear_lease()


def test_what_a_dead_worker_had_not_begun_is_not_to_blame(alone: Alone) -> None:
    worker = alone.worker()
    running, ahead = warmed_up(worker), worker.hear_lease()
    worker.die()
    alone.worker(incarnation=2).hear_lease()
    assert alone.outcome(running).startswith("crash")
    assert alone.outcome(ahead) == "released"


def test_devices_do_not_run_ahead_of_the_disk(
    tmp_path: Path, backend: StubBackend, executor: ThreadPoolExecutor, disk: SlowDisk
) -> None:
    """A picture that is not published is drawn again if main is killed."""
    with generator_for(3, tmp_path, backend) as generator:
        batch = submitted(executor, generator, 90)
        workers = [backend.worker(f"cpu{n}").serve() for n in range(3)]
        given = 3
        for worker in workers:
            worker.finish(worker.hear_lease())
        for published in range(12):
            disk.wait_until_asked()
            backend.let_the_engine_act()  # the recorder waits, and all that may be given is
            for worker in workers:
                if worker.has_mail:
                    worker.finish(worker.hear_lease())
                    given += 1
            # On the device, being saved, and one whose end the engine was told a moment ago.
            assert given - published <= 3 * (1 + generator.settings.workers.max_pending_saves + 1)
            disk.free(1)
        disk.free()
        generator.stop(at_once=True)
    assert {r.status for r in batch.result(PATIENCE)} == {"done", "interrupted"}
