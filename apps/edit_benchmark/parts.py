"""Parts of a data set that have figures of their own: languages, and GEdit-Bench's subsets.

Scores of instructions in different languages are never averaged, and GEdit-Bench's leaders are
compared on the pairs that it has in every language ("intersection"), too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from apps.edit_benchmark.records import Record

Subset = Literal["full", "intersection"]


@dataclass(frozen=True)
class Part:
    """All pairs of a language, or those of them in the intersection; empty: language unknown."""

    language: str
    subset: Subset

    def holds(self, record: Record) -> bool:
        return record.language == self.language and (
            self.subset == "full" or record.intersection_exist is True
        )


def parts_of(records: Sequence[Record]) -> list[Part]:
    """Parts of the data that have a figure each; none where one figure stands for all."""
    languages = list(dict.fromkeys(r.language for r in records if r.language))
    marked = any(r.intersection_exist is not None for r in records)
    if len(languages) < 2 and not marked:
        return []
    subsets: tuple[Subset, ...] = ("full", "intersection") if marked else ("full",)
    return [Part(language, subset) for language in languages for subset in subsets]
