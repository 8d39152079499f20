"""Weights of tiny pipelines under the names that single files of other tools have.

The names of Stability's, OpenCLIP's and Z-Image's own code are written out here by hand.
"""

import re
from typing import Any

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
DENOISER = "model.diffusion_model."

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def sdxl(pipeline: Any) -> Tensors:
    """A whole checkpoint: UNet, VAE and both text encoders."""
    return {
        **{DENOISER + k: v for k, v in _unet(pipeline.unet).items()},
        **{f"first_stage_model.{k}": v for k, v in _vae(pipeline.vae).items()},
        **{
            f"conditioner.embedders.0.transformer.{_with_text_model(k)}": v
            for k, v in pipeline.text_encoder.state_dict().items()
        },
        **{
            f"conditioner.embedders.1.model.{k}": v
            for k, v in _open_clip(pipeline.text_encoder_2).items()
        },
    }


def z_image(pipeline: Any) -> Tensors:
    """A denoiser alone."""
    found = dict(pipeline.transformer.state_dict())
    whole: Tensors = {}
    for name, tensor in found.items():
        if ".attention.to_q." in name:
            parts = [found[name.replace("to_q", part)] for part in ("to_q", "to_k", "to_v")]
            whole[name.replace("to_q", "qkv")] = torch.cat(parts)
        elif not re.search(r"\.attention\.to_[kv]\.", name):
            whole[_z_image_name(name)] = tensor
    return {DENOISER + name: tensor for name, tensor in whole.items()}


def _z_image_name(name: str) -> str:
    for ours, theirs in (
        ("attention.to_out.0", "attention.out"),
        ("attention.norm_q", "attention.q_norm"),
        ("attention.norm_k", "attention.k_norm"),
        ("all_x_embedder.2-1", "x_embedder"),
        ("all_final_layer.2-1", "final_layer"),
    ):
        name = name.replace(ours, theirs)
    return name


def _unet(unet: Any) -> Tensors:
    layers = unet.config.layers_per_block
    found: Tensors = {}
    for name, tensor in unet.state_dict().items():
        found[_unet_name(name, layers)] = tensor
    return found


def _unet_name(name: str, layers: int) -> str:
    for ours, theirs in _UNET.items():
        if name.startswith(f"{ours}."):
            return theirs + name.removeprefix(ours)
    side, *rest = name.split(".")
    if side == "mid_block":
        kind, number, *rest = rest
        place = "middle_block.1" if kind == "attentions" else f"middle_block.{2 * int(number)}"
        return f"{place}.{_inside(kind, rest)}"
    block, kind, number, *rest = rest
    size = layers + 1
    if side == "down_blocks":
        if kind == "downsamplers":
            return f"input_blocks.{size * (int(block) + 1)}.0.op.{rest[-1]}"
        place = f"input_blocks.{size * int(block) + int(number) + 1}"
    else:
        if kind == "upsamplers":
            return f"output_blocks.{size * int(block) + layers}.2.conv.{rest[-1]}"
        place = f"output_blocks.{size * int(block) + int(number)}"
    return f"{place}.{1 if kind == 'attentions' else 0}.{_inside(kind, rest)}"


def _inside(kind: str, rest: list[str]) -> str:
    return ".".join([_RESNET[rest[0]], *rest[1:]] if kind == "resnets" else rest)


def _vae(vae: Any) -> Tensors:
    last = len(vae.config.block_out_channels) - 1
    found: Tensors = {}
    for name, tensor in vae.state_dict().items():
        new = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        new = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", new)
        new = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{last - int(m[1])}.block", new)
        new = re.sub(
            r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", new
        )
        found[new] = tensor
    return found


def _with_text_model(name: str) -> str:
    return name if name.startswith("text_model.") else f"text_model.{name}"


def _open_clip(encoder: Any) -> Tensors:
    state = {
        _with_text_model(k).removeprefix("text_model."): v for k, v in encoder.state_dict().items()
    }
    projection = next(v for k, v in encoder.state_dict().items() if k == "text_projection.weight")
    found = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
        "text_projection": projection.T,
    }
    names = {
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
        "self_attn.out_proj": "attn.out_proj",
    }
    for number in range(encoder.config.num_hidden_layers):
        ours, theirs = f"encoder.layers.{number}", f"transformer.resblocks.{number}"
        for end in ("weight", "bias"):
            qkv = [state[f"{ours}.self_attn.{part}_proj.{end}"] for part in "qkv"]
            found[f"{theirs}.attn.in_proj_{end}"] = torch.cat(qkv)
            for a, b in names.items():
                found[f"{theirs}.{b}.{end}"] = state[f"{ours}.{a}.{end}"]
    return found
