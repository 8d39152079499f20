"""LoRAs that change the text encoders, too, where they are exchanged as for compiled blocks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from tests.test_compilation import TOLERANCE
from tests.test_native_image_generator import drawn
from tests.test_other_pipelines import loaded
from workers.lora_hotswap import HotswapLoras

pytestmark = pytest.mark.slow

TARGETS = {
    "unet": ["to_q", "to_v"],
    "text_encoder": ["q_proj", "v_proj"],
    "text_encoder_2": ["q_proj", "v_proj"],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny_pipelines import build_sdxl

    folder = tmp_path_factory.mktemp("models") / "sdxl"
    build_sdxl().save_pretrained(folder)
    return folder


def save_lora(model: Path, file: Path, seed: int, *parts: str) -> Path:
    """A LoRA with random weights for some parts of a model."""
    torch.manual_seed(seed)
    pipeline = StableDiffusionXLPipeline.from_pretrained(model)
    layers = {}
    for part in parts:
        config = LoraConfig(
            r=2, lora_alpha=2, init_lora_weights=False, target_modules=TARGETS[part]
        )
        module = getattr(pipeline, part)
        module.add_adapter(config, adapter_name="a")
        state = get_peft_model_state_dict(module, adapter_name="a")
        layers[f"{part}_lora_layers"] = convert_state_dict_to_diffusers(state)
    pipeline.save_lora_weights(file.parent, weight_name=file.name, **layers)
    return file


def exchanging(model: Path) -> Any:
    family = loaded(model)
    pipeline, cpu = family.pipeline, torch.device("cpu")
    family._loras = HotswapLoras(pipeline, pipeline.unet, 2, cpu, family._log)
    return family


def test_no_part_of_a_lora_stays_on_for_other_tasks(model: Path, tmp_path: Path) -> None:
    everywhere = save_lora(model, tmp_path / "everywhere.safetensors", 1, *TARGETS)
    words = save_lora(model, tmp_path / "words.safetensors", 2, "text_encoder", "text_encoder_2")
    denoiser = save_lora(model, tmp_path / "denoiser.safetensors", 3, "unet")
    kept, exchanged = loaded(model), exchanging(model)
    order: list[tuple[Path | None, float]] = [
        (None, 1.0), (everywhere, 1.0), (None, 1.0), (everywhere, 0.4), (denoiser, 1.0),
        (None, 1.0), (words, 1.0), (everywhere, 1.0), (words, 0.5), (words, 0.0),
        (denoiser, 0.7), (everywhere, 1.0), (denoiser, 0.7),
    ]  # fmt: skip
    plain = drawn(kept).astype(int)
    for place, (lora, strength) in enumerate(order):
        expected = drawn(kept, lora, lora_strength=strength).astype(int)
        found = drawn(exchanged, lora, lora_strength=strength).astype(int)
        assert np.abs(found - expected).max() <= TOLERANCE, (place, lora, strength)
        changed = np.abs(found - plain).max() > TOLERANCE
        assert changed == (lora is not None and strength != 0), (place, lora, strength)
