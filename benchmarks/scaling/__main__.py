"""How far one driver goes: `python -m benchmarks.scaling [PART ...] [--full] [--plots FOLDER]`.

Parts: `decisions` (the scheduler's microseconds), `runs` (whole runs on simulated devices, with
their records), `memory` (what an ended task leaves in the driver), `driver` (what the engine's loop
costs by the number of devices). Devices are arithmetic; scheduler, rules of retry and ledger are
the engine's own. Without `--full` it is small enough for a laptop's coffee break; with it, 4,096
GPUs and 10 million tasks take hours and some 15 GB of disk (`--ledgers`). `docs/SCALING.md` says
what came of it.
"""

import argparse
import json
import multiprocessing
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

from benchmarks.scaling.decisions import Decisions, measure
from benchmarks.scaling.driver import DriverOutcome, drive
from benchmarks.scaling.memory import MemoryOutcome
from benchmarks.scaling.memory import measure as measure_memory
from benchmarks.scaling.plots import Chart
from benchmarks.scaling.simulation import Outcome, simulate
from benchmarks.scaling.workload import MEGAPIXEL, SIDES, Case, Speeds, Workload

T = TypeVar("T")
DAY = 24 * 3600.0
GPUS = (8, 64, 512, 4096)
LORAS = (0, 64, 1000)
POISON = 5  # tasks of a million
SECONDS = (1.0, 3.5, 10.0)  # of a task, for the driver
MEAN_WORK = sum(width * height for width, height in SIDES) / len(SIDES) / MEGAPIXEL
BOUND_US = 50.0
PARTS = ("decisions", "runs", "memory", "driver")
FIRST_LOOK, LOOKS = 10_000, 50_000  # ended tasks, and between looks from then on


def in_a_process(call: Callable[..., T], *args: object) -> T:
    """A call's result, from a process of its own: its memory is its own, and so is its clock."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(call, args)


def decisions(waiting: Sequence[int], gpus: Sequence[int]) -> list[Decisions]:
    print("\n| waiting | GPUs | LoRAs | µs a decision | slowest 200 | µs to queue |")
    print("| --- | --- | --- | --- | --- | --- |")
    found = []
    for tasks, number, loras in ((t, g, n) for t in waiting for g in gpus for n in LORAS):
        if tasks < 2 * number:
            continue
        one = in_a_process(measure, tasks, number, loras)
        found.append(one)
        print(
            f"| {tasks:,} | {number:,} | {loras:,} | {one.median:.0f} | {one.slowest:.0f} | "
            f"{one.queued:.1f} |",
            flush=True,
        )
    return found


def runs(
    gpus: Sequence[int], tasks: Sequence[int], loras: Sequence[int], slow: float, base: str | None
) -> list[Outcome]:
    """Whole runs; workers die once a day on average, and five tasks of a million kill theirs."""
    print(
        "\n| GPUs | tasks | LoRAs | makespan, h | over the bound | LoRA loads | deaths | lost work "
        "| not done | µs a decision | µs of the driver | ledger rows/s | ledger, bytes a task "
        "| memory, MB |"
    )
    print("| --- " * 14 + "|")
    speeds = Speeds(between_deaths=DAY, slow=slow)
    found = []
    for number, count, kinds in ((g, t, n) for t in tasks for g in gpus for n in loras):
        one = in_a_process(simulate, Case(number, Workload(count, kinds, POISON), speeds), base)
        found.append(one)
        lost = one.work_lost / (one.makespan * number)
        not_done = {status: n for status, n in one.ended.items() if status != "done"}
        print(
            f"| {number:,} | {count:,} | {kinds} | {one.makespan / 3600:.2f} | "
            f"{one.over_bound:.4f} | {one.lora_loads:,} | {one.deaths} | {lost:.3%} | "
            f"{', '.join(f'{n} {status}' for status, n in not_done.items()) or '-'} | "
            f"{one.decision_us:.0f} | {one.us_per_task:.0f} | {one.rows_per_second:,.0f} | "
            f"{one.ledger_bytes / count:,.0f} | {one.memory / 1e6:,.0f} |",
            flush=True,
        )
    return found


def memory(tasks: int, gpus: int, base: str | None) -> MemoryOutcome:
    """The whole program with workers that take no time."""
    looks = [FIRST_LOOK, *range(LOOKS, tasks + 1, LOOKS)]
    one = in_a_process(measure_memory, tasks, looks, gpus, base)
    print("\n| ended | MB of the driver | bytes a task since then |")
    print("| --- | --- | --- |")
    for ended, resident, each in zip(one.ended, one.resident, ["", *one.each], strict=True):
        grown = f"{each:.0f}" if isinstance(each, float) else "-"
        print(f"| {ended:,} | {resident / 1e6:,.1f} | {grown} |")
    print(
        f"At most, with the tables at the end: {one.most / 1e6:,.0f} MB; "
        f"{1e6 * one.seconds_cpu / tasks:,.0f} µs of CPU a task.",
        flush=True,
    )
    return one


def driver(
    gpus: Sequence[int], seconds: Sequence[float], each: int, base: str | None
) -> list[DriverOutcome]:
    """The whole engine, with so many tasks for each device; its own time counts, too."""
    print("\n| GPUs | s a task | tasks | over the bound | engine's thread busy | µs a task |")
    print("| --- | --- | --- | --- | --- | --- |")
    found = []
    for number, one_takes in ((g, s) for g in gpus for s in seconds):
        speeds = Speeds(megapixel=one_takes / MEAN_WORK)
        case = Case(number, Workload(max(1000, each * number)), speeds)
        # As asked for: the mean of a mixture is a little more or less.
        one = replace(in_a_process(drive, case, base), seconds=one_takes)
        found.append(one)
        print(
            f"| {number:,} | {one_takes:g} | {one.tasks:,} | {one.over_bound:.3f} | "
            f"{one.busy:.0%} | {one.us_per_task:.0f} |",
            flush=True,
        )
    return found


def by(found: Iterable[T], name: Callable[[T], str], point: Callable[[T], tuple[float, float]]) -> (
    dict[str, list[tuple[float, float]]]
):  # fmt: skip
    """Points of results, by the line that they belong to."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for one in found:
        lines.setdefault(name(one), []).append(point(one))
    return {line: sorted(points) for line, points in lines.items()}


