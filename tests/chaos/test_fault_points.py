"""Deaths at named points: nothing is lost wherever a process dies."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core import fault_points
from tests.both_engines import ON_BOTH
from tests.chaos.checks import count_orphans, judge, judge_replaced, pictures_to_draw
from tests.chaos.engines import SPAWNED, RealEngine
from tests.chaos.scale import scaled
from tests.chaos.verdict import Verdict
from tests.conftest import LOCAL, Workplace

Report = Callable[[Verdict], Verdict]
KILLS = scaled(1, 20)
OFTEN = 5  # the most passages before a kill, where a process passes many times

# Point and the most passages before the kill: a process boots and loads once.
WORKER_POINTS = {
    "worker.boot": 1,
    "worker.load": 1,
    "worker.lease": OFTEN,
    "worker.mid-write": OFTEN,
    "worker.before-fsync": OFTEN,
    "worker.after-fsync": OFTEN,
    "worker.mid-send": 3 * OFTEN,
}
MAIN_POINTS = {
    "main.boot": 2,  # workers
    "main.load": 2,
    "main.lease": OFTEN,
    "main.mid-send": OFTEN,
    "main.before-rename": OFTEN,
    "main.after-rename": OFTEN,
    "main.before-fsync": OFTEN,
    "main.after-fsync": OFTEN,
    "main.before-commit": 3 * OFTEN,
    "main.after-commit": 3 * OFTEN,
    "main.mid-write": 2,  # metadata.jsonl and results.jsonl
}
REPLACING_POINTS = {
    "main.before-keep": OFTEN,
    "main.after-keep": OFTEN,
    "main.before-rename": OFTEN,
    "main.after-rename": OFTEN,
    "main.mid-write": 3,  # with the table of what was replaced
}
FEW_WORKER_POINTS = ["worker.boot", "worker.mid-write", "worker.mid-send"]
FEW_MAIN_POINTS = ["main.lease", "main.after-rename", "main.before-commit", "main.mid-write"]


@ON_BOTH
@pytest.mark.parametrize("point", scaled(FEW_WORKER_POINTS, [*WORKER_POINTS]))
def test_a_worker_that_dies_there_costs_no_record(
    tmp_path: Path, workplace: Workplace, report: Report, point: str
) -> None:
    verdict = Verdict("one record per input (worker dies at a point)", point)
    rng = random.Random(point)
    for number, tickets in enumerate([5] * (KILLS // 5) or [KILLS]):
        tasks = pictures_to_draw(40)
        # Deaths before the first task of an incarnation would have it given up.
        rules = {"restart_backoff": 0.0, "restarts_before_retirement": 50}
        folder = tmp_path / str(number)
        how = {"supervision": rules, "workers": SPAWNED}
        with RealEngine(folder, tasks, 2, workplace, **how) as engine:
            engine.arm(f"{point}:{rng.randint(1, WORKER_POINTS[point])}", tickets)
            engine.start()
            engine.wait()
            verdict.attempts += tickets - engine.tickets_left
            judge(engine, verdict)
    assert not report(verdict).violations
    assert verdict.attempts == KILLS


@ON_BOTH
@pytest.mark.parametrize("point", scaled(FEW_MAIN_POINTS, [*MAIN_POINTS]))
def test_a_main_that_dies_there_costs_no_record(
    tmp_path: Path, workplace: Workplace, report: Report, point: str
) -> None:
    if workplace is not LOCAL and point == "main.mid-send":
        pytest.skip("agents write to workers there: tests/chaos/test_cluster.py kills these")
    verdict = Verdict("one record per input (main dies at a point)", point)
    for engine in killed_at(tmp_path, workplace, point, MAIN_POINTS[point], verdict):
        judge(engine, verdict)
    assert not report(verdict).violations


@ON_BOTH
@pytest.mark.parametrize("point", scaled(["main.after-keep"], [*REPLACING_POINTS]))
def test_a_main_that_dies_while_it_replaces_costs_no_picture(
    tmp_path: Path, workplace: Workplace, report: Report, point: str
) -> None:
    verdict = Verdict("one new and one old picture per input (main dies at a point)", point)

    def draw_and_change(engine: RealEngine) -> None:
        engine.start()
        engine.wait()
        engine.project.write_tweets([{**t, "seed": 7} for t in engine.tasks])

    most = REPLACING_POINTS[point]
    for engine in killed_at(tmp_path, workplace, point, most, verdict, draw_and_change):
        judge(engine, verdict)
        judge_replaced(engine, verdict)
    assert not report(verdict).violations


def killed_at(
    folder: Path,
    workplace: Workplace,
    point: str,
    most: int,
    verdict: Verdict,
    prepare: Callable[[RealEngine], None] = lambda engine: None,
) -> Iterator[RealEngine]:
    """Engines whose main died at the point again and again, and that then came to their end."""
    rng = random.Random(point)
    folders = 0
    while verdict.attempts < KILLS:
        folders += 1
        assert folders <= KILLS, "the point is never passed"
        tasks = pictures_to_draw(30)
        with RealEngine(folder / str(folders), tasks, 2, workplace) as engine:
            prepare(engine)
            while verdict.attempts < KILLS and kill_at(engine, point, most, rng, verdict):
                pass
            engine.disarm()
            engine.start()
            engine.wait()
            yield engine


def kill_at(
    engine: RealEngine, point: str, most: int, rng: random.Random, verdict: Verdict
) -> bool:
    """Run with one ticket; False when the command came to its end without passing the point.

    Args:
        most: passages before the kill.
    """
    engine.arm(f"{point}:{rng.randint(1, most)}", 1)
    engine.start()
    engine.wait()
    if engine.tickets_left:
        return False
    verdict.attempts += 1
    count_orphans(engine, verdict)
    return True


def test_nothing_is_armed_without_the_environment() -> None:
    assert fault_points.fault_point is fault_points._no_fault
