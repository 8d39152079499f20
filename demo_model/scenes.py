"""Simple scenes: what the demo model can draw, as data, as captions and as pictures.

A scene is a sky, a ground, sometimes a backdrop, and one or two coloured objects. `render`
draws it flat and sharp with Pillow; `caption` says it in many ways. The same seed gives the
same scene, caption and picture.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Shift = tuple[float, float]
Part = tuple[int, int, int, int]

SKIES: dict[str, tuple[Colour, Colour]] = {  # top and horizon
    "dawn": ((150, 170, 220), (252, 214, 190)),
    "day": ((84, 164, 238), (196, 228, 250)),
    "sunset": ((116, 58, 132), (252, 156, 82)),
    "night": ((10, 14, 46), (42, 48, 100)),
    "storm": ((62, 68, 80), (134, 140, 150)),
}
GROUNDS: dict[str, Colour] = {
    "grass": (92, 170, 76),
    "sand": (228, 204, 142),
    "water": (44, 116, 190),
    "snow": (238, 242, 250),
    "street": (104, 104, 112),
}
LIGHT = {"dawn": 0.92, "day": 1.0, "sunset": 0.82, "night": 0.5, "storm": 0.7}  # on the ground
COLOURS: dict[str, Colour] = {
    "red": (214, 44, 42),
    "orange": (244, 132, 30),
    "yellow": (248, 214, 48),
    "green": (30, 132, 60),
    "blue": (44, 80, 216),
    "purple": (134, 58, 178),
    "pink": (246, 130, 186),
    "white": (248, 248, 248),
}
KINDS = (
    "house", "tree", "boat", "mountain", "ball", "tent", "car",
    "cat", "flower", "umbrella", "mushroom", "star", "balloon",
)  # fmt: skip
POSITIONS = {"left": 0.23, "centre": 0.5, "right": 0.77}  # of the width
SIZES = {"small": 0.24, "medium": 0.32, "big": 0.42}  # height of an object, of the usual side
BACKDROPS = ("none", "beach", "city", "forest")
HORIZON = 0.66  # of the usual height
BASE = 0.86  # where objects stand, of the usual height
JITTER = 0.02  # of the usual side: objects do not stand on a grid
SUPERSAMPLING = 2
USUAL_SIDE = 128  # pixels
CELL = 16  # pixels: what the transformer sees as one token

DARK_WOOD: Colour = (96, 62, 36)
GLASS: Colour = (196, 224, 244)
BLACK: Colour = (34, 34, 40)


@dataclass(frozen=True)
class Thing:
    """One object: `position` is left, centre or right; `size` small, medium or big."""

    colour: str
    kind: str
    position: str
    size: str = "medium"


@dataclass(frozen=True)
class Scene:
    """One picture's content; every word is a key of the tables of this module."""

    sky: str
    ground: str
    things: tuple[Thing, ...]
    backdrop: str = "none"

    def with_thing(self, index: int, thing: Thing | None) -> "Scene":
        """With another thing in place of one, or without it."""
        put = () if thing is None else (thing,)
        return replace(self, things=(*self.things[:index], *put, *self.things[index + 1 :]))


def held_out(colour: str, kind: str) -> bool:
    """Colour-kind pairs never trained, about one in eight: they test composition."""
    return (list(COLOURS).index(colour) * 3 + KINDS.index(kind)) % 8 == 0


def sample_scene(rng: random.Random, trained_pairs_only: bool = True, objects: int = 0) -> Scene:
    """A random scene with one (60 %) or two objects, or as many as `objects` says."""
    count = objects or (1 if rng.random() < 0.6 else 2)
    things = []
    for position in sorted(rng.sample(list(POSITIONS), count), key=list(POSITIONS).index):
        while True:
            colour, kind = rng.choice(list(COLOURS)), rng.choice(KINDS)
            if not (trained_pairs_only and held_out(colour, kind)):
                break
        sizes = ["medium", "medium", "small", "big"] if count == 1 else ["medium", "small"]
        things.append(Thing(colour, kind, position, rng.choice(sizes)))
    backdrop = rng.choice(BACKDROPS[1:]) if rng.random() < 0.2 else "none"
    ground = "sand" if backdrop == "beach" else rng.choice(list(GROUNDS))
    return Scene(rng.choice(list(SKIES)), ground, tuple(things), backdrop)


