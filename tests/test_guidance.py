"""`cfg` and `guidance_scale`, said in each pipeline's own words."""

from typing import Any

import pytest

from core.errors import InputError
from core.tasks import GenerateTask
from workers.models.guidance import guidance_arguments, usual_guidance

USUAL = ("prompt", "guidance_scale", "negative_prompt")
WITH_TRUE_CFG = (*USUAL, "true_cfg_scale")


@pytest.mark.parametrize(
    ("pipeline", "parameters", "fields", "expected"),
    [
        ("ZImagePipeline", USUAL, {"cfg": 1.0}, {"guidance_scale": 0.0}),
        ("ZImagePipeline", USUAL, {"cfg": 4.0}, {"guidance_scale": 3.0}),
        ("Krea2Pipeline", USUAL, {"cfg": 5.5}, {"guidance_scale": 4.5}),
        ("StableDiffusionXLPipeline", USUAL, {"cfg": 7.0}, {"guidance_scale": 7.0}),
        ("QwenImagePipeline", WITH_TRUE_CFG, {"cfg": 1.0}, {"true_cfg_scale": 1.0}),
        (
            "QwenImagePipeline",
            WITH_TRUE_CFG,
            {"cfg": 4.0},
            {"true_cfg_scale": 4.0, "negative_prompt": " "},
        ),
        (
            "FluxPipeline",
            WITH_TRUE_CFG,
            {"cfg": 2.0, "negative_prompt": "rain"},
            {"true_cfg_scale": 2.0, "negative_prompt": "rain"},
        ),
        ("Flux2Pipeline", USUAL, {"cfg": 1.0}, {}),
        ("FluxPipeline", WITH_TRUE_CFG, {"guidance_scale": 3.5}, {"guidance_scale": 3.5}),
        ("ZImagePipeline", USUAL, {}, {}),
        ("NoGuidancePipeline", ("prompt",), {"cfg": 2.0}, {}),
        ("NoGuidancePipeline", ("prompt",), {"guidance_scale": 2.0}, {}),
    ],
)
def test_guidance_reaches_the_pipeline_in_its_own_meaning(
    pipeline: str, parameters: tuple[str, ...], fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert guidance_arguments(pipeline, parameters, GenerateTask("a", **fields)) == expected


def test_a_distilled_pipeline_refuses_what_it_cannot_do() -> None:
    with pytest.raises(InputError, match=r"cfg: Flux2Pipeline is distilled"):
        guidance_arguments("Flux2Pipeline", USUAL, GenerateTask("a", cfg=3.0))


@pytest.mark.parametrize(
    ("pipeline", "taken", "expected"),
    [
        ("ZImagePipeline", {"guidance_scale": 0.0}, {"cfg": 1.0}),
        ("ZImagePipeline", {"guidance_scale": 2.5}, {"cfg": 3.5}),
        ("Krea2Pipeline", {"guidance_scale": 4.5}, {"cfg": 5.5}),
        ("StableDiffusionXLPipeline", {"guidance_scale": 7.0}, {"cfg": 7.0}),
        ("StableDiffusionXLPipeline", {"guidance_scale": 0.0}, {"cfg": 1.0}),  # Turbo
        (
            "QwenImagePipeline",
            {"true_cfg_scale": 4.0, "negative_prompt": " ", "guidance_scale": None},
            {"cfg": 4.0},
        ),
        ("QwenImagePipeline", {"true_cfg_scale": 4.0, "guidance_scale": None}, {"cfg": 1.0}),
        (
            "FluxPipeline",
            {"true_cfg_scale": 1.0, "guidance_scale": 3.5},
            {"cfg": 1.0, "distilled_cfg": 3.5},
        ),
        ("Flux2Pipeline", {"guidance_scale": 4.0}, {"cfg": 1.0, "distilled_cfg": 4.0}),
        ("NoGuidancePipeline", {}, {}),
    ],
)
def test_guidance_is_told_in_the_meaning_that_others_share(
    pipeline: str, taken: dict[str, Any], expected: dict[str, float]
) -> None:
    assert usual_guidance(pipeline, taken) == expected


def test_a_model_that_passes_guidance_over_is_told_to_run_without() -> None:
    taken = {"guidance_scale": 4.0}
    assert usual_guidance("Flux2KleinPipeline", taken, guided=False) == {"cfg": 1.0}


@pytest.mark.parametrize("cfg", [0.0, 1.0, 1.1, 3.3, 7.7, 12.345])
@pytest.mark.parametrize("pipeline", ["ZImagePipeline", "StableDiffusionXLPipeline"])
def test_what_is_told_of_guidance_asks_for_the_same_again(pipeline: str, cfg: float) -> None:
    first = guidance_arguments(pipeline, USUAL, GenerateTask("a", cfg=cfg))
    told = usual_guidance(pipeline, first)["cfg"]
    again = guidance_arguments(pipeline, USUAL, GenerateTask("a", cfg=told))
    assert usual_guidance(pipeline, again)["cfg"] == told == max(1.0, cfg)
