"""Python's collector of garbage, for a process in which many thousands of jobs may wait.

It looks at every object that is there at once, while nothing else goes on: with 10,000 jobs queued
these are a million, and 0.5 s. Seldom enough not to be felt, it would hold the garbage of some
100,000 requests meanwhile, 3 objects of each. So it looks, too, while few jobs are there.

What it frees, C's allocator keeps in an arena for each of several threads, in pieces that fit what
comes next less and less. glibc gives them back to the system when it is asked to, but for the piece
at the end of a thread's arena (`mtrim` in glibc's malloc.c). That one goes by itself where it is
larger than M_TRIM_THRESHOLD; left alone, glibc raises this with large blocks to up to 64 MiB.
"""

import ctypes
import gc

# Objects that are new, rounds of these, and rounds of those.
THRESHOLDS = (10_000, 5, 200)
FEW_JOBS = 500  # with these it takes some 20 ms
MIB = 1024 * 1024
# Parameters of mallopt, by their numbers in malloc.h. With smaller thresholds pictures, which are
# some 100 kB, would often be written to pages that the system has to find and clear first.
ALLOCATOR = {
    -8: 4,  # M_ARENA_MAX: not eight for each core, for threads of which one at a time runs Python
    -1: MIB,  # M_TRIM_THRESHOLD
    -3: MIB,  # M_MMAP_THRESHOLD
}
_c = ctypes.CDLL(None)
_trim = getattr(_c, "malloc_trim", None)  # not there where C's library is another


def set_up() -> None:
    """Call it once all modules and settings are there: they stay, and are not looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    if _trim is not None:
        for parameter, value in ALLOCATOR.items():
            _c.mallopt(parameter, value)


def sweep(open_jobs: int) -> None:
    """Look for all garbage and give free memory back, where that takes little; call it at times.

    Args:
        open_jobs: that have not ended.
    """
    if open_jobs <= FEW_JOBS:
        gc.collect()
        if _trim is not None:
            _trim(0)