def plot(
    folder: Path,
    decided: Sequence[Decisions],
    ran: Sequence[Outcome],
    drove: Sequence[DriverOutcome],
) -> None:
    if decided:
        most = max(one.gpus for one in decided)
        lines = by(
            [one for one in decided if one.gpus == most],
            lambda one: f"{one.loras:,} LoRAs",
            lambda one: (one.waiting, one.median),
        )
        ends = [one.waiting for one in decided if one.gpus == most]
        lines["-bound: 50 µs"] = [(min(ends), BOUND_US), (max(ends), BOUND_US)]
        title = f"One decision of the scheduler, {most:,} GPUs"
        Chart(title, "tasks waiting", "µs of CPU", lines).write(folder / "decisions.svg")
    if ran:
        most = max(one.tasks for one in ran)
        longest = [one for one in ran if one.tasks == most]
        lines = by(longest, lambda one: f"{one.loras} LoRAs", lambda o: (o.gpus, o.over_bound))
        title = f"End of {most:,} tasks over the lower bound"
        chart = Chart(title, "GPUs", "times the bound", lines, logarithmic=False)
        chart.write(folder / "makespan.svg")
        lines = by(ran, lambda o: f"{o.gpus:,} GPUs", lambda o: (o.tasks, o.memory / 1e6))
        Chart("Memory of the driver", "tasks", "MB", lines).write(folder / "memory.svg")
        lines = by(ran, lambda o: f"{o.gpus:,} GPUs", lambda o: (o.tasks, o.ledger_bytes / 1e6))
        Chart("Size of the ledger", "tasks", "MB", lines).write(folder / "ledger.svg")
    if drove:
        lines = by(
            drove, lambda one: f"{one.seconds:.1f} s a task", lambda o: (o.gpus, o.over_bound)
        )
        title = "End of a run over the lower bound, the engine's own time counted"
        chart = Chart(title, "GPUs of one driver", "times the bound", lines, logarithmic=False)
        chart.write(folder / "driver.svg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART")
    parser.add_argument("--full", action="store_true", help="sizes of docs/SCALING.md")
    parser.add_argument("--gpus", type=int, nargs="+", help="numbers of devices")
    parser.add_argument("--tasks", type=int, nargs="+", help="numbers of tasks, for runs")
    parser.add_argument("--loras", type=int, nargs="+", default=[0, 64], help="for runs")
    parser.add_argument("--seconds", type=float, nargs="+", help="of a task, for driver")
    parser.add_argument("--each", type=int, default=10, help="tasks of a device, for driver")
    parser.add_argument("--slow", type=float, default=0.0, help="part of half as fast devices")
    parser.add_argument("--ledgers", metavar="DIR", help="where ledgers are written meanwhile")
    parser.add_argument("--plots", metavar="DIR", type=Path, help="write charts there")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures there")
    options = parser.parse_args()
    parts = options.parts or PARTS
    full = options.full
    gpus = options.gpus or (GPUS if full else (8, 64))
    waiting = (1_000, 10_000, 100_000, 1_000_000) if full else (1_000, 10_000, 100_000)
    tasks = options.tasks or ((100_000, 1_000_000, 10_000_000) if full else (10_000,))
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    decided = decisions(waiting, gpus) if "decisions" in parts else []
    ran: list[Outcome] = []
    if "runs" in parts:
        ran = runs(gpus, tasks, options.loras, options.slow, options.ledgers)
    kept = None
    if "memory" in parts:
        kept = memory(max(tasks[0], 2 * LOOKS), gpus[0], options.ledgers)
    drove: list[DriverOutcome] = []
    if "driver" in parts:
        drove = driver(gpus, options.seconds or SECONDS, options.each, options.ledgers)
    if options.plots is not None:
        plot(options.plots, decided, ran, drove)
    if options.json is not None:
        rows = {
            "decisions": [asdict(one) for one in decided],
            "runs": [asdict(one) for one in ran],
            "memory": None if kept is None else asdict(kept),
            "driver": [asdict(one) for one in drove],
        }
        options.json.write_text(json.dumps(rows, indent=1), "utf-8")


if __name__ == "__main__":
    main()
