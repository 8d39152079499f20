"""Garbage goes while few jobs are there; while many are, nobody waits for it."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from apps.server import garbage


class Knot:
    """Something that refers to itself, so that only the collector finds it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """Does nothing of its own accord meanwhile."""
    was_enabled = gc.isenabled()
    gc.disable()
    yield
    if was_enabled:
        gc.enable()


@pytest.mark.parametrize("jobs", [0, garbage.FEW_JOBS])
def test_garbage_goes_while_few_jobs_are_there(jobs: int) -> None:
    knot = weakref.ref(Knot())
    garbage.sweep(jobs)
    assert knot() is None


def test_nobody_waits_for_a_search_among_many_jobs() -> None:
    knot = weakref.ref(Knot())
    garbage.sweep(garbage.FEW_JOBS + 1)
    assert knot() is not None
