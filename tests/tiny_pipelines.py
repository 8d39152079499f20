"""Whole diffusers pipelines from config with random weights, small enough to draw at once."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    DDPMPipeline,
    DDPMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    FluxKontextPipeline,
    FluxPipeline,
    FluxPriorReduxPipeline,
    FluxTransformer2DModel,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
    QwenImageImg2ImgPipeline,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
    ZImagePipeline,
)
from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SiglipVisionModel,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from demo_model.architecture import (
    LATENT_CHANNELS,
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
    build_transformer,
)

WIDTH = 32  # of every text encoder


def sdxl_components(second_width: int = WIDTH) -> dict[str, Any]:
    """`second_width`: of the second text encoder, in the real one another than the first's."""
    torch.manual_seed(0)
    tokenizer = _clip_tokenizer()
    return {
        "tokenizer": tokenizer,
        "tokenizer_2": tokenizer,
        "text_encoder": CLIPTextModel(_clip_config(tokenizer)).eval(),
        "text_encoder_2": CLIPTextModelWithProjection(_clip_config(tokenizer, second_width)).eval(),
        "unet": UNet2DConditionModel(
            sample_size=16,
            in_channels=4,
            out_channels=4,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=(1, 2),
            use_linear_projection=True,
            norm_num_groups=4,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            transformer_layers_per_block=(1, 1),
            # Six size ids and the pooled text.
            projection_class_embeddings_input_dim=6 * 8 + second_width,
            cross_attention_dim=WIDTH + second_width,
        ).eval(),
        "vae": _vae(),
        "scheduler": EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing="leading",
            steps_offset=1,
        ),
    }


def flux_components(blocks: int = 1, single_blocks: int = 1) -> dict[str, Any]:
    torch.manual_seed(0)
    clip_tokenizer = _clip_tokenizer()
    t5_tokenizer = _t5_tokenizer()
    t5 = T5Config(
        vocab_size=len(t5_tokenizer),
        d_model=WIDTH,
        d_kv=8,
        d_ff=WIDTH,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return {
        "tokenizer": clip_tokenizer,
        "tokenizer_2": t5_tokenizer,
        "text_encoder": CLIPTextModel(_clip_config(clip_tokenizer)).eval(),
        "text_encoder_2": T5EncoderModel(t5).eval(),
        "transformer": FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=blocks,
            num_single_layers=single_blocks,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=WIDTH,
            axes_dims_rope=(4, 4, 8),
            guidance_embeds=True,
        ).eval(),
        "vae": _vae(),
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
    }


def qwen_image_components(blocks: int = 1) -> dict[str, Any]:
    torch.manual_seed(0)
    tokenizer = _qwen_tokenizer()
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [2, 3, 3],
        },
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    vision = {
        "depth": 1,
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
        "fullatt_block_indexes": [0],
    }
    unused = {f"{kind}_token_id": 1 for kind in ("image", "video", "vision_start", "vision_end")}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **unused)
    return {
        "tokenizer": tokenizer,
        "text_encoder": Qwen2_5_VLForConditionalGeneration(config).eval(),
        "transformer": QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=blocks,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            axes_dims_rope=(8, 4, 4),
        ).eval(),
        "vae": AutoencoderKLQwenImage(
            base_dim=4,
            z_dim=4,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=0,
            temperal_downsample=[False, True, True],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ).eval(),
        "scheduler": FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, shift_terminal=0.02
        ),
    }


def build_z_image(layers: int = 2) -> ZImagePipeline:
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    return ZImagePipeline(
        scheduler=build_scheduler(),
        vae=_vae(LATENT_CHANNELS, quant_conv=False),
        text_encoder=build_text_encoder(len(tokenizer)).eval(),
        tokenizer=tokenizer,
        transformer=build_transformer(dim=64, layers=layers).eval(),
    )


def build_sdxl() -> StableDiffusionXLPipeline:
    return StableDiffusionXLPipeline(**sdxl_components())


