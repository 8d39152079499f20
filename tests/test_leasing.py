"""Who gets which task, and when. The workers are played by the tests."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core.events import TaskStarted
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.outputs import publish
from tests.conftest import PATIENCE, simulated, write_safetensors
from tests.stub_workers import StubStarter, submitted


@pytest.fixture
def starter(monkeypatch: pytest.MonkeyPatch) -> StubStarter:
    return StubStarter.installed(monkeypatch)


def test_devices_that_wait_get_work_before_pictures_are_published(
    tmp_path: Path,
    starter: StubStarter,
    executor: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A disk may take long to sync, and main has one thread for all devices."""
    order: list[str] = []
    published, disk_is_free = threading.Event(), threading.Event()

    def publish_slowly(partial: Path, final: Path, size: int) -> None:
        publish(partial, final, size)
        order.append("published")
        published.set()
        assert disk_is_free.wait(PATIENCE)

    monkeypatch.setattr("core.batch.publish", publish_slowly)
    config = simulated(scheduling={"speculative_copies": False})
    with MultiGPUImageGenerator(3, config=config, output_dir=tmp_path) as generator:
        generator.listener = lambda e: order.append("given") if isinstance(e, TaskStarted) else None
        batch = submitted(executor, generator, 6)
        workers = [starter.worker(f"cpu{n}").serve() for n in range(3)]
        first, *others = [(worker, worker.hear_lease()) for worker in workers]
        order.clear()
        first[0].finish(first[1])
        assert published.wait(PATIENCE)
        for worker, lease in others:  # both while main waits for the disk
            worker.finish(lease)
        disk_is_free.set()
        for worker, lease in [(worker, worker.hear_lease()) for worker in workers]:
            worker.finish(lease)
            worker.leave_when_asked()
        assert all(r.success for r in batch.result(PATIENCE))
    assert order[:6] == ["given", "published", "given", "given", "published", "published"]


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
