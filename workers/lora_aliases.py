"""Names that other programs give to layers of diffusers' models.

ComfyUI, kohya's scripts and the models' own repositories keep some projections fused (`qkv` for
`to_q`, `to_k` and `to_v`) and name or number blocks in their own way. An alias says which rows of
such a layer's output are which layer of diffusers' model.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from workers.models.family import denoiser_of


@dataclass(frozen=True)
class Rows:
    """A layer of the model, and the halves of the file's rows in its own order.

    Attributes:
        swapped: the model has the first half of its rows where the file has the second.
    """

    layer: str
    swapped: bool = False


Alias = tuple[str, tuple[Rows, ...]]
"""Another program's name, and the model's layers that follow each other in its rows."""

_QKV = ("to_q", "to_k", "to_v")
_ADDED_QKV = ("add_q_proj", "add_k_proj", "add_v_proj")
# Fused projections of any model, as diffusers and others call them.
_FUSED = {
    _QKV: ("to_qkv", "qkv", "qkv_proj"),
    _ADDED_QKV: ("to_added_qkv", "add_qkv_proj", "added_qkv"),
    ("to_k", "to_v"): ("to_kv",),
    ("q_proj", "k_proj", "v_proj"): ("qkv_proj", "in_proj"),
}


def aliases_of(model: Any, layers: Mapping[str, Any]) -> Iterator[Alias]:
    """Every other name of the model's layers. `layers`: those that may have a LoRA, by name."""
    for name in layers:
        # Old files of diffusers speak of the attention's processor, without the list's number.
        if name.endswith(".to_out.0"):
            yield _same(name.removesuffix(".0"), name)
        for usual in (name, _as_in_2023(name)):
            yield _same(usual, name)
            # transformers dropped this level of CLIP's text models, and kept it in some.
            if usual.startswith("text_model."):
                yield _same(usual.removeprefix("text_model."), name)
            elif usual.startswith("encoder.layers."):
                yield _same(f"text_model.{usual}", name)
    yield from _fused(layers)
    own = denoiser_of(model).other_names
    if own is not None:
        yield from own(model, layers)


def _as_in_2023(name: str) -> str:
    """Names of 2023: diffusers called projections of text encoders as those of its attention."""
    for ours, others in (("q_proj", "to_q"), ("k_proj", "to_k"), ("v_proj", "to_v"),
                         ("out_proj", "to_out")):  # fmt: skip
        if name.endswith(f".self_attn.{ours}"):
            return name.removesuffix(ours) + others
    return name


def _same(alias: str, layer: str) -> Alias:
    return alias, (Rows(layer),)


def _fused(layers: Mapping[str, Any]) -> Iterator[Alias]:
    for parent in {name.rpartition(".")[0] for name in layers}:
        for parts, aliases in _FUSED.items():
            names = [f"{parent}.{part}" for part in parts]
            if all(name in layers for name in names):
                for alias in aliases:
                    yield f"{parent}.{alias}", tuple(map(Rows, names))


def _renamed(layers: Mapping[str, Any], renames: Mapping[str, str]) -> Iterator[Alias]:
    """Rename layers at or below one of our names to the other program's name."""
    for layer in layers:
        for ours, others in renames.items():
            if layer == ours or layer.startswith(f"{ours}."):
                yield _same(others + layer.removeprefix(ours), layer)


def z_image(model: Any, layers: Mapping[str, Any]) -> Iterator[Alias]:
    # One embedder and one final layer per patch size; the original has the first alone.
    sizes = [name.split(".")[1] for name in layers if name.startswith("all_x_embedder.")]
    if sizes:
        yield from _renamed(
            layers,
            {
                f"all_x_embedder.{sizes[0]}": "x_embedder",
                f"all_final_layer.{sizes[0]}": "final_layer",
            },
        )
    for layer in layers:
        if layer.endswith(".attention.to_out.0"):
            yield _same(f"{layer.removesuffix('.to_out.0')}.out", layer)


