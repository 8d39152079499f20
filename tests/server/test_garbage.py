"""Garbage goes while few jobs are there; while many are, nobody waits for it."""

import ctypes
import gc
import subprocess
import sys
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


THREADS_AT_WORK = """
import threading
from pathlib import Path
from apps.server import garbage

def memory():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty:")) >> 10

def work():
    b"x" * 16 * 2**20  # glibc would keep as much for each thread from now on
    [b"x" * 100_000 for _ in range(200)]

garbage.set_up()
before = memory()
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
garbage.sweep(0)
print(memory() - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="no glibc here")
def test_what_threads_have_freed_goes_back_to_the_system() -> None:
    run = subprocess.run(
        [sys.executable, "-c", THREADS_AT_WORK], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) < 10  # MiB of 80
