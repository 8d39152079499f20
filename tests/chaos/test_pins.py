"""Workers that hold pinned LoRAs, or are about to, are killed: pins and tasks outlive them."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.checkpoints.lora_files import content_hash
from core.engine.snapshot import LoraSnapshot
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from tests.both_engines import ON_BOTH
from tests.chaos.scale import scaled
from tests.chaos.verdict import Verdict
from tests.conftest import Workplace, wait_until, write_safetensors
from tests.fault_tickets import SPAWNED, arm_in_children

Report = Callable[[Verdict], Verdict]
WORKERS = 3
PINNED = 2
TASKS = scaled(120, 1000)
KILLS = scaled(6, 60)
# Kills are rare beside loads of LoRAs: three in a row while one is loaded would end its pin.
TIMES = {"seconds_per_megapixel_step": 10.0, "lora_load_seconds": 0.02}
NEVER_RETIRED = {"restarts_before_retirement": 1000}


def tasks(loras: list[Path], count: int, draw: random.Random) -> list[dict[str, Any]]:
    size = {"width": 64, "height": 64, "num_inference_steps": 1}
    return [
        {"prompt": f"picture {n}", "lora_path": str(draw.choice(loras)), **size}
        for n in range(count)
    ]


def styles(folder: Path) -> list[Path]:
    return [
        write_safetensors(folder / f"style{n}.safetensors", f"{n}.lora_A.weight") for n in range(6)
    ]


def pinned(generator: MultiGPUImageGenerator, files: list[Path]) -> list[LoraSnapshot]:
    """How those of these LoRAs stand that are pinned."""
    hashes = {content_hash(file) for file in files}
    found = generator.snapshot().result().loras
    return [lora for lora in found if lora.sha256 in hashes and lora.pinned]


@ON_BOTH
@pytest.mark.parametrize("seed", range(scaled(1, 3)))
def test_pins_outlive_kills_of_workers(
    tmp_path: Path, workplace: Workplace, report: Report, seed: int
) -> None:
    draw, files = random.Random(seed), styles(tmp_path)
    verdict = Verdict("pinned LoRAs: held by every worker, one record per input", "SIGKILL: worker")
    settings = workplace.simulated(simulated=TIMES, supervision=NEVER_RETIRED)
    with MultiGPUImageGenerator(WORKERS, config=settings, output_dir=tmp_path / "out") as generator:
        generator.load_loras(files[:PINNED], pin=True)
        job = generator.submit(tasks(files, TASKS, draw))
        for moment in sorted(draw.sample(range(int(TASKS * 0.9)), KILLS)):
            wait_until(lambda: job.progress.ended.total() >= moment, "pictures")  # noqa: B023
            victims = wait_until(lambda: workplace.workers(os.getpid()), "a worker")
            draw.choice(victims).kill()
            verdict.attempts += 1
        results = job.results()
        verdict.found("lost", sum(not result.success for result in results))
        verdict.found("unpinned", PINNED - len(pinned(generator, files[:PINNED])))

        def everywhere() -> bool:
            return all(len(p.workers) == WORKERS for p in pinned(generator, files[:PINNED]))

        wait_until(everywhere, "the pins on every worker")
    assert len(results) == TASKS
    assert not report(verdict).violations


@ON_BOTH
def test_a_pin_whose_every_load_ends_in_a_death_is_given_up_and_tasks_go_on(
    tmp_path: Path, workplace: Workplace, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = Verdict("a deadly pin: few deaths, one record per input", "SIGKILL at worker.keep")
    tickets = arm_in_children(monkeypatch, tmp_path, "worker.keep:1", 20, workplace)
    settings = workplace.simulated(workers=SPAWNED, simulated=TIMES)
    draw, files = random.Random(1), styles(tmp_path)
    with MultiGPUImageGenerator(2, config=settings, output_dir=tmp_path / "out") as generator:
        generator.load_loras(files[0], pin=True)
        results = generator.generate_batch(tasks(files[1:], 20, draw))
        wait_until(lambda: not pinned(generator, files[:1]), "the pin's end")
    verdict.attempts = 20 - len(list(tickets.iterdir()))
    verdict.found("lost", sum(not result.success for result in results))
    assert not report(verdict).violations
    assert 3 <= verdict.attempts <= 4, "the third ends it, and two may die at once"
