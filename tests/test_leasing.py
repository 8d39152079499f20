"""Who gets which task, and when. The workers are played by the tests."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from core.engine.pace import OWN_ENOUGH
from core.engine.worker_handle import WorkerHandle
from loguru import logger

from core.engine.tail import TAIL
from core.events import Event, TaskStarted
from core.messages import Failed, Lease, Log
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.store.outputs import publish
from core.tasks import Result
from tests.conftest import PATIENCE, simulated, wait_until, write_safetensors
from tests.stub_workers import StubStarter, StubWorker, submitted

TASKS = 20  # of a batch with one worker


@pytest.fixture
def starter(monkeypatch: pytest.MonkeyPatch) -> StubStarter:
    return StubStarter.installed(monkeypatch)


@dataclass
class SlowDisk:
    """What main does, in order: it gives leases, and publishes until it waits for the disk."""

    order: list[str] = field(default_factory=list)
    waited_for: threading.Event = field(default_factory=threading.Event)
    free: threading.Event = field(default_factory=threading.Event)

    def publish(self, partial: Path, final: Path, size: int) -> None:
        publish(partial, final, size)
        self.order.append("published")
        self.waited_for.set()
        assert self.free.wait(PATIENCE)

    def listen(self, event: Event) -> None:
        if isinstance(event, TaskStarted):
            self.order.append("given")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SlowDisk:
    disk = SlowDisk()
    monkeypatch.setattr("core.store.replaced.publish", disk.publish)
    return disk


def test_devices_that_wait_get_work_before_pictures_are_published(
    tmp_path: Path, starter: StubStarter, executor: ThreadPoolExecutor, disk: SlowDisk
) -> None:
    """A disk may take long to sync, and main has one thread for all devices."""
    config = simulated(scheduling={"speculative_copies": False})
    with MultiGPUImageGenerator(3, config=config, output_dir=tmp_path) as generator:
        generator.listener = disk.listen
        batch = submitted(executor, generator, 6)
        workers = [starter.worker(f"cpu{n}").serve() for n in range(3)]
        first, *others = [(worker, worker.hear_lease()) for worker in workers]
        disk.order.clear()
        first[0].finish(first[1])
        assert disk.waited_for.wait(PATIENCE)
        for worker, lease in others:  # both while main waits for the disk
            worker.finish(lease)
        disk.free.set()
        for worker, lease in [(worker, worker.hear_lease()) for worker in workers]:
            worker.finish(lease)
            worker.leave_when_asked()
        assert all(r.success for r in batch.result(PATIENCE))
    assert disk.order[:6] == ["given", "published", "given", "given", "published", "published"]


def test_a_device_whose_task_failed_does_not_wait_for_the_disk_either(
    tmp_path: Path, starter: StubStarter, executor: ThreadPoolExecutor, disk: SlowDisk
) -> None:
    with MultiGPUImageGenerator(2, config=simulated(), output_dir=tmp_path) as generator:
        generator.listener = disk.listen
        batch = submitted(executor, generator, 20)
        drawing, failing = (starter.worker(f"cpu{n}").serve() for n in range(2))
        bad = failing.hear_lease()
        drawing.finish(drawing.hear_lease())
        assert disk.waited_for.wait(PATIENCE)
        drawing.finish(drawing.hear_lease())  # both while main waits for the disk
        failing.say(Failed(bad.lease_id, "error", "simulated"))
        disk.order.clear()
        disk.free.set()
        for worker in (drawing, failing):
            worker.hear_lease()
        generator.stop(at_once=True)
    assert len(batch.result(PATIENCE)) == 20
    assert disk.order[:3] == ["given", "given", "published"]


def test_a_lora_that_one_worker_is_loading_is_not_loaded_by_the_next(
    tmp_path: Path, starter: StubStarter, executor: ThreadPoolExecutor
) -> None:
    """Which LoRAs a worker holds it says after its first picture; the others ask before."""
    loras = [write_safetensors(tmp_path / f"{n}.safetensors", size=4 + n) for n in range(3)]
    most_first = [loras[0]] * 5 + [loras[1]] * 2 + [loras[2]]
    tasks = [{"prompt": f"{n}", "lora_path": str(lora)} for n, lora in enumerate(most_first)]
    with MultiGPUImageGenerator(3, config=simulated(), output_dir=tmp_path / "o") as generator:
        batch = executor.submit(generator.generate_batch, tasks)
        workers = [starter.worker(f"cpu{n}").serve() for n in range(3)]
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
    """A generator of one worker, which the test plays, amid a batch."""

    generator: MultiGPUImageGenerator
    starter: StubStarter
    batch: "Future[list[Result]]"

    def worker(self, incarnation: int = 1) -> StubWorker:
        return self.starter.worker(incarnation=incarnation).serve()

    @property
    def handle(self) -> WorkerHandle:
        """The worker as main sees it."""
        assert self.generator._pool is not None
        return self.generator._pool._handles[0]

    def wait_until_all_is_given(self, worker: StubWorker) -> None:
        """Main has turned to the worker again after its last picture was published."""
        wait_until(lambda: not self.handle.saving, "what it drew is published")
        read = threading.Event()
        sink = logger.add(lambda line: read.set() if "a word" in line else None, level="INFO")
        worker.say(Log("INFO", "a word"))
        assert read.wait(PATIENCE)
        logger.remove(sink)

    def outcome(self, lease: Lease) -> str:
        assert self.generator._ledger is not None
        query = "SELECT outcome FROM leases WHERE lease_id = ?"
        return str(self.generator._ledger._db.execute(query, (lease.lease_id,)).fetchone()[0])


@pytest.fixture
def alone(tmp_path: Path, starter: StubStarter, executor: ThreadPoolExecutor) -> Iterator[Alone]:
    with MultiGPUImageGenerator(1, config=simulated(), output_dir=tmp_path) as generator:
        yield Alone(generator, starter, submitted(executor, generator, TASKS))
        generator.stop(at_once=True)


def test_a_device_goes_on_with_short_work_without_a_word_from_main(alone: Alone) -> None:
    worker = alone.worker()
    first = warmed_up(worker)
    second = worker.hear_lease()  # before it is done with the first
    alone.wait_until_all_is_given(worker)
    assert not worker.reader.poll()
    worker.finish(first)
    third = worker.hear_lease()
    for lease in (second, third):
        worker.finish(lease)
    worker.hear_lease()


def test_nothing_waits_behind_long_work(alone: Alone) -> None:
    worker = alone.worker()
    warmed_up(worker, seconds=10.0)
    alone.wait_until_all_is_given(worker)
    assert not worker.reader.poll()


def test_the_last_tasks_go_to_whoever_is_free_first(alone: Alone) -> None:
    worker = alone.worker()
    held, given = [warmed_up(worker)], OWN_ENOUGH + 1
    while given < TASKS:
        if TASKS - given > TAIL or not held:
            held.append(worker.hear_lease())
            given += 1
        else:
            alone.wait_until_all_is_given(worker)
            assert not worker.reader.poll()
        worker.finish(held.pop(0))


def test_a_worker_that_does_not_read_is_sent_nothing_more(alone: Alone) -> None:
    """Its pipe would fill up, and main would wait for it."""
    worker = alone.worker()
    running = warmed_up(worker)
    wait_until(worker.reader.poll, "what it goes on with")  # and does not read
    worker.finish(running)
    alone.wait_until_all_is_given(worker)
    assert alone.handle.running and not alone.handle.ahead
    worker.hear_lease()
    wait_until(lambda: bool(alone.handle.ahead), "main's next look at it")


def test_what_a_dead_worker_had_not_begun_is_not_to_blame(alone: Alone) -> None:
    worker = alone.worker()
    running, ahead = warmed_up(worker), worker.hear_lease()
    worker.die()
    alone.worker(incarnation=2).hear_lease()
    assert alone.outcome(running).startswith("crash")
    assert alone.outcome(ahead) == "released"


def test_devices_do_not_run_ahead_of_the_disk(
    tmp_path: Path,
    starter: StubStarter,
    executor: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A picture that is not published is drawn again if main is killed."""
    publishing, may_go_on = threading.Semaphore(0), threading.Semaphore(0)

    def publish_when_told(partial: Path, final: Path, size: int) -> None:
        publishing.release()
        assert may_go_on.acquire(timeout=PATIENCE)
        publish(partial, final, size)

    monkeypatch.setattr("core.store.replaced.publish", publish_when_told)
    with MultiGPUImageGenerator(3, config=simulated(), output_dir=tmp_path) as generator:
        batch = submitted(executor, generator, 90)
        workers = [starter.worker(f"cpu{n}").serve() for n in range(3)]
        given = 3
        for worker in workers:
            worker.finish(worker.hear_lease())
        for published in range(12):
            assert publishing.acquire(timeout=PATIENCE)
            for worker in workers:  # main waits for the disk, and has given what it could
                if worker.reader.poll():
                    worker.finish(worker.hear_lease())
                    given += 1
            # On the device, being saved, and one whose end main was told a moment ago.
            assert given - published <= 3 * (1 + generator.settings.workers.max_pending_saves + 1)
            may_go_on.release()
        may_go_on.release(90)
        generator.stop(at_once=True)
    assert {r.status for r in batch.result(PATIENCE)} == {"done", "interrupted"}
