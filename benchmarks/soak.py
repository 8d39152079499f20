"""A day of a daemon's life in an hour: `python -m benchmarks.soak [--minutes 60] [--seed 1]`.

A real daemon on two simulated devices that keeps things for a minute, so that jobs, uploads,
pictures, batches, streams and records come and go as they do in months of other settings; see
`benchmarks.churn` for who calls. Between two rounds everybody has their answer and is gone: then
memory, open files, threads, files and rows are looked at. At the end all that was kept must be
gone. Exit code 1: something grew.
"""

import argparse
import asyncio
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.churn import Churn
from benchmarks.daemon import Daemon, wait_for
from benchmarks.holdings import Holdings, held

KEPT = 60.0  # seconds: results, records and pictures, unless somebody asks for another time
ROUND = 60.0  # seconds between two looks
WARM_UP = 0.25  # of the rounds, while caches still fill
SPARE = 2  # files, open ones and threads that may be more or fewer
FLAT = 0.05  # of the memory: by how much it may have grown after the warm-up
SURE = 2.0  # standard errors of a slope
SETTLING = 30.0  # seconds for connections to be closed
OF_A_KILL = re.compile(r"its process was ended by SIGKILL\.|start \d+ in a row follows")
_HEAD = (
    "minute", "main, MiB", "all, MiB", "open files", "threads", "processes", "files", "folders",
    "databases, MiB", "rows", "requests",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: whether it held, and the figures."""

    held: bool
    words: str


def settings(kept: float) -> dict[str, Any]:
    """A daemon that keeps results for so many seconds."""
    return {
        "editor": {"model": "simulated"},
        "judge": {"model": "simulated"},
        "simulated": {
            "load_seconds": 0.2,
            "seconds_per_megapixel_step": 1.0,  # 0.07 s a picture
            "score_seconds": 0.05,
            "jitter": 0.5,
        },
        "supervision": {"restart_backoff": 0.1, "restarts_before_retirement": 100_000},
        "server": {
            "keep_results": kept / 3600,
            "command_timeout": 5,
            "images": {"url_lifetime": kept / 60},
        },
    }


def soak(
    folder: Path, seconds: float, seed: int, round_seconds: float = ROUND, kept: float = KEPT
) -> list[Finding]:
    """Have a daemon live through so many seconds of churn; prints a table as it goes."""
    daemon = Daemon(folder, "--cpu-workers", "2", **settings(kept))
    try:
        churn = Churn(daemon, seed)
        _draw_and_forget(daemon)
        fresh = _look(daemon)
        print(f"| {' | '.join(_HEAD)} |\n|{' --- |' * len(_HEAD)}")
        _tell(0.0, fresh, churn)
        started = time.monotonic()
        looks: list[tuple[float, Holdings]] = []
        while (since := time.monotonic() - started) < seconds:
            asyncio.run(churn.run(min(round_seconds, seconds - since)))
            looks.append((time.monotonic() - started, _look(daemon)))
            _tell(*looks[-1], churn)
        last = _after_all_is_gone(daemon, fresh, kept)
        _tell(time.monotonic() - started, last, churn)
        print("\n" + ", ".join(f"{n} {what}" for what, n in sorted(churn.counts.items())))
        alive = daemon.process.poll() is None
        said = [line for line in daemon.log.splitlines() if not OF_A_KILL.search(line)]
    finally:
        daemon.kill()
    return [
        Finding(alive, "the daemon is alive"),
        *_of_memory(looks),
        *_of_the_rest(fresh, looks, last),
        *(Finding(False, f"{n} times: {what}") for what, n in churn.unexpected.items()),
        Finding(
            not said, "\n".join(said[-40:]) or "the log has no error, and warns of kills alone"
        ),
    ]


def _draw_and_forget(daemon: Daemon) -> None:
    """One picture, of which nothing is kept: databases are made with the first one."""
    with daemon.client() as client:
        task = {"prompt": "a house", "width": 64, "height": 64}
        job = client.post("/v1/jobs", json={"tasks": [task]}).raise_for_status().json()["id"]
        client.get(f"/v1/jobs/{job}/events")  # until its end
        client.delete(f"/v1/engine/jobs/{job}").raise_for_status()
        wait_for(lambda: client.get(f"/v1/jobs/{job}").status_code == 404, "a job to be forgotten")


def _look(daemon: Daemon) -> Holdings:
    """What it holds once nothing changes any more."""
    pid, output = daemon.process.pid, daemon.output
    before = held(pid, output)
    end = time.monotonic() + SETTLING
    while time.monotonic() < end:
        time.sleep(0.5)
        now = held(pid, output)
        same = (now.descriptors, now.threads, now.processes)
        if same == (before.descriptors, before.threads, before.processes):
            return now
        before = now
    return before


def _after_all_is_gone(daemon: Daemon, fresh: Holdings, kept: float) -> Holdings:
    """What is held once the time of everything is up; or once it should have been."""
    try:
        wait_for(
            lambda: held(daemon.process.pid, daemon.output).rows <= fresh.rows,
            "records to be forgotten",
            1.5 * kept + SETTLING,
        )
        wait_for(
            lambda: held(daemon.process.pid, daemon.output).files <= fresh.files,
            "files to be removed",
            0.5 * kept + SETTLING,
        )
    except TimeoutError:
        pass  # the verdict says so
    return _look(daemon)


def _tell(seconds: float, now: Holdings, churn: Churn) -> None:
    row = (
        f"{seconds / 60:.1f}", f"{now.main:.1f}", f"{now.everything:.1f}", now.descriptors,
        now.threads, now.processes, now.files, now.folders, f"{now.journal:.1f}", now.rows,
        churn.counts["requests"],
    )  # fmt: skip
    print(f"| {' | '.join(map(str, row))} |", flush=True)


def _of_memory(looks: Sequence[tuple[float, Holdings]]) -> list[Finding]:
    """Whether memory is flat after the warm-up: by a line through what was seen."""
    seen = looks[int(len(looks) * WARM_UP) :]
    if len(seen) < 4:
        return []  # too short to tell
    minutes = np.array([when / 60 for when, _ in seen])
    found = []
    for what, values in (
        ("memory of main", [now.main for _, now in seen]),
        ("memory of all processes", [now.everything for _, now in seen]),
    ):
        slope, error = slope_of(minutes, np.array(values))
        lasted = float(minutes[-1] - minutes[0])
        grown, level = (slope + SURE * error) * lasted, float(np.mean(values))
        words = (
            f"{what}: {level:.1f} MiB, and {60 * slope:+.1f} ± {60 * SURE * error:.1f} MiB an "
            f"hour over {lasted:.0f} minutes, which is {grown / level:.1%} of it at most"
        )
        found.append(Finding(grown <= FLAT * level, words))
    return found


def slope_of(x: Any, y: Any) -> tuple[float, float]:
    """The slope of a straight line through points, by least squares, and its standard error."""
    centred = x - x.mean()
    square = float((centred**2).sum())
    slope = float((centred * y).sum()) / square
    rest = y - y.mean() - slope * centred
    return slope, float(((rest**2).sum() / (len(x) - 2) / square) ** 0.5)


def _of_the_rest(
    fresh: Holdings, looks: Sequence[tuple[float, Holdings]], last: Holdings
) -> list[Finding]:
    """Files and rows against those of the new daemon; the rest against what the warm one held."""
    warm = looks[int(len(looks) * WARM_UP)][1]
    compared = (
        ("files", fresh.files, last.files),
        ("folders", fresh.folders, last.folders),
        ("rows", fresh.rows, last.rows),
        ("open files", warm.descriptors, last.descriptors),
        ("threads", warm.threads, last.threads),
        ("processes", fresh.processes, last.processes),
    )
    return [
        Finding(after <= before + SPARE, f"{what}: {before} at the beginning, {after} at the end")
        for what, before, after in compared
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before\n")
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        findings = soak(Path(folder), 60 * options.minutes, options.seed)
    print()
    for finding in findings:
        print(f"{'held' if finding.held else 'NOT HELD'}: {finding.words}")
    print(f"load {os.getloadavg()[0]:.1f} after")
    sys.exit(0 if all(finding.held for finding in findings) else 1)


if __name__ == "__main__":
    main()
