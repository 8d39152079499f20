"""What the settings of a picture are called, here and in other programs.

Names are compared without regard to case and to what stands between words: `cfg_scale`, `cfgScale`
and `CFG scale` are one name. The last names of some are Chinese. docs/TWEETS.md shows these tables
to users.
"""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from types import MappingProxyType
from typing import Any


def plain(key: str) -> str:
    """A name as names are compared."""
    return re.sub(r"[\W_]+", "", key.casefold())


def _names(words: str) -> frozenset[str]:
    return frozenset(map(plain, words.split()))


SETTINGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {  # field of GenerateTask (`size` is both of its sides): names for it, the usual one first
        "negative_prompt": (
            "negative_prompt", "negative", "neg_prompt", "n_prompt", "prompt_negative", "neg", "uc",
            "负面提示词", "反向提示词", "负向提示词",
        ),
        "width": ("width", "image_width", "img_width", "output_width", "w", "宽", "宽度"),
        "height": ("height", "image_height", "img_height", "output_height", "h", "高", "高度"),
        "size": (
            "size", "image_size", "img_size", "output_size", "resolution", "dimensions", "尺寸",
            "分辨率",
        ),
        "num_inference_steps": (
            "steps", "num_inference_steps", "inference_steps", "num_steps", "n_steps",
            "sampling_steps", "sample_steps", "sampler_steps", "denoising_steps",
            "diffusion_steps", "ddim_steps", "step_count", "步数", "采样步数",
        ),
        "cfg": (
            "cfg", "cfg_scale", "cfg_value", "true_cfg_scale", "true_cfg",
            "classifier_free_guidance", "classifier_free_guidance_scale",
            "unconditional_guidance_scale",
        ),
        "guidance_scale": (
            "guidance_scale", "guidance", "distilled_guidance_scale", "distilled_guidance",
            "distilled_cfg_scale", "distilled_cfg", "embedded_guidance_scale",
            "embedded_guidance", "flux_guidance_scale", "flux_guidance",
        ),
        "seed": (
            "seed", "noise_seed", "rng_seed", "random_seed", "rand_seed", "image_seed",
            "manual_seed", "generator_seed", "seed_value", "种子", "随机种子",
        ),
        "lora_path": (
            "lora_path", "lora_model_path", "lora_file", "lora_file_path", "lora_filename",
            "lora_name", "lora_model",
        ),
        "lora_strength": (
            "lora_strength", "lora_weight", "lora_scale", "lora_multiplier", "lora_strength_model",
        ),
        "output_path": ("output_path", "output_file"),
        "picture_quality": ("picture_quality", "output_quality", "jpeg_quality", "webp_quality"),
        "task_id": ("task_id",),
        "metadata": ("metadata",),
    }
)  # fmt: skip
PROMPTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "prompt": ("prompt", "image_prompt", "input_prompt", "提示词", "正面提示词"),
        "positive_prompt": ("positive_prompt", "positive"),
        "scene_hint": ("scene_hint",),
        "tweet_text": ("tweet_text",),
    }
)
CONTAINERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {  # objects inside of which settings stand
        "image_generation": ("image_generation", "image_gen"),
        "generation_params": (
            "generation_params", "generation_parameters", "generation_settings", "gen_params",
            "image_params", "parameters", "params", "settings", "sui_image_params",
        ),
        "lora": ("lora_params", "lora", "loras", "lora_config", "lora_settings"),
    }
)  # fmt: skip
LORA_FIELDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {  # inside of an object that is a LoRA; its name is its file where no file is given
        "file": (
            "model_path", "path", "file", "filename", "file_path", "lora_path", "lora_model_path",
            "lora_file", "lora",
        ),
        "name": ("name", "lora_name", "model_name", "model"),
        "enabled": ("enabled", "is_enabled", "active", "on"),
        "strength": (
            "strength", "weight", "scale", "multiplier", "lora_strength", "lora_weight",
            "lora_scale", "strength_model", "model_strength",
        ),
    }
)  # fmt: skip
_STRENGTHS = _names("lora_strengths lora_weights lora_scales lora_multipliers")
# What other programs set and this one does not. Where texts about a tweet stand beside settings,
# only these are worth a word; and none of them is one of ours misspelt.
_FOREIGN = _names(
    """
sampler sampler_name sampler_index sampling_method scheduler scheduler_name schedule_type denoise
denoising denoising_strength strength model model_id model_name model_path model_hash base_model
sd_model sd_model_name sd_model_hash checkpoint ckpt ckpt_name unet unet_name vae vae_name clip_skip
clip_stop_at_last_layers batch_size batch_count n_iter n num_images num_outputs num_samples
num_images_per_prompt number_of_images enable_hr hires hires_fix hires_steps hires_upscale
hires_upscaler hr_scale hr_upscaler hr_second_pass_steps hr_resize_x hr_resize_y firstphase_width
firstphase_height restore_faces tiling eta s_churn s_tmin s_tmax s_noise s_min_uncond subseed
subseed_strength variation_seed variation_seed_strength var_seed var_seed_strength
seed_resize_from_w seed_resize_from_h wildcard_seed randomize_seed rand_device ensd refiner
refiner_checkpoint refiner_switch refiner_switch_at refiner_steps refiner_model cfg_rescale
cfg_rescale_multiplier guidance_rescale image_cfg_scale image_guidance_scale cfg_start cfg_end
control_after_generate controlnet controlnets control_net ip_adapter ip_adapters t2i_adapters
init_image init_images mask upscale upscaler styles style_preset aspect_ratio output_format
response_format image_format quality safety_checker enable_safety_checker shift sigma
sigmas timesteps start_at_step end_at_step add_noise max_sequence_length prompt_2 negative_prompt_2
prompt_3 negative_prompt_3 original_width original_height target_width target_height
crops_coords_top_left override_settings alwayson_scripts script_name script_args weight lora_weights
lora_clip_strength lora_strength_clip lora_hashes clip_strength strength_clip trigger_word
trigger_words dtype precision device torch_dtype
"""
)
_PARTS_OF_FOREIGN = (
    "sampler", "schedul", "denois", "cfg", "guidance", "seed", "lora", "latent", "upscal",
    "controlnet", "checkpoint",
)  # fmt: skip
# Of an entry, without a meaning for its picture.
_CONTENT = _names(
    """
id index slot version persona persona_name content_type subtype mood text title caption description
notes note comment comments tags tag hashtags category categories topic language lang author user
username date time created_at timestamp url source split kind seed_is_random
"""
)
ALIKE = 0.8  # of two keys, as difflib measures it: one is the other misspelt
_LONGEST = 60  # characters of a key that may be one of ours, perhaps misspelt


