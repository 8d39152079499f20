"""Reward models: heads on a chat model, on one with random weights."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from apps.edit_benchmark.settings import load_benchmark_settings
from core.devices.device import choose_devices
from core.devices.edit_models import judge_model
from core.errors import InputError
from core.judge import JUDGES_DIR, load_judge
from core.messages import Lease
from core.tasks import ScoreTask
from tests.conftest import DEVICE
from tests.test_judge_models import build_dense
from tests.test_native_image_generator import spec_for
from workers.judges.reward_heads import heads_in

TOKEN = "<|Reward|>"


@dataclass
class Built:
    """A reward model's folder, its heads, and two pictures."""

    folder: Path
    heads: list[nn.Sequential]
    pictures: list[str]

    def judge(self, folder: Path | None = None, **changes: Any) -> Any:
        from workers.judges.registry import create_judge

        given = {"type": "reward", "model": str(folder or self.folder), "image_area": 4096}
        settings = load_benchmark_settings({"judge": {**given, **changes}})
        model, asked = judge_model(settings, choose_devices(1, None, DEVICE))
        spec = replace(spec_for(model.path_or_id), role="score", judge=load_judge(asked))
        family = create_judge(spec, lambda level, text: None)
        family.load()
        return family

    def lease(self, number: int, words: str = "make it night") -> Lease:
        source, edited = self.pictures[number], self.pictures[1 - number]
        return Lease(str(number), 1, ScoreTask(words, (source,), edited, seed=0), None, "f", "x")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """As EditReward saves one: a token more than the base model has, and two heads beside it."""
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    folder = tmp_path_factory.mktemp("reward") / "model"
    build_dense(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    torch.manual_seed(2)
    model.resize_token_embeddings(
        len(AutoTokenizer.from_pretrained(folder)) + 1, mean_resizing=False
    )
    width = model.config.get_text_config().hidden_size
    config = (folder / "config.json").read_bytes()  # stays the base model's
    model.save_pretrained(folder)
    (folder / "config.json").write_bytes(config)
    heads = [
        nn.Sequential(nn.Linear(width, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 2)).eval()
        for _ in range(2)
    ]
    weights = load_file(folder / "model.safetensors")
    for i, head in enumerate(heads):
        weights |= {f"rm_heads.head_{i}.{n}": t for n, t in head.state_dict().items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    files = [folder.parent / f"{i}.png" for i in range(2)]
    for i, file in enumerate(files):
        Image.effect_noise((64 + 32 * i, 64), 80).convert("RGB").save(file)
    yield Built(folder, heads, [str(file) for file in files])


def test_a_reward_is_what_the_head_says_where_the_token_stands(built: Built) -> None:
    judge = built.judge()
    seen: list[Any] = []
    inner = judge.model.base_model
    inner.register_forward_hook(
        lambda module, args, kwargs, out: seen.append((kwargs["input_ids"], out[0])),
        with_kwargs=True,
    )
    [verdict] = judge.run([built.lease(0)])
    token = judge.processor.tokenizer.convert_tokens_to_ids(TOKEN)
    wanted = []
    for head, (ids, hidden) in zip(built.heads, seen, strict=True):
        [place] = (ids[0] == token).nonzero().flatten().tolist()
        wanted.append(head(hidden[0, place].float())[0].item())
    scores = verdict.used["scores"]
    assert [scores["following"], scores["quality"]] == pytest.approx(wanted, abs=1e-5)
    assert scores["O"] == pytest.approx(sum(wanted) / 2, abs=1e-5)
    assert len(verdict.details["calls"][0]["outputs"]) == 2


def test_a_reward_does_not_depend_on_its_batch(built: Built) -> None:
    judge = built.judge()
    leases = [built.lease(0), built.lease(1, "turn the house blue and remove the tree, please")]
    together = [v.used["scores"] for v in judge.run(leases)]
    alone = [judge.run([lease])[0].used["scores"] for lease in leases]
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    assert together[0] != pytest.approx(together[1], abs=1e-4)


def test_one_head_without_layers_is_read_too(tmp_path: Path) -> None:
    save_file({"rm_head.weight": torch.ones(1, 4)}, tmp_path / "m.safetensors")
    [head] = heads_in(tmp_path)
    assert head(torch.ones(4)).tolist() == [4]


def test_a_model_without_heads_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(1)}, tmp_path / "m.safetensors")
    with pytest.raises(InputError, match="is no reward model"):
        heads_in(tmp_path)


def test_a_question_for_a_head_that_is_not_there_is_refused(built: Built, tmp_path: Path) -> None:
    text = (JUDGES_DIR / "reward.yaml").read_text("utf-8").replace("head: 1", "head: 2")
    (tmp_path / "mine.yaml").write_text(text, "utf-8")
    with pytest.raises(InputError, match="wants head 2, and model has 2, from 0"):
        built.judge(prompts=str(tmp_path / "mine.yaml"))


def test_a_reward_model_has_to_be_named() -> None:
    settings = load_benchmark_settings({"judge": {"type": "reward"}})
    with pytest.raises(InputError, match="name one by judge"):
        judge_model(settings, choose_devices(1, None, DEVICE))
