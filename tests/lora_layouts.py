"""LoRA files for tiny pipelines as trainers write them, and what they have to do to each layer.

The names of ComfyUI and kohya's scripts are written out here by hand, as published files have them.
"""

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from core.checkpoints.lora_files import content_hash
from core.lora_stack import CheckedLora

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Family:
    """A tiny pipeline, and what others call layers of its denoiser.

    Attributes:
        layers: that files of every layout change.
        originals: other names of single layers, as in the model's own repository.
        fused: other names of several layers in one.
    """

    name: str
    denoiser: str
    layers: tuple[str, ...]
    originals: Mapping[str, str] = field(default_factory=dict)
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_QWEN = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.add_q_proj",
         "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out", "img_mlp.net.0.proj",
         "img_mlp.net.2", "txt_mlp.net.0.proj", "img_mod.1", "txt_mod.1")  # fmt: skip
_QWEN_LAYERS = (
    *(f"transformer_blocks.0.{layer}" for layer in _QWEN),
    *("img_in", "txt_in", "proj_out", "norm_out.linear"),
    "time_text_embed.timestep_embedder.linear_1",
)
_QWEN_FUSED = {
    "transformer_blocks.0.attn.to_qkv": tuple(f"transformer_blocks.0.attn.to_{x}" for x in "qkv"),
    "transformer_blocks.0.attn.to_added_qkv": tuple(
        f"transformer_blocks.0.attn.add_{x}_proj" for x in "qkv"
    ),
}
_DOUBLE, _SINGLE = "transformer_blocks.0", "single_transformer_blocks.0"
_ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0"
_UP = "up_blocks.0.attentions.1.transformer_blocks.0"

