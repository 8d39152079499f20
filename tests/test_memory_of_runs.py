"""What a run does about GPU memory, on GPUs that are not there and with workers that are played."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from core.devices.device import Device
from core.devices.load_turns import LoadTurns
from core.errors import DeviceError
from core.messages import Load, Loaded, LoadFailed, Ready
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.tasks import Result
from tests.conftest import wait_until
from tests.paper_models import GIB, write_pipeline
from tests.stub_backend import StubBackend, StubWorker

# Of the model on paper: 21.0 GiB in full, 13.3 offloaded, 12.0 in 8 bits.
SHORT = "Out of memory: CUDA out of memory. Tried to allocate 2.00 GiB."


class Box:
    """A machine with GPUs; `free` GiB of each."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free: Sequence[float] = (23.0,)
        self.host = 256.0
        self.lines: list[str] = []
        self.model = write_pipeline(folder / "model")
        self.out = folder / "out"
        self.backend = StubBackend()  # of the newest generator
        monkeypatch.setattr("core.engine_choice.choose_devices", lambda *_: self.devices())
        monkeypatch.setattr(
            "core.devices.memory_abilities.free_host_memory", lambda: int(self.host * GIB)
        )
        for module in ("core.devices.memory_abilities", "core.memory_modes"):
            monkeypatch.setattr(f"{module}.installed", lambda package: False)

    def devices(self) -> list[Device]:
        return [
            Device("cuda", i, f"GPU-{i}", 24 * GIB, free=int(free * GIB), capability=(8, 6))
            for i, free in enumerate(self.free)
        ]

    def generator(self, **more: Any) -> MultiGPUImageGenerator:
        settings = {
            "model": str(self.model),
            "defaults": {"guidance_scale": 0.0},
            "supervision": {"restart_backoff": 0.01},
            **more,
        }
        self.backend = StubBackend()
        return MultiGPUImageGenerator(config=settings, output_dir=self.out, backend=self.backend)

    def draw(self, tasks: list[dict[str, Any]], **more: Any) -> list[Result]:
        """A run in which nothing goes wrong."""
        with ThreadPoolExecutor() as executor, self.generator(**more) as generator:
            batch = executor.submit(generator.generate_batch, tasks)
            self.serve(batch)
            return batch.result()

    def mode_for(self, tasks: list[dict[str, Any]]) -> str:
        """As the command does: tasks are read before workers start."""
        generator = self.generator()
        try:
            generator.prepare(tasks, [])
            return generator.model.memory
        finally:
            generator.stop(at_once=True)

    def serve(self, batch: "Future[list[Result]]", incarnation: int = 1) -> None:
        """Have the first worker draw what comes until the batch is done."""
        wait_until(lambda: batch.done() or self._started(incarnation), "a worker or the end")
        if batch.done():
            return
        worker = self.backend.worker("gpu0", incarnation).serve()
        draw_until_done(worker, batch)

    def _started(self, incarnation: int) -> bool:
        return len(self.backend.started.get("gpu0", [])) >= incarnation

    @property
    def modes(self) -> list[str]:
        """In which workers were started, in order, by GPU."""
        return [w.spec.memory for ws in self.backend.started.values() for w in ws]

    def said(self, pattern: str) -> list[str]:
        return [line for line in self.lines if re.search(pattern, line)]


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    box = Box(tmp_path, monkeypatch)
    sink = logger.add(lambda line: box.lines.append(str(line).rstrip()), format="{message}")
    yield box
    logger.remove(sink)


def tweets(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"{n}", "output_path": f"{n}.png", **fields} for n in range(count)]


def statuses(results: Sequence[Result]) -> list[str]:
    return [result.status for result in results]


def draw_until_done(worker: StubWorker, batch: "Future[list[Result]]") -> None:
    """Have a worker draw what it gets until the end of the batch."""
    while wait_until(lambda: batch.done() or worker.has_mail, "a task or the end"):
        if not worker.has_mail:
            worker.leave_when_asked()
            return
        worker.finish(worker.hear_lease())


