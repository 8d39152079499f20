"""Workers, main and poison: kills at random moments, and the control that must not survive them."""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.both_engines import ALWAYS_ON_BOTH
from tests.chaos.checks import judge, judge_poison, kill_main, kill_workers, pictures_to_draw
from tests.chaos.engines import NEVER_GIVEN_UP, Engine, NaiveEngine, RealEngine
from tests.chaos.scale import ATTACKS, scaled
from tests.chaos.verdict import Verdict
from tests.conftest import LOCAL, Workplace

SETTINGS: dict[str, Any] = {
    "simulated": {"seconds_per_megapixel_step": 2.5, "jitter": 0.5},  # about 0.01 s a task
    "supervision": NEVER_GIVEN_UP,
}
SEEDS = range(scaled(1, 20))
Report = Callable[[Verdict], Verdict]


def attack_workers(
    kind: type[Engine],
    folder: Path,
    tasks: int,
    kills: int,
    seed: int,
    settings: Mapping[str, Any] = SETTINGS,
    workplace: Workplace = LOCAL,
) -> Verdict:
    verdict = Verdict(f"one record per input ({kind.__name__})", "SIGKILL of workers")
    with kind(folder, pictures_to_draw(tasks), workplace=workplace, **settings) as engine:
        kill_workers(engine, kills, random.Random(seed), verdict)
        return judge(engine, verdict)


def attack_main(
    kind: type[Engine],
    folder: Path,
    tasks: int,
    kills: int,
    seed: int,
    workplace: Workplace = LOCAL,
) -> Verdict:
    verdict = Verdict(f"one record per input ({kind.__name__})", "SIGKILL of main, resume")
    with kind(folder, pictures_to_draw(tasks), workplace=workplace, **SETTINGS) as engine:
        kill_main(engine, kills, random.Random(seed), verdict)
        return judge(engine, verdict)


def attack_with_poison(
    kind: type[Engine],
    folder: Path,
    tasks: int,
    poisonous: int,
    kills: int,
    seed: int,
    workplace: Workplace = LOCAL,
) -> Verdict:
    rng = random.Random(seed)
    poison = set(rng.sample(range(tasks), poisonous))
    promise = f"poison is quarantined, nobody else ({kind.__name__})"
    verdict = Verdict(promise, f"{poisonous} segfaulting tasks in {tasks}, SIGKILL of workers")
    pictures = pictures_to_draw(tasks, poison)
    with kind(folder, pictures, workplace=workplace, **SETTINGS) as engine:
        kill_workers(engine, kills, rng, verdict)
        verdict.attempts += poisonous
        judge(engine, verdict, poison)
        if isinstance(engine, RealEngine):
            judge_poison(engine, verdict, poison)
            retry(engine, verdict, poison)
    return verdict


def retry(engine: RealEngine, verdict: Verdict, poison: set[int]) -> None:
    """--retry-quarantined runs the poisonous tasks again, and no others."""
    before = Counter(row["key"] for row in engine.leases("TRUE"))
    engine.start("--retry-quarantined")
    engine.wait()
    after = Counter(row["key"] for row in engine.leases("TRUE"))
    again = {key for key in after if after[key] > before[key]}
    verdict.found("wrong", abs(len(poison) - len(again)))
    judge(engine, verdict, poison)


@ALWAYS_ON_BOTH
@pytest.mark.parametrize("seed", SEEDS)
def test_killed_workers_cost_no_record(
    tmp_path: Path, workplace: Workplace, report: Report, seed: int
) -> None:
    kills, (tasks, wanted, enough) = 0, scaled((150, 15, 10), (1000, 100, 80))
    for attack in range(ATTACKS):
        folder = tmp_path / str(attack)
        folder.mkdir()
        again = seed + attack * len(SEEDS)
        verdict = report(
            attack_workers(RealEngine, folder, tasks, wanted, again, workplace=workplace)
        )
        assert not verdict.violations
        kills += verdict.attempts
        if kills >= enough:
            return
    raise AssertionError(f"only {kills} kills in {ATTACKS} attacks")


@ALWAYS_ON_BOTH
def test_a_killed_main_costs_no_record_and_leaves_nobody(
    tmp_path: Path, workplace: Workplace, report: Report
) -> None:
    counts = scaled((200, 4), (10_000, 50))
    verdict = report(attack_main(RealEngine, tmp_path, *counts, seed=1, workplace=workplace))
    assert not verdict.violations
    assert verdict.attempts == scaled(4, 50)


@ALWAYS_ON_BOTH
@pytest.mark.parametrize("seed", range(scaled(1, 5)))
def test_poison_is_quarantined_and_nobody_else(
    tmp_path: Path, workplace: Workplace, report: Report, seed: int
) -> None:
    counts = scaled((60, 2, 3), (500, 5, 20))
    verdict = report(attack_with_poison(RealEngine, tmp_path, *counts, seed, workplace))
    assert not verdict.violations


def test_control_the_naive_engine_loses_records_of_killed_workers(
    tmp_path: Path, report: Report
) -> None:
    verdict = report(attack_workers(NaiveEngine, tmp_path, 200, 20, seed=1))
    assert verdict.violations["lost"] > 0


def test_control_the_naive_engine_hangs_when_a_waiting_worker_is_killed(
    tmp_path: Path, report: Report
) -> None:
    """If it held the lock of the shared queue: one of four does, and all of them wait here."""
    quick = {"simulated": {"seconds_per_megapixel_step": 0.0}}
    for seed in range(10):
        verdict = attack_workers(NaiveEngine, tmp_path / str(seed), 200, 3, seed, quick)
        if report(verdict).violations["hang"]:
            return
    raise AssertionError("ten attacks found no hang")


def test_control_the_naive_engine_leaves_orphans_of_a_killed_main(
    tmp_path: Path, report: Report
) -> None:
    verdict = report(attack_main(NaiveEngine, tmp_path, 200, 2, seed=1))
    assert verdict.violations["orphan"] > 0


def test_control_the_naive_engine_cannot_quarantine(tmp_path: Path, report: Report) -> None:
    verdict = report(attack_with_poison(NaiveEngine, tmp_path, 60, 2, 3, seed=1))
    assert verdict.violations["lost"] >= 2