FAMILIES = {
    family.name: family
    for family in (
        Family(
            "Z-Image",
            "transformer",
            (
                *(f"layers.0.attention.to_{x}" for x in "qkv"),
                *(f"context_refiner.0.attention.to_{x}" for x in "qkv"),
                "layers.0.attention.to_out.0",
                "layers.0.feed_forward.w1",
                "layers.0.feed_forward.w2",
                "layers.0.adaLN_modulation.0",
                "noise_refiner.0.feed_forward.w3",
                "all_x_embedder.2-1",
                "all_final_layer.2-1.linear",
                "all_final_layer.2-1.adaLN_modulation.1",
                "cap_embedder.1",
                "t_embedder.mlp.0",
            ),
            {
                "layers.0.attention.to_out.0": "layers.0.attention.out",
                "all_x_embedder.2-1": "x_embedder",
                "all_final_layer.2-1.linear": "final_layer.linear",
                "all_final_layer.2-1.adaLN_modulation.1": "final_layer.adaLN_modulation.1",
            },
            {
                "layers.0.attention.qkv": tuple(f"layers.0.attention.to_{x}" for x in "qkv"),
                "context_refiner.0.attention.qkv": tuple(
                    f"context_refiner.0.attention.to_{x}" for x in "qkv"
                ),
            },
        ),
        Family("Qwen-Image", "transformer", _QWEN_LAYERS, {}, _QWEN_FUSED),
        Family("Qwen-Image-Edit", "transformer", _QWEN_LAYERS, {}, _QWEN_FUSED),
        Family(
            "FLUX",
            "transformer",
            (
                *(f"{_DOUBLE}.attn.to_{x}" for x in "qkv"),
                *(f"{_DOUBLE}.attn.add_{x}_proj" for x in "qkv"),
                f"{_DOUBLE}.attn.to_out.0",
                f"{_DOUBLE}.attn.to_add_out",
                f"{_DOUBLE}.ff.net.0.proj",
                f"{_DOUBLE}.ff.net.2",
                f"{_DOUBLE}.ff_context.net.0.proj",
                f"{_DOUBLE}.ff_context.net.2",
                f"{_DOUBLE}.norm1.linear",
                f"{_DOUBLE}.norm1_context.linear",
                *(f"{_SINGLE}.attn.to_{x}" for x in "qkv"),
                f"{_SINGLE}.proj_mlp",
                f"{_SINGLE}.proj_out",
                f"{_SINGLE}.norm.linear",
                "x_embedder",
                "context_embedder",
                "proj_out",
                "time_text_embed.timestep_embedder.linear_1",
                "time_text_embed.guidance_embedder.linear_2",
                "time_text_embed.text_embedder.linear_1",
            ),
            {
                f"{_DOUBLE}.attn.to_out.0": "double_blocks.0.img_attn.proj",
                f"{_DOUBLE}.attn.to_add_out": "double_blocks.0.txt_attn.proj",
                f"{_DOUBLE}.ff.net.0.proj": "double_blocks.0.img_mlp.0",
                f"{_DOUBLE}.ff.net.2": "double_blocks.0.img_mlp.2",
                f"{_DOUBLE}.ff_context.net.0.proj": "double_blocks.0.txt_mlp.0",
                f"{_DOUBLE}.ff_context.net.2": "double_blocks.0.txt_mlp.2",
                f"{_DOUBLE}.norm1.linear": "double_blocks.0.img_mod.lin",
                f"{_DOUBLE}.norm1_context.linear": "double_blocks.0.txt_mod.lin",
                f"{_SINGLE}.proj_out": "single_blocks.0.linear2",
                f"{_SINGLE}.norm.linear": "single_blocks.0.modulation.lin",
                "x_embedder": "img_in",
                "context_embedder": "txt_in",
                "proj_out": "final_layer.linear",
                "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
                "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
                "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
            },
            {
                "double_blocks.0.img_attn.qkv": tuple(f"{_DOUBLE}.attn.to_{x}" for x in "qkv"),
                "double_blocks.0.txt_attn.qkv": tuple(
                    f"{_DOUBLE}.attn.add_{x}_proj" for x in "qkv"
                ),
                "single_blocks.0.linear1": (
                    *(f"{_SINGLE}.attn.to_{x}" for x in "qkv"),
                    f"{_SINGLE}.proj_mlp",
                ),
            },
        ),
        Family(
            "SDXL",
            "unet",
            (
                *(f"{_ATTENTION}.attn1.to_{x}" for x in "qkv"),
                f"{_ATTENTION}.attn2.to_k",
                f"{_ATTENTION}.attn1.to_out.0",
                f"{_ATTENTION}.ff.net.0.proj",
                f"{_UP}.attn2.to_v",
                "down_blocks.1.attentions.0.proj_in",
                "down_blocks.0.resnets.0.conv1",
                "down_blocks.0.resnets.0.time_emb_proj",
                "down_blocks.0.downsamplers.0.conv",
                "down_blocks.1.resnets.0.conv_shortcut",
                "mid_block.attentions.0.proj_out",
                "mid_block.resnets.1.conv2",
                "up_blocks.0.upsamplers.0.conv",
                "up_blocks.1.resnets.1.conv1",
                "conv_in",
                "conv_out",
                "time_embedding.linear_1",
                "add_embedding.linear_2",
            ),
            {
                **{
                    f"{_ATTENTION}.{layer}": f"input_blocks.3.1.transformer_blocks.0.{layer}"
                    for layer in (
                        *(f"attn1.to_{x}" for x in "qkv"),
                        *("attn2.to_k", "attn1.to_out.0", "ff.net.0.proj"),
                    )
                },
                f"{_UP}.attn2.to_v": "output_blocks.1.1.transformer_blocks.0.attn2.to_v",
                "down_blocks.1.attentions.0.proj_in": "input_blocks.3.1.proj_in",
                "down_blocks.0.resnets.0.conv1": "input_blocks.1.0.in_layers.2",
                "down_blocks.0.resnets.0.time_emb_proj": "input_blocks.1.0.emb_layers.1",
                "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
                "down_blocks.1.resnets.0.conv_shortcut": "input_blocks.3.0.skip_connection",
                "mid_block.attentions.0.proj_out": "middle_block.1.proj_out",
                "mid_block.resnets.1.conv2": "middle_block.2.out_layers.3",
                "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv",
                "up_blocks.1.resnets.1.conv1": "output_blocks.3.0.in_layers.2",
                "conv_in": "input_blocks.0.0",
                "conv_out": "out.2",
                "time_embedding.linear_1": "time_embed.0",
                "add_embedding.linear_2": "label_emb.0.2",
            },
            {f"{_ATTENTION}.attn1.to_qkv": tuple(f"{_ATTENTION}.attn1.to_{x}" for x in "qkv")},
        ),
    )
}


