"""EditScore: a chat judge with a LoRA of its own, on a model with random weights."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from apps.edit_benchmark.settings import load_benchmark_settings
from core.checkpoints.judge_lora import find_judge_lora
from core.devices.edit_models import judge_model, judge_settings
from core.errors import InputError, LoraError
from core.judge import load_judge
from core.messages import Lease
from core.model_lora import ModelLora
from core.tasks import ScoreTask
from tests.conftest import DEVICE
from tests.test_judge_models import build_dense, says
from tests.test_native_image_generator import spec_for
from workers.judges.lora import merged


@dataclass
class Built:
    """A judge's folder, and that of an adapter for it."""

    model: Path
    lora: Path

    def load(self) -> Any:
        """The model alone."""
        from transformers import AutoModelForImageTextToText

        return AutoModelForImageTextToText.from_pretrained(self.model)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("editscore")
    found = Built(folder / "model", folder / "lora")
    build_dense(found.model)
    torch.manual_seed(1)
    targets = ["q_proj", "v_proj"]
    adapted = get_peft_model(found.load(), LoraConfig(r=2, target_modules=targets))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:  # zeros, until they are trained
            torch.nn.init.normal_(weight)
    adapted.save_pretrained(found.lora)
    yield found


def words(model: Any) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=torch.arange(8)[None]).logits
    return logits


def test_the_lora_changes_the_judges_weights_as_peft_does(built: Built) -> None:
    from peft import PeftModel

    lora = find_judge_lora(str(built.lora), None)
    with torch.no_grad():
        plain, found = words(built.load()), words(merged(built.load(), lora))
        wanted = words(PeftModel.from_pretrained(built.load(), str(built.lora)))
    assert torch.allclose(found, wanted, atol=1e-5) and not torch.allclose(found, plain, atol=1e-3)


def renamed(built: Built, folder: Path, before: str, after: str) -> ModelLora:
    """A copy of the adapter whose layers are called otherwise."""
    from safetensors.torch import load_file, save_file

    folder.mkdir()
    (folder / "adapter_config.json").write_bytes((built.lora / "adapter_config.json").read_bytes())
    weights = load_file(built.lora / "adapter_model.safetensors")
    weights = {key.replace(before, after): tensor for key, tensor in weights.items()}
    save_file(weights, folder / "adapter_model.safetensors")
    return find_judge_lora(str(folder), None)


def test_a_lora_of_an_earlier_transformers_finds_its_layers(built: Built, tmp_path: Path) -> None:
    lora = renamed(built, tmp_path / "old", "model.language_model.layers", "model.layers")
    with torch.no_grad():
        found = words(merged(built.load(), lora))
        assert torch.equal(
            found, words(merged(built.load(), find_judge_lora(str(built.lora), None)))
        )


def test_a_lora_of_another_model_is_refused_and_not_left_out(built: Built, tmp_path: Path) -> None:
    lora = renamed(built, tmp_path / "other", "layers.1.", "layers.7.")
    with pytest.raises(LoraError, match="does not fit the judge's model: 8 of its weights"):
        merged(built.load(), lora)


def test_scores_from_0_to_25_are_told_from_0_to_10_and_averaged_over_passes(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    from workers.judges.registry import create_judge

    picture = tmp_path / "a.png"
    Image.effect_noise((64, 64), 80).convert("RGB").save(picture)
    given = {"type": "editscore", "model": str(built.model), "lora": str(built.lora)}
    settings = load_benchmark_settings({"judge": {**given, "num_pass": 2, "max_new_tokens": 99}})
    model, asked = judge_model(settings, load_devices())
    judge = load_judge(asked)
    spec = replace(spec_for(model.path_or_id), role="score", judge=judge, model_loras=model.loras)
    family: Any = create_judge(spec, lambda level, text: None)
    family.load()
    sc, pq = '{"reasoning": "-", "score": [25, 20]}', '{"score": [5, 10]}'
    took = says(family, monkeypatch, sc, pq, '{"score": [10, 20]}', '{"score": [10, 10]}')
    task = ScoreTask("make it night", (str(picture),), str(picture), seed=0)
    used = family.run([Lease("a", 1, task, None, "f", "x")])[0].used
    assert used["scores"] == {"SC": 6.0, "PQ": 3.0, "O": pytest.approx((4 + 4) / 2)}
    assert [(t.temperature, t.top_p, t.top_k) for t in took] == [(0.7, 0.9, 20)] * 4
    assert used["model_loras"][0]["name"] == "lora" and used["num_pass"] == 2
    assert f"lora={model.loras[0].sha256[:16]}" in model.deciding


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ({"type": "editscore"}, "name one by judge.model or judge.lora"),
        ({"type": "clip", "model": "a/clip", "lora": "a/b"}, "of type clip takes none"),
        ({"model": "a/vlm", "lora": "a/b", "memory": "nf4"}, "stores weights in fewer bits"),
        ({"model": "a/vlm", "lora": "no such"}, "neither a folder nor a hub id"),
    ],
)
def test_a_lora_that_cannot_be_used_is_refused(judge: Any, message: str) -> None:
    settings = load_benchmark_settings({"judge": judge})
    with pytest.raises(InputError, match=message):
        judge_model(settings, load_devices())


def load_devices() -> Any:
    from core.devices.device import choose_devices

    return choose_devices(1, None, DEVICE)


def test_editscore_asks_its_own_questions(built: Built) -> None:
    settings = load_benchmark_settings({"judge": {"type": "editscore", "lora": "a/b"}})
    from core.devices.model_choice import ModelChoice

    assert judge_settings(settings, ModelChoice("a/b", "a/b", "")).prompts == "editscore.yaml"
