"""Judges and metrics from checkpoints in the very layout in which they are published: names of
files, keys and settings as their repositories have them, with small shapes and random numbers."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from apps.edit_benchmark.settings import load_benchmark_settings
from core.devices.device import choose_devices
from core.devices.edit_models import judge_model
from core.errors import InputError
from core.judge import load_judge
from core.messages import Lease
from core.tasks import ScoreTask
from tests.conftest import DEVICE
from tests.test_judge_models import build_clip, build_dense
from tests.test_metrics import build_dino
from tests.test_native_image_generator import spec_for
from workers.judges.pictures import sized

TOKEN = "<|Reward|>"


def noise(folder: Path, *sizes: tuple[int, int]) -> list[str]:
    files = [folder / f"{number}.png" for number in range(len(sizes))]
    for file, size in zip(files, sizes, strict=True):
        Image.effect_noise(size, 80).convert("RGB").save(file)
    return [str(file) for file in files]


def judge_of(kind: str, folder: Path, **changes: Any) -> Any:
    from workers.judges.registry import create_judge

    given = {"type": kind, "model": str(folder), "dtype": "float32"}
    settings = load_benchmark_settings({"judge": {**given, **changes}})
    _, asked = judge_model(settings, choose_devices(1, None, DEVICE))
    judge = load_judge(asked)
    family = create_judge(replace(spec_for(str(folder)), role="score", judge=judge), print)
    family.load()
    return family


def lease_of(pictures: Sequence[str], words: str = "make it night") -> Lease:
    source, edited = pictures
    return Lease("a", 1, ScoreTask(words, (source,), edited, seed=0), None, "f", "x")


# -- EditReward (TIGER-AI-Lab/EditReward) ----------------------------------------


@dataclass
class Reward:
    """A checkpoint, its heads, and two pictures."""

    folder: Path
    heads: list[nn.Sequential]
    pictures: list[str]


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reward]:
    """As its trainer saves one: all tensors in one model.safetensors, with `rm_heads.head_N.0`,
    `.3` and `.5`, and a row for the special token; config and processor are the base model's."""
    from demo_model.editor_parts import build_text_encoder
    from demo_model.judge_parts import CHAT_TEMPLATE
    from demo_model.qwen_vision import build_processor, build_tokenizer

    folder = tmp_path_factory.mktemp("reward") / "model"
    tokenizer = build_tokenizer([CHAT_TEMPLATE, "user assistant", "make it night The rating of"])
    torch.manual_seed(3)
    model = build_text_encoder(tokenizer)
    nn.init.normal_(model.model.visual.merger.mlp[-1].weight)  # else it would see nothing
    config = model.config.to_dict()
    model.resize_token_embeddings(len(tokenizer) + 1, mean_resizing=False)
    width = model.config.get_text_config().hidden_size
    heads = [
        nn.Sequential(
            nn.Linear(width, 1024), nn.ReLU(), nn.Dropout(0.05),
            nn.Linear(1024, 16), nn.ReLU(), nn.Linear(16, 2),
        ).eval()
        for _ in range(2)
    ]  # fmt: skip
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert any(name.startswith("model.language_model.layers.0.") for name in weights)
    assert any(name.startswith("model.visual.blocks.0.") for name in weights)
    for number, head in enumerate(heads):
        weights |= {f"rm_heads.head_{number}.{n}": t for n, t in head.state_dict().items()}
    folder.mkdir()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, default=str))
    patch = model.config.vision_config.patch_size
    build_processor(
        "Qwen2_5_VLProcessor", tokenizer, patch, 256 * 28 * 28, CHAT_TEMPLATE
    ).save_pretrained(folder)
    yield Reward(folder, heads, noise(folder.parent, (84, 56), (56, 56)))


