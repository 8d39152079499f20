"""What a worker says, or fails to do, on its way out. The workers are played by the tests."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from core.events import Event, TaskStarted
from core.messages import Failed, Generated, Ready, Stop
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from tests.conftest import PATIENCE, simulated, submitted, wait_until
from tests.lease_records import lease_records
from tests.stub_backend import StubBackend

SHORT = 0.3  # seconds of patience with a worker that is to leave


@pytest.fixture
def backend() -> StubBackend:
    return StubBackend()


def generator_for(folder: Path, backend: StubBackend, **rules: Any) -> MultiGPUImageGenerator:
    rules = {"kill_timeout": SHORT, **rules}
    config = simulated(supervision=rules, scheduling={"speculative_copies": False})
    return MultiGPUImageGenerator(1, config=config, output_dir=folder, backend=backend)


def outcomes(folder: Path) -> list[tuple[str, str]]:
    """Of all leases, by task, in the order of their ends."""
    return [(lease.key, lease.outcome.split(":")[0]) for lease in lease_records(folder)]


def test_a_worker_that_hangs_while_it_leaves_is_killed(
    tmp_path: Path, backend: StubBackend, executor: ThreadPoolExecutor
) -> None:
    """Its saver's last word comes after it said that it leaves, and sets no other deadline."""
    with generator_for(tmp_path, backend, stop_timeout=SHORT) as generator:
        batch = submitted(executor, generator, 2)
        worker = backend.worker().serve()
        first = worker.hear_lease()
        worker.draw(first)
        second = worker.hear_lease()
        worker.say(Failed(second.lease_id, "device", "lost (simulated)", leaving=True))
        worker.save(first)
        wait_until(lambda: worker.killed, "its death")
        worker = backend.worker(incarnation=2).serve()
        worker.finish_all(1)
        assert [r.attempts for r in batch.result(PATIENCE)] == [1, 2]


@pytest.mark.parametrize("hangs_up", [False, True])
def test_a_worker_that_hangs_after_the_poison_pill_is_killed(
    tmp_path: Path, backend: StubBackend, executor: ThreadPoolExecutor, hangs_up: bool
) -> None:
    """It was saving, and its last word is no reason to wait for its end for ever."""
    generator = generator_for(tmp_path, backend, stop_timeout=SHORT)
    generator.start()
    batch = submitted(executor, generator, 1)
    worker = backend.worker().serve()
    lease = worker.hear_lease()
    worker.draw(lease)
    # Before the engine has heard of that, it would take the worker for busy, and kill it at once.
    wait_until(lambda: generator.device_waits, "the engine knows that the picture is drawn")
    stopping = executor.submit(generator.stop)
    assert isinstance(worker.hear(), Stop)
    worker.save(lease)
    if hangs_up:
        worker.hang_up()
    stopping.result(PATIENCE)
    assert worker.killed
    assert [r.status for r in batch.result(PATIENCE)] == ["interrupted"]


def test_a_killed_worker_that_does_not_die_is_given_up(
    tmp_path: Path, backend: StubBackend, executor: ThreadPoolExecutor
) -> None:
    """Stuck in the kernel; a late word does not make it a worker again."""
    with generator_for(tmp_path, backend, boot_timeout=SHORT) as generator:
        worker = backend.worker()
        worker.dies_of_sigkill = False
        batch = submitted(executor, generator, 1)
        wait_until(lambda: worker.killed, "its kill")
        worker.say(Ready(os.getpid(), "stub", "STUB", None, 0.0))
        [result] = batch.result(PATIENCE)
        assert result.status == "failed" and "does not react to SIGKILL" in str(result.error)


def test_a_killed_workers_late_result_counts_but_it_gets_no_task_more(
    tmp_path: Path, backend: StubBackend, executor: ThreadPoolExecutor
) -> None:
    with generator_for(tmp_path, backend, task_timeout=SHORT) as generator:
        worker = backend.worker()
        worker.dies_of_sigkill = False
        batch = submitted(executor, generator, 2)
        lease = worker.serve().hear_lease()
        wait_until(lambda: worker.killed, "its kill")
        worker.draw(lease)
        worker.save(lease)
        results = batch.result(PATIENCE)
        assert [(r.status, r.attempts) for r in results] == [("done", 1), ("failed", 0)]


def test_no_task_is_given_to_a_worker_that_is_dead(
    tmp_path: Path, backend: StubBackend, executor: ThreadPoolExecutor
) -> None:
    with generator_for(tmp_path, backend) as generator:
        batch = submitted(executor, generator, 2)
        worker = backend.worker().serve()
        first = worker.hear_lease()
        # The engine finds its word and its death together.
        worker.die(-signal.SIGSEGV, Generated(first.lease_id, 0.001))
        backend.worker(incarnation=2).serve().finish_all(2)
        assert [r.attempts for r in batch.result(PATIENCE)] == [2, 1]


def test_a_task_that_did_not_reach_its_worker_is_not_blamed_for_its_death(
    tmp_path: Path, backend: StubBackend, executor: ThreadPoolExecutor
) -> None:
    started: list[Event] = []
    generator = MultiGPUImageGenerator(
        1, config=simulated(), output_dir=tmp_path, listener=started.append, backend=backend
    )
    with generator:
        batch = submitted(executor, generator, 2)
        worker = backend.worker().serve()
        first = worker.hear_lease()
        worker.listens = False  # as the kernel does, a moment before the death can be seen
        worker.draw(first)
        wait_until(lambda: sum(isinstance(e, TaskStarted) for e in started) == 2, "the lease")
        worker.die()
        backend.worker(incarnation=2).serve().finish_all(2)
        assert [r.attempts for r in batch.result(PATIENCE)] == [2, 2]
    assert sorted(outcomes(tmp_path)) == [
        ("0.png", "crash"),
        ("0.png", "done"),
        ("1.png", "done"),
        ("1.png", "released"),
    ]
