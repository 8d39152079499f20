"""Renderer, captions and checker agree with each other."""

import random

import numpy as np
import pytest

from demo_model.captions import caption, plain_caption
from demo_model.checker import all_right, check
from demo_model.scenes import COLOURS, GROUNDS, KINDS, SKIES, held_out, render, sample_scene
from demo_model.styles import STYLES, render_styled
from demo_model.vocabulary import names_no_place, unknown_words


def test_the_same_scene_gives_the_same_picture() -> None:
    scene = sample_scene(random.Random(3))
    assert scene == sample_scene(random.Random(3))
    first, second = (np.asarray(render(scene, 96, 128, random.Random(1))) for _ in range(2))
    assert first.shape == (128, 96, 3) and np.array_equal(first, second)


def test_a_part_is_drawn_as_the_whole_has_it() -> None:
    rng = random.Random(4)
    for width, height, part in ((128, 128, (20, 61, 70, 112)), (96, 160, (12, 3, 13, 90))):
        scene = sample_scene(rng)
        left, top, right, bottom = part
        whole = np.asarray(render(scene, width, height)).astype(float)[top:bottom, left:right]
        drawn = np.asarray(render(scene, width, height, part=part))
        assert drawn.shape == whole.shape and np.abs(drawn - whole).mean() < 0.2


def test_the_vocabulary_is_wide_enough() -> None:
    assert len(KINDS) >= 12 and len(COLOURS) >= 8 and len(SKIES) == 5 and len(GROUNDS) == 5


def test_held_out_pairs_are_never_trained() -> None:
    rng = random.Random(0)
    things = [t for _ in range(500) for t in sample_scene(rng).things]
    assert not any(held_out(t.colour, t.kind) for t in things)
    share = np.mean([held_out(c, k) for c in COLOURS for k in KINDS])
    assert 0.08 < share < 0.2


def test_captions_use_known_words_and_name_every_object() -> None:
    rng = random.Random(0)
    for _ in range(300):
        scene = sample_scene(rng)
        assert not unknown_words(caption(scene, rng))
        words = plain_caption(scene).split()
        for thing in scene.things:
            assert thing.colour in words and thing.kind in words and thing.position in words


def test_unknown_words_are_told() -> None:
    assert unknown_words("A red dragon on the left, a Dragon!") == ["dragon"]


@pytest.mark.parametrize(
    ("prompt", "is_vague"),
    [
        ("a red house on grass at noon", True),
        ("A House!", True),
        ("a red house on the left", False),
        ("a boat in the Centre, on water", False),
        ("the sea at night", False),  # nothing that could stand somewhere
    ],
)
def test_a_prompt_that_names_no_place_for_its_object_is_told(prompt: str, is_vague: bool) -> None:
    assert names_no_place(prompt) == is_vague


def test_no_caption_of_the_training_names_an_object_without_its_place() -> None:
    """So that a prompt without one is none that the model has learnt."""
    rng = random.Random(3)
    captions = [caption(sample_scene(rng), rng) for _ in range(500)]
    assert not [text for text in captions if names_no_place(text)]


@pytest.mark.parametrize("objects", [1, 2])
def test_the_checker_accepts_renders_and_rejects_others(objects: int) -> None:
    rng = random.Random(objects)
    scenes = [sample_scene(rng, trained_pairs_only=False, objects=objects) for _ in range(12)][:6]
    pictures = [render(s, rng=rng) for s in scenes]
    assert all(all_right(p, s) for p, s in zip(pictures, scenes, strict=True))
    others = zip(pictures, scenes[1:] + scenes[:1], strict=True)
    assert not any(all_right(p, s) for p, s in others)


def test_the_checker_names_what_is_wrong() -> None:
    from dataclasses import replace

    scene = sample_scene(random.Random(5), objects=1)
    sky = next(s for s in SKIES if s != scene.sky)
    found = check(render(replace(scene, sky=sky)), scene)
    assert not found["sky"] and found["colour"] and found["kind"] and found["position"]


@pytest.mark.parametrize("style", STYLES)
def test_a_style_changes_the_picture(style: str) -> None:
    scene = sample_scene(random.Random(2))
    plain = np.asarray(render(scene)).astype(float)
    styled = np.asarray(render_styled(scene, style)).astype(float)
    assert np.abs(plain - styled).mean() > 15