def flux(model: Any, layers: Mapping[str, Any]) -> Iterator[Alias]:
    embedders = {"timestep": "time_in", "text": "vector_in", "guidance": "guidance_in"}
    yield from _renamed(
        layers,
        {
            "x_embedder": "img_in",
            "context_embedder": "txt_in",
            "proj_out": "final_layer.linear",
            **{
                f"time_text_embed.{ours}_embedder.linear_{number}": f"{others}.{end}"
                for ours, others in embedders.items()
                for number, end in ((1, "in_layer"), (2, "out_layer"))
            },
        },
    )
    yield _same("img_in.proj", "x_embedder")  # OneTrainer's
    # Shift comes before scale in the original, and behind it in diffusers.
    yield "final_layer.adaLN_modulation.1", (Rows("norm_out.linear", swapped=True),)
    for number in range(len(model.transformer_blocks)):
        ours, others = f"transformer_blocks.{number}", f"double_blocks.{number}"
        yield from _renamed(
            layers,
            {
                f"{ours}.attn.to_out.0": f"{others}.img_attn.proj",
                f"{ours}.attn.to_add_out": f"{others}.txt_attn.proj",
                f"{ours}.ff.net.0.proj": f"{others}.img_mlp.0",
                f"{ours}.ff.net.2": f"{others}.img_mlp.2",
                f"{ours}.ff_context.net.0.proj": f"{others}.txt_mlp.0",
                f"{ours}.ff_context.net.2": f"{others}.txt_mlp.2",
                f"{ours}.norm1.linear": f"{others}.img_mod.lin",
                f"{ours}.norm1_context.linear": f"{others}.txt_mod.lin",
            },
        )
        streams = (("img", "1", _QKV, "to_out.0"), ("txt", "2", _ADDED_QKV, "to_add_out"))
        for stream, of_xlabs, parts, out in streams:
            rows = tuple(Rows(f"{ours}.attn.{part}") for part in parts)
            yield f"{others}.{stream}_attn.qkv", rows
            yield from _numbered(f"{others}.{stream}_attn.qkv", rows)
            yield f"{others}.qkv{of_xlabs}", rows
            yield _same(f"{others}.proj{of_xlabs}", f"{ours}.attn.{out}")
    for number in range(len(model.single_transformer_blocks)):
        ours, others = f"single_transformer_blocks.{number}", f"single_blocks.{number}"
        yield from _renamed(
            layers,
            {
                f"{ours}.proj_out": f"{others}.linear2",
                f"{ours}.norm.linear": f"{others}.modulation.lin",
            },
        )
        rows = tuple(Rows(f"{ours}.attn.{part}") for part in _QKV)
        yield f"{others}.linear1", (*rows, Rows(f"{ours}.proj_mlp"))
        yield from _numbered(f"{others}.linear1", (*rows, Rows(f"{ours}.proj_mlp")))
        yield f"{others}.qkv", rows  # XLabs'
        yield _same(f"{others}.proj", f"{ours}.proj_out")


def _numbered(alias: str, rows: tuple[Rows, ...]) -> Iterator[Alias]:
    """OneTrainer's names (OMI) for the parts of a fused projection."""
    for place, row in enumerate(rows):
        yield f"{alias}.{place}", (row,)


_RESNET = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def unet(model: Any, layers: Mapping[str, Any]) -> Iterator[Alias]:
    """The names of Stability's own UNet: numbered blocks in, in the middle, and out."""
    renames = {
        "conv_in": "input_blocks.0.0",
        "conv_out": "out.2",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "mid_block.attentions.0": "middle_block.1",
        **_resnet("mid_block.resnets.0", "middle_block.0"),
        **_resnet("mid_block.resnets.1", "middle_block.2"),
    }
    number = 1
    for index, block in enumerate(model.down_blocks):
        ours = f"down_blocks.{index}"
        for place in range(len(block.resnets)):
            renames |= _step(ours, place, f"input_blocks.{number}")
            number += 1
        if block.downsamplers:
            renames[f"{ours}.downsamplers.0.conv"] = f"input_blocks.{number}.0.op"
            number += 1
    number = 0
    for index, block in enumerate(model.up_blocks):
        ours = f"up_blocks.{index}"
        for place in range(len(block.resnets)):
            renames |= _step(ours, place, f"output_blocks.{number}")
            number += 1
        if block.upsamplers:
            behind = 2 if getattr(block, "attentions", None) else 1
            renames[f"{ours}.upsamplers.0.conv"] = f"output_blocks.{number - 1}.{behind}.conv"
    yield from _renamed(layers, renames)


def _step(block: str, place: int, others: str) -> dict[str, str]:
    """A resnet of a block and the attention behind it, which others count as one."""
    resnet = _resnet(f"{block}.resnets.{place}", f"{others}.0")
    return {**resnet, f"{block}.attentions.{place}": f"{others}.1"}


def _resnet(ours: str, others: str) -> dict[str, str]:
    return {f"{ours}.{part}": f"{others}.{other}" for part, other in _RESNET.items()}


def knows(model: Any) -> bool:
    """Whether every usual name of its layers is here."""
    kind = denoiser_of(model)
    return kind.other_names is not None or kind.usual_names
