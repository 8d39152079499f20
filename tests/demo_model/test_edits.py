"""Edits of scenes, their objective check, and what the judge learns from."""

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from demo_model.edit_checker import edit_right, read_picture
from demo_model.editor_parts import DROPPED, PICTURE, TEMPLATE, build_pipeline
from demo_model.edits import CATEGORIES, Edit, instruction_words, sample_edit, untrained
from demo_model.judge_parts import build_judge
from demo_model.judged_edits import (
    DEEDS,
    GRID,
    MALFORMED,
    SPOILT,
    WORST,
    Deed,
    judge_picture,
    sample_judged,
)
from demo_model.scenes import POSITIONS, SKIES, render

# Success and over-editing; 0 is bad, 10 is good.
DESERVED = {"right": (10, 10), "unedited": (0, 10), "other": (0, 4), "too_much": (10, 4)}


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_check_accepts_the_right_picture_alone(category: str) -> None:
    rng = random.Random(3)
    edits = [sample_edit(rng, category) for _ in range(4)]
    assert all(edit_right(e.after(), e) for e in edits)
    assert not any(edit_right(e.before(), e) for e in edits)
    others = itertools.pairwise(edits)
    assert not any(edit_right(other.after(), e) for e, other in others)


def test_an_edit_that_spoils_the_rest_is_not_right() -> None:
    edit = sample_edit(random.Random(1), "colour")
    spoilt = edit.after().point(lambda value: min(255, value + 40))
    assert not edit_right(spoilt, edit)


def test_an_edit_that_spoils_an_object_is_not_right() -> None:
    edit = sample_edit(random.Random(1), "sky")
    assert not edit_right(_smeared(edit), edit)


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_scene_that_an_editor_drew_is_read_from_its_picture(category: str) -> None:
    rng = random.Random(6)
    for _ in range(2):
        edit = sample_edit(rng, category)
        for scene, shifts in (edit.target, edit.target_shifts), (edit.source, edit.shifts):
            for changed in scene, replace(scene, sky=rng.choice(list(SKIES))):
                picture = render(changed, shifts=shifts)
                assert read_picture(picture, edit) == (changed, shifts)


def test_the_wrong_object_removed_or_moved_is_read_as_that() -> None:
    rng = random.Random(7)
    edits = [sample_edit(rng, "remove") for _ in range(20)]
    edit = next(e for e in edits if len(e.source.things) == 2)
    [kept] = [i for i, thing in enumerate(edit.source.things) if thing in edit.target.things]
    gone, shifts = edit.source.with_thing(kept, None), (edit.shifts[1 - kept],)
    assert read_picture(render(gone, shifts=shifts), edit) == (gone, shifts)
    [free] = set(POSITIONS) - {thing.position for thing in edit.source.things}
    moved = edit.source.with_thing(kept, replace(edit.source.things[kept], position=free))
    assert read_picture(render(moved, shifts=edit.shifts), edit) == (moved, edit.shifts)


def test_held_out_combinations_are_never_trained() -> None:
    rng = random.Random(0)
    assert not any(sample_edit(rng).held_out for _ in range(400))
    assert all(untrained(rng, "colour").held_out for _ in range(5))


def test_the_same_seed_gives_the_same_edit() -> None:
    first, second = (sample_edit(random.Random(5)) for _ in "ab")
    assert first == second
    assert np.array_equal(np.asarray(first.before(96, 160)), np.asarray(second.before(96, 160)))


def test_every_instruction_is_made_of_known_words() -> None:
    rng = random.Random(2)
    words = set(instruction_words())
    for _ in range(300):
        assert set(sample_edit(rng).instruction.split()) <= words


def test_the_editors_template_is_longer_than_what_the_pipeline_drops() -> None:
    tokenizer = build_pipeline(64, 1, 8, (1, 1, 1, 1), 64).tokenizer
    before = TEMPLATE.split("{}")[0]
    assert len(tokenizer(before).input_ids) >= DROPPED
    whole = tokenizer(TEMPLATE.format(PICTURE + "make it night")).input_ids
    assert tokenizer.unk_token_id not in whole


@pytest.mark.parametrize("deed", DEEDS)
def test_a_judged_edit_shows_what_it_deserves(deed: Deed) -> None:
    rng = random.Random(4)
    for _ in range(6):
        judged = sample_judged(rng, deed, damaged=False)
        assert judged.consistency == DESERVED[deed] and judged.quality == (10, 10)
        assert edit_right(judged.after, judged.edit) == (deed == "right")


def test_an_editors_picture_gets_what_it_deserves() -> None:
    rng = random.Random(5)
    edit = sample_edit(rng, "colour")
    rng.random = lambda: 1.0  # type: ignore[method-assign]  # with the instruction it was given
    fine = judge_picture(edit, edit.after(), rng)
    assert fine.consistency == (10, 10) and fine.quality == (10, 10)
    lazy = judge_picture(edit, edit.before(), rng)
    assert lazy.consistency == (0, 10) and lazy.quality == (10, 10)
    poor = judge_picture(edit, _smeared(edit), rng)
    assert poor.quality == (10 - max(poor.malformed), 10 - max(map(max, poor.damage)))
    assert max(poor.quality) < 10
    assert poor.damage[0] == [0] * GRID, "only below it is smeared"
    assert 2 * len(SPOILT) == len(MALFORMED) == WORST
    rng.random = lambda: 0.0  # type: ignore[method-assign]  # with another
    assert judge_picture(edit, edit.after(), rng).consistency[0] == 0


def _smeared(edit: Edit) -> Image.Image:
    """As asked for, with the lower half, where objects stand, out of focus."""
    picture = edit.after()
    box = (0, picture.height // 2, picture.width, picture.height)
    picture.paste(picture.crop(box).filter(ImageFilter.GaussianBlur(16)), box)
    return picture


def test_the_judges_answer_comes_back_as_json() -> None:
    _, processor = build_judge(["how good"], 64, 1, 32, 1)
    tokenizer = processor.tokenizer
    text = '{"score": [10, 4]}'
    ids = tokenizer(text).input_ids
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == '{"score":[10,4]}'
