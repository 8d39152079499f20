"""Checkpoints of any size that are headers alone: nothing but their index is read from them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

GIB = 1024**3
LAYER = 64 * 1024**2  # numbers: 0.125 GiB in half precision
Shapes = Mapping[str, tuple[int, ...]]


def write_header(file: Path, tensors: Shapes, dtype: str = "BF16") -> None:
    """A safetensors file without its data."""
    file.parent.mkdir(parents=True, exist_ok=True)
    header = {
        name: {"dtype": dtype, "shape": list(shape), "data_offsets": [0, 0]}
        for name, shape in tensors.items()
    }
    raw = json.dumps(header).encode()
    file.write_bytes(len(raw).to_bytes(8, "little") + raw)


def layers(gib: float) -> dict[str, tuple[int, ...]]:
    """Linear layers that take so much in half precision."""
    count = round(gib * GIB / 2 / LAYER)
    return {f"layers.{n}.ff.weight": (8192, LAYER // 8192) for n in range(count)}


def write_pipeline(
    folder: Path, transformer: float = 12.0, text_encoder: float = 6.0, **index: Any
) -> Path:
    """A pipeline whose parts take so many GiB in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "transformer": ["diffusers", "ZImageTransformer2DModel"],
        "text_encoder": ["transformers", "Qwen3Model"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    }
    text = json.dumps({"_class_name": "ZImagePipeline", **parts, **index})
    (folder / "model_index.json").write_text(text)
    name = "diffusion_pytorch_model.safetensors"
    write_header(folder / "transformer" / name, layers(transformer))
    write_header(folder / "text_encoder" / "model.safetensors", layers(text_encoder))
    write_header(folder / "vae" / name, {"decoder.conv_in.weight": (512, 16, 3, 3)})
    config = {"block_out_channels": [128, 256, 512, 512], "latent_channels": 16}
    (folder / "vae" / "config.json").write_text(json.dumps(config))
    (folder / "transformer" / "config.json").write_text('{"in_channels": 16, "patch_size": 2}')
    (folder / "text_encoder" / "config.json").write_text('{"num_hidden_layers": 36}')
    return folder


def write_judge(folder: Path, model: float = 16.0) -> Path:
    """A chat model that takes so many GiB in half precision."""
    config = {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "text_config": {"num_hidden_layers": 36, "num_key_value_heads": 8, "head_dim": 128},
        "vision_config": {"patch_size": 16, "spatial_merge_size": 2},
    }
    write_header(folder / "model.safetensors", layers(model))
    (folder / "config.json").write_text(json.dumps(config))
    return folder
