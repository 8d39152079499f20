"""Python's collector of garbage, for a process in which many thousands of jobs may wait.

It looks at every object that is there at once, while nothing else goes on: with 10,000 jobs queued
these are a million, and 0.5 s. Seldom enough not to be felt, it would hold the garbage of some
100,000 requests meanwhile, 3 objects of each. So it looks, too, while few jobs are there.
"""

import gc

# Objects that are new, rounds of these, and rounds of those.
THRESHOLDS = (10_000, 5, 200)
FEW_JOBS = 500  # with these it takes some 20 ms


def set_up() -> None:
    """Call it once all modules and settings are there: they stay, and are not looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


def sweep(open_jobs: int) -> None:
    """Look for all garbage, where that takes little; call it now and then.

    Args:
        open_jobs: that have not ended.
    """
    if open_jobs <= FEW_JOBS:
        gc.collect()