def fails_to_load(worker: StubWorker) -> None:
    """It runs out of memory, and ends itself."""
    worker.say(Ready(worker.pid, "stub", "STUB", None, 0.0))
    assert isinstance(worker.hear(), Load)
    worker.say(LoadFailed("out_of_memory", SHORT))
    worker.die(3)


def test_workers_load_in_the_first_mode_that_fits_and_the_log_says_why(box: Box) -> None:
    box.free = (23.0, 14.0)
    assert statuses(box.draw(tweets(1))) == ["done"]
    assert box.modes == ["fp8_cast", "fp8_cast"]
    [line] = box.said("^Memory: ")
    assert line == (
        "Memory: fp8_cast, because full needs 21.0 GiB and gpu1 has 14.0 of 24.0 GiB free."
    )
    [table] = box.said("GPU memory that model needs, in GiB:")
    assert "gpu1 has 14.0 of 24.0 GiB free: fp8_cast" in table


def test_a_mode_by_name_that_does_not_fit_is_refused_before_any_worker_starts(box: Box) -> None:
    box.free = (14.0,)
    with pytest.raises(DeviceError, match=r"full needs 21\.0 GiB .* memory: fp8 would fit\."):
        box.draw(tweets(1), memory="full")
    assert box.modes == []


def test_the_largest_picture_and_the_loras_of_the_tasks_count(box: Box, tmp_path: Path) -> None:
    assert box.mode_for(tweets(2)) == "full"
    large = {"prompt": "large", "width": 2048, "height": 2048}
    assert box.mode_for([*tweets(1), large]) == "fp8_cast"  # 28.5 GiB in full
    lora = tmp_path / "a.safetensors"
    write_lora(lora, GIB // 10)
    box.free = (21.05,)
    assert box.mode_for(tweets(2)) == "full"
    assert box.mode_for(tweets(2, lora_path=str(lora))) == "fp8_cast"  # 21.1 in full


def write_lora(file: Path, size: int) -> None:
    """A LoRA of so many zeros, which take no room on the disk."""
    entry = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    header = json.dumps({"x.lora_A.weight": entry}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(file, 8 + len(header) + size)


def test_a_resumed_run_draws_nothing_again_because_memory_is_free_now(box: Box) -> None:
    box.free = (14.0,)
    box.draw(tweets(2))
    box.free = (23.0,)
    assert statuses(box.draw(tweets(3))) == ["skipped", "skipped", "done"]
    assert box.modes == ["fp8_cast"]
    assert box.said("Memory: fp8_cast, in which this folder's finished pictures were made; ")
    # A mode that is asked for by name is another matter.
    assert statuses(box.draw(tweets(3), memory="full")) == ["done"] * 3


def test_a_resumed_run_draws_nothing_again_because_memory_is_short_now(box: Box) -> None:
    box.draw(tweets(2))
    box.free = (15.0,)
    assert statuses(box.draw(tweets(3))) == ["skipped", "skipped", "done"]
    assert box.modes == ["offload"]  # fp8 would fit, and changes pictures
    box.host = 8.0
    box.free = (14.0,)
    with pytest.raises(DeviceError, match="pictures of this folder were made in mode full, and "):
        box.draw(tweets(4))
    assert box.modes == []
    # What is all done needs no memory.
    assert statuses(box.draw(tweets(3))) == ["skipped"] * 3


def test_workers_that_start_before_the_tasks_wait_for_those_of_a_folder_with_pictures(
    box: Box,
) -> None:
    box.free = (14.0,)
    box.draw(tweets(1))
    box.free = (23.0,)
    with box.generator() as generator:
        assert box.modes == []
        assert statuses(generator.generate_batch(tweets(1))) == ["skipped"]


def test_pictures_that_changed_otherwise_do_not_hold_a_run_to_their_mode(box: Box) -> None:
    box.free = (14.0,)
    box.draw(tweets(1))
    box.free = (23.0,)
    assert statuses(box.draw(tweets(1, num_inference_steps=3))) == ["done"]
    assert box.modes == ["full"]


# -- out of memory at load --------------------------------------------------------------------


def test_out_of_memory_at_load_is_met_once_by_a_mode_of_the_same_pictures(
    box: Box, executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned: list[str] = []
    monkeypatch.setattr(LoadTurns, "change_to", lambda self, mode: turned.append(mode))
    with box.generator() as generator:
        batch = executor.submit(generator.generate_batch, tweets(2))
        fails_to_load(box.backend.worker("gpu0"))
        box.serve(batch, incarnation=2)
        assert statuses(batch.result()) == ["done", "done"]
    assert box.modes == ["full", "offload"]
    assert turned == ["offload"]  # whose loads hold the whole model in host memory
    assert box.said(
        rf"^gpu0: .*{re.escape(SHORT)} It loads the model in memory mode offload instead"
    )
    assert statuses(box.draw(tweets(2))) == ["skipped", "skipped"]


def test_loads_that_run_out_of_memory_are_few_and_the_last_line_says_need_and_have(
    box: Box, executor: ThreadPoolExecutor
) -> None:
    box.free = (22.0, 23.0)
    with box.generator() as generator:
        batch = executor.submit(generator.generate_batch, tweets(1))
        for name in ("gpu0", "gpu1"):
            for incarnation in (1, 2):
                fails_to_load(box.backend.worker(name, incarnation))
        [result] = batch.result()
        assert result.status == "failed"
    assert box.modes == ["full", "offload", "full", "offload"]
    assert "\n" not in str(result.error)
    assert re.search(
        rf"{re.escape(SHORT)} Memory mode offload needs 13\.3 GiB\. gpu[01] had 2[23]\.0 of 24\.0 "
        r"GiB free when the run began\. memory: fp8 would fit\.$",
        str(result.error),
    )


def test_a_mode_by_name_is_not_left_when_memory_runs_out(
    box: Box, executor: ThreadPoolExecutor
) -> None:
    with box.generator(memory="full") as generator:
        batch = executor.submit(generator.generate_batch, tweets(1))
        fails_to_load(box.backend.worker("gpu0"))
        [result] = batch.result()
    assert box.modes == ["full"]
    assert "Memory mode full needs 21.0 GiB. gpu0 had 23.0 of 24.0 GiB free" in str(result.error)
    assert str(result.error).endswith("memory: fp8 would fit.")


def test_before_any_picture_all_workers_change_together_to_a_mode_of_other_pictures(
    box: Box, executor: ThreadPoolExecutor
) -> None:
    box.free, box.host = (23.0, 23.0), 25.0  # no room for two models in host memory
    with box.generator() as generator:
        batch = executor.submit(generator.generate_batch, tweets(2))
        other = box.backend.worker("gpu1")
        other.say(Ready(other.pid, "stub", "STUB", None, 0.0))
        assert isinstance(other.hear(), Load)
        fails_to_load(box.backend.worker("gpu0"))
        box.backend.worker("gpu1", 2)
        box.serve(batch, incarnation=2)
        assert statuses(batch.result()) == ["done", "done"]
        assert generator.model.memory == "fp8_cast"
    assert other.killed
    assert box.modes == ["full", "fp8_cast", "full", "fp8_cast"]
    # They are recorded as what they are.
    box.free = (14.0,)
    assert statuses(box.draw(tweets(2))) == ["skipped", "skipped"]


def test_beside_finished_pictures_no_worker_changes_to_a_mode_of_other_pictures(
    box: Box, executor: ThreadPoolExecutor
) -> None:
    box.host = 8.0
    box.draw(tweets(1))
    with box.generator() as generator:
        batch = executor.submit(generator.generate_batch, tweets(2))
        fails_to_load(box.backend.worker("gpu0"))
        assert statuses(batch.result()) == ["skipped", "failed"]
    assert box.modes == ["full"]


def test_a_worker_that_cannot_load_leaves_the_others_at_work(
    box: Box, executor: ThreadPoolExecutor
) -> None:
    box.free = (23.0, 23.0)
    with box.generator(memory="full") as generator:
        batch = executor.submit(generator.generate_batch, tweets(2))
        fails_to_load(box.backend.worker("gpu1"))
        worker = box.backend.worker("gpu0")
        worker.say(Ready(worker.pid, "stub", "STUB", None, 0.0))
        assert isinstance(worker.hear(), Load)
        worker.say(Loaded("Stub", 0.0))
        draw_until_done(worker, batch)
    assert statuses(batch.result()) == ["done", "done"]