def build_flux() -> FluxPipeline:
    return FluxPipeline(**flux_components())


def build_qwen_image() -> QwenImagePipeline:
    return QwenImagePipeline(**qwen_image_components())


# -- pipelines that start from something else than a prompt ------------------------------------


def build_unconditional() -> DDPMPipeline:
    unet = UNet2DModel(
        sample_size=16,
        block_out_channels=(8,),
        layers_per_block=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
    )
    return DDPMPipeline(unet, DDPMScheduler())


def build_flux_redux() -> FluxPriorReduxPipeline:
    vision = SiglipVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
    )
    return FluxPriorReduxPipeline(
        image_encoder=SiglipVisionModel(vision),
        feature_extractor=SiglipImageProcessorPil(size={"height": 32, "width": 32}),
        image_embedder=ReduxImageEncoder(redux_dim=WIDTH, txt_in_features=WIDTH),
    )


def build_sdxl_img2img() -> StableDiffusionXLImg2ImgPipeline:
    return StableDiffusionXLImg2ImgPipeline(**sdxl_components())


def build_flux_img2img() -> FluxImg2ImgPipeline:
    return FluxImg2ImgPipeline(**flux_components())


def build_flux_inpaint() -> FluxInpaintPipeline:
    return FluxInpaintPipeline(**flux_components())


def build_flux_kontext() -> FluxKontextPipeline:
    """Changes an image if it is given one, else draws from the prompt."""
    return FluxKontextPipeline(**flux_components())


def build_qwen_image_img2img() -> QwenImageImg2ImgPipeline:
    return QwenImageImg2ImgPipeline(**qwen_image_components())


# -- parts -------------------------------------------------------------------------------------


def _clip_tokenizer() -> CLIPTokenizer:
    letters = [*_alphabet(), *(f"{c}</w>" for c in _alphabet())]
    words = [*letters, "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab=_numbered(words), merges=[], model_max_length=77)


def _t5_tokenizer() -> T5Tokenizer:
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    letters = [(c, -2.0) for c in "▁abcdefghijklmnopqrstuvwxyz"]
    return T5Tokenizer(vocab=[*special, *letters], extra_ids=0, model_max_length=512)


def _qwen_tokenizer() -> Qwen2Tokenizer:
    return Qwen2Tokenizer(vocab=_numbered(["<|endoftext|>", "<|unused|>", *_alphabet()]), merges=[])


def _alphabet() -> list[str]:
    """The 256 characters that stand for bytes in a byte-level tokenizer."""
    return sorted(ByteLevel.alphabet())


def _numbered(words: list[str]) -> dict[str, int]:
    return {word: number for number, word in enumerate(words)}


def _clip_config(tokenizer: CLIPTokenizer, width: int = WIDTH) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        projection_dim=width,
        intermediate_size=width,
        num_attention_heads=2,
        num_hidden_layers=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _vae(channels: int = 4, quant_conv: bool = True) -> AutoencoderKL:
    """8x downsampling, as the real ones have, and as few layers as there may be."""
    return AutoencoderKL(
        block_out_channels=[8] * 4,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=0,
        latent_channels=channels,
        norm_num_groups=4,
        mid_block_add_attention=False,
        use_quant_conv=quant_conv,
        use_post_quant_conv=quant_conv,
        scaling_factor=1.0,
        shift_factor=0.0,
    ).eval()


def build_qwen_image_edit_plus() -> QwenImageEditPlusPipeline:
    from demo_model.editor_parts import build_pipeline

    pipeline = build_pipeline(64, 1, vae_base=8, vae_multipliers=(1, 1, 1, 1), text_width=64)
    few_layers = {**pipeline.vae.config, "num_res_blocks": 0}
    pipeline.register_modules(vae=AutoencoderKLQwenImage.from_config(few_layers).eval())
    return pipeline


def build_qwen_image_edit() -> QwenImageEditPipeline:
    return QwenImageEditPipeline(**build_qwen_image_edit_plus().components)
