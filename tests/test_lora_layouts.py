"""Every layout of LoRA files does to every layer exactly what it says, or is refused by name."""

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

from core.errors import LoraError
from tests.conftest import PROJECT
from tests.lora_layouts import FAMILIES, LAYOUTS, Family, Writer, build, layers_of, only
from workers.lora_hotswap import HotswapLoras
from workers.lora_manager import LoraManager, Loras

STRENGTHS = (1.0, 0.6)
REFUSED = {
    "LoHa", "LoKr in Tucker form", "OFT", "GLoRA", "(IA)3", "full weight difference",
    "LoRA with biases",
}  # fmt: skip


ONLY_FOR = {
    "convolutions with `lora_mid`": "SDXL",
    "XLabs: `processor.qkv_lora1`": "FLUX",
    "OneTrainer (OMI): `qkv.0`": "FLUX",
}
NO_SUCH_LAYER = {
    (family, layout) for layout, only in ONLY_FOR.items() for family in FAMILIES if family != only
}


class Kept:
    """A pipeline of a family, its LoRAs kept in one of the two ways."""

    def __init__(self, family: Family, way: str) -> None:
        self.family, self.log = family, list[str]()
        self.pipeline = build(family.name)
        denoiser, cpu = getattr(self.pipeline, family.denoiser), torch.device("cpu")
        self.base = layers_of(self.pipeline)
        self.loras: Loras = (
            LoraManager(self.pipeline, 2, self._log)
            if way == "kept"
            else HotswapLoras(self.pipeline, denoiser, 2, cpu, self._log)
        )

    def _log(self, level: str, text: str) -> None:
        self.log.append(f"{level} {text}")

    def use(self, file: Path, strength: float = 1.0) -> None:
        self.loras.use_stack(only(file, strength))

    def check(self, deltas: dict[str, Tensor], strength: float) -> None:
        """Every layer's output is that of its weight plus strength times the change."""
        for key, base in self.base.items():
            part, _, name = key.partition(".")
            layer = getattr(self.pipeline, part).get_submodule(name)
            changed = base.weight + strength * deltas.get(key, torch.zeros(()))
            inputs = base.weight.shape[1]
            with torch.no_grad():
                if isinstance(base, nn.Conv2d):
                    x = torch.randn(2, inputs, 6, 6)
                    expected = conv2d(x, changed, base.bias, base.stride, base.padding)
                else:
                    x = torch.randn(3, inputs)
                    expected = linear(x, changed, base.bias)
                found = layer(x)
            off = (found - expected).abs().max() / expected.abs().max()
            assert off < 1e-5, f"{key}: off by {off:.1e}"


# What is exchanged in place comes from the same reading: there each way of loading is tried.
EXCHANGED = (
    "diffusers: `transformer.` or `unet.`, `lora_A/B`",
    "`diffusion_model.`, mixed ranks, alpha by layer",
    "the model's own names, fused `qkv`, three LoRAs in one",
    "DoRA: `dora_scale`",
    "kohya: `lora_unet_`, alpha",
    "the same with PEFT's settings, alpha by layer",
    "LoKr, whole factors",
    "fp8 (e4m3)",
    "full weight difference",
)
# Its transformer is Qwen-Image's: what differs is the pipeline.
OF_EDITOR = (
    "diffusers: `transformer.` or `unet.`, `lora_A/B`",
    "DiffSynth: `pipe.dit.`, `.default.`",
    "LyCORIS: `lycoris_`, alpha",
    "kohya: `lora_unet_`, alpha",
    "LoHa",
)
CASES = [
    (family, way, layout)
    for family in FAMILIES
    for way, layouts in (("kept", tuple(LAYOUTS)), ("exchanged", EXCHANGED))
    for layout in layouts
    if family != "Qwen-Image-Edit" or layout in OF_EDITOR
]


@cache
def kept_pipeline(family: str, way: str) -> Kept:
    """Files come to it one after the other, as in a run."""
    return Kept(FAMILIES[family], way)


def written(family: str, layout: str, folder: Path) -> tuple[Path, Writer]:
    writer = Writer(FAMILIES[family])
    LAYOUTS[layout](writer)
    return writer.save(folder / "style.safetensors"), writer


@pytest.mark.parametrize(("family", "way", "layout"), CASES)
def test_a_layout_changes_every_layer_as_it_says(
    family: str, way: str, layout: str, tmp_path: Path
) -> None:
    kept = kept_pipeline(family, way)
    file, writer = written(family, layout, tmp_path)
    if not writer.tensors:
        assert (family, layout) in NO_SUCH_LAYER
        return
    if layout in REFUSED:
        with pytest.raises(LoraError, match="is not supported") as caught:
            kept.use(file)
        assert layout in str(caught.value)
        kept.loras.use_stack([])
        kept.check({}, 1.0)
        return
    for strength in STRENGTHS:
        kept.use(file, strength)
        kept.check(writer.deltas, strength)
    kept.loras.use_stack([])
    kept.check({}, 1.0)


def table() -> list[str]:
    """What `test_a_layout_changes_every_layer_as_it_says` holds, as docs/LORAS.md shows it."""
    columns = {
        "Z-Image": "Z-Image",
        "Qwen-Image": "Qwen-Image(-Edit)",
        "FLUX": "FLUX",
        "SDXL": "SDXL",
    }
    rows = [["layout", *columns.values()], ["---", *["---"] * len(columns)]]
    for layout in LAYOUTS:
        cells = [
            "-" if (f, layout) in NO_SUCH_LAYER else "refused" if layout in REFUSED else "applied"
            for f in columns
        ]
        rows.append([layout, *cells])
    return [f"| {' | '.join(row)} |" for row in rows]


def test_the_page_shows_what_is_tried_here() -> None:
    page = (PROJECT / "docs" / "LORAS.md").read_text("utf-8").splitlines()
    start = page.index("<!-- from tests/test_lora_layouts.py -->") + 1
    end = page.index("<!-- end -->")
    assert page[start:end] == table(), "should be:\n" + "\n".join(table())
