"""Which pairs of an input are run: by language, subset, category, sample and number."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from apps.edit_benchmark.categories import UNSORTED
from apps.edit_benchmark.pair import Pair
from core.errors import InputError

# As people and data sets write the languages that GEdit-Bench calls en and cn.
_LANGUAGES = {"zh": "cn", "zh-cn": "cn", "chinese": "cn", "eng": "en", "english": "en"}


@dataclass(frozen=True)
class Choice:
    """What to run of an input; each part that is given narrows it further.

    Attributes:
        languages: pairs with an instruction in one of these.
        subsets: every group narrows; a pair belongs to one of the names in each group.
        categories: pairs of one of these.
        sample: that many pairs drawn at random, in the order of the input; edits in turns are
            drawn with all turns before them, and count.
        sample_seed: decides which are drawn. A pair is drawn or not by its name, so that data
            which grows keeps most of its sample.
        limit: the first of what is left.
    """

    languages: Sequence[str] = ()
    subsets: Sequence[Sequence[str]] = ()
    categories: Sequence[str] | None = None
    sample: int | None = None
    sample_seed: int = 0
    limit: int | None = None

    def of(self, pairs: Sequence[Pair], data: str) -> list[Pair]:
        """The pairs to run, in their order.

        Args:
            data: the name of the input, for errors.

        Raises:
            InputError: a language, a subset or a category that no pair has.
        """
        languages = [
            _known("language", name, _languages(pairs), data, _LANGUAGES) for name in self.languages
        ]
        subsets = [
            {_known("subset", name, _subsets(pairs), data) for name in group}
            for group in self.subsets
        ]
        kinds = {(pair.category, pair.subsets) for pair in pairs if not pair.is_sketch}
        asked = {*languages, *(name for group in subsets for name in group)}
        found = [pair for pair in pairs if asked.issuperset(pair.asked_by)]
        if languages:
            known = [*languages, ""]  # of a row that could not be read as far as that
            found = [p for p in found if p.language in (known if p.is_sketch else languages)]
        for group in subsets:
            found = [pair for pair in found if group & _parts_of(pair, kinds)]
        if self.categories is not None:
            there = list(dict.fromkeys(pair.category for pair in pairs))
            wanted = {_known("categories", name, there, data) for name in self.categories}
            found = [pair for pair in found if pair.category in wanted]
        if self.sample is not None:
            found = self._sampled(found)
        return with_turns_before(found[: self.limit], pairs)

    def _sampled(self, pairs: list[Pair]) -> list[Pair]:
        assert self.sample is not None
        drawn: dict[str, None] = {}
        by_name = {pair.name: pair for pair in pairs}
        for pair in sorted(pairs, key=self._lot):
            if len(drawn) >= self.sample:
                break
            drawn.update(dict.fromkeys(each.name for each in _turns(pair, by_name)))
        return [pair for pair in pairs if pair.name in drawn]

    def _lot(self, pair: Pair) -> bytes:
        return hashlib.sha256(f"{self.sample_seed}/{pair.name}".encode()).digest()


def _parts_of(pair: Pair, kinds: Iterable[tuple[str, tuple[str, ...]]]) -> set[str]:
    """The subsets of a pair. One that could not be read is failed in each that it may be of: those
    of its category's other pairs with the subsets that are known of it.

    Args:
        kinds: categories and subsets of the pairs that could be read.
    """
    known = set(pair.subsets)
    if not pair.is_sketch:
        return known
    alike = [subsets for category, subsets in kinds if pair.category in (category, UNSORTED)]
    return known.union(*(subsets for subsets in alike if known.issubset(subsets)))


def _turns(pair: Pair, by_name: dict[str, Pair]) -> list[Pair]:
    """A pair and those whose edits it starts from."""
    turns = [pair]
    while turns[-1].follows in by_name and len(turns) <= len(by_name):
        turns.append(by_name[turns[-1].follows])
    return turns


def with_turns_before(found: list[Pair], pairs: Sequence[Pair]) -> list[Pair]:
    """`found` with the turns that it starts from, whatever left those out."""
    names = {pair.name for pair in found}
    if all(not pair.follows or pair.follows in names for pair in found):
        return found
    by_name = {pair.name: pair for pair in pairs}
    names = {turn.name for pair in found for turn in _turns(pair, by_name)}
    return [pair for pair in pairs if pair.name in names]


def _languages(pairs: Iterable[Pair]) -> list[str]:
    return list(dict.fromkeys(pair.language for pair in pairs if pair.language))


def _subsets(pairs: Iterable[Pair]) -> list[str]:
    return list(dict.fromkeys(name for pair in pairs for name in pair.subsets))


def _known(
    what: str,
    name: str,
    there: Sequence[str],
    data: str,
    aliases: dict[str, str] | None = None,
    plain: Callable[[str], str] = str.casefold,
) -> str:
    """The name as the data has it.

    Raises:
        InputError: the data has no such name.
    """
    if name in there:
        return name
    meant = (aliases or {}).get(plain(name), name)
    found = next((each for each in there if plain(each) == plain(meant)), None)
    if found is None:
        has = f"there are {', '.join(there)}" if there else "it has none"
        raise InputError(f"{what}: {name!r} is not in {data}; {has}.")
    return found
