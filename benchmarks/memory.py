"""Memory over 100,000 tasks: `python -m benchmarks.memory [--tasks N]`.

Simulated devices that take a millisecond; ten batches in one warm session, main and its workers
measured after each.
"""

import argparse
import gc

import psutil

from benchmarks.ours import STEP, Engine
from benchmarks.peers import Work

BATCHES = 10
WORKERS = 2


def megabytes(process: psutil.Process) -> float:
    return float(process.memory_info().rss / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--tasks", type=int, default=100_000)
    tasks = parser.parse_args().tasks
    here = psutil.Process()
    each = [Work(STEP)] * (tasks // BATCHES)
    print("| tasks | main, MB | largest worker, MB |\n| --- | --- | --- |")
    with Engine(WORKERS) as engine:
        for batch in range(BATCHES):
            engine.run(each)
            gc.collect()
            workers = max(map(megabytes, here.children(recursive=True)))
            print(f"| {(batch + 1) * len(each):,} | {megabytes(here):.0f} | {workers:.0f} |")


if __name__ == "__main__":
    main()
