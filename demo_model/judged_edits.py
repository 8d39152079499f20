"""Edits done well, badly and not at all, with the scores that each deserves.

What a judge has to tell apart: the right edit; the source unchanged; another edit than the
one asked for; the right one with something else changed, too; and pictures that look bad. Some
are renders, some an editor's work.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from demo_model.checker import float_pixels
from demo_model.edit_checker import DRAWN, Drawn, read_picture, thing_differences, without
from demo_model.edits import CATEGORIES, Edit, edit_scene, sample_edit
from demo_model.scenes import COLOURS, GROUNDS, POSITIONS, SKIES, Scene, Shift, Thing, render

Deed = Literal["right", "unedited", "other", "too_much"]
DEEDS: Sequence[Deed] = ("right", "unedited", "other", "too_much")
SHARES = (0.35, 0.2, 0.25, 0.2)
WORST = 8  # severities of damage: 0 is none
GRID = 4  # cells along a side, of which each is judged for itself
# Of 255: from each on, a cell's mean difference to what it should be counts 2 more.
SPOILT = (4.0, 8.0, 13.0, 20.0)
# The same of an object, which counts 1 more; the autoencoder alone makes 13 of its edges.
MALFORMED = (14.0, 18.0, 22.0, 25.0, 28.0, 31.0, DRAWN, 42.0)
MISTAKEN = 0.5  # of other edits than asked for are the right change to the wrong object
OTHERWISE = 0.25  # of an editor's pictures are shown with an instruction that it was not given


@dataclass(frozen=True)
class JudgedEdit:
    """An edit as somebody did it: pictures, and what they deserve.

    Attributes:
        shown: the scene of `after`.
        shifts: where its objects stand beside their places.
        clean: `shown` as it would be without damage.
    """

    edit: Edit
    shown: Scene
    shifts: tuple[Shift, ...]
    before: Image.Image
    after: Image.Image
    clean: Image.Image

    @property
    def consistency(self) -> tuple[int, int]:
        """Success and over-editing, as VIEScore asks for them: 0 is bad, 10 is good."""
        asked = changes(self.edit.source, self.edit.target)
        done = changes(self.edit.source, self.shown)
        return 10 if asked <= done else 0, 10 if done <= asked else 4

    @cached_property
    def damage(self) -> list[list[int]]:
        """Severity of each cell, row by row, 0 to WORST."""
        difference = np.abs(float_pixels(self.after) - float_pixels(self.clean)).mean(2)
        height, width = (side // GRID for side in difference.shape)
        cells = difference.reshape(GRID, height, GRID, width).mean((1, 3))
        return [
            [2 * sum(float(cell) >= limit for limit in SPOILT) for cell in row] for row in cells
        ]

    @cached_property
    def malformed(self) -> list[int]:
        """Severity of each object of `shown`, 0 to WORST."""
        differences = thing_differences(self.after, (self.shown, self.shifts))
        return [sum(d >= limit for limit in MALFORMED) for d in differences]

    @property
    def quality(self) -> tuple[int, int]:
        """Naturalness, freedom from artifacts: what the worst object, and cell, leave of 10."""
        return 10 - max(self.malformed, default=0), 10 - max(map(max, self.damage))


def aligned(before: Scene, after: Scene) -> list[tuple[Thing, Thing | None]]:
    """Each object of `before` from left to right, and what has become of it; None: it is gone."""
    left = {thing.kind: thing for thing in after.things}
    order = sorted(before.things, key=lambda thing: POSITIONS[thing.position])
    return [(thing, left.get(thing.kind)) for thing in order]


def changes(before: Scene, after: Scene) -> set[tuple[str, str]]:
    """What is new, of what: sky, ground, and each object that changed or is gone."""
    found = {("sky", after.sky), ("ground", after.ground)}
    found -= {("sky", before.sky), ("ground", before.ground)}
    for thing, now in aligned(before, after):
        if now is None:
            found.add((thing.kind, "remove"))
            continue
        found |= {(thing.kind, now.colour)} if now.colour != thing.colour else set()
        found |= {(thing.kind, now.position)} if now.position != thing.position else set()
    return found


def sample_judged(rng: random.Random, deed: Deed | None = None, damaged: bool = True) -> JudgedEdit:
    """A random edit, rendered as done in a random way or as `deed` says."""
    edit = sample_edit(rng)
    shown, shifts = _done(edit, deed or rng.choices(DEEDS, SHARES)[0], rng)
    severity = rng.choice([0, 0, 0, *range(2, WORST + 1, 2)]) if damaged else 0
    clean = render(shown, shifts=shifts)
    return JudgedEdit(edit, shown, shifts, edit.before(), damage(clean, severity, rng), clean)


def judge_picture(edit: Edit, image: Image.Image, rng: random.Random) -> JudgedEdit:
    """What an editor made of an edit; now and then as the answer to another instruction."""
    scene, shifts = read_picture(image, edit)
    asked = edit if rng.random() >= OTHERWISE else _another(edit, rng)
    clean = render(scene, shifts=shifts)
    return JudgedEdit(asked, scene, shifts, edit.before(), image, clean)


def _done(edit: Edit, deed: Deed, rng: random.Random) -> Drawn:
    if deed == "right":
        return edit.target, edit.target_shifts
    if deed == "unedited":
        return edit.source, edit.shifts
    if deed == "too_much":
        return _changed_further(edit, rng)
    mistaken = _mistaken(edit, rng)
    if mistaken and rng.random() < MISTAKEN:
        return mistaken
    other = _another(edit, rng)
    return other.target, other.target_shifts


def _another(edit: Edit, rng: random.Random) -> Edit:
    """Another edit of the same source, more often than not of the same category."""
    while True:
        category = rng.choice([edit.category, rng.choice(CATEGORIES)])
        other = edit_scene(edit.source, edit.shifts, category, rng)
        if other.target != edit.target:
            return other


def _mistaken(edit: Edit, rng: random.Random) -> Drawn | None:
    """What was asked for, done to another object; None where there is none."""
    source, target = edit.source, edit.target
    others = _shared(source, target)
    if not others or len(others) == len(source.things):
        return None
    index = rng.choice(others)
    if edit.category == "remove":
        return without((source, edit.shifts), index)
    changed = next(thing for thing in target.things if thing not in source.things)
    name = "colour" if edit.category == "colour" else "position"
    thing = replace(source.things[index], **{name: getattr(changed, name)})
    return None if thing in source.things else (source.with_thing(index, thing), edit.shifts)


def _changed_further(edit: Edit, rng: random.Random) -> Drawn:
    """One thing more changed than was asked for."""
    scene, shifts = edit.target, edit.target_shifts
    others = _shared(scene, edit.source)
    choices = [c for c in ("sky", "ground") if c != edit.category]
    what = rng.choice([*choices, *(("colour", "gone") if others else ())])
    if what == "sky":
        return replace(scene, sky=rng.choice([s for s in SKIES if s != scene.sky])), shifts
    if what == "ground":
        return replace(scene, ground=rng.choice([g for g in GROUNDS if g != scene.ground])), shifts
    index = rng.choice(others)
    if what == "gone":
        return without((scene, shifts), index)
    thing = scene.things[index]
    colours = [c for c in COLOURS if c != thing.colour]
    return scene.with_thing(index, replace(thing, colour=rng.choice(colours))), shifts


def _shared(scene: Scene, other: Scene) -> list[int]:
    """Which objects of `scene` are in the other one, too."""
    return [i for i, thing in enumerate(scene.things) if thing in other.things]


def damage(image: Image.Image, severity: int, rng: random.Random) -> Image.Image:
    """Blur, noise or blocks, everywhere or in one place; 0 leaves the picture as it is."""
    if severity == 0:
        return image
    damaged = _damaged(image, severity, rng)
    return damaged if rng.random() < 0.5 else Image.composite(damaged, image, _place(image, rng))


def _place(image: Image.Image, rng: random.Random) -> Image.Image:
    """A disc with a soft edge, where objects stand; an editor spoils these first."""
    radius = rng.uniform(0.15, 0.3) * image.width
    x, y = rng.uniform(0.1, 0.9) * image.width, rng.uniform(0.5, 0.9) * image.height
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return mask.filter(ImageFilter.GaussianBlur(3))


def _damaged(image: Image.Image, severity: int, rng: random.Random) -> Image.Image:
    kind = rng.choice(["blur", "noise", "blocks"])
    if kind == "blur":
        return image.filter(ImageFilter.GaussianBlur(0.5 * severity))
    if kind == "noise":
        noise = np.random.default_rng(rng.getrandbits(32)).normal(
            0, 6 * severity, (*image.size[::-1], 3)
        )
        return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))
    small = max(8, image.width // (1 + severity))
    shrunk = image.resize((small, small), Image.Resampling.BOX)
    return shrunk.resize(image.size, Image.Resampling.NEAREST)
