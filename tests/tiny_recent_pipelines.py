"""Tiny pipelines of the models that draw and edit with one checkpoint: Qwen-Image-2.1, FLUX.2."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage21,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
)
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from demo_model.judge_parts import build_judge
from demo_model.qwen_vision import build_tokenizer

WIDTH = 32
WORDS = "a red blue house make it night on the left comprehend and analyze provided prompt image"
# The pipelines read these layers of their text encoders, so as many have to be there.
FLUX2_LAYERS, KLEIN_LAYERS = 31, 28
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}"
    "{{ m['content'] }}{% else %}{% for part in m['content'] %}{{ part['text'] }}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}"
)


def build_qwen_image_21() -> QwenImage21Pipeline:
    text_encoder, processor = build_judge([WORDS], WIDTH, 1, 32, 1)
    channels = 8
    vae = AutoencoderKLQwenImage21(
        base_dim=4,
        decoder_base_dim=4,
        z_dim=channels,
        dim_mult=[1, 1, 1, 1, 1],
        num_res_blocks=0,
        temperal_downsample=[False, True, True, True],
        latents_mean=[0.0] * channels,
        latents_std=[1.0] * channels,
    )
    transformer = QwenImage21Transformer2DModel(
        in_channels=channels,
        out_channels=channels,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        context_in_dim=WIDTH,
        axes_dims_rope=(4, 6, 6),
    )
    return QwenImage21Pipeline(
        scheduler=_flow(base_shift=0.5, max_shift=0.9, shift_terminal=0.02),
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        processor=processor,
        transformer=transformer.eval(),
    )


def save_flux2(folder: Path) -> None:
    torch.manual_seed(0)
    tokenizer = _tokenizer("[IMG]", "[IMG_BREAK]", "[IMG_END]")
    config = Mistral3Config(
        text_config={
            "model_type": "mistral",
            **_text_config(tokenizer, FLUX2_LAYERS),
            "head_dim": 8,
        },
        vision_config={
            "model_type": "pixtral",
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "head_dim": 8,
            "image_size": 32,
            "patch_size": 16,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
    )
    pipeline = Flux2Pipeline(
        text_encoder=Mistral3ForConditionalGeneration(config).eval(),
        tokenizer=tokenizer,
        **_flux2_parts(text_width=3 * WIDTH, guidance=True),
    )
    pipeline.save_pretrained(folder)
    _name_pixtral(folder)


def _name_pixtral(folder: Path) -> None:
    """As the published checkpoint has it: a processor, which only torchvision can build."""
    index = folder / "model_index.json"
    parts = json.loads(index.read_text("utf-8"))
    parts["tokenizer"] = ["transformers", "PixtralProcessor"]
    index.write_text(json.dumps(parts), "utf-8")
    sizes = {"size": {"longest_edge": 32}, "patch_size": 16}
    for name, more in (
        ("processor_config.json", {"spatial_merge_size": 2, "patch_size": 16}),
        ("preprocessor_config.json", {"image_processor_type": "PixtralImageProcessor", **sizes}),
    ):
        content = {"processor_class": "PixtralProcessor", **more}
        (folder / "tokenizer" / name).write_text(json.dumps(content), "utf-8")


def build_flux2_klein() -> Flux2KleinPipeline:
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    config = Qwen3Config(**_text_config(tokenizer, KLEIN_LAYERS), head_dim=8)
    return Flux2KleinPipeline(
        text_encoder=Qwen3ForCausalLM(config).eval(),
        tokenizer=tokenizer,
        is_distilled=True,
        **_flux2_parts(text_width=3 * WIDTH, guidance=False),
    )


def _flux2_parts(text_width: int, guidance: bool) -> dict[str, Any]:
    channels = 4
    return {
        "scheduler": _flow(shift=3.0),
        "vae": AutoencoderKLFlux2(
            block_out_channels=(8, 8, 8, 8),
            layers_per_block=0,
            latent_channels=channels,
            norm_num_groups=4,
            mid_block_add_attention=False,
        ).eval(),
        "transformer": Flux2Transformer2DModel(
            in_channels=4 * channels,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=text_width,
            timestep_guidance_channels=16,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=guidance,
        ).eval(),
    }


def _flow(**settings: Any) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, **settings)


def _tokenizer(*special: str) -> PreTrainedTokenizerFast:
    tokenizer = build_tokenizer([_TEMPLATE, "user system assistant", WORDS])
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    tokenizer.chat_template = _TEMPLATE
    return tokenizer


def _text_config(tokenizer: PreTrainedTokenizerFast, layers: int) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
    }
