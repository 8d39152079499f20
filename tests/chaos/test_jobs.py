"""Several jobs at once on one generator: kills of everybody, and cancels, at random moments."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.both_engines import ON_BOTH
from tests.chaos.checks import Victim, judge, judge_ledger, kill_everybody
from tests.chaos.engines import JobsEngine
from tests.chaos.planted import FAULTS, SLOW_DISK
from tests.chaos.scale import ATTACKS, scaled
from tests.chaos.verdict import Verdict
from tests.conftest import LOCAL, Workplace

Report = Callable[[Verdict], Verdict]
JOBS = scaled({"a": 60, "b": 40, "c": 20, "d": 30}, {"a": 500, "b": 400, "c": 200, "d": 300})
KILLS: dict[Victim, int] = scaled(
    {"worker": 8, "fork server": 1, "main": 2}, {"worker": 100, "fork server": 5, "main": 10}
)
SEEDS = range(scaled(1, 3))


def attack_jobs(
    folder: Path,
    jobs: dict[str, int],
    kills: dict[Victim, int],
    seed: int,
    planted: str | None = None,
    workplace: Workplace = LOCAL,
) -> tuple[Verdict, int]:
    """The verdict, and how often a job was cancelled meanwhile."""
    what = ", ".join(f"{count} x {victim}" for victim, count in kills.items())
    verdict = Verdict("jobs at once: one record per input", planted or f"SIGKILL: {what}; cancels")
    with JobsEngine(folder, jobs, seed, planted, workplace) as engine:
        kill_everybody(engine, kills, random.Random(seed), verdict)
        judge(engine, verdict)
        judge_ledger(engine, verdict)
        for kind, count in engine.found().items():
            verdict.found(kind, count)
        return verdict, engine.cancels


@pytest.mark.slow
@ON_BOTH
@pytest.mark.parametrize("seed", SEEDS)
def test_killed_processes_and_cancelled_jobs_cost_no_record(
    tmp_path: Path, workplace: Workplace, report: Report, seed: int
) -> None:
    kills = cancels = 0
    for attack in range(ATTACKS):
        folder = tmp_path / str(attack)
        folder.mkdir()
        again = seed + attack * len(SEEDS)
        verdict, cancelled = attack_jobs(folder, JOBS, KILLS, again, workplace=workplace)
        assert not report(verdict).violations, verdict.log
        kills, cancels = kills + verdict.attempts, cancels + cancelled
        if kills >= sum(KILLS.values()) * 0.8 and cancels >= scaled(2, 10):
            return
    raise AssertionError(f"only {kills} kills and {cancels} cancels in {ATTACKS} attacks")


@ON_BOTH
@pytest.mark.parametrize("seed", SEEDS)
def test_what_dies_while_a_slow_disk_records_costs_no_record(
    tmp_path: Path, workplace: Workplace, report: Report, seed: int
) -> None:
    """Workers whose results wait for their record, and those that drew the same beside them."""
    few = scaled({"a": 15, "b": 10, "c": 5, "d": 15}, {"a": 100, "b": 80, "c": 40, "d": 60})
    kills: dict[Victim, int] = scaled({"worker": 6, "main": 1}, {"worker": 60, "main": 5})
    verdict, _ = attack_jobs(tmp_path, few, kills, seed, SLOW_DISK, workplace)
    assert not report(verdict).violations, verdict.log


@pytest.mark.parametrize("planted", FAULTS)
def test_control_a_planted_fault_is_found(tmp_path: Path, report: Report, planted: str) -> None:
    few = {"a": 30, "b": 20, "c": 10, "d": 30}
    verdict, _ = attack_jobs(tmp_path, few, {"worker": 2}, 1, planted)
    assert report(verdict).violations[FAULTS[planted][1]] > 0
