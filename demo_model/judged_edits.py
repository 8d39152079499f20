"""Edits done well, badly and not at all, with the scores that each deserves.

What a judge has to tell apart: the right edit; the source unchanged; another edit than the
one asked for; the right one with something else changed, too; and pictures that look bad.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from demo_model.edits import CATEGORIES, Edit, sample_edit
from demo_model.scenes import COLOURS, GROUNDS, SKIES, Scene, Shift, render

Drawn = tuple[Scene, tuple[Shift, ...]]
Deed = Literal["right", "unedited", "other", "too_much"]
DEEDS: Sequence[Deed] = ("right", "unedited", "other", "too_much")
SHARES = (0.45, 0.15, 0.25, 0.15)
# Success and over-editing, as VIEScore asks for them: 0 is bad, 10 is good.
DESERVED: dict[Deed, tuple[int, int]] = {
    "right": (10, 10),
    "unedited": (0, 10),
    "other": (0, 4),
    "too_much": (10, 4),
}
WORST = 8  # severities of damage: 0 is none


@dataclass(frozen=True)
class JudgedEdit:
    """An edit as somebody did it: pictures, and what they deserve.

    Attributes:
        shown: the scene of `after`.
        severity: of the damage to `after`, 0 to WORST.
    """

    edit: Edit
    deed: Deed
    shown: Scene
    before: Image.Image
    after: Image.Image
    severity: int

    @property
    def consistency(self) -> tuple[int, int]:
        """Success and over-editing."""
        return DESERVED[self.deed]

    @property
    def quality(self) -> tuple[int, int]:
        """Naturalness and freedom from artifacts."""
        return (10 - self.severity, 10 - self.severity)


def sample_judged(rng: random.Random, deed: Deed | None = None, damaged: bool = True) -> JudgedEdit:
    """A random edit, done in a random way or as `deed` says."""
    edit = sample_edit(rng)
    chosen = deed or rng.choices(DEEDS, SHARES)[0]
    shown, shifts = _done(edit, chosen, rng)
    severity = rng.choice([0, 0, 0, *range(2, WORST + 1, 2)]) if damaged else 0
    after = damage(render(shown, shifts=shifts), severity, rng)
    return JudgedEdit(edit, chosen, shown, edit.before(), after, severity)


def _done(edit: Edit, deed: Deed, rng: random.Random) -> Drawn:
    if deed == "right":
        return edit.target, edit.target_shifts
    if deed == "unedited":
        return edit.source, edit.shifts
    if deed == "too_much":
        further = _changed_further(edit.target, edit.category, rng)
        return further, edit.target_shifts
    while True:  # another edit of the same source
        other = sample_edit(rng, rng.choice(CATEGORIES))
        moved = _transplanted(edit, other)
        if moved is not None:
            return moved


def _transplanted(edit: Edit, other: Edit) -> Drawn | None:
    """What `other` does, done to the source of `edit`; None if it cannot be, or is the same."""
    source = edit.source
    first, *rest = source.things
    if other.category == "sky":
        target = replace(source, sky=other.target.sky)
    elif other.category == "ground":
        target = replace(source, ground=other.target.ground)
    elif other.category == "colour":
        colour = next(t.colour for t in other.target.things)
        target = replace(source, things=(replace(first, colour=colour), *rest))
    elif other.category == "move":
        place = other.target.things[0].position
        if place in {t.position for t in source.things}:
            return None
        target = replace(source, things=(replace(first, position=place), *rest))
    else:
        target = replace(source, things=tuple(rest))
        return None if target == edit.target else (target, edit.shifts[1:])
    return None if target in (source, edit.target) else (target, edit.shifts)


def _changed_further(scene: Scene, category: str, rng: random.Random) -> Scene:
    """One thing more changed than was asked for."""
    choices = [c for c in ("sky", "ground", "colour") if c != category]
    what = rng.choice(choices if scene.things else [c for c in choices if c != "colour"])
    if what == "sky":
        return replace(scene, sky=rng.choice([s for s in SKIES if s != scene.sky]))
    if what == "ground":
        return replace(scene, ground=rng.choice([g for g in GROUNDS if g != scene.ground]))
    index = rng.randrange(len(scene.things))
    things = list(scene.things)
    colours = [c for c in COLOURS if c != things[index].colour]
    things[index] = replace(things[index], colour=rng.choice(colours))
    return replace(scene, things=tuple(things))


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
