"""Does a picture show what its scene says? Objective: the nearest of reference renders.

Each attribute is decided with the others held at what the prompt asked for: of all skies,
which render comes nearest to the picture? Colour and kind are decided together over all
their combinations, on the part of the picture where the object should stand.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

import numpy as np
from PIL import Image

from demo_model.scenes import (
    BASE,
    COLOURS,
    GROUNDS,
    KINDS,
    POSITIONS,
    SIZES,
    SKIES,
    Scene,
    Thing,
    render,
)

ATTRIBUTES = ("sky", "ground", "position", "colour", "kind")
SHIFTS = (-3, 0, 3)  # pixels at side 128: objects may stand a little beside their place
Pixels = np.ndarray  # [height, width, 3] float32


def check(image: Image.Image, scene: Scene) -> dict[str, bool]:
    """Which attributes of `scene` the picture shows; for two objects, both have to be right."""
    picture = _pixels(image)
    width, height = image.size
    found = {
        "sky": _nearest(picture, [(s, replace(scene, sky=s)) for s in SKIES]) == scene.sky,
        "ground": _nearest(picture, [(g, replace(scene, ground=g)) for g in GROUNDS])
        == scene.ground,
        "position": True,
        "colour": True,
        "kind": True,
    }
    for index, thing in enumerate(scene.things):
        found["position"] &= _position(picture, scene, index) == thing.position
        colour, kind = _colour_and_kind(picture, scene, index, width, height)
        found["colour"] &= colour == thing.colour
        found["kind"] &= kind == thing.kind
    return found


def all_right(image: Image.Image, scene: Scene) -> bool:
    """Every attribute is as asked."""
    return all(check(image, scene).values())


def _position(picture: Pixels, scene: Scene, index: int) -> str:
    """The place, among those that no other object holds, that explains the picture best."""
    taken = {t.position for i, t in enumerate(scene.things) if i != index}
    free = [p for p in POSITIONS if p not in taken]
    things = [(p, replace(scene.things[index], position=p)) for p in free]
    return _nearest(picture, [(p, _with_thing(scene, index, t)) for p, t in things])


def _colour_and_kind(
    picture: Pixels, scene: Scene, index: int, width: int, height: int
) -> tuple[str, str]:
    thing = scene.things[index]
    rows, columns = _place(thing, width, height)
    best, best_distance = ("", ""), np.inf
    views = [_shifted(picture, rows, columns, dy, dx) for dy in SHIFTS for dx in SHIFTS]
    for colour in COLOURS:
        for kind in KINDS:
            candidate = _with_thing(scene, index, replace(thing, colour=colour, kind=kind))
            reference = _reference(candidate, width, height)[rows, columns]
            distance = min(float(np.abs(view - reference).mean()) for view in views)
            if distance < best_distance:
                best, best_distance = (colour, kind), distance
    return best


def _place(thing: Thing, width: int, height: int) -> tuple[slice, slice]:
    """Rows and columns in which an object of this place and size stands, whatever its kind."""
    margin = max(SHIFTS)
    size = min(width, height) * SIZES[thing.size]
    middle, base = width * POSITIONS[thing.position], height * BASE
    top, bottom = int(base - 1.15 * size), int(base + 0.08 * size)
    left, right = int(middle - 0.66 * size), int(middle + 0.66 * size)
    return (
        slice(max(margin, top), min(height - margin, bottom)),
        slice(max(margin, left), min(width - margin, right)),
    )


def _shifted(picture: Pixels, rows: slice, columns: slice, down: int, right: int) -> Pixels:
    return picture[
        rows.start + down : rows.stop + down, columns.start + right : columns.stop + right
    ]


def _nearest(picture: Pixels, candidates: Iterable[tuple[str, Scene]]) -> str:
    height, width = picture.shape[:2]
    distances = {
        name: float(np.abs(picture - _reference(scene, width, height)).mean())
        for name, scene in candidates
    }
    return min(distances, key=lambda name: distances[name])


def _with_thing(scene: Scene, index: int, thing: Thing) -> Scene:
    things = list(scene.things)
    things[index] = thing
    return replace(scene, things=tuple(things))


@lru_cache(maxsize=4096)
def _reference(scene: Scene, width: int, height: int) -> Pixels:
    return _pixels(render(scene, width, height))


def _pixels(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB")).astype(np.float32)
