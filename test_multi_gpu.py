"""A check of this machine: `python test_multi_gpu.py [NUM_GPUS]`. pytest collects it, too.

Draws with the embedded demo model on every chosen device (CPU workers where there is no
GPU) and looks at five things: devices, isolation, work at the same time, LoRA, a clean stop.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from loguru import logger

from core.devices.device import choose_devices
from core.devices.model_choice import DEMO_MODEL
from core.errors import MultiGPUError
from core.events import Event, TaskEnded, TaskStarted
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.store.provenance import read_provenance
from core.streams import protect_standard_streams
from core.tasks import Result

PICTURES_PER_WORKER = 4
MOST_SPEED_UP = 1.15  # times the number of workers: more is an error of measurement
TRIES = 2
LORA = DEMO_MODEL.parent / "loras" / "snow.safetensors"


class NotMeasured(Exception):
    """A check found nothing wrong, and nothing to rely on either."""


class Overlap:
    """Notes how many tasks were running at the same time."""

    def __init__(self) -> None:
        self._running: set[str] = set()
        self.most = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, TaskStarted):
            self._running.add(event.task_id)
            self.most = max(self.most, len(self._running))
        elif isinstance(event, TaskEnded):
            self._running.discard(event.result.task_id)


def draw(
    folder: Path, workers: int, tasks: list[dict[str, Any]], overlap: Overlap | None = None
) -> tuple[list[Result], float]:
    """Results and seconds of one warm batch on so many workers."""
    config = {"model": str(DEMO_MODEL)}
    with MultiGPUImageGenerator(
        workers, config=config, output_dir=folder, listener=overlap or (lambda event: None)
    ) as generator:
        generator.generate_batch([{"prompt": f"warm-up {i}"} for i in range(workers)])
        started = time.monotonic()
        results = generator.generate_batch(tasks)
        return results, time.monotonic() - started


def house_tasks(count: int) -> list[dict[str, Any]]:
    return [{"prompt": "a red house on the left on grass at day", "seed": i} for i in range(count)]


def check_devices(workers: int, folder: Path) -> str:
    devices = choose_devices(workers)
    return ", ".join(f"{d.label} (CUDA_VISIBLE_DEVICES={d.mask!r})" for d in devices)


def check_isolation(workers: int, folder: Path) -> str:
    """Every worker is a process of its own and draws."""
    results, _ = draw(folder, workers, house_tasks(workers * PICTURES_PER_WORKER))
    assert all(r.success for r in results), [r.error for r in results]
    used_by = {r.worker for r in results}
    assert len(used_by) == workers, f"only {sorted(map(str, used_by))} drew"
    return f"{len(results)} pictures by {workers} processes"


def check_same_time(workers: int, folder: Path) -> str:
    """With more than one worker, tasks run at the same time; says how much that helps."""
    if workers == 1:
        return "there is one worker only"
    tasks = house_tasks(workers * PICTURES_PER_WORKER)
    overlap = Overlap()
    together = alone = 0.0
    for number in range(TRIES):
        _, together = draw(folder / f"together_{number}", workers, tasks, overlap)
        assert overlap.most >= workers, f"at most {overlap.most} tasks ran at the same time"
        _, alone = draw(folder / f"alone_{number}", 1, tasks)
        if alone / together <= MOST_SPEED_UP * workers:
            break
    return speed_up(together, alone, workers, len(os.sched_getaffinity(0)))


def speed_up(together: float, alone: float, workers: int, cores: int) -> str:
    """What the seconds of several workers and of one for the same pictures say.

    Raises:
        NotMeasured: they cannot be true: something else slowed the machine down now and then.
    """
    times = alone / together
    there = "1 core" if cores == 1 else f"{cores} cores"
    if times < 1:
        raise NotMeasured(
            f"{workers} workers took {together:.1f} s and one worker {alone:.1f} s for the same "
            f"pictures, on {there}: other programs hold them, or they are too few. Tasks did run "
            "at the same time; measure again when the machine is idle"
        )
    if times > MOST_SPEED_UP * workers:
        raise NotMeasured(
            f"{workers} workers took {together:.1f} s and one worker {alone:.1f} s for the same "
            f"pictures, which {there} cannot explain: other programs hold them, and one worker's "
            "threads wait for each other. Tasks did run at the same time; measure again when it is "
            "idle"
        )
    return f"{times:.2f} times as fast as one worker (this machine has {there})"


def check_lora(workers: int, folder: Path) -> str:
    """A LoRA changes the picture, and so do two; the next task without them does not feel it."""
    task = house_tasks(1)[0]
    styled = {**task, "lora_path": str(LORA)}
    stacked = {**task, "loras": [str(LORA), str(LORA.with_stem("neon"))]}
    results, _ = draw(folder, 1, [task, styled, stacked, {**task, "task_id": "after"}])
    assert all(r.success for r in results), [r.error for r in results]
    plain, snow, both, after = (Path(str(r.output_path)) for r in results)
    assert _pixels(plain) == _pixels(after)
    assert len({_pixels(plain), _pixels(snow), _pixels(both)}) == 3
    return f"{read_provenance(snow)['lora_sha256'][:12]} on, then off without a trace"


def check_clean_stop(workers: int, folder: Path) -> str:
    """After the poison pill no worker process is left."""
    before = set(psutil.Process().children())
    draw(folder, workers, house_tasks(1))
    left = [p for p in set(psutil.Process().children()) - before if "spawn_main" in _line(p)]
    assert not left, f"still there: {left}"
    return "no process left behind"


def _pixels(file: Path) -> bytes:
    from PIL import Image

    with Image.open(file) as image:
        return image.tobytes()


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


CHECKS: dict[str, Callable[[int, Path], str]] = {
    "devices": check_devices,
    "isolation": check_isolation,
    "same time": check_same_time,
    "LoRA": check_lora,
    "clean stop": check_clean_stop,
}


def test_this_machine(tmp_path: Path) -> None:
    workers = 2 if choose_devices()[0].kind == "cpu" else len(choose_devices())
    for name, check in CHECKS.items():
        with suppress(NotMeasured):
            check(workers, tmp_path / name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument(
        "num_gpus", nargs="?", type=int, help="default: every visible GPU, or 2 CPU workers"
    )
    wanted = parser.parse_args().num_gpus
    logger.remove()
    logger.add(sys.stderr, level="ERROR")
    try:
        devices = choose_devices(wanted)
    except MultiGPUError as error:
        print(f"  FAILED  devices: {error}")
        return 2
    workers = len(devices) if wanted or devices[0].kind == "cuda" else 2
    failed = unsure = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, check in CHECKS.items():
            try:
                print(f"  ok      {name}: {check(workers, Path(folder) / name)}", flush=True)
            except NotMeasured as error:
                unsure += 1
                print(f"  unsure  {name}: {error}", flush=True)
            except (AssertionError, MultiGPUError) as error:
                failed += 1
                print(f"  FAILED  {name}: {error}", flush=True)
    ready = "This machine is ready" + "; its speed could not be measured." * bool(unsure)
    if not unsure:
        ready += "."
    print(ready if not failed else f"{failed} of {len(CHECKS)} checks failed.")
    return 1 if failed else 0


if __name__ == "__main__":
    protect_standard_streams()
    try:
        code = main()
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
