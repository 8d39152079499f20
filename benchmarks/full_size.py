"""Models of full size with random weights, made on the device.

Speed does not depend on what the weights are. Sizes are those of the public configs of
Tongyi-MAI/Z-Image-Turbo, Qwen/Qwen-Image-Edit-2509 and Qwen/Qwen3-VL-8B-Instruct.
"""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    QwenImageEditPlusPipeline,
    QwenImageTransformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from safetensors.torch import save_file
from transformers import (
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3Model,
    Qwen3VLForConditionalGeneration,
)

from apps.edit_benchmark.settings import load_benchmark_settings
from core.judge import load_judge
from demo_model import architecture, editor_parts, judge_parts
from demo_model.edits import instruction_words
from demo_model.qwen_vision import build_processor, build_tokenizer

DTYPES = {torch.bfloat16: "BF16", torch.float32: "F32"}  # as safetensors calls them
LORA_LAYERS = ("to_q", "to_k", "to_v", "to_out.0")
LORA_RANK = 16


@contextmanager
def made_on(device: str) -> Iterator[None]:
    """New modules get bfloat16 weights on the device."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def z_image(device: str) -> Any:
    """Pipeline with a 6B transformer and a 4B text encoder."""
    tokenizer = architecture.build_tokenizer()
    with made_on(device):
        text_encoder = Qwen3Model(
            Qwen3Config(
                vocab_size=151936,
                hidden_size=2560,
                intermediate_size=9728,
                num_hidden_layers=36,
                num_attention_heads=32,
                num_key_value_heads=8,
                head_dim=128,
                tie_word_embeddings=True,
            )
        )
        transformer = ZImageTransformer2DModel()
        vae = AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            block_out_channels=[128, 256, 512, 512],
            layers_per_block=2,
            latent_channels=16,
            sample_size=1024,
            scaling_factor=0.3611,
            shift_factor=0.1159,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
    return ZImagePipeline(
        scheduler=architecture.build_scheduler(),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        transformer=transformer,
    )


def qwen_image_edit(device: str) -> Any:
    """Pipeline with a 20B transformer and a 7B text encoder that sees."""
    tokenizer = build_tokenizer(
        [editor_parts.TEMPLATE, editor_parts.PICTURE, " ".join(instruction_words()), "0123456789"]
    )
    config = editor_parts.build_text_encoder(tokenizer).config
    _resize(
        config.text_config,
        vocab_size=152064,
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        layer_types=["full_attention"] * 28,
        tie_word_embeddings=False,
    )
    config.text_config.rope_parameters["mrope_section"] = [16, 24, 24]
    _resize(
        config.vision_config,
        depth=32,
        hidden_size=1280,
        intermediate_size=3420,
        num_heads=16,
        out_hidden_size=3584,
        window_size=112,
        fullatt_block_indexes=[7, 15, 23, 31],
    )
    config.tie_word_embeddings = False
    with made_on(device):
        text_encoder = Qwen2_5_VLForConditionalGeneration(config)
        transformer = QwenImageTransformer2DModel()
        vae = AutoencoderKLQwenImage()
    return QwenImageEditPlusPipeline(
        scheduler=editor_parts.build_scheduler(),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        processor=build_processor("Qwen2VLProcessor", tokenizer, editor_parts.PATCH, 12845056),
        transformer=transformer,
    )


def qwen3_vl(device: str) -> tuple[Any, Any]:
    """Model (8B, dense) and processor."""
    model, processor = judge_parts.build_judge(_questions())
    config = model.config
    _resize(
        config.text_config,
        vocab_size=151936,
        hidden_size=4096,
        intermediate_size=12288,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=262144,
        tie_word_embeddings=False,
    )
    config.text_config.rope_parameters["mrope_section"] = [24, 20, 20]
    _resize(
        config.vision_config,
        depth=27,
        hidden_size=1152,
        intermediate_size=4304,
        num_heads=16,
        out_hidden_size=4096,
        num_position_embeddings=2304,
        deepstack_visual_indexes=[8, 16, 24],
    )
    config.tie_word_embeddings = False
    with made_on(device):
        full = Qwen3VLForConditionalGeneration(config)
    full.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    processor.image_processor.size = {"shortest_edge": 65536, "longest_edge": 16777216}
    return full, processor


def save(pipeline: Any, folder: Path) -> None:
    """Write a pipeline's checkpoint, each tensor from the device to its place in a mapped file.

    `save_pretrained` copies all weights three times, one after the other: 32 s for 20 GB.
    """
    for name, part in pipeline.components.items():
        place = folder / name
        if not hasattr(part, "state_dict"):
            part.save_pretrained(place)
        elif hasattr(part, "save_config"):
            part.save_config(place)
            _write(part.state_dict(), place / "diffusion_pytorch_model.safetensors")
        else:
            part.config.architectures = [type(part).__name__]
            part.config.save_pretrained(place)
            _write(part.state_dict(), place / "model.safetensors")
    pipeline.save_config(folder)


def _write(tensors: Mapping[str, torch.Tensor], file: Path) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        place = {"shape": list(tensor.shape), "data_offsets": [start, end]}
        header[name] = {"dtype": DTYPES[tensor.dtype], **place}
    said = json.dumps(header).encode()
    said += b" " * (-len(said) % 8)
    with file.open("wb") as stream:
        stream.write(len(said).to_bytes(8, "little") + said)
        first = stream.tell()
        stream.truncate(first + end)
    mapped = torch.from_file(str(file), shared=True, size=first + end, dtype=torch.uint8)

    def put(name: str) -> None:
        start, end = header[name]["data_offsets"]
        here = mapped[first + start : first + end].view(tensors[name].dtype)
        here.view(tensors[name].shape).copy_(tensors[name])

    with ThreadPoolExecutor() as threads:
        list(threads.map(put, tensors))


def tiny_z_image() -> Any:
    """To try the benchmark itself where there is no GPU."""
    return architecture.build_pipeline(dim=64, layers=2, vae_widths=(8, 16, 16, 16))


def tiny_editor() -> Any:
    """The editor, likewise."""
    return editor_parts.build_pipeline(dim=64, layers=2, vae_base=8)


def tiny_judge() -> tuple[Any, Any]:
    """The judge and its processor, likewise."""
    return judge_parts.build_judge(_questions(), width=64, vision_width=64)


def _questions() -> list[str]:
    settings = load_benchmark_settings().judge.model_copy(update={"prompts": "viescore.yaml"})
    return [call.text for call in load_judge(settings).prompts.calls]


def _resize(config: Any, **sizes: Any) -> None:
    for name, value in sizes.items():
        setattr(config, name, value)


def lora(transformer: Any, file: Path, seed: int) -> Path:
    """A LoRA of rank 16 on every attention layer, with small random weights."""
    random = torch.Generator().manual_seed(seed)
    state = {}
    for name, module in transformer.named_modules():
        if isinstance(module, torch.nn.Linear) and name.endswith(LORA_LAYERS):
            down = torch.randn(LORA_RANK, module.in_features, generator=random) * 0.01
            up = torch.randn(module.out_features, LORA_RANK, generator=random) * 0.01
            state[f"transformer.{name}.lora_A.weight"] = down.bfloat16()
            state[f"transformer.{name}.lora_B.weight"] = up.bfloat16()
    save_file(state, file)
    return file
