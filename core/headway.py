"""How far a look at many inputs has come, before there is anything to work on."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Look:
    """What is being looked at.

    Attributes:
        doing: in a word or two, such as `checking`.
        total: how many there are; 0 where nobody knows.
    """

    doing: str
    done: int = 0
    total: int = 0

    def __str__(self) -> str:
        return f"{self.doing} {self.done}/{self.total}" if self.total else self.doing


class Headway:
    """One thread looks at inputs; others may ask at any time how far it has come."""

    def __init__(self) -> None:
        self._looks: list[list[Look]] = []  # the innermost last; each in a place of its own

    @property
    def look(self) -> Look | None:
        """What is being looked at; None for nothing."""
        looks = list(self._looks)
        return looks[-1][0] if looks else None

    @contextmanager
    def at(self, doing: str) -> Iterator[list[Look]]:
        """Say what is done until this block ends; within it, another one comes first."""
        place = [Look(doing)]
        self._looks.append(place)
        try:
            yield place
        finally:  # which may come late, where a count was not asked for to its end
            self._looks = [other for other in self._looks if other is not place]

    def over(self, doing: str, items: Iterable[T], total: int) -> Generator[T, None, None]:
        """The items, counted as they are asked for."""
        with self.at(doing) as place:
            for done, item in enumerate(items):
                place[0] = Look(doing, done, total)
                yield item
