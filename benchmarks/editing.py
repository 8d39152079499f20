"""Qwen-Image-Edit at full size in `benchmarks.gpu`: the worker's editor on a pipeline made here.

Its checkpoint would take 57 GB; the pipeline is made on the device instead of being loaded.
"""

import time
from typing import Any
from unittest.mock import patch

import torch

from apps.edit_benchmark.settings import load_benchmark_settings
from benchmarks import full_size
from benchmarks.gpu_parts import Place
from benchmarks.gpu_rows import Row, add
from benchmarks.turns import noise, peak_gib, say
from core.devices.device import choose_devices
from core.devices.model_choice import ModelChoice
from core.devices.worker_specs import spec_for
from core.messages import Lease
from core.tasks import EditTask
from workers.models import diffusers_pipeline
from workers.models.native_image_editor import NativeImageEditor

STEPS = 4


class MadeHere(NativeImageEditor):
    """The worker's editor, with a pipeline that is not loaded from a checkpoint."""

    def take(self, pipeline: Any) -> None:
        """Load as always, from `pipeline`."""
        pipeline.set_progress_bar_config(disable=True)
        with patch.object(diffusers_pipeline, "load_pipeline", lambda *_: pipeline):
            self.load()


def on_gpu(place: Place) -> None:
    """Edits of a square picture, one pass a step and two."""
    torch.set_grad_enabled(False)
    started = time.monotonic()
    pipeline = full_size.tiny_editor() if place.tiny else full_size.qwen_image_edit(place.device)
    made = time.monotonic() - started
    [device] = choose_devices(1, None, place.device)  # type: ignore[arg-type]
    settings = load_benchmark_settings()
    choice = ModelChoice("made here", "made-here#0", "")
    family = MadeHere(spec_for(device, "edit", choice, settings, threads=8), say)
    family.take(pipeline)
    side = 128 if place.tiny else 1024
    source = str(noise(place.work / "source.png", side))
    for scale, passes in ((1.0, 1), (4.0, 2)):
        task = EditTask(
            "make it night",
            (source,),
            seed=0,
            width=side,
            height=side,
            num_inference_steps=STEPS,
            negative_prompt=" " if passes == 2 else None,
            true_cfg_scale=scale,
            working_area=side * side,
        )
        leases = [Lease("-", 1, task, None, "-", "-")]
        family.run(leases)
        started = time.perf_counter()
        family.run(leases)
        took = time.perf_counter() - started
        values = {
            "s an edit": took,
            "s a step": took / STEPS,
            "peak GiB": peak_gib(),
            "made, s": made,
        }
        table = f"Qwen-Image-Edit-2511, {side} x {side}, {STEPS} steps, bfloat16"
        add(place.out, Row(table, f"worker, {passes} passes a step", values))
