"""Edits in several turns: each starts from the edit of the turn before."""

from collections import defaultdict
from collections.abc import Sequence

from apps.edit_benchmark.attempt import Attempt


class Turns:
    """Which edits wait for which; several edits of a pair each have a chain of their own.

    Attributes:
        first: positions of edits that start from pictures of the data.
        problems: why edits can never start, by their positions.
    """

    def __init__(self, attempts: Sequence[Attempt]) -> None:
        places = {(a.pair.name, a.number): position for position, a in enumerate(attempts)}
        self.first: list[int] = []
        self.problems: dict[int, str] = {}
        self._followers: dict[int, list[int]] = defaultdict(list)
        for position, attempt in enumerate(attempts):
            pair = attempt.pair
            if not pair.follows or pair.problem is not None:
                self.first.append(position)
                continue
            before = places.get((pair.follows, attempt.number), places.get((pair.follows, 0)))
            if before is None:
                self.problems[position] = (
                    f"follows: {pair.follows!r} is not among the pairs that are run."
                )
            else:
                self._followers[before].append(position)
        self._refuse_circles()
        self._waiting = {one for later in self._followers.values() for one in later}

    @property
    def waiting(self) -> int:
        """How many edits still wait for the turn before them."""
        return len(self._waiting)

    def release(self, position: int) -> list[int]:
        """The edits that waited for this one; nothing waits for it any more."""
        found = self._followers.pop(position, [])
        self._waiting.difference_update(found)
        return found

    def _refuse_circles(self) -> None:
        """What no chain from a picture of the data leads to is in a circle, or behind one."""
        reached = [*self.first, *self.problems]
        for position in reached:  # grows meanwhile
            reached += self._followers.get(position, [])
        seen = set(reached)
        for before in [each for each in self._followers if each not in seen]:
            for position in self._followers.pop(before):
                self.problems[position] = "follows: pairs follow each other in a circle."