def _by_name(table: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    found = {plain(name): meaning for meaning, names in table.items() for name in names}
    assert len(found) == sum(map(len, table.values())), "one name, two meanings"
    return found


_SETTINGS, _PROMPTS = _by_name(SETTINGS), _by_name(PROMPTS)
_CONTAINERS, _LORA = _by_name(CONTAINERS), _by_name(LORA_FIELDS)
_COMPARED = [
    *SETTINGS, "steps", "cfg_scale", *PROMPTS, "image_generation", "generation_params",
    "lora_params",
]  # fmt: skip
_COMPARED_LORA = ["model_path", "strength"]


def compared(key: Any) -> str:
    """A key as keys are compared; empty for what is too long to be one of ours."""
    return _plain_kept(key) if isinstance(key, str) and len(key) <= _LONGEST else ""


_plain_kept = lru_cache(maxsize=4096)(plain)


def setting(key: Any) -> str | None:
    """The field of GenerateTask (or `size`) that a key means."""
    return _SETTINGS.get(compared(key))


def prompt_source(key: Any) -> str | None:
    """Which of PROMPTS a key means."""
    return _PROMPTS.get(compared(key))


def container(key: Any) -> str | None:
    """Which of CONTAINERS a key means."""
    return _CONTAINERS.get(compared(key))


def lora_field(key: Any) -> str | None:
    """Which of LORA_FIELDS a key inside of a LoRA means."""
    return _LORA.get(compared(key))


def holds_strengths(key: Any) -> bool:
    """Whether a list of numbers under a key is the strengths of several LoRAs."""
    return compared(key) in _STRENGTHS or setting(key) == "lora_strength"


def is_foreign(key: Any) -> bool:
    """Whether a key is certainly a setting of other programs."""
    return compared(key) in _FOREIGN


def looks_like_a_setting(key: Any) -> bool:
    """Whether a key in the midst of texts is worth a word where it means nothing here."""
    name = compared(key)
    return (
        is_foreign(key)
        or any(part in name for part in _PARTS_OF_FOREIGN)
        or (isinstance(key, str) and meant(key) is not None)
    )


def is_content(key: Any) -> bool:
    """Whether a key says something about a tweet, and nothing about its picture."""
    return compared(key) in _CONTENT


@lru_cache(maxsize=4096)
def meant(key: str, in_lora: bool = False) -> str | None:
    """The name of ours of which an unknown key may be a misspelling."""
    if len(key) > _LONGEST or is_foreign(key):
        return None
    names = _COMPARED_LORA if in_lora else _COMPARED
    near = get_close_matches(re.sub(r"[\W_]+", "_", key.casefold()), names, 1, ALIKE)
    return near[0] if near else None
