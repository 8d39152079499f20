"""Searches for the best way to share slots out between models, as at the start. Pure."""

from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement as combine
from itertools import permutations
from math import comb, inf

GRID = 21  # shares of slots that are tried first, before those near the best of them


def best_split(
    slots: int,
    lowest: Sequence[int],
    work: Sequence[float],
    value: Callable[[Sequence[int], float], float],
) -> tuple[int, ...]:
    """Share out slots between models: try a coarse grid, and then go on from its best point.

    Args:
        lowest: slots that each model gets whatever comes of it.
        value: of a split, the smaller the better; told of the best so far, as it need not be exact
            where it is larger than that.
    """
    known: dict[tuple[int, ...], float] = {}
    models, rest, total = range(len(lowest)), slots - sum(lowest), sum(work)

    def of(split: tuple[int, ...]) -> float:
        if split not in known:
            known[split] = value(split, min(known.values(), default=inf))
        return known[split]

    def raised(counts: Sequence[int]) -> tuple[int, ...]:
        return tuple(low + more for low, more in zip(lowest, counts, strict=True))

    fine = (p for p in range(1, min(rest, GRID) + 1) if comb(p + len(lowest) - 1, p) <= GRID)
    parts = max(fine, default=1)
    grid = [[chosen.count(k) / parts for k in models] for chosen in combine(models, parts)]
    shares = [[w / total for w in work], *grid]
    best = min((raised(_rounded(rest, share)) for share in shares), key=of)
    step = max(rest // parts // 2, 1)
    while step:
        moved = [
            tuple(c - step * (k == a) + step * (k == b) for k, c in enumerate(best))
            for a, b in permutations(models, 2)
            if best[a] - step >= lowest[a]
        ]
        better = min(moved, key=of, default=best)
        if of(better) < of(best):
            best = better
        else:
            step //= 2
    return best


def _rounded(slots: int, shares: Sequence[float]) -> tuple[int, ...]:
    """Round shares to whole numbers that add up to the number of slots."""
    counts = [int(slots * share) for share in shares]
    for _ in range(slots - sum(counts)):
        k = max(range(len(shares)), key=lambda k: slots * shares[k] - counts[k])
        counts[k] += 1
    return tuple(counts)
