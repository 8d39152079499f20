"""Editing pipelines of diffusers, whole and with random weights, by their signature."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from core.errors import InputError
from core.messages import Lease
from core.tasks import EditTask
from tests.test_native_image_generator import spec_for

EDITORS = ("qwen_image_edit_plus", "qwen_image_edit", "flux_kontext")
SMALL: dict[str, Any] = {
    "width": 32, "height": 32, "working_area": 32 * 32, "condition_area": 32 * 32,
    "num_inference_steps": 2, "true_cfg_scale": 1.0, "seed": 1,
}  # fmt: skip

Loaded = Callable[[str], Any]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """The editor on a checkpoint built by `tests.tiny_pipelines.build_…`."""
    folders: dict[str, Path] = {}

    def load(name: str) -> Any:
        from tests import tiny_pipelines
        from workers.models.native_image_editor import NativeImageEditor

        if name not in folders:
            folders[name] = tmp_path_factory.mktemp("editors") / name
            getattr(tiny_pipelines, f"build_{name}")().save_pretrained(folders[name])
        spec = replace(spec_for(str(folders[name])), role="edit")
        editor = NativeImageEditor(spec, lambda level, text: None)
        editor.load()
        return editor

    return load


def mask_of(folder: Path, white: int) -> str:
    """A mask that is white up to a column."""
    file = folder / f"{white}.png"
    mask = Image.new("L", (80, 80), 0)
    mask.paste(255, (0, 0, white, 80))
    mask.save(file)
    return str(file)


@pytest.fixture(scope="module")
def left_half(tmp_path_factory: pytest.TempPathFactory) -> str:
    return mask_of(tmp_path_factory.mktemp("masks"), 40)


@pytest.fixture(scope="module")
def nowhere(tmp_path_factory: pytest.TempPathFactory) -> str:
    return mask_of(tmp_path_factory.mktemp("masks"), 0)


def edited(editor: Any, sources: list[str], **fields: Any) -> Any:
    given = {"instruction": "make it night", **SMALL, **fields}
    task = EditTask(source_images=tuple(sources), **given)
    return editor.run([Lease("id", 1, task, None, "fingerprint", "unused.png")])[0]


@pytest.mark.parametrize("name", EDITORS)
def test_an_editor_draws_by_source_and_seed(loaded: Loaded, pictures: list[str], name: str) -> None:
    editor = loaded(name)
    first = edited(editor, pictures[:1])
    assert first.image.size == (32, 32)
    assert first.used["num_inference_steps"] == 2
    pixels = np.asarray(first.image)
    assert np.array_equal(pixels, np.asarray(edited(editor, pictures[:1]).image))
    assert not np.array_equal(pixels, np.asarray(edited(editor, pictures[1:]).image))
    assert not np.array_equal(pixels, np.asarray(edited(editor, pictures[:1], seed=2).image))


@pytest.mark.parametrize("name", ["qwen_image_edit_plus", "qwen_image_edit"])
def test_the_text_encoder_sees_pictures_in_the_plane(
    loaded: Loaded, pictures: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Qwen2.5-VL was trained: a picture's tokens differ in their row and column."""
    editor = loaded(name)
    model = editor.pipeline.text_encoder.model.language_model
    seen = []
    forward = model.forward

    def spy(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["position_ids"])
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", spy)
    edited(editor, pictures[:1], condition_area=112 * 112, working_area=64 * 64)
    time, row, column = seen[0][-3:, 0]
    assert not row.equal(column) and not row.equal(time)


