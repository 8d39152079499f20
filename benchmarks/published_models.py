"""Published models as modules without storage, from their public configs."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from benchmarks import full_size

META = "meta"


def z_image() -> Any:
    return full_size.z_image(META)


def qwen_image_edit() -> Any:
    """Qwen-Image and its editors differ in their pipelines alone."""
    return full_size.qwen_image_edit(META)


def qwen3_vl() -> Any:
    return full_size.qwen3_vl(META)[0]


def flux() -> FluxPipeline:
    """FLUX.1-dev; its editor Kontext has the same parts."""
    with torch.device(META):
        t5 = T5Config(
            vocab_size=32128,
            d_model=4096,
            d_kv=64,
            d_ff=10240,
            num_layers=24,
            num_heads=64,
            feed_forward_proj="gated-gelu",
        )
        return FluxPipeline(
            scheduler=None,
            vae=vae(16),
            text_encoder=CLIPTextModel(_clip(768, 12, 12)),
            tokenizer=None,
            text_encoder_2=T5EncoderModel(t5),
            tokenizer_2=None,
            transformer=FluxTransformer2DModel(guidance_embeds=True),
        )


def sdxl() -> StableDiffusionXLPipeline:
    with torch.device(META):
        return StableDiffusionXLPipeline(
            vae=vae(4),
            text_encoder=CLIPTextModel(_clip(768, 12, 12)),
            text_encoder_2=CLIPTextModelWithProjection(_clip(1280, 32, 20)),
            tokenizer=None,
            tokenizer_2=None,
            unet=sdxl_unet(),
            scheduler=None,
        )


def sdxl_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(5, 10, 20),
        transformer_layers_per_block=(1, 2, 10),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )


def vae(latent_channels: int) -> AutoencoderKL:
    """The autoencoder of SDXL (4 channels), FLUX.1 and Z-Image (16)."""
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[128, 256, 512, 512],
        layers_per_block=2,
        latent_channels=latent_channels,
    )


def _clip(width: int, layers: int, heads: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
    )
