"""The stages when workers are lost, when all comes at once, and when the user interrupts."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from core.engine.batch import Batch
from core.engine.worker_handle import State

from apps.edit_benchmark import overlapped
from apps.edit_benchmark.pairs import PairSet
from apps.edit_benchmark.runner import EditBenchmark
from apps.edit_benchmark.settings import load_benchmark_settings
from core.events import Event, TaskEnded, TaskReopened, WorkerState, ignore
from core.store.ledger import Ledger
from core.store.outputs import OutputRoot
from tests.conftest import PATIENCE, wait_until, worker_processes
from tests.edit_world import made_pair, settings

HASTY = {"restart_backoff": 0.01, "restarts_before_retirement": 1}
ONE = {"batch_size": 1}  # a judge that scores them one by one


class World:
    """Benchmarks on CPU workers; tells which workers of the run are in which state."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs: list[EditBenchmark] = []
        self.states: dict[str, str] = {}
        self.lost = folder / "lost"  # devices named in `lost_while` are lost while it exists

    def benchmark(self, instructions: list[str], **changes: Any) -> EditBenchmark:
        values = settings(device="cpu", **{"supervision": HASTY, **changes})
        run = EditBenchmark(load_benchmark_settings(values), self.folder / "out")
        self.runs.append(run)
        files = [self.folder / f"{i}.png" for i in range(len(instructions))]
        pairs = [made_pair(f, i, instructions[i]) for i, f in enumerate(files)]
        run.prepare(PairSet("made", pairs))
        run.listener = self._watch
        return run

    def _watch(self, event: Event) -> None:
        if isinstance(event, WorkerState):
            self.states[event.worker] = event.state

    def are(self, state: State, *workers: str) -> bool:
        return all(self.states.get(w) == state.value for w in workers)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    for run in world.runs:
        run.close()


def statuses(run: EditBenchmark, role: Any) -> list[str]:
    return [r.status for r in run.batch(role).results()]


def devices_given_back(run: EditBenchmark) -> list[str]:
    events = iter(run.next_event, None)
    return [event.device.label for event in events if event and event.device]


def test_the_last_living_worker_is_not_dismissed_before_the_end(world: World) -> None:
    world.lost.touch()
    lost = {"lost_while": {"cpu0": str(world.lost), "cpu1": str(world.lost)}}
    run = world.benchmark(["make it night"] * 4, cpu_workers=3, simulated=lost)
    pool = run.start_pool("edit", run.devices, [], open_ended=True)
    wait_until(lambda: world.are(State.RETIRED, "cpu0", "cpu1"), "two of three workers given up")
    for job in run.edit_jobs:
        pool.extend(job)
    pool.dismiss(2)
    pool.seal()
    assert run.batch("edit").wait(PATIENCE), "nobody is left to edit, and nobody notices"
    assert statuses(run, "edit") == ["done"] * 4
    pool.dismiss(3)
    wait_until(lambda: devices_given_back(run) == ["cpu2"], "the last worker's leaving")


def test_a_dismissed_worker_stays_when_the_others_are_lost(world: World) -> None:
    # The first attempt at a pair stops its worker.
    run = world.benchmark(
        ["!stop:1"] * 2,
        cpu_workers=3,
        simulated={"lost_while": {"cpu1": str(world.lost)}},
        scheduling={"speculative_copies": False},
    )
    pool = run.start_pool("edit", run.devices[:2], run.edit_jobs)
    cpu0, cpu1 = wait_until(lambda: stopped(2), "two stopped workers")
    run.move_to("edit", run.devices[2])
    wait_until(lambda: world.are(State.SERVING, "cpu2"), "an idle third one")
    pool.dismiss(2)  # the idle one, and the first of those with a task
    wait_until(lambda: devices_given_back(run) == ["cpu2"], "the idle one's leaving")
    world.lost.touch()
    cpu1.kill()
    wait_until(lambda: world.are(State.RETIRED, "cpu1"), "the last one given up")
    cpu0.kill()
    assert run.batch("edit").wait(PATIENCE), "nobody is left to edit, and nobody notices"
    assert statuses(run, "edit") == ["done"] * 2


def stopped(count: int) -> list[psutil.Process]:
    """This process's stopped workers in the order of their start, when there are so many."""
    workers = sorted(worker_processes(os.getpid()), key=lambda w: (w.create_time(), w.pid))
    found = [w for w in workers if w.status() == psutil.STATUS_STOPPED]
    return found if len(found) == count else []


