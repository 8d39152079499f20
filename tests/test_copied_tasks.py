"""Two attempts at one task: whichever result is recorded first is the task's, whatever the other
attempt comes to meanwhile."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from core.engine.attempts import WorkerLoss
from core.engine.job import Job
from core.engine.job_run import JobRun
from core.engine.recorder import Then
from core.engine.task_state import ActiveAttempt, TaskState
from core.errors import StorageError
from core.events import ignore
from core.messages import Done, Failed
from core.settings import load_settings
from core.store.attempt import Attempt, Ending
from core.store.ledger import Ledger
from tests.folder_world import Folder

DONE = Done("", 100, "sha", 1.0)
SLOW_DISK = StorageError("the disk refuses")


@dataclass
class SlowRecorder:
    """Notes what it is asked for, and answers when the test wants it to."""

    folder: Path
    batch: int = 1
    asked: list[str] = field(default_factory=list)
    answers: list[Then] = field(default_factory=list)

    def partial_path(self, admitted: Any, lease_id: str) -> str:
        return str(self.folder / lease_id)

    def begin(self, attempt: Attempt, then: Then) -> None:
        self._ask(f"begin {attempt.worker}", then)

    def keep(self, attempt: Attempt, done: Done, then: Then) -> None:
        self._ask(f"keep {attempt.worker}", then)

    def end(self, attempt: Attempt, ending: Ending, then: Then) -> None:
        self._ask(f"end {attempt.worker} {ending.outcome}", then)

    def end_lease_alone(self, attempt: Attempt, cause: str) -> None:
        self.asked.append(f"end alone {attempt.worker} {cause}")

    def fail(self, attempt: Attempt, error: str) -> None:
        self.asked.append(f"fail {attempt.worker}")

    def discard(self, attempt: Attempt) -> None:
        self.asked.append(f"discard {attempt.worker}")

    def note(self, result: Any) -> None:
        self.asked.append(f"note {result.status}")

    def finish(self, results: Any, ended: Any, then: Then) -> None:
        then(None)

    def _ask(self, what: str, then: Then) -> None:
        self.asked.append(what)
        self.answers.append(then)

    def answer(self, refusal: StorageError | None = None) -> None:
        self.answers.pop(0)(refusal)


class World:
    """A job of one task at which two workers are."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        [admitted] = Folder(folder, ledger).plan("a.png").tasks
        self.recorder = SlowRecorder(folder)
        self.queued: list[TaskState] = []
        self.job = Job(1, lambda *_: None, lambda *_: None)
        self.run = JobRun(
            self.job,
            self.recorder,
            load_settings({}).supervision,
            ignore,
            queue=lambda _, task: self.queued.append(task),
            withdraw=lambda *_: None,
            in_turn=lambda call: call(),
            on_finished=lambda _: None,
            on_storage_error=lambda *_: None,
            refusal=lambda _: None,
            share=("owner", 0),
        )
        self.job.admit(1)
        self.run.add([admitted])
        self.run.seal()
        self.task = self.queued.pop()
        self.first = self.begin("first")
        self.recorder.answer()

    def begin(self, worker: str) -> ActiveAttempt:
        return self.run.attempts.begin(self.task, worker, lambda *_: None)

    def copy(self) -> ActiveAttempt:
        copy = self.begin("copy")
        self.recorder.answer()
        return copy


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    ledger = Ledger.open(tmp_path)
    yield World(tmp_path, ledger)
    ledger.close()


def test_a_copy_that_crashes_while_the_result_is_recorded_changes_nothing(world: World) -> None:
    copy = world.copy()
    world.run.attempts.done(world.first, DONE, lambda: None)
    world.run.attempts.lost(copy, WorkerLoss("SIGSEGV"), blamed=True)
    assert world.recorder.asked[-2:] == ["keep first", "end alone copy crash"]
    world.recorder.answer()
    assert [r.status for r in world.job.results(0)] == ["done"]
    assert not world.recorder.answers and not world.queued


@pytest.mark.parametrize("kind", ["error", "input", "storage"])
def test_a_copy_that_fails_while_the_result_is_recorded_changes_nothing(
    world: World, kind: Any
) -> None:
    copy = world.copy()
    world.run.attempts.done(world.first, DONE, lambda: None)
    world.run.attempts.failed(copy, Failed("", kind, "bad"))
    world.recorder.answer()
    assert [r.status for r in world.job.results(0)] == ["done"]
    assert not world.recorder.answers and not world.queued


def test_a_copy_whose_lease_is_refused_while_the_result_is_recorded_changes_nothing(
    world: World,
) -> None:
    world.begin("copy")
    world.run.attempts.done(world.first, DONE, lambda: None)
    world.recorder.answer(SLOW_DISK)
    world.recorder.answer()
    assert [r.status for r in world.job.results(0)] == ["done"]
    assert "fail copy" not in world.recorder.asked


def test_of_two_results_the_second_is_thrown_away(world: World) -> None:
    copy = world.copy()
    world.run.attempts.done(world.first, DONE, lambda: None)
    world.run.attempts.done(copy, DONE, lambda: None)
    world.recorder.answer()
    assert world.recorder.asked[-2:] == ["keep first", "end alone copy superseded"]
    assert [(r.status, r.worker) for r in world.job.results(0)] == [("done", "first")]


def test_a_copy_goes_on_where_the_first_result_is_refused(world: World) -> None:
    copy = world.copy()
    world.run.attempts.done(world.first, DONE, lambda: None)
    world.recorder.answer(SLOW_DISK)
    assert not world.job.finished
    world.run.attempts.done(copy, DONE, lambda: None)
    world.recorder.answer()
    assert [(r.status, r.worker) for r in world.job.results(0)] == [("done", "copy")]


def test_the_last_attempt_decides_if_the_first_has_failed(world: World) -> None:
    copy = world.copy()
    world.run.attempts.failed(world.first, Failed("", "error", "bad"))
    world.run.attempts.lost(copy, WorkerLoss("SIGSEGV"), blamed=True)
    assert world.recorder.asked[-1] == "end copy again"
    world.recorder.answer()
    assert world.queued == [world.task]
