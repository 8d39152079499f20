"""Says a scene in words, in many ways, all with the words of `vocabulary`."""

import random

from demo_model.scenes import Scene, Thing

_SKY = {
    "dawn": ["at dawn", "in the morning", "at sunrise", "under a dawn sky", "dawn sky"],
    "day": ["at day", "under a day sky", "on a sunny day", "in the daytime", "day sky", "at noon"],
    "sunset": ["at sunset", "under a sunset sky", "in the evening", "at dusk", "sunset sky"],
    "night": ["at night", "under a night sky", "under a starry sky", "night sky", "by night"],
    "storm": ["in a storm", "under a storm sky", "under a stormy sky", "with lightning", "stormy"],
}
_GROUND = {
    "grass": ["on grass", "on the grass", "grass ground", "on a meadow", "on a grassy lawn"],
    "sand": ["on sand", "on the sand", "sand ground", "on sandy ground"],
    "water": ["on water", "on the water", "water ground", "on a lake", "on the sea"],
    "snow": ["on snow", "in the snow", "snow ground", "on snowy ground"],
    "street": ["on a street", "on the street", "street ground", "on a road", "on asphalt"],
}
_BACKDROP = {
    "beach": ["at the beach", "on a beach", "beach scene", "at the seaside"],
    "city": ["in the city", "in a city", "city skyline", "with a city skyline behind"],
    "forest": ["in the forest", "by a forest", "with trees behind", "forest scene"],
}
_POSITION = {
    "left": ["on the left", "on the left side", "at the left", "to the left", "left"],
    "centre": ["in the centre", "in the center", "in the middle", "centre", "at the centre"],
    "right": ["on the right", "on the right side", "at the right", "to the right", "right"],
}
_SIZE = {"small": ["small", "little", "tiny"], "big": ["big", "large", "huge"]}
_KIND = {
    "house": ["house", "house", "cottage", "home"],
    "boat": ["boat", "boat", "sailboat", "ship"],
    "mountain": ["mountain", "mountain", "hill"],
    "cat": ["cat", "cat", "kitten"],
    "umbrella": ["umbrella", "umbrella", "parasol"],
    "mushroom": ["mushroom", "mushroom", "toadstool"],
    "balloon": ["balloon", "balloon", "hot air balloon"],
}
_COLOUR = {"purple": ["purple", "purple", "violet"]}
_OPENING = [
    "",
    "",
    "",
    "a picture of",
    "an image of",
    "a drawing of",
    "a nice scene with",
    "a view of",
]


def plain_caption(scene: Scene) -> str:
    """The one standard wording: objects with positions, ground, sky."""
    things = " and ".join(
        f"a {'' if t.size == 'medium' else t.size + ' '}{t.colour} {t.kind} "
        f"{_POSITION[t.position][0]}"
        for t in scene.things
    )
    ground = _BACKDROP[scene.backdrop][0] if scene.backdrop != "none" else ""
    parts = [things, _GROUND[scene.ground][0], ground, _SKY[scene.sky][0]]
    return " ".join(part for part in parts if part)


def caption(scene: Scene, rng: random.Random) -> str:
    """A random wording: synonyms, order of the parts, commas or none, an opening or none."""
    things = [_thing(thing, rng) for thing in scene.things]
    rng.shuffle(things)
    subject = rng.choice(
        [" and ", " and ", ", ", " next to " if len(things) > 1 else " and "]
    ).join(things)
    places = [rng.choice(_GROUND[scene.ground])]
    if scene.backdrop == "beach" and rng.random() < 0.5:
        places = []  # a beach is sand anyway
    if scene.backdrop != "none":
        places.append(rng.choice(_BACKDROP[scene.backdrop]))
    parts = [*places, rng.choice(_SKY[scene.sky])]
    rng.shuffle(parts)
    parts.insert(0 if rng.random() < 0.75 else len(parts), subject)
    text = rng.choice([", ", " ", ", "]).join(parts)
    return f"{rng.choice(_OPENING)} {text}".strip()


def _thing(thing: Thing, rng: random.Random) -> str:
    kind = rng.choice(_KIND.get(thing.kind, [thing.kind]))
    colour = rng.choice(_COLOUR.get(thing.colour, [thing.colour]))
    size = rng.choice(_SIZE.get(thing.size, [""]))
    position = rng.choice(_POSITION[thing.position])
    words = rng.choice(
        [
            f"a {size} {colour} {kind} {position}",
            f"a {size} {colour} {kind} {position}",
            f"{position} a {size} {colour} {kind}",
            f"{size} {colour} {kind} {position}",
            f"a {size} {kind} in {colour} {position}" if rng.random() < 0.3 else
            f"the {size} {colour} {kind} {position}",
        ]
    )  # fmt: skip
    return " ".join(words.split())
