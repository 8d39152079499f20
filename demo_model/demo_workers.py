"""The demo editor and the demo judge as a worker loads them, for measuring and for training."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from apps.edit_benchmark.settings import load_benchmark_settings
from core.devices.device import choose_devices
from core.devices.edit_models import DEMO_EDITOR, DEMO_JUDGE
from core.devices.model_choice import ModelChoice
from core.devices.worker_specs import spec_for
from core.judge import load_judge
from core.messages import Lease
from core.settings import best_match
from core.tasks import EditTask, ScoreTask
from core.worker_spec import WorkerSpec
from demo_model.edits import Edit

GROUP = 16  # edits that the judge sees at once


def editor(model: Path = DEMO_EDITOR) -> Any:
    """A loaded editor; by default the shipped one."""
    from workers.models.native_image_editor import NativeImageEditor

    family = NativeImageEditor(_spec(model, "edit"), lambda level, text: None)
    family.load()
    return family


def judge(model: Path = DEMO_JUDGE) -> Any:
    """A loaded judge; by default the shipped one."""
    from workers.judges.vlm import VlmJudge

    settings = load_benchmark_settings().judge.model_copy(
        update={"prompts": "demo.yaml", "max_new_tokens": 96}
    )
    spec = replace(_spec(model, "score"), judge=load_judge(settings))
    family = VlmJudge(spec, lambda level, text: None)
    family.load()
    return family


def _spec(model: Path, role: Any) -> WorkerSpec:
    [device] = choose_devices(1, None, "cpu")
    chosen = ModelChoice(str(model), model.name, "to be measured")
    settings = load_benchmark_settings()
    return spec_for(device, role, chosen, settings, threads=torch.get_num_threads())


def do_edit(family: Any, edit: Edit, seed: int, folder: Path) -> Image.Image:
    """What the editor makes of the edit's source, with the shipped editor's settings."""
    source = folder / f"source-{seed}.png"
    edit.before().save(source)
    task = EditTask(edit.instruction, (str(source),), seed=seed, **_editor_settings())
    image: Image.Image = family.run([Lease("-", 1, task, None, "-", "-")])[0].image
    return image


@cache
def _editor_settings() -> dict[str, Any]:
    defaults = best_match(load_benchmark_settings().editor.model_defaults, str(DEMO_EDITOR))
    assert defaults is not None
    fields = {k: v for k, v in defaults.model_dump(exclude={"match"}).items() if v is not None}
    return {"width": 128, "height": 128, **fields}


def scores(
    family: Any, shown: Sequence[tuple[Image.Image, Image.Image, str]], folder: Path
) -> list[float]:
    """The judge's overall score of (before, after, instruction); -1 where it gave none."""
    leases = []
    for number, (before, after, words) in enumerate(shown):
        files = [str(folder / f"judged-{number}-{name}.png") for name in ("before", "after")]
        before.save(files[0])
        after.save(files[1])
        leases.append(Lease("-", 1, ScoreTask(words, (files[0],), files[1]), None, "-", "-"))
    values: list[float] = []
    for start in range(0, len(leases), GROUP):
        for verdict in family.run(leases[start : start + GROUP]):
            found = verdict.used["scores"]
            values.append(-1.0 if found is None else found["O"])
    return values
