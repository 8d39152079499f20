"""Edits of scenes: an instruction, the scene before and the scene after.

Five categories: the sky ("make it night"), the ground ("add snow"), a colour ("turn the house
blue"), a place ("move the ball to the left") and a removal ("remove the tree"). Some
combinations of object and colour, and of object and place, are never trained
(`held_out_edit`), to measure composition.
"""

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from PIL import Image

from demo_model.scenes import (
    COLOURS,
    GROUNDS,
    KINDS,
    POSITIONS,
    SKIES,
    Scene,
    Shift,
    render,
    sample_scene,
    sample_shifts,
)

CATEGORIES = ("sky", "ground", "colour", "move", "remove")

_SKY = {
    "dawn": ["make it dawn", "change the time to dawn", "turn it into a morning"],
    "day": ["make it day", "change the sky to day", "make it noon"],
    "sunset": ["make it sunset", "turn the day into an evening", "change the sky to sunset"],
    "night": ["make it night", "change the sky to night", "turn day into night"],
    "storm": ["make it stormy", "change the sky to a storm", "let a storm come"],
}
_GROUND = {
    "grass": ["turn the ground into grass", "let grass grow", "change the ground to grass"],
    "sand": [
        "turn the ground into sand",
        "cover the ground with sand",
        "change the ground to sand",
    ],
    "water": ["turn the ground into water", "flood the ground", "change the ground to water"],
    "snow": ["add snow", "cover the ground with snow", "let it snow on the ground"],
    "street": ["turn the ground into a street", "build a street", "change the ground to a street"],
}
_COLOUR = ["turn the {kind} {colour}", "make the {kind} {colour}", "paint the {kind} {colour}"]
_MOVE = [
    "move the {kind} to the {place}",
    "put the {kind} on the {place}",
    "shift the {kind} to the {place}",
]
_REMOVE = ["remove the {kind}", "take the {kind} away", "delete the {kind}"]


@dataclass(frozen=True)
class Edit:
    """What to change; `shifts` place the source's objects, `target_shifts` the target's."""

    category: str
    instruction: str
    source: Scene
    target: Scene
    shifts: tuple[Shift, ...]
    target_shifts: tuple[Shift, ...]
    held_out: bool = False

    def before(self, width: int = 128, height: int | None = None) -> Image.Image:
        return render(self.source, width, height, shifts=self.shifts)

    def after(self, width: int = 128, height: int | None = None) -> Image.Image:
        """The picture that the instruction asks for."""
        return render(self.target, width, height, shifts=self.target_shifts)


def held_out_edit(*slots: str) -> bool:
    """Combinations that training never shows."""
    return zlib.crc32(" ".join(slots).encode()) % 5 == 0


def sample_edit(rng: random.Random, category: str = "", trained_only: bool = True) -> Edit:
    """A random edit of a random scene, in one category or in any."""
    chosen = category or rng.choice(CATEGORIES)
    while True:
        source = sample_scene(rng, trained_pairs_only=False)
        if len({thing.kind for thing in source.things}) < len(source.things):
            continue  # "the tree" must mean one of them
        edit = edit_scene(source, sample_shifts(rng, len(source.things)), chosen, rng)
        if not (trained_only and edit.held_out):
            return edit


def edit_scene(source: Scene, shifts: tuple[Shift, ...], category: str, rng: random.Random) -> Edit:
    """A random edit of this scene, trained or not."""
    edit, slots = _MAKERS[category](source, shifts, rng)
    return replace(edit, held_out=bool(slots) and held_out_edit(*slots))


def untrained(rng: random.Random, category: str) -> Edit:
    """A random edit of a kind that training never shows, where its category has such."""
    while True:
        edit = sample_edit(rng, category, trained_only=False)
        if category not in ("colour", "move") or edit.held_out:
            return edit


def _sky(source: Scene, shifts: tuple[Shift, ...], rng: random.Random) -> tuple[Edit, list[str]]:
    sky = rng.choice([s for s in SKIES if s != source.sky])
    return _whole("sky", rng.choice(_SKY[sky]), source, replace(source, sky=sky), shifts)


def _ground(source: Scene, shifts: tuple[Shift, ...], rng: random.Random) -> tuple[Edit, list[str]]:
    ground = rng.choice([g for g in GROUNDS if g != source.ground])
    target = replace(source, ground=ground)
    return _whole("ground", rng.choice(_GROUND[ground]), source, target, shifts)


def _whole(
    category: str, words: str, source: Scene, target: Scene, shifts: tuple[Shift, ...]
) -> tuple[Edit, list[str]]:
    return Edit(category, words, source, target, shifts, shifts), []


def _colour(source: Scene, shifts: tuple[Shift, ...], rng: random.Random) -> tuple[Edit, list[str]]:
    index = rng.randrange(len(source.things))
    thing = source.things[index]
    colour = rng.choice([c for c in COLOURS if c != thing.colour])
    words = rng.choice(_COLOUR).format(kind=thing.kind, colour=colour)
    target = source.with_thing(index, replace(thing, colour=colour))
    return Edit("colour", words, source, target, shifts, shifts), [thing.kind, colour]


def _move(source: Scene, shifts: tuple[Shift, ...], rng: random.Random) -> tuple[Edit, list[str]]:
    index = rng.randrange(len(source.things))
    thing = source.things[index]
    place = rng.choice([p for p in POSITIONS if p not in {t.position for t in source.things}])
    said = rng.choice(["centre", "middle"]) if place == "centre" else place
    words = rng.choice(_MOVE).format(kind=thing.kind, place=said)
    target = source.with_thing(index, replace(thing, position=place))
    return Edit("move", words, source, target, shifts, shifts), [thing.kind, place]


def _remove(source: Scene, shifts: tuple[Shift, ...], rng: random.Random) -> tuple[Edit, list[str]]:
    index = rng.randrange(len(source.things))
    kind = source.things[index].kind
    kept = (*shifts[:index], *shifts[index + 1 :])
    words = rng.choice(_REMOVE).format(kind=kind)
    return Edit("remove", words, source, source.with_thing(index, None), shifts, kept), []


_Maker = Callable[[Scene, tuple[Shift, ...], random.Random], tuple[Edit, list[str]]]
_MAKERS: dict[str, _Maker] = {
    "sky": _sky, "ground": _ground, "colour": _colour, "move": _move, "remove": _remove,
}  # fmt: skip


def instruction_words() -> list[str]:
    """Every word that an instruction may have."""
    texts = [text for table in (_SKY, _GROUND) for texts in table.values() for text in texts]
    texts += [t.format(kind="", colour="", place="") for t in (*_COLOUR, *_MOVE, *_REMOVE)]
    words = {word for text in texts for word in text.split()}
    return sorted(words | set(COLOURS) | set(KINDS) | set(POSITIONS) | {"middle"})
