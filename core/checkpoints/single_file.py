"""A model in one file, as other tools keep them: a whole checkpoint, or a denoiser alone.

The parts that such a file lacks, and the settings of those that it has, come from a model in
diffusers' form, the base model.
"""

import importlib.util
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.checkpoints.lora_names import holds_lora
from core.checkpoints.safetensors_header import NotSafetensors, read_header
from core.errors import InputError

SAFETENSORS, GGUF = (".safetensors", ".sft"), ".gguf"
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
GGUF_MAGIC = b"GGUF"
GGUF_PACKAGE = "gguf==0.19.0"

# Whole checkpoints of which every weight is in the file: what their base model gives is small.
_WHOLE = {
    "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias": (
        "stabilityai/stable-diffusion-xl-base-1.0"
    ),
    "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight": (
        "stable-diffusion-v1-5/stable-diffusion-v1-5"
    ),
}
# A denoiser alone looks the same in every model of its family: for the message only.
_LOOKS_LIKE = {
    "layers.0.adaLN_modulation.0.weight": "Tongyi-MAI/Z-Image-Turbo or Tongyi-MAI/Z-Image",
    "double_blocks.0.img_attn.norm.key_norm.scale": "black-forest-labs/FLUX.1-dev",
    "single_stream_modulation.lin.weight": "black-forest-labs/FLUX.2-dev",
    "transformer_blocks.0.attn.add_q_proj.weight": "Qwen/Qwen-Image or Qwen/Qwen-Image-Edit-2511",
    "input_blocks.0.0.weight": "stabilityai/stable-diffusion-xl-base-1.0",
}
_PREFIX = "model.diffusion_model."
OF_TEXT_ENCODERS = ("conditioner.", "cond_stage_model.", "text_encoders.")
OF_AUTOENCODERS = ("first_stage_model.", "vae.")
"""How names of these parts begin where one file has a whole model."""
# Weights in fewer bits with scales beside them: diffusers would take the bare numbers for weights.
_SCALED = re.compile(
    r"(^scaled_fp8$|\.(scale_weight|weight_scale|scale_input|comfy_quant|qweight)$)"
)


@dataclass(frozen=True)
class SingleFile:
    """A model in one file.

    Attributes:
        whole: text encoders and VAE are in it, too.
        base: hub id of the model that gives what the file lacks; None where that must be said.
        looks_like: the models that it may be of, for a message.
        v_prediction: it was trained to predict velocity, and says so as ComfyUI reads it.
        zero_snr: its noise ends in pure noise.
    """

    whole: bool
    base: str | None = None
    looks_like: str | None = None
    v_prediction: bool = False
    zero_snr: bool = False


def is_single_file(name: str) -> bool:
    """Whether `model` means one file of weights, judged by its ending."""
    return name.lower().endswith((*SAFETENSORS, GGUF, *PICKLES))


def inspect_single_file(path: Path) -> SingleFile:
    """Read which parts of a model one file holds.

    Raises:
        InputError: it is no file, or holds no denoiser that can be loaded.
    """
    ending = path.suffix.lower()
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise InputError(f"model: {path} is not a file.")
        if ending == GGUF:
            return _gguf(path)
        header, data_start = read_header(path, size)
    except FileNotFoundError:
        raise InputError(f"model: {path} does not exist.") from None
    except OSError as error:
        raise InputError(f"model: {path} cannot be read: {error.strerror}.") from None
    except NotSafetensors as problem:
        raise InputError(f"model: {path} {problem}") from None
    if ending in PICKLES:
        raise InputError(f"model: {path} holds safetensors; name it {path.stem}.safetensors.")
    header.pop("__metadata__", None)
    _check_end(path, header, size - data_start)
    return _of_tensors(path, header)


def _check_end(path: Path, header: Mapping[str, Any], available: int) -> None:
    """Raises InputError for a file that was not downloaded to its end."""
    try:
        ends = [entry["data_offsets"][1] for entry in header.values()]
        missing = max(ends, default=0) > available
    except (KeyError, IndexError, TypeError):
        missing = True
    if missing:
        raise InputError(f"model: {path} is cut short or damaged; download it again.")


def _gguf(path: Path) -> SingleFile:
    with path.open("rb") as stream:
        if stream.read(len(GGUF_MAGIC)) != GGUF_MAGIC:
            raise InputError(f"model: {path} is not a GGUF file, or is damaged.")
    if importlib.util.find_spec("gguf") is None:
        raise InputError(f"model: {path} needs a package: pip install {GGUF_PACKAGE}")
    return SingleFile(whole=False)


def _of_tensors(path: Path, header: Mapping[str, Any]) -> SingleFile:
    names = {name.removeprefix(_PREFIX) for name in header}
    if holds_lora(header):
        raise InputError(f"model: {path} is a LoRA; give it to tasks as lora_path.")
    scaled = next((name for name in sorted(header) if _SCALED.search(name)), None)
    if scaled is not None:
        raise InputError(
            f"model: {path} holds weights in 8 bits or fewer with scales beside them ({scaled}), "
            "which diffusers cannot read; take the file in bf16 or fp16, or a GGUF, and set "
            "`memory: fp8` to have it in 8 bits."
        )
    whole = any(name.startswith(OF_TEXT_ENCODERS) for name in header)
    return SingleFile(
        whole,
        next((base for name, base in _WHOLE.items() if whole and name in header), None),
        _family(names),
        v_prediction="v_pred" in header,
        zero_snr="ztsnr" in header,
    )


def _family(names: Collection[str]) -> str | None:
    return next((models for name, models in _LOOKS_LIKE.items() if name in names), None)


def base_of(path: Path, found: SingleFile, base_model: str | None) -> str:
    """The base model: as the setting says, or as the file shows.

    Raises:
        InputError: it has to be said.
    """
    if base_model is not None:
        return base_model
    if found.base is not None:
        return found.base
    such_as = f", such as {found.looks_like}" if found.looks_like else ""
    holds = "not everything that a model needs" if found.whole else "a denoiser alone"
    raise InputError(
        f"base_model: {os.fspath(path)} holds {holds}; say which model, by hub id or folder, gives "
        f"the other parts{such_as}."
    )
