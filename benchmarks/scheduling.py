"""Who ends a batch soonest: `python -m benchmarks.scheduling [SCENARIO ...]`.

With `--peers PYTHON` it is compared with what Ray and accelerate do; see `benchmarks.batch_peers`.

Real processes whose device work is a sleep. All contenders run one after the other in every
round, warm, and every round has tasks of its own; a figure is the median over the rounds, its
range in brackets. The lower bound is max(sum of seconds / workers, longest task).
"""

import argparse
import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks.batch_peers import compare
from benchmarks.ours import Engine
from benchmarks.peers import LORA_LOAD, PoolPeers, RayPeer, Run, Work
from benchmarks.ratios import times_faster

UNIT = 0.4  # seconds: a task of one megapixel
Rounds = dict[str, list[float]]


def mixed(count: int, unit: float, seed: int = 0) -> list[Work]:
    """Tasks of 0.25, 1 and 2.25 units, in random order, with 5 % jitter."""
    rng = random.Random(seed)
    sizes = [rng.choice([0.25, 1.0, 2.25]) * rng.uniform(0.95, 1.05) for _ in range(count)]
    return [Work(round(unit * size, 3)) for size in sizes]


def bound(tasks: Sequence[Work], workers: int) -> float:
    return max(sum(t.seconds for t in tasks) / workers, max(t.seconds for t in tasks))


def seconds(run: Run, tasks: Sequence[Work]) -> float:
    started = time.perf_counter()
    run(tasks)
    return time.perf_counter() - started


def rounds(runs: dict[str, Run], draws: Sequence[Sequence[Work]]) -> Rounds:
    """Every contender once per draw of tasks."""
    found: Rounds = {name: [] for name in runs}
    for tasks in draws:
        for name, run in runs.items():
            found[name].append(seconds(run, tasks))
    return found


def table(title: str, found: Rounds, bounds: Sequence[float]) -> None:
    """Our engine is the first contender; `bounds` are those of the rounds."""
    print(f"\n{title}; lower bound {median(bounds):.2f} s\n")
    print("| contender | seconds | over the bound | we are faster by |\n| --- | --- | --- | --- |")
    ours = next(iter(found.values()))
    for name, values in found.items():
        over = median(v / low for v, low in zip(values, bounds, strict=True))
        print(
            f"| {name} | {median(values):.2f} | {over:.3f} | {times_faster(values, ours)} |",
            flush=True,
        )


def mixed_sizes() -> None:
    """8 workers, 64 tasks of mixed sizes, against everybody."""
    workers, draws = 8, [mixed(64, UNIT, seed) for seed in range(5)]
    with ExitStack() as stack:
        peers = stack.enter_context(PoolPeers(workers))
        runs: dict[str, Run] = {
            "this engine": stack.enter_context(Engine(workers)).run,
            "ProcessPoolExecutor (FIFO pull)": peers.executor,
            "Pool.map": peers.pool_map,
            "static split": peers.static_split,
            "barrier batches": peers.barriers,
        }
        try:
            runs["Ray ActorPool"] = stack.enter_context(RayPeer(workers)).actors
        except ImportError:
            print("Ray is not installed: pip install ray")
        found = rounds(runs, draws)
    found["serial loop (sum of the sleeps)"] = [sum(t.seconds for t in tasks) for tasks in draws]
    bounds = [bound(tasks, workers) for tasks in draws]
    table("8 workers, 64 tasks of 0.25, 1 and 2.25 units", found, bounds)


def many_workers() -> None:
    """64 workers, 10,000 tasks."""
    workers, tasks = 64, mixed(10_000, UNIT)
    with Engine(workers) as engine:
        found = rounds({"this engine": engine.run}, [tasks])
    table("64 workers, 10,000 tasks", found, [bound(tasks, workers)])


def with_loras(loras: int) -> Callable[[], None]:
    def scenario() -> None:
        workers, found = 8, Rounds()
        draws = [
            [Work(0.03, rng.randrange(loras)) for _ in range(1000)]
            for rng in map(random.Random, range(3))
        ]
        for tasks in draws:  # each with new contenders: none holds a LoRA from the round before
            with ExitStack() as stack:
                one = stack.enter_context(PoolPeers(workers, resident=1))
                all_ = stack.enter_context(PoolPeers(workers, resident=loras))
                runs: dict[str, Run] = {
                    "this engine, one resident": stack.enter_context(Engine(workers, 1, loras)).run,
                    "FIFO pull, one resident": one.executor,
                    "FIFO pull, all resident": all_.executor,
                }
                for name, values in rounds(runs, [tasks]).items():
                    found.setdefault(name, []).extend(values)
        title = f"8 workers, 1,000 tasks of 0.03 s over {loras} LoRAs that load in {LORA_LOAD} s"
        table(title, found, [bound(tasks, workers) for tasks in draws])

    return scenario


def mixed_speed() -> None:
    """8 workers, one of them half and one a third as fast."""
    workers, draws = 8, [mixed(64, UNIT, seed) for seed in range(3)]
    slowness = {"cpu0": 2.0, "cpu1": 3.0}
    simulated = {
        "seconds_per_megapixel_step": 0.001 / (64 * 64 / 1e6),
        "lora_load_seconds": LORA_LOAD,
        "slowness": slowness,
    }
    with ExitStack() as stack:
        balanced = stack.enter_context(Engine(workers, simulated=simulated))
        plain = stack.enter_context(
            Engine(workers, simulated=simulated, scheduling={"speculative_copies": False})
        )
        found = rounds({"this engine": balanced.run, "without copies": plain.run}, draws)
    speeds = sum(1 / slowness.get(f"cpu{n}", 1.0) for n in range(workers))
    table(
        "8 workers of mixed speed (1/2 and 1/3), 64 mixed tasks",
        found,
        [sum(t.seconds for t in tasks) / speeds for tasks in draws],
    )


def overhead() -> None:
    """8 workers, tasks of a second: what main takes of a core, and how long devices wait."""
    workers, tasks = 8, [Work(1.0)] * 160
    with Engine(workers) as engine:
        skip, cpu, started = len(engine.generator.device_waits), time.process_time(), time.time()
        engine.run(tasks)
        share = (time.process_time() - cpu) / (time.time() - started)
        waits = sorted(engine.generator.device_waits[skip + workers :])  # not the batch's first
    print(
        f"\n8 workers, {len(tasks)} tasks of 1 s: main takes {share:.2%} of a core; a device waits"
    )
    print(f"{1000 * median(waits):.1f} ms between tasks (median; 95 %: "
          f"{1000 * waits[int(0.95 * len(waits))]:.1f} ms)")  # fmt: skip


SCENARIOS: dict[str, Callable[[], None]] = {
    "mixed-sizes": mixed_sizes,
    "many-workers": many_workers,
    "8-loras": with_loras(8),
    "64-loras": with_loras(64),
    "mixed-speed": mixed_speed,
    "overhead": overhead,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    # argparse looks for what stands for none of them among the choices, too.
    parser.add_argument("scenarios", nargs="*", choices=[*SCENARIOS, []], metavar="SCENARIO")
    parser.add_argument(
        "--peers", metavar="PYTHON", type=Path, help="compare with batches by Ray; batch_peers.py"
    )
    parser.add_argument("--workers", type=int, default=8, help="of each contender, with --peers")
    parser.add_argument("--rounds", type=int, default=3, help="of each scenario, with --peers")
    options = parser.parse_args()
    if options.peers is not None:
        compare(options.peers, options.workers, options.rounds)
        return
    for name in options.scenarios or SCENARIOS:
        SCENARIOS[name]()


if __name__ == "__main__":
    main()
