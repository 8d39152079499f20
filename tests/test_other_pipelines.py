"""The same class draws with SDXL, FLUX and Qwen-Image, and refuses what draws nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import InputError
from tests.test_native_image_generator import SMALL, drawn, lease, spec_for

FAMILIES = ("sdxl", "flux", "qwen_image")
GUIDES_WITH_TRUE_CFG = ("FluxPipeline", "QwenImagePipeline")

SaveModel = Callable[[str], Path]


@pytest.fixture(scope="module")
def save_model(tmp_path_factory: pytest.TempPathFactory) -> SaveModel:
    """Builds `tests.tiny_pipelines.build_…` and returns the folder of its checkpoint."""

    def save(name: str) -> Path:
        from tests import tiny_pipelines

        folder = tmp_path_factory.mktemp("models") / name
        getattr(tiny_pipelines, f"build_{name}")().save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, save_model: SaveModel) -> Path:
    return save_model(request.param)


@pytest.fixture
def family(model: Path) -> Any:
    return loaded(model)


def loaded(model: Path, **changes: Any) -> Any:
    from dataclasses import replace

    from workers.models.native_image_generator import NativeImageGenerator

    spec = replace(spec_for(str(model)), **changes)
    native = NativeImageGenerator(spec, lambda level, text: None)
    native.load()
    return native


def name_of(family: Any) -> str:
    return type(family.pipeline).__name__


def denoiser(pipeline: Any) -> Any:
    return pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer


# -- pictures ----------------------------------------------------------------------------------


def test_each_family_draws_the_asked_size_from_prompt_and_seed(family: Any) -> None:
    asked: dict[str, Any] = {"width": 48, "height": 32}
    picture = drawn(family, **asked)
    assert picture.shape == (32, 48, 3) and picture.std() > 0
    assert np.array_equal(picture, drawn(family, **asked))
    assert not np.array_equal(picture, drawn(family, **asked, seed=2))
    assert not np.array_equal(picture, drawn(family, **asked, prompt="a blue tree"))


def test_a_picture_has_the_pixels_that_diffusers_gives_it(family: Any) -> None:
    import torch

    found = drawn(family)
    arguments = family.arguments(lease())
    noise = torch.Generator().manual_seed(lease().task.seed or 0)
    [picture] = family.pipeline(**arguments, generator=noise, output_type="pil").images
    assert np.array_equal(found, np.asarray(picture))


def test_used_names_the_pipeline_its_sampler_and_the_steps(family: Any) -> None:
    used = family.run([lease(num_inference_steps=3)])[0].used
    sampler = {"StableDiffusionXLPipeline": "EulerDiscrete"}
    assert used["pipeline"] == name_of(family)
    assert used["sampler"] == sampler.get(used["pipeline"], "FlowMatchEulerDiscrete")
    assert (used["num_inference_steps"], used["width"], used["height"]) == (3, 32, 32)


def test_each_family_draws_in_bfloat16(model: Path) -> None:
    import torch

    half = loaded(model, dtype="bfloat16")
    assert next(denoiser(half.pipeline).parameters()).dtype == torch.bfloat16
    picture = drawn(half)
    assert picture.std() > 0
    assert np.array_equal(picture, drawn(half))


def test_each_family_still_draws_after_it_freed_memory(family: Any) -> None:
    assert family.free_memory().startswith("trying again")
    assert drawn(family, width=64, height=32).shape == (32, 64, 3)


# -- guidance ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "passes_per_step"),
    [
        ({"cfg": 0.5}, 1),
        ({"cfg": 1.0}, 1),
        ({"cfg": 1.0, "negative_prompt": "rain"}, 1),
        ({"cfg": 1.5}, 2),
        ({"cfg": 3.0}, 2),
        ({"cfg": 3.0, "negative_prompt": "rain"}, 2),
    ],
)
def test_only_cfg_above_1_costs_a_second_pass(
    family: Any, fields: dict[str, Any], passes_per_step: int
) -> None:
    passes = 0

    def count(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        nonlocal passes
        # SDXL runs both passes as one batch.
        passes += len(args[0] if args else kwargs["hidden_states"])

    hook = denoiser(family.pipeline).register_forward_hook(count, with_kwargs=True)
    drawn(family, **fields)
    hook.remove()
    assert passes == passes_per_step * SMALL["num_inference_steps"]


@pytest.mark.parametrize("negative_prompt", [None, "rain"])
def test_cfg_is_said_in_the_words_of_the_pipeline(family: Any, negative_prompt: str | None) -> None:
    import torch

    if name_of(family) in GUIDES_WITH_TRUE_CFG:
        # Without a negative prompt these pipelines would not guide.
        own = {"true_cfg_scale": 3.0, "negative_prompt": negative_prompt or " "}
    else:
        own = {"guidance_scale": 3.0, "negative_prompt": negative_prompt}
    generator = torch.Generator("cpu").manual_seed(1)
    output = family.pipeline("a red house", generator=generator, **SMALL, **own)
    ours = drawn(family, cfg=3.0, negative_prompt=negative_prompt)
    assert np.array_equal(ours, np.asarray(output.images[0]))


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_used_says_the_guidance_as_the_pipeline_took_it(family: Any, cfg: float) -> None:
    used = family.run([lease(cfg=cfg)])[0].used
    taken = {k: used.get(k) for k in ("guidance_scale", "true_cfg_scale")}
    assert taken == {
        "StableDiffusionXLPipeline": {"guidance_scale": cfg, "true_cfg_scale": None},
        # The distilled guidance, an input of the transformer, stays at the pipeline's default.
        "FluxPipeline": {"guidance_scale": 3.5, "true_cfg_scale": cfg},
        "QwenImagePipeline": {"guidance_scale": None, "true_cfg_scale": cfg},
    }.get(used["pipeline"])


def test_a_negative_prompt_counts_only_with_guidance(family: Any) -> None:
    rain: dict[str, Any] = {"negative_prompt": "rain"}
    assert not np.array_equal(drawn(family, cfg=3.0), drawn(family, cfg=3.0, **rain))
    assert np.array_equal(drawn(family, cfg=1.0), drawn(family, cfg=1.0, **rain))


def test_guidance_scale_keeps_the_meaning_of_the_pipeline(save_model: SaveModel) -> None:
    sdxl, flux = loaded(save_model("sdxl")), loaded(save_model("flux"))
    assert np.array_equal(drawn(sdxl, guidance_scale=3.0), drawn(sdxl, cfg=3.0))
    used = flux.run([lease(guidance_scale=7.0)])[0].used
    assert used["guidance_scale"] == 7.0 and "true_cfg_scale" not in used
    assert not np.array_equal(drawn(flux, guidance_scale=7.0), drawn(flux, guidance_scale=1.0))


# -- LoRAs -------------------------------------------------------------------------------------


def test_each_family_takes_a_lora_and_forgets_it(family: Any, tmp_path: Path) -> None:
    lora = save_lora(family, tmp_path)
    plain = drawn(family)
    styled = drawn(family, lora)
    assert not np.array_equal(plain, styled)
    assert np.array_equal(plain, drawn(family))
    assert np.array_equal(styled, drawn(family, lora))


def save_lora(family: Any, folder: Path) -> Path:
    """A LoRA with random weights for the model that `family` has loaded."""
    import torch
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    torch.manual_seed(0)
    pipeline = type(family.pipeline).from_pretrained(family.spec.model)
    module = denoiser(pipeline)
    config = LoraConfig(r=2, lora_alpha=2, init_lora_weights=False, target_modules=["to_q", "to_v"])
    module.add_adapter(config, adapter_name="a")
    weights = get_peft_model_state_dict(module, adapter_name="a")
    part = "unet" if hasattr(pipeline, "unet") else "transformer"
    if part == "unet":
        weights = convert_state_dict_to_diffusers(weights)
    pipeline.save_lora_weights(
        folder, weight_name="style.safetensors", **{f"{part}_lora_layers": weights}
    )
    return folder / "style.safetensors"


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "pipeline_class"),
    [
        ("unconditional", "DDPMPipeline"),
        ("flux_redux", "FluxPriorReduxPipeline"),
        ("sdxl_img2img", "StableDiffusionXLImg2ImgPipeline"),
        ("flux_img2img", "FluxImg2ImgPipeline"),
        ("flux_inpaint", "FluxInpaintPipeline"),
        ("qwen_image_img2img", "QwenImageImg2ImgPipeline"),
    ],
)
def test_a_pipeline_that_draws_nothing_from_a_prompt_is_refused_by_name(
    save_model: SaveModel, name: str, pipeline_class: str
) -> None:
    with pytest.raises(InputError, match=f"is a {pipeline_class}, which draws nothing"):
        loaded(save_model(name))


def test_a_pipeline_that_can_do_without_its_image_is_taken(save_model: SaveModel) -> None:
    kontext = loaded(save_model("flux_kontext"))
    assert name_of(kontext) == "FluxKontextPipeline"


def test_a_picture_that_a_safety_checker_painted_black_is_no_success(
    family: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = type(family.pipeline).__call__

    def flagged(pipeline: Any, **arguments: Any) -> Any:
        output = draw(pipeline, **arguments)
        output.nsfw_content_detected = [True]
        return output

    monkeypatch.setattr(type(family.pipeline), "__call__", flagged)
    with pytest.raises(InputError, match="safety checker"):
        drawn(family)


@pytest.mark.parametrize(
    ("capability", "dtype"), [((7, 5), "float16"), ((8, 0), "bfloat16"), ((12, 0), "bfloat16")]
)
def test_auto_dtype_is_what_the_gpu_computes_in(
    capability: tuple[int, int], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from workers.torch_device import dtype_of

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert dtype_of(spec_for("-"), torch.device("cuda")) == getattr(torch, dtype)