def by_its_own_code(judge: Any, inputs: Any, head: nn.Module) -> float:
    """What EditReward's `_run_single_batch_through_model_and_head` computes, in its order: pictures
    are put among the embeddings, the positions are left open, and the token's place is read."""
    model, ids = judge.model, inputs["input_ids"]
    embedded = model.get_input_embeddings()(ids)
    seen = model.model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"])
    seen = getattr(seen, "pooler_output", seen)
    where = (ids == model.config.image_token_id).unsqueeze(-1).expand_as(embedded)
    embedded = embedded.masked_scatter(where, torch.as_tensor(seen).to(embedded))
    hidden = model.model(inputs_embeds=embedded, attention_mask=inputs["attention_mask"])[0]
    token = judge.processor.tokenizer.convert_tokens_to_ids(TOKEN)
    return float(head(hidden[ids == token].float())[0, 0])


def test_a_reward_is_that_of_editrewards_own_code(reward: Reward) -> None:
    judge = judge_of("reward", reward.folder)
    batches: list[Any] = []
    judge.model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: batches.append(kwargs), with_kwargs=True
    )
    scores = judge.run([lease_of(reward.pictures)])[0].used["scores"]
    own = [by_its_own_code(judge, b, h) for b, h in zip(batches[:2], reward.heads, strict=True)]
    assert [scores["following"], scores["quality"]] == pytest.approx(own, abs=1e-5)
    assert scores["O"] == pytest.approx(sum(own) / 2, abs=1e-5), "pooling_strategy: mean"


def test_a_checkpoint_in_pickle_is_refused_with_a_way_out(tmp_path: Path) -> None:
    build_dense(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "model.pth")
    with pytest.raises(InputError, match=r"weights in model.pth, a pickle.*model.safetensors"):
        judge_of("reward", tmp_path)


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((448, 448), (448, 448)),  # has the very area
        ((1024, 768), (504, 364)),  # sides that are too large are rounded down
        ((768, 1024), (364, 504)),
        ((100, 80), (504, 420)),  # too small ones up
        ((1920, 1080), (588, 336)),
    ],
)
def test_pictures_are_resized_as_editrewards_own_code_does(
    size: tuple[int, int], wanted: tuple[int, int]
) -> None:
    """By its `smart_resize`, where the least and the most pixels are 256 * 28 * 28."""
    settings = load_benchmark_settings({"judge": {"type": "reward", "prompts": "reward.yaml"}})
    prompts = load_judge(settings.judge).prompts
    assert sized(Image.new("RGB", size), prompts.pictures).size == wanted


# -- EditScore (VectorSpaceLab/EditScore) ----------------------------------------

QWEN25 = (
    "<|im_start|>user\n<img1>: <|vision_start|><|image_pad|><|vision_end|>"
    "<img2>: <|vision_start|><|image_pad|><|vision_end|>The first picture"
)
QWEN3 = (
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>"
    "<|vision_start|><|image_pad|><|vision_end|>The first picture"
)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "begins"), [("qwen2_5_vl", QWEN25), ("qwen3_vl", QWEN3)])
def test_pictures_are_called_as_editscores_own_code_calls_them(
    kind: str, begins: str, tmp_path: Path
) -> None:
    build_dense(tmp_path / "model")
    judge = judge_of("editscore", tmp_path / "model", max_new_tokens=1)
    judge.model.config.model_type = kind
    shown: list[str] = []
    processor = judge.processor

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(processor, name)

        def __call__(self, text: list[str], **more: Any) -> Any:
            shown.extend(text)
            return processor(text=text, **more)

    judge.processor = Watched()
    judge.run([lease_of(noise(tmp_path, (64, 64), (64, 64)))])
    assert shown[0].startswith(begins)
    assert shown[0].endswith("<|im_end|>\n<|im_start|>assistant\n")


# -- CLIP (openai/clip-vit-large-patch14) and DINOv2 (facebook/dinov2-base) --------

CLIP_PIXELS = {
    "crop_size": 32, "do_center_crop": True, "do_normalize": True, "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3, "size": 32,
}  # fmt: skip
DINO_PIXELS = {
    "crop_size": {"height": 28, "width": 28}, "do_center_crop": True, "do_convert_rgb": True,
    "do_normalize": True, "do_rescale": True, "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406], "image_processor_type": "BitImageProcessor",
    "image_std": [0.229, 0.224, 0.225], "resample": 3, "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 32},
}  # fmt: skip