# -- pictures ------------------------------------------------------------------


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`a` with `share` of `b` in it."""
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def shade(colour: Colour, factor: float) -> Colour:
    """Darker (below 1) or lighter."""
    return tuple(max(0, min(255, round(c * factor))) for c in colour)  # type: ignore[return-value]


def sample_shifts(rng: random.Random, count: int) -> tuple[Shift, ...]:
    """How far objects stand from their places: right and down, of the usual side."""
    return tuple((rng.uniform(-JITTER, JITTER), rng.uniform(-JITTER, JITTER)) for _ in range(count))


class Layout:
    """Where things lie in a picture of some size, in pixels of the supersampled canvas.

    Nothing is larger in a larger picture: it shows more of the scene. The ground keeps its
    distance from the lower edge and what stands at a side from that side, which moves things
    by whole cells of 16 pixels, so that each is drawn the same in pictures of every size.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width * SUPERSAMPLING, height * SUPERSAMPLING
        self.unit = USUAL_SIDE * SUPERSAMPLING
        self.horizon = self.height - (1 - HORIZON) * self.unit

    def x(self, share: float) -> float:
        """A place across; in narrow pictures the sides make room for the middle."""
        cell = CELL * SUPERSAMPLING
        more = self.width - self.unit
        if share == 0.5:
            return share * self.unit + round(more / 2 / cell) * cell
        outwards = cell if more < 0 else 0
        return share * self.unit + (more + outwards if share > 0.5 else -outwards)

    def y(self, share: float) -> float:
        """A place on the ground or at the horizon, by its share of the usual height."""
        return self.horizon + (share - HORIZON) * self.unit

    def tiles(self) -> range:
        """Widths of the usual picture that it takes to fill this one: patterns repeat."""
        return range(math.ceil(self.width / self.unit))


def render(
    scene: Scene,
    width: int = 128,
    height: int | None = None,
    rng: random.Random | None = None,
    shifts: Sequence[Shift] | None = None,
    part: Part | None = None,
) -> Image.Image:
    """Draw a scene, its objects exactly in their places, or a little beside.

    Args:
        rng: draws a shift for each object.
        shifts: gives them instead.
        part: left, top, right and bottom of the only part that is returned; as the whole has it
            but for rounding: Pillow resizes rows or columns first, as the shape makes cheaper.
    """
    height = height or width
    if shifts is None:
        count = len(scene.things)
        shifts = sample_shifts(rng, count) if rng else [(0.0, 0.0)] * count
    layout = Layout(width, height)
    image = _scenery(replace(scene, things=()), width, height).copy()
    draw = ImageDraw.Draw(image)
    for thing, (right, down) in zip(scene.things, shifts, strict=True):
        x = layout.x(POSITIONS[thing.position]) + layout.unit * right
        y = layout.y(BASE) + layout.unit * down
        size = layout.unit * SIZES[thing.size]
        _PAINTERS[thing.kind](_Brush(draw, x, y, size), COLOURS[thing.colour])
    left, top, right, bottom = part or (0, 0, width, height)
    box = tuple(SUPERSAMPLING * edge for edge in (left, top, right, bottom))
    lanczos = Image.Resampling.LANCZOS
    return image.resize((right - left, bottom - top), lanczos, box)  # type: ignore[arg-type]


