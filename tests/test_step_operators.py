"""What one step of a picture starts on the device: as much as in diffusers' own loop, and no more.

At 512 x 512 a GPU waits for Python to start its kernels one by one, and whatever reads a number
back in a step makes Python wait for the GPU.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.step_operators import FEW, Draw, per_step
from tests import tiny_pipelines
from tests.conftest import DEVICE
from tests.test_native_image_generator import lease, spec_for

READS_BACK = "aten._local_scalar_dense.default"


def by_worker(model: Path, guidance: float = 0.0, **workers: Any) -> Draw:
    from workers.models.native_image_generator import NativeImageGenerator

    family = NativeImageGenerator(spec_for(str(model), **workers), lambda level, text: None)
    family.load()

    def draw(steps: int, lora: Path | None = None) -> object:
        return family.run([lease(lora, num_inference_steps=steps, guidance_scale=guidance)])

    return draw


def by_diffusers(model: Path, guidance: float) -> Draw:
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(model).to(DEVICE)
    pipeline.set_progress_bar_config(disable=True)

    def draw(steps: int) -> object:
        with torch.no_grad():
            return pipeline(
                prompt="a red house",
                width=32,
                height=32,
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=torch.Generator("cpu").manual_seed(0),
                output_type="np",
            )

    return draw


@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_a_step_starts_what_diffusers_own_loop_starts(tiny_model: Path, guidance: float) -> None:
    ours, theirs = (
        per_step(by_worker(tiny_model, guidance)),
        per_step(by_diffusers(tiny_model, guidance)),
    )
    assert ours == theirs
    assert sum(ours.values()) > 100 and READS_BACK not in ours


def test_a_step_without_loras_starts_no_more_where_one_is_held(
    tiny_model: Path, tiny_loras: list[Path]
) -> None:
    draw: Any = by_worker(tiny_model)
    before = per_step(draw)
    draw(FEW, tiny_loras[0])
    assert per_step(draw) == before


def test_a_step_cache_reads_back_no_more_than_it_has_to(tiny_model: Path, tmp_path: Path) -> None:
    tiny_pipelines.build_flux().save_pretrained(tmp_path / "flux")
    series = {"cache_interval": 2, "disable_cache_before_step": 1}
    by_order = by_worker(tmp_path / "flux", step_cache="taylorseer", taylorseer_cache=series)
    assert READS_BACK not in per_step(by_order)
    by_change = per_step(by_worker(tiny_model, step_cache="first_block"))
    assert by_change[READS_BACK] == 1  # how much the first block has changed


def test_captions_that_are_drawn_apart_are_measured_once(tmp_path: Path) -> None:
    tiny_pipelines.build_qwen_image().save_pretrained(tmp_path / "qwen")
    from workers.models.native_image_generator import NativeImageGenerator

    workers = {"attention_backend": "_native_flash", "max_batch": 2}
    spec = spec_for(str(tmp_path / "qwen"), **workers)
    family = NativeImageGenerator(spec, lambda level, text: None)
    family.load()

    def draw(steps: int) -> object:
        prompts = ("a red house", "a blue tree on grass at night by the sea")
        leases = [lease(prompt=prompt, num_inference_steps=steps) for prompt in prompts]
        return family.run(
            [replace(one, lease_id=prompt) for one, prompt in zip(leases, prompts, strict=True)]
        )

    assert READS_BACK not in per_step(draw)
