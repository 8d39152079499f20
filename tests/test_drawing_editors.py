"""Models that draw and edit with one checkpoint: Qwen-Image-2.1, FLUX.2."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.errors import InputError
from core.messages import Lease
from core.pictures.source_images import read_image
from core.tasks import EditTask, GenerateTask
from tests import tiny_recent_pipelines
from tests.test_native_image_generator import spec_for
from workers.models.registry import create_family

MODELS = ("qwen_image_21", "flux2", "flux2_klein")
SMALL: dict[str, Any] = {"width": 64, "height": 64, "num_inference_steps": 2, "seed": 1}

Loaded = Callable[[str, str], Any]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """The family of a role on a tiny checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoints")

    @cache
    def saved(name: str) -> Path:
        if name == "flux2":
            tiny_recent_pipelines.save_flux2(folder / name)
        else:
            getattr(tiny_recent_pipelines, f"build_{name}")().save_pretrained(folder / name)
        return folder / name

    @cache
    def load(name: str, role: Any) -> Any:
        spec = replace(spec_for(str(saved(name))), role=role)
        family: Any = create_family(spec, lambda level, text: None)
        family.load()
        return family

    return load


def made(family: Any, task: GenerateTask | EditTask) -> Any:
    return family.run([Lease("id", 1, task, None, "fingerprint", "unused.png")])[0]


def pixels(family: Any, task: GenerateTask | EditTask) -> np.ndarray[Any, Any]:
    return np.asarray(made(family, task).image)


def edit(sources: list[str], **fields: Any) -> EditTask:
    given = {**SMALL, "working_area": 64 * 64, **fields}
    return EditTask("make it night", tuple(sources), **given)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_one_checkpoint_draws_and_edits(loaded: Loaded, pictures: list[str], name: str) -> None:
    draws, edits = loaded(name, "generate"), loaded(name, "edit")
    house, tree = (GenerateTask(f"a {what} house", **SMALL) for what in ("red", "blue"))
    assert np.array_equal(pixels(draws, house), pixels(draws, house))
    assert not np.array_equal(pixels(draws, house), pixels(draws, tree))
    one, other, both = edit(pictures[:1]), edit(pictures[1:]), edit(pictures)
    assert np.array_equal(pixels(edits, one), pixels(edits, one))
    assert not np.array_equal(pixels(edits, one), pixels(edits, other))
    assert not np.array_equal(pixels(edits, one), pixels(edits, both)), "it sees all sources"


@pytest.mark.parametrize("name", MODELS)
def test_sources_are_seen_at_the_working_area(
    loaded: Loaded, pictures: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = loaded(name, "edit")
    seen, encode = [], family.pipeline.vae.encode

    def spy(x: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(tuple(x.shape[-2:]))
        return encode(x, *args, **kwargs)

    monkeypatch.setattr(family.pipeline.vae, "encode", spy)
    for side in (64, 96):
        made(family, edit(pictures[:1], working_area=side * side))
    assert seen == [(64, 64), (96, 96)]


def test_pictures_with_an_alpha_channel_keep_it_and_are_read_on_white(
    loaded: Loaded, tmp_path: Path
) -> None:
    """Qwen-Image-2.1 draws in four channels."""
    task = GenerateTask("a house", output_path="a.png", **SMALL)
    picture = made(loaded("qwen_image_21", "generate"), task)
    assert picture.image.mode == "RGBA"
    file = tmp_path / "a.png"
    file.write_bytes(picture.encode(Lease("id", 1, task, None, "fingerprint", "unused.png")))
    assert np.array_equal(np.asarray(Image.open(file)), np.asarray(picture.image))
    on_white = Image.new("RGBA", picture.image.size, "white")
    on_white.alpha_composite(picture.image)
    read = np.asarray(read_image(str(file)), dtype=int)
    assert np.abs(read - np.asarray(on_white.convert("RGB"), dtype=int)).max() <= 1


def test_a_checkpoint_with_steps_of_its_own_says_so(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = loaded("qwen_image_21", "generate")
    config = {**family.pipeline.config, "sample_sigmas": [1.0, 0.7, 0.3]}
    monkeypatch.setattr(family.pipeline, "_internal_dict", type(family.pipeline.config)(config))
    free = GenerateTask("a house", **{**SMALL, "num_inference_steps": None})
    assert made(family, free).used["num_inference_steps"] == 3
    with pytest.raises(InputError, match=r"has a schedule of 3 steps of its own; give 3, or none"):
        made(family, GenerateTask("a house", **SMALL))


def test_one_step_is_refused_where_the_models_schedule_has_none(loaded: Loaded) -> None:
    """diffusers would draw NaN."""
    family = loaded("qwen_image_21", "generate")
    with pytest.raises(InputError, match=r"num_inference_steps: .* give 2 or more \(found 1\)"):
        made(family, GenerateTask("a house", **{**SMALL, "num_inference_steps": 1}))
    assert made(family, GenerateTask("a house", **{**SMALL, "num_inference_steps": 2})).image


@pytest.mark.parametrize("name", ["qwen_image_21"])
def test_guidance_needs_a_negative_prompt_and_two_passes(loaded: Loaded, name: str) -> None:
    family = loaded(name, "generate")
    plain, none, guided = (
        made(family, GenerateTask("a house", cfg=cfg, **SMALL)) for cfg in (None, 1.0, 4.0)
    )
    assert np.array_equal(np.asarray(plain.image), np.asarray(none.image))
    assert not np.array_equal(np.asarray(plain.image), np.asarray(guided.image))
    assert (plain.used["cfg"], guided.used["cfg"]) == (1.0, 4.0)


def test_a_mask_and_a_reference(loaded: Loaded, pictures: list[str], tmp_path: Path) -> None:
    family, mask = loaded("flux2_klein", "edit"), Image.new("L", (80, 80), 0)
    mask.paste(255, (0, 0, 40, 80))
    mask.save(tmp_path / "mask.png")
    given: dict[str, Any] = {"mask": str(tmp_path / "mask.png")}
    one, other = (pixels(family, edit(pictures[:1], seed=seed, **given)) for seed in (1, 2))
    changed = np.abs(one.astype(int) - other).mean(axis=(0, 2))  # by column
    assert changed[:24].mean() > 3 * changed[-16:].mean()
    assert not np.array_equal(one, pixels(family, edit(pictures, **given)))