@cache
def _built(family: str) -> Any:
    """Not to be changed."""
    from tests import tiny_pipelines

    torch.manual_seed(0)
    builders: dict[str, Callable[[], Any]] = {
        "Z-Image": lambda: tiny_pipelines.build_z_image(layers=1),
        "Qwen-Image": tiny_pipelines.build_qwen_image,
        "Qwen-Image-Edit": tiny_pipelines.build_qwen_image_edit_plus,
        "FLUX": tiny_pipelines.build_flux,
        "SDXL": tiny_pipelines.build_sdxl,
    }
    pipeline = builders[family]()
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.float().eval()
    return pipeline


def build(family: str) -> Any:
    """A pipeline in float32 without any LoRA, the same each time.

    What takes no LoRAs is nobody's own.
    """
    pipeline = _built(family)
    own = {name: getattr(pipeline, name) for name in pipeline._lora_loadable_modules}
    own["scheduler"] = pipeline.scheduler
    return type(pipeline)(**{**pipeline.components, **copy.deepcopy(own)})


def layers_of(pipeline: Any) -> dict[str, nn.Linear | nn.Conv2d]:
    """Linear layers and convolutions of all parts that take LoRAs, by part and name."""
    return {
        f"{part}.{name}": layer
        for part in pipeline._lora_loadable_modules
        for name, layer in getattr(pipeline, part).named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    }


@dataclass(frozen=True)
class Lora:
    """Two factors of a layer, as random as they can be, and its alpha."""

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def delta(self, scale: float | None = None) -> Tensor:
        """scale · up · down, in the shape of the layer's weight."""
        scale = self.alpha / self.rank if scale is None else scale
        return scale * torch.einsum("or,ri...->oi...", self.up.flatten(1), self.down)


def random_lora(weight: Tensor, rank: int, alpha: float, dtype: torch.dtype) -> Lora:
    """Of numbers that every type has, fp8 included."""
    down = torch.randn(rank, *weight.shape[1:])
    up = torch.randn(len(weight), rank, *[1] * (weight.dim() - 2)) / 4
    down, up = (f.to(torch.float8_e4m3fn).to(dtype) for f in (down, up))
    return Lora(down, up, alpha)


class Writer:
    """Collects a file's tensors and, by layer, the change of its weight at a strength of 1."""

    def __init__(self, family: Family, dtype: torch.dtype = torch.bfloat16) -> None:
        torch.manual_seed(1)
        self.family, self.dtype = family, dtype
        self._pipeline = _built(family.name)
        self.tensors: Tensors = {}
        self.deltas: Tensors = {}  # by part and name of the layer
        self.settings: dict[str, Any] = {}

    def lora(self, layer: str, rank: int = 4, alpha: float = 4.0, part: str = "") -> Lora:
        """A LoRA of a layer, whose change is noted."""
        key = f"{part or self.family.denoiser}.{layer}"
        lora = random_lora(self.weight(layer, part), rank, alpha, self.dtype)
        self.deltas[key] = Lora(lora.down.float(), lora.up.float(), alpha).delta()
        return lora

    def weight(self, layer: str, part: str = "") -> Tensor:
        module = getattr(self._pipeline, part or self.family.denoiser).get_submodule(layer)
        assert isinstance(module.weight, Tensor)
        return module.weight.detach()

    def change(self, layer: str, delta: Tensor) -> None:
        self.deltas[f"{self.family.denoiser}.{layer}"] = delta

    def save(self, file: Path) -> Path:
        metadata = {"lora_adapter_metadata": json.dumps(self.settings)} if self.settings else None
        save_file({k: v.contiguous() for k, v in self.tensors.items()}, file, metadata)
        return file


Layout = Callable[[Writer], None]


# -- names -------------------------------------------------------------------------------------