def test_a_pool_that_everybody_left_closes_what_it_is_given(world: World) -> None:
    run = world.benchmark(["make it night"], cpu_workers=1)
    pool = run.start_pool("edit", run.devices, run.edit_jobs)
    assert run.batch("edit").wait(PATIENCE)
    pool.dismiss()
    wait_until(lambda: devices_given_back(run) == ["cpu0"], "the worker's leaving")
    root, ledger = OutputRoot(world.folder / "late"), Ledger.open(world.folder / "late")
    late = Batch(run.edit_jobs, [], ledger, root, run.settings.supervision, 32, ignore)
    pool.submit(late)
    assert late.wait(PATIENCE), "nobody is left to edit, and nobody notices"
    assert "No worker is left" in str(late.results()[0].error)
    ledger.close()


def test_scores_that_come_in_together_at_the_end_are_all_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = overlapped._handle_next

    def late(run: Any, crew: Any) -> None:
        """In the end, look up only when everything is there."""
        if not crew.edits_left:
            assert run.batch("score").wait(PATIENCE)
        original(run, crew)

    monkeypatch.setattr(overlapped, "_handle_next", late)
    # The judge gets eight edits while it scores the first.
    times = {"score_seconds": 0.3}
    changes: dict[str, Any] = {"stages": "overlapped", "cpu_workers": 2}
    run = world.benchmark(["make it night"] * 8, simulated=times, judge=ONE, **changes)
    assert [r.score.status if r.score else None for r in run.run()] == ["done"] * 8


def test_a_second_ctrl_c_reaches_workers_that_are_leaving(world: World) -> None:
    patient = {"stop_timeout": PATIENCE}
    run = world.benchmark(["make it night"], cpu_workers=1, supervision=patient)
    run.start_pool("edit", run.devices, run.edit_jobs)
    run.wait("edit")
    worker_processes(os.getpid())[0].suspend()  # it will not read its poison pill

    def interrupt_twice() -> None:
        wait_until(lambda: world.are(State.STOPPING, "cpu0"), "the poison pill")
        run.stop_leasing()
        run.abandon()

    user = threading.Thread(target=interrupt_twice)
    user.start()
    started = time.monotonic()
    run.stop_pool("edit")
    assert time.monotonic() - started < PATIENCE / 2
    user.join()


def test_edits_whose_judge_was_given_up_are_scored_by_all_devices_in_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = with_a_lost_judge(world, monkeypatch, lost=["cpu2"])
    ended = []
    watch = run.listener

    def count(event: Event) -> None:
        ended.append(isinstance(event, TaskEnded) - isinstance(event, TaskReopened))
        watch(event)

    run.listener = count
    results = run.run()
    assert [r.score.status if r.score else None for r in results] == ["done"] * 4
    assert {r.score.worker for r in results if r.score} <= {"cpu0", "cpu1"}
    assert sum(ended) == 8, "four edits and four scores"


def test_scoring_is_not_begun_again_where_no_device_ever_worked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world.benchmark(["make it night"] * 2, cpu_workers=1) as earlier:
        earlier.start_pool("edit", earlier.devices, earlier.edit_jobs)
        earlier.wait("edit")
    run = with_a_lost_judge(world, monkeypatch, lost=["cpu0", "cpu1", "cpu2"])
    started: list[str] = []
    start_pool = run.start_pool

    def watched(role: Any, *rest: Any, **options: Any) -> Any:
        started.append(role)
        return start_pool(role, *rest, **options)

    monkeypatch.setattr(run, "start_pool", watched)
    results = run.run()
    assert [r.edit.status for r in results] == ["skipped"] * 2 + ["failed"] * 2
    assert [r.score.status for r in results if r.score] == ["failed"] * 2
    assert started == ["edit", "score"]


def with_a_lost_judge(
    world: World, monkeypatch: pytest.MonkeyPatch, lost: list[str]
) -> EditBenchmark:
    """A run on three workers that hears of its edits when its only judge is given up."""
    original = overlapped._handle_next

    def late(run: Any, crew: Any) -> None:
        wait_until(lambda: run.batch("score").finished, "the only judge's end")
        original(run, crew)

    monkeypatch.setattr(overlapped, "_handle_next", late)
    world.lost.touch()
    return world.benchmark(
        ["make it night"] * 4,
        stages="overlapped",
        cpu_workers=3,
        simulated={"lost_while": {name: str(world.lost) for name in lost}},
    )
