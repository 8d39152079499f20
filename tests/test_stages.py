"""The stages when workers are lost, when all comes at once, and when the user interrupts."""

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from apps.edit_benchmark.pair_result import PairResult
from apps.edit_benchmark.pairs import PairSet
from apps.edit_benchmark.runner import EditBenchmark
from apps.edit_benchmark.settings import load_benchmark_settings
from core.engine.backend import WorkerBackend
from core.events import Event, TaskEnded, TaskSpared, WorkerState
from core.messages import Lease, Stop
from core.tasks import EditTask
from tests.conftest import PATIENCE, forking, wait_until
from tests.edit_world import made_pair, settings
from tests.inline_backend import InlineBackend
from tests.played_workers import PlayedWorkers, do_task
from tests.stub_backend import StubBackend, StubWorker

HASTY = {"restart_backoff": 0.01, "restarts_before_retirement": 1}
ONE = {"batch_size": 1}  # a judge that scores them one by one


class World:
    """Benchmarks on CPU workers, and what they tell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs: list[EditBenchmark] = []
        self.events: list[Event] = []
        self.lost = folder / "lost"  # devices named in `lost_while` are lost while it exists

    def benchmark(
        self, pairs: int, backend: WorkerBackend | None = None, **changes: Any
    ) -> EditBenchmark:
        given = {"supervision": HASTY, "judge": ONE, **changes}
        values = forking(settings(device="cpu", **given))
        out = self.folder / "out"
        run = EditBenchmark(load_benchmark_settings(values), out, backend=backend)
        self.runs.append(run)
        files = [self.folder / f"{i}.png" for i in range(pairs)]
        run.prepare(PairSet("made", [made_pair(file, i) for i, file in enumerate(files)]))
        run.listener = self.events.append
        return run

    def states_of(self, slot: str) -> list[str]:
        """A slot's states, in order."""
        states = [e for e in self.events if isinstance(e, WorkerState)]
        return [e.state for e in states if e.worker == slot]

    def ended(self) -> list[str]:
        """The kinds of the tasks that ended, in order: edits have pictures."""
        results = [e.result for e in self.events if isinstance(e, TaskEnded)]
        return ["edit" if str(r.output_path).endswith(".png") else "score" for r in results]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    for run in world.runs:
        run.close()


class Running:
    """A benchmark that runs in a thread."""

    def __init__(self, run: EditBenchmark) -> None:
        self._found: list[list[PairResult]] = []
        self._thread = threading.Thread(target=lambda: self._found.append(run.run()), daemon=True)
        self._thread.start()

    def results(self, patience: float = PATIENCE) -> list[PairResult]:
        self._thread.join(patience)
        assert not self._thread.is_alive(), "the run has no end"
        [found] = self._found
        return found


def scores(results: list[PairResult]) -> list[str | None]:
    return [r.score.status if r.score else None for r in results]


# -- who has which model when ---------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_sequential_stages_score_nothing_before_the_last_edit_is_done(
    world: World, workers: int
) -> None:
    run = world.benchmark(8, InlineBackend(), stages="sequential", cpu_workers=workers)
    assert scores(run.run()) == ["done"] * 8
    assert world.ended() == ["edit"] * 8 + ["score"] * 8


def test_overlapped_stages_score_while_others_are_edited(world: World) -> None:
    def the_last_edit_waits_for_a_score(worker: StubWorker, lease: Lease) -> None:
        if isinstance(lease.task, EditTask) and world.ended().count("edit") >= 5:
            wait_until(lambda: "score" in world.ended(), "a score beside the editing")

    workers = PlayedWorkers(the_last_edit_waits_for_a_score)
    run = world.benchmark(6, workers.backend, stages="overlapped", cpu_workers=2)
    assert scores(Running(run).results()) == ["done"] * 6
    assert sorted(world.ended()) == ["edit"] * 6 + ["score"] * 6


@pytest.mark.parametrize("stages", ["sequential", "overlapped", "auto"])
def test_a_judge_that_is_served_elsewhere_waits_for_no_device(world: World, stages: str) -> None:
    def the_last_edit_waits_for_a_score(worker: StubWorker, lease: Lease) -> None:
        if isinstance(lease.task, EditTask) and world.ended().count("edit") >= 5:
            wait_until(lambda: "score" in world.ended(), "a score beside the editing")

    workers = PlayedWorkers(the_last_edit_waits_for_a_score)
    judge = {"type": "openai", "model": "judge", "api": {"base_url": "http://127.0.0.1:1/v1"}}
    run = world.benchmark(6, workers.backend, stages=stages, cpu_workers=1, judge=judge)
    assert scores(Running(run).results()) == ["done"] * 6
    assert set(workers.given) == {("cpu0", "edit"), ("cpu0-api", "score")}


@pytest.mark.parametrize("stages", ["overlapped", "auto"])
def test_one_worker_edits_first(world: World, stages: str) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    run = world.benchmark(4, InlineBackend(), stages=stages, cpu_workers=1)
    assert scores(run.run()) == ["done"] * 4
    logger.remove(sink)
    assert world.ended() == ["edit"] * 4 + ["score"] * 4
    said = any("one worker cannot be shared out; editing comes first" in line for line in lines)
    assert said == (stages == "overlapped"), "what was asked for by name"