def named(
    prefix: str,
    style: str = "lora_A",
    alpha: bool = False,
    flat: bool = False,
    ranks: tuple[int, ...] = (4,),
) -> Layout:
    """Single layers under diffusers' own names.

    Args:
        prefix: `{part}` in it is the denoiser's name.
        style: how factors are called.
        flat: with underscores for dots, as kohya's scripts write.
    """
    downs = {
        "lora_A": ("lora_A.weight", "lora_B.weight"),
        "default": ("lora_A.default.weight", "lora_B.default.weight"),
        "lora_down": ("lora_down.weight", "lora_up.weight"),
        "lora.down": ("lora.down.weight", "lora.up.weight"),
    }

    def write(writer: Writer) -> None:
        start = prefix.format(part=writer.family.denoiser)
        for place, layer in enumerate(writer.family.layers):
            rank = ranks[place % len(ranks)]
            lora = writer.lora(layer, rank, (1.0 + place / 2) if alpha else rank)
            name = start + (layer.replace(".", "_") if flat else layer)
            down, up = downs[style]
            writer.tensors |= {f"{name}.{down}": lora.down, f"{name}.{up}": lora.up}
            if alpha:
                writer.tensors[f"{name}.alpha"] = torch.tensor(lora.alpha)

    return write


def original(prefix: str, flat: bool = False, blocks: bool = False) -> Layout:
    """The names of the model's own repository, and its fused projections.

    Args:
        blocks: a fused layer has a LoRA for each of its parts, side by side with zeros.
    """

    def write(writer: Writer) -> None:
        family = writer.family
        in_fused = {layer for layers in family.fused.values() for layer in layers}
        singles = [layer for layer in family.layers if layer not in in_fused]
        for layer in singles:
            put(writer, family.originals.get(layer, layer), writer.lora(layer, 4, 3.0))
        for name, layers in family.fused.items():
            loras = [writer.lora(layer, 4, 3.0) for layer in layers]
            if blocks:
                rank = sum(lora.rank for lora in loras)
                up = torch.zeros(sum(len(lora.up) for lora in loras), rank, dtype=writer.dtype)
                row = 0
                for place, lora in enumerate(loras):
                    up[row : row + len(lora.up), 4 * place : 4 * place + 4] = lora.up
                    row += len(lora.up)
                down = torch.cat([lora.down for lora in loras])
                # Their alpha counts for the sum of ranks.
                put(writer, name, Lora(down, up, 3.0 * rank / 4))
            else:
                down = loras[0].down
                for layer, lora in zip(layers, loras, strict=True):
                    writer.change(layer, Lora(down.float(), lora.up.float(), 3.0).delta())
                put(writer, name, Lora(down, torch.cat([lora.up for lora in loras]), 3.0))
        if family.name == "FLUX":  # whose last modulation has its halves in the other order
            lora = writer.lora("norm_out.linear")
            shift, scale = lora.up.chunk(2)[::-1]
            name = "final_layer.adaLN_modulation.1"
            put(writer, name, Lora(lora.down, torch.cat([shift, scale]), lora.alpha))

    def put(writer: Writer, name: str, lora: Lora) -> None:
        name = prefix + (name.replace(".", "_") if flat else name)
        ends = ("lora_down", "lora_up") if flat else ("lora_A", "lora_B")
        writer.tensors[f"{name}.{ends[0]}.weight"] = lora.down
        writer.tensors[f"{name}.{ends[1]}.weight"] = lora.up
        writer.tensors[f"{name}.alpha"] = torch.tensor(lora.alpha)

    return write


def xlabs(writer: Writer) -> None:
    """FLUX's attention as x-flux writes it: one processor, numbers for pictures and words."""
    if writer.family.name != "FLUX":
        return
    attention = {
        "double_blocks.0.processor.qkv_lora1": [f"{_DOUBLE}.attn.to_{x}" for x in "qkv"],
        "double_blocks.0.processor.qkv_lora2": [f"{_DOUBLE}.attn.add_{x}_proj" for x in "qkv"],
        "double_blocks.0.processor.proj_lora1": [f"{_DOUBLE}.attn.to_out.0"],
        "double_blocks.0.processor.proj_lora2": [f"{_DOUBLE}.attn.to_add_out"],
        "single_blocks.0.processor.qkv_lora": [f"{_SINGLE}.attn.to_{x}" for x in "qkv"],
        "single_blocks.0.processor.proj_lora": [f"{_SINGLE}.proj_out"],
    }
    for name, layers in attention.items():
        loras = [writer.lora(layer) for layer in layers]
        for layer, lora in zip(layers, loras, strict=True):
            writer.change(layer, Lora(loras[0].down.float(), lora.up.float(), 4.0).delta())
        writer.tensors |= {
            f"{name}.down.weight": loras[0].down,
            f"{name}.up.weight": torch.cat([lora.up for lora in loras]),
        }


