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
_THINGS = """
house home cottage tree boat sailboat ship mountain peak hill ball tent car cat kitten flower
umbrella parasol mushroom toadstool star balloon hot air red orange yellow green blue purple
violet pink white
"""
WORDS: tuple[str, ...] = tuple(dict.fromkeys((_GRAMMAR + _THINGS).split()))
_KNOWN = frozenset(WORDS)


def unknown_words(prompt: str) -> list[str]:
    """Words of `prompt` that the demo model will ignore, each once, in their order."""
    words = re.findall(r"[\w<|>]+", prompt.lower())
    return [w for w in dict.fromkeys(words) if w not in _KNOWN]
