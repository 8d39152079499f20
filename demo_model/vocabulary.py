"""The words that the demo model knows. Needs no model library, so that anyone may ask."""

import re

_GRAMMAR = """
a an the and with of in on at under over near by to is are it this that there stands sits
picture photo image drawing painting scene view simple nice behind beside next standing
left right centre center middle side hand sky ground day daytime noon sunny night
nighttime starry moonlit dawn morning sunrise sunset evening dusk storm stormy lightning
thunder grass grassy meadow lawn sand sandy water lake sea ocean snow snowy snowfield street
road asphalt beach seaside city town skyline buildings forest woods trees small little tiny
big large huge medium user assistant style winter neon pencil sketch watercolour make add
remove change replace turn into move color colour one two no from
"""
_OBJECTS = """
house home cottage tree boat sailboat ship mountain peak hill ball tent car cat kitten flower
umbrella parasol mushroom toadstool star balloon
"""
_QUALITIES = """
hot air red orange yellow green blue purple violet pink white
"""
WORDS: tuple[str, ...] = tuple(dict.fromkeys((_GRAMMAR + _OBJECTS + _QUALITIES).split()))
_KNOWN = frozenset(WORDS)
_PLACES = frozenset(["left", "right", "centre", "center", "middle"])


def unknown_words(prompt: str) -> list[str]:
    """Words of `prompt` that the demo model will ignore, each once, in their order."""
    return [w for w in dict.fromkeys(_words(prompt)) if w not in _KNOWN]


def names_no_place(prompt: str) -> bool:
    """It names an object and not where it stands: the demo model was taught both together."""
    words = set(_words(prompt))
    return not words.isdisjoint(_OBJECTS.split()) and words.isdisjoint(_PLACES)


def _words(prompt: str) -> list[str]:
    return re.findall(r"[\w<|>]+", prompt.lower())