def numbered_parts(writer: Writer) -> None:
    """FLUX's own names, and numbers for the parts of what is fused there."""
    if writer.family.name != "FLUX":
        return
    originals = dict(writer.family.originals) | {"x_embedder": "img_in.proj"}
    for fused, layers in writer.family.fused.items():
        originals |= {layer: f"{fused}.{place}" for place, layer in enumerate(layers)}
    for layer, name in originals.items():
        lora = writer.lora(layer, 4, 3.0)
        writer.tensors |= {
            f"transformer.{name}.lora_down.weight": lora.down,
            f"transformer.{name}.lora_up.weight": lora.up,
            f"transformer.{name}.alpha": torch.tensor(lora.alpha),
        }


def settings_of_peft(root: bool) -> Layout:
    """alpha in the settings that diffusers saves, where no tensor says it."""

    def write(writer: Writer) -> None:
        named("{part}.", ranks=(4, 8))(writer)
        part, first = writer.family.denoiser, writer.family.layers[0]
        writer.settings = {
            f"{part}.lora_alpha": 6,
            f"{part}.alpha_pattern": {first: 2},
            f"{part}.use_rslora": root,
        }
        for place, layer in enumerate(writer.family.layers):
            rank, alpha = (4, 8)[place % 2], 2 if layer == first else 6
            scale = alpha / (rank**0.5 if root else rank)
            writer.change(layer, writer.deltas[f"{part}.{layer}"] * scale)

    return write


# -- other than low rank -----------------------------------------------------------------------


def dora(end: str, shape: Callable[[int, int, int], tuple[int, ...]], by_input: bool) -> Layout:
    """`shape` of the magnitude, from the layer's outputs, inputs and number of dimensions."""

    def write(writer: Writer) -> None:
        named("diffusion_model.", "lora_A", alpha=True)(writer)
        for layer in writer.family.layers:
            weight = writer.weight(layer)
            delta = writer.deltas[f"{writer.family.denoiser}.{layer}"]
            changed = weight + delta
            dims = (0, *range(2, weight.dim())) if by_input else tuple(range(1, weight.dim()))
            length = changed.pow(2).sum(dim=dims, keepdim=True).sqrt()
            magnitude = length * (0.5 + torch.rand_like(length))
            writer.change(layer, changed * magnitude / length - weight)
            rows, columns = weight.shape[:2]
            stored = magnitude.reshape(shape(rows, columns, weight.dim()))
            writer.tensors[f"diffusion_model.{layer}.{end}"] = stored

    return write


def fused_dora(writer: Writer) -> None:
    """A magnitude for each row of a fused projection."""
    for name, layers in writer.family.fused.items():
        down = torch.randn(4, writer.weight(layers[0]).shape[1])
        ups, magnitudes = [], []
        for layer in layers:
            weight = writer.weight(layer)
            ups.append(torch.randn(len(weight), 4))
            changed = weight + 2.0 / 4 * ups[-1] @ down
            length = changed.norm(dim=1, keepdim=True)
            magnitudes.append(length * (0.5 + torch.rand_like(length)))
            writer.change(layer, changed * magnitudes[-1] / length - weight)
        name = f"diffusion_model.{name}"
        writer.tensors |= {
            f"{name}.lora_A.weight": down,
            f"{name}.lora_B.weight": torch.cat(ups),
            f"{name}.dora_scale": torch.cat(magnitudes),
            f"{name}.alpha": torch.tensor(2.0),
        }


def processors(writer: Writer) -> None:
    """Attention in diffusers' names of 2023."""
    for layer in writer.family.layers:
        attention, _, projection = layer.removesuffix(".0").rpartition(".")
        if projection in ("to_q", "to_k", "to_v", "to_out"):
            lora = writer.lora(layer)
            name = f"{writer.family.denoiser}.{attention}.processor.{projection}_lora"
            writer.tensors |= {f"{name}.down.weight": lora.down, f"{name}.up.weight": lora.up}


