"""Is an edit right, and what does its picture show? Objective, by renders to compare with.

Right is an edit if the picture shows the scene that was asked for, nearer to it than to the
source, and if what the edit does not change is as it was: the rest of the picture as a whole,
and every object for itself (under another sky all of the picture changes).
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from PIL import Image, ImageFilter

from demo_model.checker import all_right, float_pixels
from demo_model.edits import Edit
from demo_model.scenes import COLOURS, GROUNDS, POSITIONS, SKIES, Scene, Shift, render

CHANGED = 24  # of 255: from here on a pixel counts as changed
MARGIN = 5  # pixels around a change that may differ, too
REST = 0.05  # of the picture: what is less than that is no rest
KEPT = 10.0  # of 255: mean difference that the untouched part may have
DRAWN = 35.0  # of 255: mean difference that an object may have to its render
Drawn = tuple[Scene, tuple[Shift, ...]]


def edit_right(image: Image.Image, edit: Edit) -> bool:
    """The picture shows what was asked for, and the rest is as it was."""
    return (
        nearer_to_target(image, edit)
        and kept_difference(image, edit) <= KEPT
        and thing_difference(image, (edit.target, edit.target_shifts)) <= DRAWN
        and all_right(image, edit.target)
    )


def nearer_to_target(image: Image.Image, edit: Edit) -> bool:
    """Where the edit changes something, the picture is nearer to the target than to the source."""
    before, after = float_pixels(edit.before(*image.size)), float_pixels(edit.after(*image.size))
    changed = _changed(before, after)
    picture = float_pixels(image)
    to_target = np.abs(picture - after).mean(2)[changed].mean()
    return bool(to_target < np.abs(picture - before).mean(2)[changed].mean())


def kept_difference(image: Image.Image, edit: Edit) -> float:
    """Mean difference, of 255, where the edit changes nothing that shows; 0 if that is nowhere."""
    before, after = float_pixels(edit.before(*image.size)), float_pixels(edit.after(*image.size))
    touched = Image.fromarray(_changed(before, after)).convert("L")
    untouched = np.asarray(touched.filter(ImageFilter.MaxFilter(2 * MARGIN + 1))) == 0
    if untouched.mean() < REST:
        return 0.0
    return float(np.abs(float_pixels(image) - after).mean(2)[untouched].mean())


def thing_difference(image: Image.Image, drawn: Drawn) -> float:
    """Mean difference, of 255, of the object that differs most from its render."""
    return max(thing_differences(image, drawn), default=0.0)


def thing_differences(image: Image.Image, drawn: Drawn) -> list[float]:
    """Mean difference, of 255, of each object to its render; 0 if nothing of it shows."""
    scene, shifts = drawn
    whole = float_pixels(render(scene, *image.size, shifts=shifts))
    difference = np.abs(float_pixels(image) - whole).mean(2)
    found = []
    for index in range(len(scene.things)):
        bare, others = without(drawn, index)
        shape = _changed(float_pixels(render(bare, *image.size, shifts=others)), whole)
        found.append(float(difference[shape].mean()) if shape.any() else 0.0)
    return found


def read_picture(image: Image.Image, edit: Edit) -> Drawn:
    """The scene, with its shifts, that comes nearest to what an editor made of the source.

    One attribute after another, the others held; kinds are taken for granted.
    """
    if nearer_to_target(image, edit):
        best = edit.target, edit.target_shifts
    else:
        best = edit.source, edit.shifts
    picture = float_pixels(image)
    for candidates in (_other_skies, _other_grounds, _moved_or_gone, _other_colours):
        best = min([best, *candidates(best)], key=lambda drawn: _distance(picture, drawn))
    return best


def without(drawn: Drawn, index: int) -> Drawn:
    """The scene without one of its objects."""
    scene, shifts = drawn
    return scene.with_thing(index, None), (*shifts[:index], *shifts[index + 1 :])


def _distance(picture: np.ndarray, drawn: Drawn) -> float:
    height, width = picture.shape[:2]
    reference = float_pixels(render(drawn[0], width, height, shifts=drawn[1]))
    return float(np.abs(picture - reference).mean())


def _other_skies(drawn: Drawn) -> Iterator[Drawn]:
    scene, shifts = drawn
    return ((replace(scene, sky=sky), shifts) for sky in SKIES)


def _other_grounds(drawn: Drawn) -> Iterator[Drawn]:
    scene, shifts = drawn
    return ((replace(scene, ground=ground), shifts) for ground in GROUNDS)


def _moved_or_gone(drawn: Drawn) -> Iterator[Drawn]:
    scene, shifts = drawn
    taken = {thing.position for thing in scene.things}
    for index, thing in enumerate(scene.things):
        yield without(drawn, index)
        for place in POSITIONS:
            if place not in taken:
                yield scene.with_thing(index, replace(thing, position=place)), shifts


def _other_colours(drawn: Drawn) -> Iterator[Drawn]:
    scene, shifts = drawn
    for index, thing in enumerate(scene.things):
        for colour in COLOURS:
            yield scene.with_thing(index, replace(thing, colour=colour)), shifts


def _changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """[height, width] bool."""
    return np.asarray(np.abs(before - after).max(2) > CHANGED)