def test_a_slot_gets_its_next_model_when_the_worker_of_the_last_one_is_gone(world: World) -> None:
    backend = StubBackend()  # it lets no worker start beside another one in its slot
    running = Running(world.benchmark(1, backend, cpu_workers=1))
    editor = backend.worker().serve()
    do_task(editor, editor.hear_lease())
    assert isinstance(editor.hear(), Stop)
    assert len(backend.started["cpu0"]) == 1
    editor.die(0)
    judge = backend.worker(incarnation=2).serve()
    assert (editor.spec.role, judge.spec.role) == ("edit", "score")
    do_task(judge, judge.hear_lease())
    judge.leave_when_asked()
    assert scores(running.results()) == ["done"]


# -- workers that are lost ------------------------------------------------------------------------


@pytest.mark.parametrize("stages", ["sequential", "overlapped", "auto"])
def test_the_last_living_worker_does_everything(world: World, stages: str) -> None:
    world.lost.touch()
    lost = {"lost_while": {"cpu0": str(world.lost), "cpu1": str(world.lost)}}
    run = world.benchmark(4, stages=stages, cpu_workers=3, simulated=lost)
    results = Running(run).results()
    assert [r.edit.status for r in results] == ["done"] * 4
    assert scores(results) == ["done"] * 4
    assert {r.edit.worker for r in results} == {"cpu2"}
    assert {r.score.worker for r in results if r.score} == {"cpu2"}


@pytest.mark.parametrize("stages", ["sequential", "overlapped", "auto"])
@pytest.mark.parametrize("role", ["edit", "score"])
def test_a_slot_that_cannot_load_one_model_still_serves_the_other(
    world: World, role: str, stages: str
) -> None:
    """And what it was meant to do is done by the other slot."""
    unable: list[str] = []

    def loads(worker: StubWorker) -> bool:
        if worker.spec.role == role and not unable:
            unable.append(worker.slot)
        return worker.spec.role != role or worker.slot not in unable

    workers = PlayedWorkers(loads=loads)
    run = world.benchmark(12, workers.backend, stages=stages, cpu_workers=2)
    results = Running(run).results()
    assert [r.edit.status for r in results] == ["done"] * 12
    assert scores(results) == ["done"] * 12
    [lost] = unable
    assert (lost, role) not in workers.given
    roles = [started for started in workers.backend.roles() if started == (lost, role)]
    assert len(roles) == 1, "a slot is not tried again with what it cannot load"
    ended = [isinstance(e, TaskEnded) for e in world.events]
    assert sum(ended) == 24, "each edit and each score ends once"


def test_scores_that_nobody_can_make_fail_at_once_and_say_why(world: World) -> None:
    def loads(worker: StubWorker) -> bool:
        return worker.spec.role == "edit"

    def an_edit_waits(worker: StubWorker, lease: Lease) -> None:
        def is_given_up() -> bool:
            return any("given up" in world.states_of(slot) for slot in ("cpu0", "cpu1"))

        wait_until(is_given_up, "a slot given up as a judge")

    workers = PlayedWorkers(an_edit_waits, loads)
    run = world.benchmark(6, workers.backend, stages="overlapped", cpu_workers=2)
    results = Running(run).results()
    assert [r.edit.status for r in results] == ["done"] * 6, "editing goes on"
    assert scores(results) == ["failed"] * 6
    assert all("No worker is left" in str(r.score.error) for r in results if r.score)


def test_scoring_is_not_begun_again_where_no_device_ever_worked(world: World) -> None:
    with world.benchmark(2, InlineBackend(), cpu_workers=1) as earlier:
        earlier.run()
    shutil.rmtree(world.folder / "out" / "scores")
    world.events.clear()
    world.lost.touch()
    lost = {f"cpu{i}": str(world.lost) for i in range(2)}
    changes: dict[str, Any] = {"cpu_workers": 2, "simulated": {"lost_while": lost}}
    results = Running(world.benchmark(4, stages="overlapped", **changes)).results()
    assert [r.edit.status for r in results] == ["skipped"] * 2 + ["failed"] * 2
    assert scores(results) == ["failed"] * 2 + [None] * 2
    for slot in lost:
        assert world.states_of(slot).count("given up") == 2, "once for each model"
        assert world.states_of(slot)[-1] == "given up"
    assert sum(isinstance(e, TaskSpared) for e in world.events) == 2


# -- the end --------------------------------------------------------------------------------------


def test_scores_that_come_in_together_at_the_end_are_all_kept(world: World) -> None:
    def the_judge_waits_for_all_edits(worker: StubWorker, lease: Lease) -> None:
        if worker.spec.role == "score":
            wait_until(lambda: world.ended().count("edit") == 8, "the last edit")

    workers = PlayedWorkers(the_judge_waits_for_all_edits)
    many = {"batch_size": 8}
    run = world.benchmark(8, workers.backend, stages="overlapped", cpu_workers=2, judge=many)
    assert scores(Running(run).results()) == ["done"] * 8
    assert world.ended() == ["edit"] * 8 + ["score"] * 8


def test_a_second_ctrl_c_reaches_workers_that_are_leaving(world: World) -> None:
    patient = {"stop_timeout": 10 * PATIENCE}
    workers = PlayedWorkers(leaves=lambda worker: worker.spec.role == "edit")  # and no judge does
    run = world.benchmark(1, workers.backend, cpu_workers=1, supervision=patient)
    running = Running(run)

    wait_until(lambda: world.states_of("cpu0").count("stopping") == 2, "the judge's poison pill")
    started = time.monotonic()
    run.stop_leasing()
    run.abandon()
    assert scores(running.results()) == ["done"]
    assert time.monotonic() - started < PATIENCE