def lokr(prefix: str, flat: bool, decomposed: bool) -> Layout:
    def write(writer: Writer) -> None:
        for layer in writer.family.layers:
            weight = writer.weight(layer)
            factor = 2
            outer, inner = torch.randn(factor, factor), weight.shape[1] // factor
            name = prefix + (layer.replace(".", "_") if flat else layer)
            height = len(weight) // factor
            alpha, rank = 3.0, 2
            if decomposed:
                kernel = weight.shape[2:]  # unrolled
                a, b = torch.randn(height, rank), torch.randn(rank, inner * kernel.numel())
                writer.tensors |= {f"{name}.lokr_w2_a": a, f"{name}.lokr_w2_b": b}
                block, scale = (a @ b).reshape(height, inner, *kernel), alpha / rank
            else:
                block, scale = torch.randn(height, inner, *weight.shape[2:]), 1.0
                writer.tensors[f"{name}.lokr_w2"] = block
            writer.tensors |= {f"{name}.lokr_w1": outer, f"{name}.alpha": torch.tensor(alpha)}
            outer = outer.reshape(factor, factor, *[1] * (weight.dim() - 2))
            writer.change(layer, torch.kron(outer, block) * scale)

    return write


def fused_lokr(writer: Writer) -> None:
    """One Kronecker product over a fused projection: its parts are rows of it."""
    for name, layers in writer.family.fused.items():
        weights = [writer.weight(layer) for layer in layers]
        rows = sum(len(w) for w in weights)
        outer, block = torch.randn(4, 2), torch.randn(rows // 4, weights[0].shape[1] // 2)
        name = f"diffusion_model.{name}"
        writer.tensors |= {f"{name}.lokr_w1": outer, f"{name}.lokr_w2": block}
        product, start = torch.kron(outer, block), 0
        for layer, weight in zip(layers, weights, strict=True):
            writer.change(layer, product[start : start + len(weight)])
            start += len(weight)


def middle(writer: Writer) -> None:
    """LoCon in CP form: a convolution's kernel is in a third factor."""
    for layer in writer.family.layers:
        weight = writer.weight(layer)
        if weight.dim() != 4:
            continue
        down, mid = torch.randn(4, weight.shape[1], 1, 1), torch.randn(4, 4, *weight.shape[2:])
        up = torch.randn(len(weight), 4, 1, 1)
        name = f"lora_unet_{layer.replace('.', '_')}"
        writer.tensors |= {
            f"{name}.lora_down.weight": down,
            f"{name}.lora_mid.weight": mid,
            f"{name}.lora_up.weight": up,
            f"{name}.alpha": torch.tensor(2.0),
        }
        writer.change(
            layer, 0.5 * torch.einsum("or,rmhw,mi->oihw", up[..., 0, 0], mid, down[..., 0, 0])
        )


def with_tensors(ends: Mapping[str, tuple[int, ...]]) -> Layout:
    """One more of each tensor for the first layer, of methods that are refused."""

    def write(writer: Writer) -> None:
        named("diffusion_model.")(writer)
        name = f"diffusion_model.{writer.family.layers[0]}"
        writer.tensors |= {f"{name}.{end}": torch.randn(shape) for end, shape in ends.items()}

    return write


def in_type(dtype: torch.dtype) -> Layout:
    """The numbers in another type."""

    def write(writer: Writer) -> None:
        named("diffusion_model.", alpha=True)(writer)
        writer.tensors = {
            k: v if k.endswith("alpha") else v.to(dtype) for k, v in writer.tensors.items()
        }

    return write


LAYOUTS: dict[str, Layout] = {
    "diffusers: `transformer.` or `unet.`, `lora_A/B`": named("{part}."),
    "the same with PEFT's settings, alpha by layer": settings_of_peft(root=False),
    "the same with rsLoRA": settings_of_peft(root=True),
    "`diffusion_model.`, `lora_A/B`": named("diffusion_model."),
    "`diffusion_model.`, mixed ranks, alpha by layer": named(
        "diffusion_model.", alpha=True, ranks=(4, 2, 8)
    ),
    "`model.diffusion_model.`, `lora_down/up`, alpha": named(
        "model.diffusion_model.", "lora_down", True
    ),
    "`unet.`, `lora.down/up`": named("unet.", "lora.down"),
    "`transformer.`, `lora_down/up`, alpha": named("transformer.", "lora_down", True),
    "diffusers of 2023: `.processor.to_q_lora.down`": processors,
    "PEFT: `base_model.model.`": named("base_model.model."),
    "PEFT: `base_model.model.transformer.`": named("base_model.model.transformer.", alpha=True),
    "PEFT's raw names: `.default.`": named("", "default"),
    "DiffSynth: `pipe.dit.`, `.default.`": named("pipe.dit.", "default"),
    "no prefix": named(""),
    "no prefix, `lora_down/up`, alpha": named("", "lora_down", True),
    "kohya: `lora_unet_`, alpha": named("lora_unet_", "lora_down", True, flat=True),
    "OneTrainer: `lora_transformer_`, alpha": named(
        "lora_transformer_", "lora_down", True, flat=True
    ),
    "LyCORIS: `lycoris_`, alpha": named("lycoris_", "lora_down", True, flat=True),
    "the model's own names, fused `qkv`": original("diffusion_model."),
    "the model's own names, fused `qkv`, three LoRAs in one": original(
        "diffusion_model.", blocks=True
    ),
    "kohya with the model's own names, fused `qkv`": original("lora_unet_", flat=True),
    "XLabs: `processor.qkv_lora1`": xlabs,
    "OneTrainer (OMI): `qkv.0`": numbered_parts,
    "fp32": in_type(torch.float32),
    "fp16": in_type(torch.float16),
    "fp8 (e4m3)": in_type(torch.float8_e4m3fn),
    "convolutions with `lora_mid`": middle,
    "DoRA: `dora_scale`": dora(
        "dora_scale", lambda rows, _, dims: (rows, *[1] * (dims - 1)), by_input=False
    ),
    "DoRA: `dora_scale` by inputs": dora(
        "dora_scale", lambda _, columns, dims: (1, columns, *[1] * (dims - 2)), by_input=True
    ),
    "DoRA: `lora_magnitude_vector`": dora(
        "lora_magnitude_vector",
        lambda rows, _, dims: (rows,) if dims == 2 else (1, rows, 1, 1),
        by_input=False,
    ),
    "DoRA of fused `qkv`": fused_dora,
    "LoKr, whole factors": lokr("diffusion_model.", flat=False, decomposed=False),
    "LoKr, `lycoris_`, factors of factors": lokr("lycoris_", flat=True, decomposed=True),
    "LoKr of fused `qkv`": fused_lokr,
    "LoHa": with_tensors({"hada_w1_a": (8, 2), "hada_w1_b": (2, 8)}),
    "LoKr in Tucker form": with_tensors({"lokr_t2": (2, 2, 3, 3)}),
    "OFT": with_tensors({"oft_blocks": (2, 4, 4)}),
    "GLoRA": with_tensors({f"{x}.weight": (4, 4) for x in ("a1", "a2", "b1", "b2")}),
    "(IA)3": with_tensors({"on_input": (), "weight": (8,)}),
    "full weight difference": with_tensors({"diff": (8, 8), "diff_b": (8,)}),
    "LoRA with biases": with_tensors({"lora_B.bias": (8,)}),
}


def family_with_loras(
    model: Path, exchanged: bool, log: Callable[[str, str], None] = lambda level, text: None
) -> Any:
    """A loaded generator, with LoRAs kept as adapters, or exchanged as for compiled blocks."""
    from tests.test_native_image_generator import spec_for
    from workers.lora_hotswap import HotswapLoras
    from workers.models.native_image_generator import NativeImageGenerator

    native = NativeImageGenerator(spec_for(str(model)), log)
    native.load()
    if exchanged:
        pipeline, cpu = native.pipeline, torch.device("cpu")
        native._loras = HotswapLoras(pipeline, pipeline.transformer, 2, cpu, native._log)
    return native


def only(file: Path, strength: float, sha256: str | None = None) -> list[CheckedLora]:
    """A task's stack of one LoRA; at strength 0 it has none."""
    known = content_hash(file) if sha256 is None else sha256
    return [CheckedLora(known, str(file), strength)] if strength != 0 else []
