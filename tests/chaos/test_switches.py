"""Slots that turn from one model to another, under kills: of who leaves, loads and works."""

import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.both_engines import ON_BOTH
from tests.chaos.checks import Victim, judge, judge_ledger, kill_everybody
from tests.chaos.engines import BenchmarkEngine
from tests.chaos.scale import ATTACKS, scaled
from tests.chaos.verdict import Verdict
from tests.conftest import Workplace

pytestmark = pytest.mark.slow

Report = Callable[[Verdict], Verdict]
PAIRS = scaled(40, 200)
KILLS: dict[Victim, int] = scaled(
    {"worker": 3, "successor": 2, "fork server": 1, "main": 1},
    {"worker": 20, "successor": 15, "fork server": 3, "main": 4},
)
SEEDS = range(scaled(1, 5))


def ended_while_loading(log: str) -> int:
    """Workers that were started and never had their model."""
    begun = Counter(re.findall(r"(\S*cpu\d+): starting", log))
    loaded = Counter(re.findall(r"(\S*cpu\d+): SimulatedGpu in", log))
    return (begun - loaded).total()


@ON_BOTH
@pytest.mark.parametrize("seed", SEEDS)
def test_kills_of_whoever_edits_scores_or_loads_cost_no_record(
    tmp_path: Path, workplace: Workplace, report: Report, seed: int
) -> None:
    kills = loading = 0
    for attack in range(ATTACKS):
        folder = tmp_path / str(attack)
        folder.mkdir()
        again = seed + attack * len(SEEDS)
        verdict, caught = attack_switches(folder, report, again, workplace)
        kills, loading = kills + verdict.attempts, loading + caught
        if kills >= sum(KILLS.values()) * 0.6 and loading >= scaled(1, 10):
            return
    raise AssertionError(f"only {kills} kills, {loading} of them while loading")


def attack_switches(
    folder: Path, report: Report, seed: int, workplace: Workplace
) -> tuple[Verdict, int]:
    """Kill as `KILLS` says; also says how many died while they loaded."""
    what = ", ".join(f"{count} x {victim}" for victim, count in KILLS.items())
    verdict = Verdict("models that follow the queue: one record per pair", f"SIGKILL: {what}")
    with BenchmarkEngine(folder, PAIRS, workplace) as engine:
        kill_everybody(engine, KILLS, random.Random(seed), verdict)
        judge(engine, verdict)
        judge_ledger(engine, verdict)
        assert not report(verdict).violations, engine.log()
        splits = re.findall(r"Split: (.*)\.", engine.log())
        assert len(set(splits)) > 1
        loading = ended_while_loading(engine.log())
        print(f"{verdict.attempts} kills, {loading} were loading, {len(splits)} splits")
    return verdict, loading
