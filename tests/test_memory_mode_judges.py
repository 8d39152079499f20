"""Judges in every memory mode: the same scores where nothing is rounded, near ones elsewhere."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from core.judge import load_judge
from core.memory_modes import Mode, changes_pixels
from tests.memory_modes import MODES, spec_in, without_a_gpu
from tests.test_judge_models import JUDGE, build_clip, build_dense, lease, pictures

pytestmark = pytest.mark.slow

__all__ = ["pictures"]  # a fixture

JUDGES = ("vlm", "vlm_logits", "clip")
OF_JUDGES = tuple(mode for mode in MODES if mode != "offload")
STORED = {
    "fp8": "Float8Tensor",
    "fp8_cast": "torch.float8_e4m3fn",
    "int8": "Int8Tensor",
    "nf4": "Params4bit",
}
FAR = {"fp8": 0.5, "fp8_cast": 0.5, "int8": 0.2, "nf4": 1.5}  # of 10, from a judge of noise
Load = Callable[[Mode, str], Any]


@pytest.fixture
def load(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Load:
    from workers.judges.registry import create_judge

    without_a_gpu(monkeypatch)
    folder = tmp_path_factory.mktemp("judges")
    build_dense(folder / "dense")
    build_clip(folder / "clip")

    def loaded(mode: Mode, kind: str) -> Any:
        prompts = "viescore_logits.yaml" if kind == "vlm_logits" else "viescore.yaml"
        changes = {"type": kind, "prompts": prompts, "max_new_tokens": 6, "minimum_mass": 0.0}
        judge = load_judge(JUDGE.model_copy(update=changes))
        model: Path = folder / ("clip" if kind == "clip" else "dense")
        spec = replace(spec_in(mode, model), role="score", judge=judge)
        family = create_judge(spec, lambda level, text: None)
        family.load()
        return family

    return loaded


def linear_layers(family: Any) -> list[nn.Linear]:
    return [layer for layer in family.model.modules() if isinstance(layer, nn.Linear)]


@pytest.mark.parametrize("mode", OF_JUDGES)
def test_a_judge_scores_in_every_mode(load: Load, mode: Mode, pictures: list[str]) -> None:
    for kind in JUDGES:
        if kind == "clip" and changes_pixels(mode):
            continue  # refused
        judge = load(mode, kind)
        [expected] = load("full", kind).run([lease(pictures, 0)])
        [found] = judge.run([lease(pictures, 0)])
        assert found.used["memory"] == mode and "memory" not in expected.used
        if kind == "vlm":
            calls = zip(found.details["calls"], expected.details["calls"], strict=True)
            for a, b in calls:
                assert a["raw"] and (changes_pixels(mode) or a["raw"] == b["raw"])
            continue
        for name, value in expected.used["scores"].items():
            off = abs(found.used["scores"][name] - value)
            assert off <= FAR.get(mode, 1e-4), (kind, name)
            assert off > 0 or not changes_pixels(mode), (kind, name)
        stored = {type(layer.weight).__name__ for layer in linear_layers(judge)}
        stored |= {str(layer.weight.dtype) for layer in linear_layers(judge)}
        assert STORED.get(mode, "Parameter") in stored, kind
