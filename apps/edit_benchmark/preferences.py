"""What people said of edits that exist, in the one form that scoring-only data sets are read into.

A pair with an `edited_image` may have in its metadata

- `group`: edits of one group share their sources and their instruction;
- `rank`: its place in its group, 1 being the best; equal ranks are ties;
- `comparisons`: a list of `{"with": name of the other pair, "preferred": "this", "other" or "tie",
  "dimension": what was asked, "set": the part of the data set}`. Each comparison stands once, with
  the first of its two edits.

`rank` says the comparisons of every two edits of a group, in the dimension "overall"; where there
are `comparisons`, they alone count.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from apps.edit_benchmark.pair import Pair
from core.errors import InputError
from core.validation import shown

GROUP, RANK, COMPARISONS = "group", "rank", "comparisons"
OVERALL = "overall"
_SIGNS = {"this": 1, "other": -1, "tie": 0}


@dataclass(frozen=True)
class Comparison:
    """What people preferred of two edits.

    Attributes:
        first: name of a pair, as `Pair.name` has it.
        second: of the other.
        preferred: 1 the first, -1 the second, 0 neither.
        category: of the first.
        dimension: what people were asked for, such as overall or prompt_following.
        group: edits of one source and instruction.
        part: the part of the data set, such as 2pair; empty where it has none.
    """

    first: str
    second: str
    preferred: int
    category: str
    dimension: str = OVERALL
    group: str = ""
    part: str = ""


def compared(
    other: str, preferred: int, dimension: str = OVERALL, part: str = ""
) -> dict[str, str]:
    """An entry of `comparisons`.

    Args:
        other: name of the other pair.
        preferred: 1 this one, -1 the other, 0 neither.
    """
    word = next(word for word, sign in _SIGNS.items() if sign == preferred)
    return {"with": other, "preferred": word, "dimension": dimension, "set": part}


def comparisons_of(pairs: Iterable[Pair]) -> list[Comparison]:
    """All comparisons between the given pairs; those with others are left out.

    Raises:
        InputError: a comparison of a pair is in another form.
    """
    by_name = {pair.name: pair for pair in pairs}
    groups: dict[str, list[Pair]] = defaultdict(list)
    found: list[Comparison] = []
    for pair in by_name.values():
        if COMPARISONS in pair.metadata:
            found += [each for each in _said(pair) if each.second in by_name]
        elif isinstance(pair.metadata.get(RANK), int | float):
            groups[str(pair.metadata.get(GROUP, ""))].append(pair)
    for group, members in groups.items():
        found += [_ranked(a, b, group) for a, b in combinations(members, 2)]
    return found


def _said(pair: Pair) -> Iterator[Comparison]:
    entries = pair.metadata[COMPARISONS]
    for entry in entries if isinstance(entries, list) else [entries]:
        try:
            preferred, other = _SIGNS[entry["preferred"]], str(entry["with"])
        except (KeyError, TypeError):
            raise InputError(
                f'pair {pair.name}: {COMPARISONS}: expected a list of {{"with": name of another, '
                f'"preferred": "this", "other" or "tie"}} (found {shown(entry)}).'
            ) from None
        yield Comparison(
            pair.name,
            other,
            preferred,
            pair.category,
            str(entry.get("dimension") or OVERALL),
            str(pair.metadata.get(GROUP, "")),
            str(entry.get("set", "")),
        )


def _ranked(a: Pair, b: Pair, group: str) -> Comparison:
    first, second = a.metadata[RANK], b.metadata[RANK]
    preferred = (second > first) - (second < first)
    return Comparison(a.name, b.name, preferred, a.category, group=group)


def with_names(pair: Pair, renamed: Mapping[str, str]) -> Pair:
    """The pair, whose comparisons name other pairs as they are called now."""
    said: list[dict[str, Any]] = pair.metadata.get(COMPARISONS) or []
    if not any(renamed.get(each["with"], each["with"]) != each["with"] for each in said):
        return pair
    named = [{**each, "with": renamed.get(each["with"], each["with"])} for each in said]
    return replace(pair, metadata={**pair.metadata, COMPARISONS: named})