@pytest.mark.parametrize("name", EDITORS)
def test_the_working_resolution_is_the_tasks(
    loaded: Loaded, pictures: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = loaded(name)
    seen = []
    encode = editor.pipeline.vae.encode

    def spy(x: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(tuple(x.shape[-2:]))
        return encode(x, *args, **kwargs)

    monkeypatch.setattr(editor.pipeline.vae, "encode", spy)
    edited(editor, pictures[:1])
    edited(editor, pictures[:1], working_area=64 * 64)
    assert seen == [(32, 32), (64, 64)]


def test_several_sources_where_the_pipeline_takes_them(loaded: Loaded, pictures: list[str]) -> None:
    several = edited(loaded("qwen_image_edit_plus"), pictures)
    one = edited(loaded("qwen_image_edit_plus"), pictures[:1])
    assert not np.array_equal(np.asarray(several.image), np.asarray(one.image))
    with pytest.raises(InputError, match="takes one picture, 2 are given"):
        edited(loaded("qwen_image_edit"), pictures)


def test_a_mask_is_white_or_transparent_where_a_picture_may_change(
    tmp_path: Path, left_half: str
) -> None:
    from workers.models.masked_editing import read_mask

    white = read_mask(left_half, None)
    with Image.open(left_half) as mask:
        colours = Image.new("RGB", mask.size, (200, 90, 240))
        colours.putalpha(ImageOps.invert(mask))
    colours.save(tmp_path / "clear.png")
    Image.open(left_half).convert("RGBA").save(tmp_path / "opaque.png")
    for name in ("clear.png", "opaque.png"):
        assert read_mask(str(tmp_path / name), None).tobytes() == white.tobytes(), name


@pytest.mark.parametrize("name", ["qwen_image_edit", "flux_kontext"])
def test_an_edit_stays_within_its_mask(
    loaded: Loaded, pictures: list[str], left_half: str, nowhere: str, name: str
) -> None:
    editor = loaded(name)

    def drawn(mask: str, instruction: str) -> Any:
        return np.asarray(edited(editor, pictures[:1], mask=mask, instruction=instruction).image)

    assert np.array_equal(drawn(nowhere, "make it night"), drawn(nowhere, "make it winter"))
    assert not np.array_equal(drawn(left_half, "make it night"), drawn(left_half, "make it winter"))
    free = np.asarray(edited(editor, pictures[:1]).image)
    assert np.array_equal(free, np.asarray(edited(editor, pictures[:1]).image)), "with none as ever"


def test_references_within_a_mask_where_the_pipeline_takes_them(
    loaded: Loaded, pictures: list[str], left_half: str
) -> None:
    with_one = edited(loaded("flux_kontext"), pictures, mask=left_half)
    assert not np.array_equal(
        np.asarray(with_one.image),
        np.asarray(edited(loaded("flux_kontext"), pictures[:1], mask=left_half).image),
    )
    with pytest.raises(InputError, match="with a mask QwenImageEditInpaintPipeline takes one"):
        edited(loaded("qwen_image_edit"), pictures, mask=left_half)
    with pytest.raises(InputError, match="'QwenImageEditPlusPipeline' takes no mask"):
        edited(loaded("qwen_image_edit_plus"), pictures[:1], mask=left_half)


def test_true_cfg_with_a_negative_prompt_changes_the_picture(
    loaded: Loaded, pictures: list[str]
) -> None:
    editor = loaded("qwen_image_edit_plus")
    plain = edited(editor, pictures[:1])
    guided = edited(editor, pictures[:1], true_cfg_scale=4.0, negative_prompt=" ")
    assert not np.array_equal(np.asarray(plain.image), np.asarray(guided.image))
    assert guided.used["true_cfg_scale"] == 4.0


@pytest.mark.parametrize("name", ["qwen_image", "flux_inpaint", "qwen_image_img2img"])
def test_what_edits_nothing_by_instruction_is_refused(loaded: Loaded, name: str) -> None:
    with pytest.raises(InputError, match="edits nothing by instruction"):
        loaded(name)


def test_a_source_that_broke_since_it_was_checked_is_named(loaded: Loaded, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    with pytest.raises(InputError, match=r"x\.png"):
        edited(loaded("qwen_image_edit_plus"), [str(tmp_path / "x.png")])


@pytest.mark.parametrize("name", ["qwen_image_edit_plus", "qwen_image_edit"])
def test_an_instruction_is_cut_where_the_transformer_has_no_more_positions(
    loaded: Loaded, pictures: list[str], name: str
) -> None:
    editor = loaded(name)
    long = edited(editor, pictures[:1], instruction="make it red " * 1600, num_inference_steps=1)
    [said] = long.remarks
    assert said.startswith("instruction has 4800 tokens, the model takes 3")
    taken = int(said.partition("takes ")[2].split()[0])
    words = ("make it red " * 1600).split()[:taken]
    cut = edited(editor, pictures[:1], instruction=" ".join(words), num_inference_steps=1)
    assert cut.remarks == () and np.array_equal(np.asarray(long.image), np.asarray(cut.image))


def test_kontext_says_where_an_instruction_is_cut(loaded: Loaded, pictures: list[str]) -> None:
    [said] = edited(loaded("flux_kontext"), pictures[:1], instruction="ab" * 60).remarks
    assert said.startswith("instruction: CLIP takes 75 of 120 tokens")
    assert edited(loaded("flux_kontext"), pictures[:1]).remarks == ()
