"""`cfg` and `guidance_scale`, said in each pipeline's own words."""

from typing import Any

import pytest

from core.errors import InputError
from core.tasks import GenerateTask
from workers.models.guidance import guidance_arguments

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
