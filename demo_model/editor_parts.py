"""The parts of the demo editor, built from config with random weights.

The classes are those of Qwen-Image-Edit-2509 (`QwenImageEditPlusPipeline`); only the sizes
are small. Its text encoder is blind: its vision tower ends in zeros, and what the source
looks like reaches the transformer through the source's latents alone.
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImageEditPlusPipeline,
    QwenImageTransformer2DModel,
)
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from demo_model.edits import instruction_words
from demo_model.qwen_vision import build_processor, build_tokenizer

LATENT_CHANNELS = 16  # of an autoencoder that makes pictures eight times as small
HEAD_DIM = 32
PATCH = 14  # pixels of the vision tower
TEXT_WIDTH = 128
# What the pipeline wraps every instruction in; it drops the first 64 tokens of the whole.
TEMPLATE = (
    "<|im_start|>system\nDescribe the key features of the input image (color, shape, size, "
    "texture, objects, background), then explain how the user's text instruction should alter "
    "or modify the image. Generate a new image that meets the user's requirements while "
    "maintaining consistency with the original input where appropriate.<|im_end|>\n"
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
PICTURE = "Picture 1: <|vision_start|><|image_pad|><|vision_end|>"
DROPPED = 64


@dataclass(frozen=True)
class Sizes:
    """How large the parts are; the autoencoder halves a picture between two multipliers."""

    dim: int
    layers: int
    vae_base: int
    vae_multipliers: tuple[int, ...]
    latent_channels: int

    @property
    def token(self) -> int:
        """Pixels along a side of what the transformer sees as one token: 2 x 2 latents."""
        return int(2 ** len(self.vae_multipliers))


# What is trained: 16 x 16 tokens of a usual picture, and as many of its source.
TRAINED = Sizes(dim=128, layers=4, vae_base=8, vae_multipliers=(1, 2, 4), latent_channels=8)


def build_vae(
    base: int = 16,
    multipliers: tuple[int, ...] = (1, 2, 3, 4),
    latent_channels: int = LATENT_CHANNELS,
) -> AutoencoderKLQwenImage:
    """For single frames; by default 8x downsampling to 16 channels, Qwen-Image's geometry."""
    return AutoencoderKLQwenImage(
        base_dim=base,
        z_dim=latent_channels,
        dim_mult=list(multipliers),
        num_res_blocks=1,
        attn_scales=[],
        temperal_downsample=[False] * (len(multipliers) - 1),
        latents_mean=[0.0] * latent_channels,
        latents_std=[1.0] * latent_channels,
    )


def build_text_encoder(
    tokenizer: Any, width: int = TEXT_WIDTH
) -> Qwen2_5_VLForConditionalGeneration:
    """Two layers; the pipeline reads the last one's output."""
    token = tokenizer.convert_tokens_to_ids
    heads = width // HEAD_DIM
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": 2,
            "num_attention_heads": heads,
            "num_key_value_heads": max(1, heads // 2),
            "max_position_embeddings": 2048,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [4, 6, 6],
                "rope_theta": 10000.0,
            },
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": width,
            "patch_size": PATCH,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 8 * PATCH,
            "fullatt_block_indexes": [0],
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    encoder = Qwen2_5_VLForConditionalGeneration(config)
    last = encoder.model.visual.merger.mlp[-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    return encoder


def build_transformer(
    dim: int = 128,
    layers: int = 6,
    text_width: int = TEXT_WIDTH,
    latent_channels: int = LATENT_CHANNELS,
) -> Any:
    """`dim` is a multiple of 32, the width of an attention head."""
    return QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=4 * latent_channels,
        out_channels=latent_channels,
        num_layers=layers,
        attention_head_dim=HEAD_DIM,
        num_attention_heads=dim // HEAD_DIM,
        joint_attention_dim=text_width,
        guidance_embeds=False,
        axes_dims_rope=(8, 12, 12),
    )


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """A static shift of 2: the demo's pictures are too small for Qwen-Image's dynamic one."""
    return FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000, shift=2.0, use_dynamic_shifting=False
    )


def build_pipeline(
    dim: int = 128,
    layers: int = 6,
    vae_base: int = 16,
    vae_multipliers: tuple[int, ...] = (1, 2, 3, 4),
    text_width: int = TEXT_WIDTH,
    seed: int = 0,
    latent_channels: int = LATENT_CHANNELS,
) -> QwenImageEditPlusPipeline:
    """A whole pipeline with random weights; the same seed gives the same weights."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer([TEMPLATE, PICTURE, " ".join(instruction_words()), "0123456789"])
    return QwenImageEditPlusPipeline(
        scheduler=build_scheduler(),
        vae=build_vae(vae_base, vae_multipliers, latent_channels).eval(),
        text_encoder=build_text_encoder(tokenizer, text_width).eval(),
        tokenizer=tokenizer,
        processor=build_processor("Qwen2VLProcessor", tokenizer, PATCH, 56 * 56),
        transformer=build_transformer(dim, layers, text_width, latent_channels).eval(),
    )
