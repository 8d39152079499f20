"""LoRAs in every memory mode change each layer as the file says, from what the mode left of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.memory_modes import Mode
from tests.lora_layouts import FAMILIES, LAYOUTS, Family, Lora, Writer, layers_of, only
from tests.memory_modes import CPU, MODES, QUANTISED, no_log, saved, spec_in, without_a_gpu
from tests.test_model_loras import model_lora
from workers.base_layers import weight_of
from workers.lora_hotswap import HotswapLoras
from workers.lora_manager import LoraManager, Loras
from workers.models.loading import load_pipeline

TOLERANCE = {"fp8": 2e-2}  # computed in bfloat16
EXACT = 1e-5
PLAIN = "diffusers: `transformer.` or `unet.`, `lora_A/B`"
TEXT_ENCODERS = "for text encoders, too"
KINDS = {
    "Z-Image": (
        "`diffusion_model.`, mixed ranks, alpha by layer",
        "the model's own names, fused `qkv`",
        "DoRA: `dora_scale`",
        "DoRA: `dora_scale` by inputs",
        "LoKr, whole factors",
    ),
    "SDXL": ("DoRA: `dora_scale`", "LoKr, whole factors", TEXT_ENCODERS),
    "FLUX": (PLAIN, "DoRA: `dora_scale`"),
    "Qwen-Image": (PLAIN, "DoRA: `dora_scale`"),
    "Qwen-Image-Edit": (PLAIN,),
}
# The same reading of files comes before both ways of holding what they say.
EXCHANGED = KINDS["Z-Image"][:1] + KINDS["Z-Image"][2:3] + KINDS["Z-Image"][4:5]
CASES = [
    *(("Z-Image", mode, way) for mode in MODES for way in ("kept", "exchanged")),
    *(("SDXL", mode, "kept") for mode in MODES),
    *((family, mode, "kept") for family in ("FLUX", "Qwen-Image", "Qwen-Image-Edit")
      for mode in QUANTISED),
]  # fmt: skip


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    without_a_gpu(monkeypatch)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


class OfMode(Writer):
    """Writes files for the weights that a mode left."""

    def __init__(self, family: Family, weights: dict[str, Tensor]) -> None:
        super().__init__(family)
        self._weights = weights

    def lora(self, layer: str, rank: int = 4, alpha: float = 4.0, part: str = "") -> Lora:
        """Of numbers that bfloat16 has, and 8-bit floats have not."""
        key = f"{part or self.family.denoiser}.{layer}"
        given = super().lora(layer, rank, alpha, part)
        lora = Lora(1.25 * given.down, 1.25 * given.up, alpha)
        self.deltas[key] = Lora(lora.down.float(), lora.up.float(), alpha).delta()
        return lora

    def weight(self, layer: str, part: str = "") -> Tensor:
        return self._weights[f"{part or self.family.denoiser}.{layer}"]


def for_text_encoders(writer: Writer) -> None:
    """Of the denoiser and of both text encoders of SDXL."""
    attention = "layers.1.self_attn"
    parts = {"unet": writer.family.layers[0]} | {
        encoder: f"{prefix}encoder.{attention}.q_proj"
        for encoder, prefix in (("text_encoder", ""), ("text_encoder_2", "text_model."))
    }
    for part, layer in parts.items():
        lora = writer.lora(layer, part=part)
        writer.tensors[f"{part}.{layer}.lora_A.weight"] = lora.down
        writer.tensors[f"{part}.{layer}.lora_B.weight"] = lora.up


def base_of(layer: Any) -> Any:
    return layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer


def check(pipeline: Any, shapes: dict[str, torch.Size], deltas: dict[str, Tensor], strength: float,
          tolerance: float) -> None:  # fmt: skip
    """Every layer's output is that of its base, plus strength times the change."""
    parts = {part: getattr(pipeline, part) for part in {key.partition(".")[0] for key in shapes}}
    dtypes = {name: part.dtype for name, part in parts.items()}  # for which it looks at all layers
    for key, shape in shapes.items():
        part, _, name = key.partition(".")
        layer, dtype = parts[part].get_submodule(name), dtypes[part]
        x = torch.randn((2, shape[1], 6, 6) if len(shape) == 4 else (3, shape[1])).to(dtype)
        base, found = base_of(layer)(x).float(), layer(x).float()
        change = strength * deltas.get(key, torch.zeros(shape))
        if len(shape) == 4:
            conv = base_of(layer)
            more = nn.functional.conv2d(x.float(), change, None, conv.stride, conv.padding)
        else:
            more = nn.functional.linear(x.float(), change)
        off = (found - (base + more)).abs().max() / (base + more).abs().max()
        assert off < tolerance, f"{key}: off by {off:.1e}"


@pytest.mark.parametrize(("family", "mode", "way"), CASES)
def test_a_lora_changes_every_layer_as_it_says(
    family: str, mode: Mode, way: str, models: Path, tmp_path: Path
) -> None:
    pipeline: Any = load_pipeline(spec_in(mode, saved(family, models)), CPU, no_log)
    layers = layers_of(pipeline)
    weights = {key: weight_of(layer) for key, layer in layers.items()}
    shapes = {key: weight.shape for key, weight in weights.items()}
    log: list[str] = []
    denoiser = getattr(pipeline, FAMILIES[family].denoiser)
    loras: Loras = (
        LoraManager(pipeline, 2, lambda _, text: log.append(text))
        if way == "kept"
        else HotswapLoras(pipeline, denoiser, 2, CPU, lambda _, text: log.append(text))
    )
    tolerance = TOLERANCE.get(mode, EXACT)
    for number, kind in enumerate(KINDS[family] if way == "kept" else EXCHANGED):
        writer = OfMode(FAMILIES[family], weights)
        (LAYOUTS | {TEXT_ENCODERS: for_text_encoders})[kind](writer)
        file = writer.save(tmp_path / f"{number}.safetensors")
        loras.use_stack(only(file, 0.6))
        check(pipeline, shapes, writer.deltas, 0.6, tolerance)
    loras.use_stack([])
    check(pipeline, shapes, {}, 1.0, tolerance)


@pytest.mark.parametrize("mode", ["full", *QUANTISED])
def test_a_dora_counts_from_weights_with_the_models_own_lora(
    mode: Mode, models: Path, tmp_path: Path
) -> None:
    """Also where that LoRA lies beside the weights: a DoRA knows how long their rows become."""
    spec, family = spec_in(mode, saved("Z-Image", models)), FAMILIES["Z-Image"]
    plain: Any = load_pipeline(spec, CPU, no_log)
    weights = {key: weight_of(layer) for key, layer in layers_of(plain).items()}
    writer = OfMode(family, weights)
    LAYOUTS[PLAIN](writer)
    own = writer.save(tmp_path / "own.safetensors")
    changed = {key: w + 0.5 * writer.deltas.get(key, 0) for key, w in weights.items()}
    pipeline: Any = load_pipeline(replace(spec, model_loras=(model_lora(own, 0.5),)), CPU, no_log)
    loras = LoraManager(pipeline, 2, no_log)
    shapes = {key: weight.shape for key, weight in weights.items()}
    for number, kind in enumerate(("DoRA: `dora_scale`", "DoRA: `dora_scale` by inputs")):
        writer = OfMode(family, changed)
        LAYOUTS[kind](writer)
        file = writer.save(tmp_path / f"{number}.safetensors")
        loras.use_stack(only(file, 0.6))
        check(pipeline, shapes, writer.deltas, 0.6, TOLERANCE.get(mode, EXACT))
