"""Does a picture show what its scene says? Objective: the nearest of reference renders.

Each attribute is decided with the others held at what the prompt asked for: of all skies,
which render comes nearest to the picture? Colour and kind are decided together over all
their combinations, on the part of the picture where the object should stand. References may
be drawn in a style; what a style makes equal (all grounds are white in snow) counts as right.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
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
    SUPERSAMPLING,
    USUAL_SIDE,
    Layout,
    Part,
    Scene,
    Thing,
    render,
)
from demo_model.styles import render_styled

ATTRIBUTES = ("sky", "ground", "position", "colour", "kind")
SHIFTS = (-3, 0, 3)  # pixels: objects may stand a little beside their place
Pixels = np.ndarray  # [height, width, 3] float32


def check(image: Image.Image, scene: Scene, style: str | None = None) -> dict[str, bool]:
    """Which attributes of `scene` the picture shows; for two objects, both have to be right."""
    found = dict.fromkeys(ATTRIBUTES, True)
    for attribute, right in _looks(image, scene, style):
        found[attribute] &= right
    return found


def all_right(image: Image.Image, scene: Scene, style: str | None = None) -> bool:
    """Every attribute is as asked."""
    return all(right for _, right in _looks(image, scene, style))


def _looks(image: Image.Image, scene: Scene, style: str | None) -> Iterator[tuple[str, bool]]:
    """Each attribute and whether it is right, of each object; what takes long comes last."""
    seen = _Seen(float_pixels(image), scene, style)
    yield "sky", seen.is_nearest(scene, [replace(scene, sky=s) for s in SKIES])
    yield "ground", seen.is_nearest(scene, [replace(scene, ground=g) for g in GROUNDS])
    for index in range(len(scene.things)):
        yield "position", seen.is_in_its_place(index)
    for index, thing in enumerate(scene.things):
        colour, kind = seen.colour_and_kind(index)
        yield "colour", colour == thing.colour
        yield "kind", kind == thing.kind


@dataclass(frozen=True)
class _Seen:
    """A picture, beside what it should show."""

    picture: Pixels
    scene: Scene
    style: str | None

    def is_nearest(self, asked: Scene, candidates: Iterable[Scene]) -> bool:
        """No candidate's render comes nearer to the picture than that of `asked`."""
        return self._distance(asked) <= min(map(self._distance, candidates))

    def is_in_its_place(self, index: int) -> bool:
        """Of the places that no other object holds, the asked one explains the picture best."""
        taken = {t.position for i, t in enumerate(self.scene.things) if i != index}
        thing = self.scene.things[index]
        moved = [replace(thing, position=p) for p in POSITIONS if p not in taken]
        return self.is_nearest(self.scene, [self.scene.with_thing(index, t) for t in moved])

    def colour_and_kind(self, index: int) -> tuple[str, str]:
        """Those of the render nearest to the picture around the object."""
        thing = self.scene.things[index]
        height, width = self.picture.shape[:2]
        part = _place(thing, width, height)
        rows, columns = slice(part[1], part[3]), slice(part[0], part[2])
        views = [_shifted(self.picture, rows, columns, y, x) for y in SHIFTS for x in SHIFTS]
        best, best_distance = ("", ""), np.inf
        for colour in COLOURS:
            for kind in KINDS:
                candidate = replace(thing, colour=colour, kind=kind)
                scene = self.scene.with_thing(index, candidate)
                reference = _reference_of(part, scene, width, height, self.style)
                distance = min(float(np.abs(view - reference).mean()) for view in views)
                if distance < best_distance:
                    best, best_distance = (colour, kind), distance
        return best

    def _distance(self, scene: Scene) -> float:
        return float(np.abs(self.picture - self._reference(scene)).mean())

    def _reference(self, scene: Scene) -> Pixels:
        height, width = self.picture.shape[:2]
        return _reference(scene, width, height, self.style)


def _place(thing: Thing, width: int, height: int) -> Part:
    """The part in which an object of this place and size stands, whatever its kind."""
    margin = max(SHIFTS)
    layout = Layout(width, height)
    size = USUAL_SIDE * SIZES[thing.size]
    middle = layout.x(POSITIONS[thing.position]) / SUPERSAMPLING
    base = layout.y(BASE) / SUPERSAMPLING
    top, bottom = int(base - 1.15 * size), int(base + 0.08 * size)
    left, right = int(middle - 0.66 * size), int(middle + 0.66 * size)
    return (
        max(margin, left),
        max(margin, top),
        min(width - margin, right),
        min(height - margin, bottom),
    )


def _shifted(picture: Pixels, rows: slice, columns: slice, down: int, right: int) -> Pixels:
    return picture[
        rows.start + down : rows.stop + down, columns.start + right : columns.stop + right
    ]


@lru_cache(maxsize=4096)
def _reference(scene: Scene, width: int, height: int, style: str | None) -> Pixels:
    if style:
        return float_pixels(render_styled(scene, style, width, height))
    return float_pixels(render(scene, width, height))


@lru_cache(maxsize=4096)
def _reference_of(part: Part, scene: Scene, width: int, height: int, style: str | None) -> Pixels:
    """A part of a reference, which is drawn in a third of the time of the whole."""
    left, top, right, bottom = part
    if style:
        return _reference(scene, width, height, style)[top:bottom, left:right]
    return float_pixels(render(scene, width, height, part=part))


def float_pixels(image: Image.Image) -> Pixels:
    """[height, width, 3] of 0 to 255."""
    return np.asarray(image.convert("RGB")).astype(np.float32)