def normalised(file: str, edge: int, crop: int, settings: Any) -> torch.Tensor:
    """A picture as a model of pictures gets it: its shorter side made `edge`, cut to the middle."""
    with Image.open(file) as image:
        size = [edge * side // min(image.size) for side in image.size]  # as torchvision has it
        small = image.convert("RGB").resize((size[0], size[1]), Image.Resampling.BICUBIC)
    left, top = ((side - crop) // 2 for side in size)
    cut = small.crop((left, top, left + crop, top + crop))
    values = torch.from_numpy(np.array(cut, np.float32)).permute(2, 0, 1) / 255
    mean, deviation = (torch.tensor(settings[f"image_{n}"])[:, None, None] for n in ("mean", "std"))
    return (values - mean) / deviation


def test_the_first_dino_sees_the_middle_of_a_picture_as_magicbrushs_script_shows_it(
    tmp_path: Path,
) -> None:
    """facebook/dino-vits16, whose published settings squeeze a picture into a square."""
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = ViTConfig(**sizes, intermediate_size=64, image_size=28, patch_size=14)
    ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    published = {
        "do_normalize": True, "do_resize": True, "feature_extractor_type": "ViTFeatureExtractor",
        "image_mean": DINO_PIXELS["image_mean"], "image_std": DINO_PIXELS["image_std"],
        "resample": 2, "size": 28,
    }  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(published))
    judge = judge_of("metrics", tmp_path)
    # 49 and 98 pixels become 32 and 64: one factor for both, as a float, would make 63 of 98.
    pictures = noise(tmp_path, (96, 48), (98, 49))
    scores = judge.run([lease_of(pictures)])[0].used["scores"]
    pixels = torch.stack([normalised(f, 32, 28, DINO_PIXELS) for f in pictures])
    own = nn.functional.normalize(judge.model(pixels).last_hidden_state[:, 0], dim=-1)
    assert scores["dino_source"] == pytest.approx(float((own[0] * own[1]).sum()), abs=1e-3)


@pytest.mark.parametrize("kind", ["clip", "metrics"])
def test_a_clip_is_read_as_openai_published_it(kind: str, tmp_path: Path) -> None:
    """With settings of the feature extractors of that time, and the positions among its weights."""
    build_clip(tmp_path)
    for file in ("preprocessor_config.json", "processor_config.json"):
        (tmp_path / file).unlink(missing_ok=True)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(CLIP_PIXELS))
    weights = load_file(tmp_path / "model.safetensors")
    for part, places in (("text_model", 16), ("vision_model", 5)):
        weights[f"{part}.embeddings.position_ids"] = torch.arange(places)[None]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    judge = judge_of(kind, tmp_path)
    pictures = noise(tmp_path, (64, 48), (48, 64))
    scores = judge.run([lease_of(pictures)])[0].used["scores"]

    own = judge.model.get_image_features(
        torch.stack([normalised(file, 32, 32, CLIP_PIXELS) for file in pictures])
    )
    own = nn.functional.normalize(getattr(own, "pooler_output", own), dim=-1)
    name = {"clip": "image_image", "metrics": "clip_i_source"}[kind]
    assert scores[name] == pytest.approx(float((own[0] * own[1]).sum()), abs=1e-3)


def test_a_dino_is_read_as_facebook_published_it(tmp_path: Path) -> None:
    """By its class token behind the last norm, from pictures that are cut to their middle."""
    build_dino(tmp_path)
    (tmp_path / "processor_config.json").unlink(missing_ok=True)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(DINO_PIXELS))
    judge = judge_of("metrics", tmp_path)
    pictures = noise(tmp_path, (64, 48), (48, 64))
    scores = judge.run([lease_of(pictures)])[0].used["scores"]

    pixels = torch.stack([normalised(f, 32, 28, DINO_PIXELS) for f in pictures])
    own = nn.functional.normalize(judge.model(pixels).last_hidden_state[:, 0], dim=-1)
    assert scores["dino_source"] == pytest.approx(float((own[0] * own[1]).sum()), abs=1e-3)