@lru_cache(maxsize=16)
def _scenery(scene: Scene, width: int, height: int) -> Image.Image:
    """A scene without objects, on the supersampled canvas.

    Who compares a picture with renders asks for many objects in the same scenery.
    """
    layout = Layout(width, height)
    image = Image.new("RGB", (layout.width, layout.height))
    draw = ImageDraw.Draw(image)
    _draw_sky(draw, scene.sky, layout)
    _draw_backdrop(draw, scene, layout)
    _draw_ground(draw, scene, layout)
    return image


def _draw_sky(draw: ImageDraw.ImageDraw, sky: str, at: Layout) -> None:
    top, low = SKIES[sky]
    horizon = int(at.horizon)
    for y in range(horizon + 1):
        draw.line([0, y, at.width, y], fill=mix(top, low, y / horizon))
    disc, x, one = partial(_disc, draw), at.x, at.unit
    if sky == "day":
        disc(x(0.86), one * 0.14, one * 0.075, (255, 236, 120))
        _cloud(draw, x(0.2), one * 0.14, one * 0.07, (248, 251, 255))
    elif sky == "dawn":
        disc(x(0.5), at.y(0.6), one * 0.11, (255, 240, 200))
    elif sky == "sunset":
        disc(x(0.5), at.y(0.64), one * 0.15, (255, 206, 92))
    elif sky == "night":
        disc(x(0.86), one * 0.14, one * 0.07, (244, 240, 214))
        for right, down in ((0.1, 0.1), (0.3, 0.2), (0.48, 0.07), (0.66, 0.22), (0.2, 0.34)):
            disc(x(right), one * down, one * 0.009, (250, 250, 230))
    else:
        _cloud(draw, x(0.28), one * 0.13, one * 0.1, (84, 90, 102))
        _cloud(draw, x(0.74), one * 0.17, one * 0.1, (92, 98, 110))
        bolt = ((0.0, 0.2), (-0.05, 0.33), (-0.01, 0.33), (-0.04, 0.46))
        points = [(x(0.74) + one * right, one * down) for right, down in bolt]
        draw.line(points, fill=(255, 236, 130), width=max(2, one // 70))


def _draw_backdrop(draw: ImageDraw.ImageDraw, scene: Scene, at: Layout) -> None:
    light, horizon, one = LIGHT[scene.sky], at.horizon, at.unit
    if scene.backdrop == "beach":
        sea = shade(GROUNDS["water"], light)
        draw.rectangle([0, horizon - one * 0.08, at.width, horizon], fill=sea)
    for tile in at.tiles():
        start = tile * one
        if scene.backdrop == "city":
            for i, tall in enumerate((0.2, 0.3, 0.16, 0.26, 0.34, 0.18, 0.28)):
                left = start + one * (i / 7 + 0.008)
                box = [left, horizon - one * tall, left + one * 0.125, horizon]
                draw.rectangle(box, fill=shade((118, 122, 142), light))
        elif scene.backdrop == "forest":
            for i in range(9):
                middle, tall = start + one * (i + 0.5) / 9, one * (0.2 if i % 2 else 0.26)
                foot = one * 0.075
                peak = [
                    (middle - foot, horizon),
                    (middle, horizon - tall),
                    (middle + foot, horizon),
                ]
                draw.polygon(peak, fill=shade((38, 92, 62), light))


def _draw_ground(draw: ImageDraw.ImageDraw, scene: Scene, at: Layout) -> None:
    colour = shade(GROUNDS[scene.ground], LIGHT[scene.sky])
    horizon, one = int(at.horizon), at.unit
    for y in range(horizon, at.height):
        depth = (y - horizon) / (at.height - horizon)
        draw.line([0, y, at.width, y], fill=shade(colour, 1 - 0.2 * depth))
    for tile in at.tiles():
        start = tile * one
        if scene.ground == "street":
            for x in (0.02, 0.29, 0.56, 0.83):
                box = [start + one * x, at.y(0.925), start + one * (x + 0.15), at.y(0.95)]
                draw.rectangle(box, fill=shade((236, 226, 170), LIGHT[scene.sky]))
        elif scene.ground == "water":
            for right, down in ((0.06, 0.74), (0.62, 0.72), (0.34, 0.94), (0.74, 0.95)):
                left = start + one * right
                box = [left, at.y(down), left + one * 0.16, at.y(down + 0.014)]
                draw.rectangle(box, fill=mix(colour, (255, 255, 255), 0.3))


def _disc(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, colour: Colour) -> None:
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)


def _cloud(draw: ImageDraw.ImageDraw, x: float, y: float, size: float, colour: Colour) -> None:
    for dx, dy, radius in ((-1.1, 0.2, 0.6), (0, 0, 0.85), (1.1, 0.2, 0.65)):
        _disc(draw, x + dx * size, y + dy * size, radius * size, colour)


class _Brush:
    """Draws in an object's own coordinates: x from -0.5 to 0.5, y from 0 (ground) up to 1."""

    def __init__(self, draw: ImageDraw.ImageDraw, x: float, y: float, size: float) -> None:
        self._draw, self._x, self._y, self._size = draw, x, y, size

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return self._x + x * self._size, self._y - y * self._size

    def polygon(self, points: Sequence[tuple[float, float]], colour: Colour) -> None:
        self._draw.polygon([self._at(*p) for p in points], fill=colour)

    def box(self, left: float, low: float, right: float, high: float, colour: Colour) -> None:
        self._draw.rectangle([*self._at(left, high), *self._at(right, low)], fill=colour)

    def oval(self, left: float, low: float, right: float, high: float, colour: Colour) -> None:
        self._draw.ellipse([*self._at(left, high), *self._at(right, low)], fill=colour)

    def half(self, left: float, low: float, right: float, high: float, colour: Colour) -> None:
        """The upper half of an oval whose flat side lies at `low`."""
        box = [*self._at(left, high), *self._at(right, 2 * low - high)]
        self._draw.pieslice(box, 180, 360, fill=colour)


def _house(b: _Brush, c: Colour) -> None:
    b.box(-0.42, 0, 0.42, 0.58, c)
    b.polygon([(-0.56, 0.58), (0, 1.02), (0.56, 0.58)], shade(c, 0.6))
    b.box(-0.1, 0, 0.1, 0.32, DARK_WOOD)
    b.box(0.2, 0.24, 0.34, 0.4, GLASS)
    b.box(-0.34, 0.24, -0.2, 0.4, GLASS)


def _tree(b: _Brush, c: Colour) -> None:
    b.box(-0.08, 0, 0.08, 0.5, DARK_WOOD)
    b.oval(-0.44, 0.36, 0.44, 1.08, c)


def _boat(b: _Brush, c: Colour) -> None:
    b.polygon([(-0.56, 0.26), (0.56, 0.26), (0.34, 0), (-0.34, 0)], DARK_WOOD)
    b.polygon([(0.03, 1.0), (0.03, 0.31), (0.5, 0.31)], c)
    b.polygon([(-0.04, 0.88), (-0.04, 0.31), (-0.4, 0.31)], shade(c, 0.68))


def _mountain(b: _Brush, c: Colour) -> None:
    b.polygon([(-0.74, 0), (0, 1.1), (0.74, 0)], c)
    b.polygon([(-0.2, 0.8), (0, 1.1), (0.2, 0.8), (0.07, 0.72), (-0.05, 0.78)], (252, 252, 252))


def _ball(b: _Brush, c: Colour) -> None:
    b.oval(-0.42, 0, 0.42, 0.84, c)
    b.oval(-0.24, 0.5, -0.04, 0.7, mix(c, (255, 255, 255), 0.65))


def _tent(b: _Brush, c: Colour) -> None:
    b.polygon([(-0.62, 0), (0, 0.84), (0.62, 0)], c)
    b.polygon([(-0.17, 0), (0, 0.52), (0.17, 0)], shade(c, 0.45))


def _car(b: _Brush, c: Colour) -> None:
    b.polygon([(-0.32, 0.36), (-0.2, 0.62), (0.2, 0.62), (0.36, 0.36)], shade(c, 0.75))
    b.polygon([(-0.22, 0.38), (-0.14, 0.56), (0.14, 0.56), (0.25, 0.38)], GLASS)
    b.box(-0.62, 0.1, 0.62, 0.38, c)
    for x in (-0.34, 0.34):
        b.oval(x - 0.15, -0.04, x + 0.15, 0.26, BLACK)
        b.oval(x - 0.06, 0.05, x + 0.06, 0.17, (206, 206, 210))


def _cat(b: _Brush, c: Colour) -> None:
    b.oval(-0.32, 0, 0.32, 0.62, c)
    b.polygon([(-0.28, 0.72), (-0.26, 1.02), (-0.04, 0.84)], c)
    b.polygon([(0.28, 0.72), (0.26, 1.02), (0.04, 0.84)], c)
    b.oval(-0.29, 0.42, 0.29, 0.92, c)
    for x in (-0.12, 0.12):
        b.oval(x - 0.045, 0.63, x + 0.045, 0.73, BLACK)
    b.polygon([(-0.04, 0.6), (0.04, 0.6), (0, 0.55)], BLACK)


def _flower(b: _Brush, c: Colour) -> None:
    b.box(-0.035, 0, 0.035, 0.62, (40, 120, 50))
    b.polygon([(0, 0.12), (0.26, 0.34), (0.08, 0.1)], (40, 120, 50))
    for x, y in ((0, 0.92), (0.21, 0.77), (0.13, 0.53), (-0.13, 0.53), (-0.21, 0.77)):
        b.oval(x - 0.15, y - 0.15, x + 0.15, y + 0.15, c)
    b.oval(-0.11, 0.59, 0.11, 0.81, (120, 74, 30))


def _umbrella(b: _Brush, c: Colour) -> None:
    b.box(-0.03, 0, 0.03, 0.6, BLACK)
    b.half(-0.56, 0.5, 0.56, 1.0, c)
    b.half(-0.19, 0.5, 0.19, 1.0, shade(c, 0.7))


def _mushroom(b: _Brush, c: Colour) -> None:
    b.box(-0.15, 0, 0.15, 0.46, (240, 226, 204))
    b.half(-0.5, 0.4, 0.5, 0.92, c)
    for x, y, r in ((-0.24, 0.56, 0.07), (0.04, 0.72, 0.08), (0.26, 0.54, 0.06)):
        b.oval(x - r, y - r, x + r, y + r, (250, 250, 250) if c[1] < 240 else (170, 170, 180))


def _star(b: _Brush, c: Colour) -> None:
    outer = ((0, 1.0), (0.48, 0.65), (0.29, 0.1), (-0.29, 0.1), (-0.48, 0.65))
    inner = ((0.12, 0.66), (0.19, 0.45), (0, 0.3), (-0.19, 0.45), (-0.12, 0.66))
    b.polygon([p for pair in zip(outer, inner, strict=True) for p in pair], c)


def _balloon(b: _Brush, c: Colour) -> None:
    b.polygon([(-0.2, 0.44), (-0.11, 0.2), (0.11, 0.2), (0.2, 0.44)], shade(c, 0.6))
    b.box(-0.13, 0.04, 0.13, 0.2, DARK_WOOD)
    b.oval(-0.42, 0.36, 0.42, 1.16, c)
    b.oval(-0.14, 0.36, 0.14, 1.16, mix(c, (255, 255, 255), 0.4))


_PAINTERS = {
    "house": _house, "tree": _tree, "boat": _boat, "mountain": _mountain, "ball": _ball,
    "tent": _tent, "car": _car, "cat": _cat, "flower": _flower, "umbrella": _umbrella,
    "mushroom": _mushroom, "star": _star, "balloon": _balloon,
}  # fmt: skip
