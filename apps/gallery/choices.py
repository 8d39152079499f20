"""Which of several edits of one pair counts: the one that the newest judge scores highest.

A benchmark with `edits_per_pair` puts the first edits into `edits/` and the others into `edits-2/`
and so on, under the same names.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from apps.gallery.items import Item

_PLACE = re.compile(r"edits(?:-(\d+))?/(.+)\.\w+", re.DOTALL)
_OVERALL = "O"


def with_choices(items: Sequence[Item]) -> list[Item]:
    """The items; those of pairs with several edits say whether they are the chosen ones."""
    places: dict[str, dict[int, int]] = defaultdict(dict)  # by pair and number of the edit
    for place, item in enumerate(items):
        found = _PLACE.fullmatch(item.id) if item.kind == "edit" else None
        if found is not None:
            places[found[2]][int(found[1] or 1)] = place
    chosen = list(items)
    for numbered in places.values():
        scores = {n: s for n, at in numbered.items() if (s := _score(items[at])) is not None}
        if len(numbered) < 2 or not scores:
            continue
        best = max(scores, key=lambda number: (scores[number], -number))
        for number, at in numbered.items():
            words = "chosen" if number == best else "not chosen"
            chosen[at] = replace(items[at], choice=f"{words}, edit {number} of {len(numbered)}")
    return chosen


def _score(item: Item) -> float | None:
    """The overall score of the newest verdict that has scores."""
    scores = next((v.scores for v in reversed(item.verdicts) if v.scores), None)
    return None if not scores else scores.get(_OVERALL, list(scores.values())[-1])
