"""The recorder of a folder: in order, in a thread of its own, and an answer to everything."""

import json
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from core.errors import LedgerError, StorageError
from core.intake.admission import Admitted
from core.intake.planning import Plan
from core.messages import Done
from core.store.attempt import Attempt, Ending, Refusal
from core.store.folder_recorder import MOST_AT_ONCE, FolderRecorder
from core.store.ledger import Ledger
from core.store.outputs import answers_of
from core.store.results_table import ResultsTable
from core.tasks import ScoreTask
from tests.conftest import PATIENCE, run_script
from tests.folder_world import Folder, task

PICTURE = b"a picture"


class Answers:
    """What a recorder answered, in order, and from which threads."""

    def __init__(self) -> None:
        self.given: list[tuple[str, Refusal | None]] = []
        self.threads: set[str] = set()
        self._changed = threading.Condition()

    def to(self, name: str) -> Callable[[Refusal | None], None]:
        def then(refusal: Refusal | None) -> None:
            with self._changed:
                self.given.append((name, refusal))
                self.threads.add(threading.current_thread().name)
                self._changed.notify_all()

        return then

    def wait(self, count: int) -> list[tuple[str, Refusal | None]]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.given) >= count, PATIENCE), self.given
            return list(self.given)


class World:
    """A recorder of a folder with planned batches."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger.open(folder)
        self.folder = Folder(folder, self.ledger)
        self.table = ResultsTable(folder)
        self.recorder = FolderRecorder(self.ledger, self.folder.root, self.table)
        self.answers = Answers()

    def batch(self, *names: str) -> Plan:
        plan = self.folder.plan(*names)
        self.table.begin(plan.batch, plan.settled)
        self.recorder.begin_batch(plan.batch, plan.replaced, plan.claims)
        return plan

    def attempt(self, plan: Plan, job: Admitted, number: int = 1) -> Attempt:
        lease_id = f"{job.task_id}-{number}".replace("/", "-")
        partial = self.recorder.partial_path(job, lease_id)
        return Attempt(lease_id, plan.batch, job, number, "gpu0", partial)

    def begun(self, plan: Plan, number: int = 1) -> list[Attempt]:
        """One attempt at each task of a batch, recorded."""
        attempts = [self.attempt(plan, job, number) for job in plan.tasks]
        before = len(self.answers.given)
        for attempt in attempts:
            self.recorder.begin(attempt, self.answers.to("begin"))
        self.answers.wait(before + len(attempts))
        return attempts

    def draw(self, attempt: Attempt) -> Done:
        Path(attempt.partial_path).write_bytes(PICTURE)
        return Done(attempt.lease_id, len(PICTURE), "0" * 64, 0.5, {"model": "m"})

    def keep(self, attempt: Attempt) -> Refusal | None:
        before = len(self.answers.given)
        self.recorder.keep(attempt, self.draw(attempt), self.answers.to("keep"))
        return self.answers.wait(before + 1)[-1][1]

    def end(self, attempt: Attempt, ending: Ending) -> None:
        Path(attempt.partial_path).write_bytes(b"half a picture")
        before = len(self.answers.given)
        self.recorder.end(attempt, ending, self.answers.to("end"))
        assert self.answers.wait(before + 1)[-1] == ("end", None)
        assert not Path(attempt.partial_path).exists()

    def close(self) -> None:
        self.recorder.close()
        self.ledger.close()

    def records(self) -> dict[str, str]:
        """Statuses by task, as `results.jsonl` has them."""
        lines = (self.folder.root.folder / "results.jsonl").read_text("utf-8").splitlines()
        return {r["task_id"]: r["status"] for r in map(json.loads, lines)}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def test_a_task_is_leased_before_the_answer_and_done_before_the_answer(
    world: World, tmp_path: Path
) -> None:
    plan = world.batch("below/a.png")
    [attempt] = world.begun(plan)
    assert world.ledger.entries()["below/a.png"].state == "leased"
    assert (tmp_path / "below").is_dir()
    done = world.draw(attempt)
    seen: list[object] = []
    answered = threading.Event()

    def then(refusal: Refusal | None) -> None:
        seen.append(refusal)
        seen.append((tmp_path / "below" / "a.png").read_bytes())
        seen.append(world.ledger.entries()["below/a.png"].state)
        seen.append(world.records())
        answered.set()

    world.recorder.keep(attempt, done, then)
    assert answered.wait(PATIENCE)
    assert seen == [None, PICTURE, "done", {"a": "done"}]
    assert not list(tmp_path.rglob(".partial*"))


def test_everything_is_done_in_order_away_from_the_caller_and_leases_come_first(
    world: World,
) -> None:
    plan = world.batch(*(f"{i}.png" for i in range(100)))
    held, holding = threading.Event(), threading.Event()

    def hold(refusal: Refusal | None) -> None:
        holding.set()
        held.wait(PATIENCE)

    attempts = [world.attempt(plan, job) for job in plan.tasks]
    world.recorder.begin(attempts[0], hold)
    assert holding.wait(PATIENCE)
    begins, ends = [], []
    for i, attempt in enumerate(attempts[1:]):  # wait behind it, in groups and between others
        world.recorder.begin(attempt, world.answers.to(f"begin {i}"))
        begins.append((f"begin {i}", None))
        if i % 3 == 0:
            world.recorder.end(attempt, Ending("released", "again"), world.answers.to(f"end {i}"))
            ends.append((f"end {i}", None))
    most = MOST_AT_ONCE  # leases in one go; then something else has its turn
    expected = [*begins[:most], ends[0], *begins[most:], *ends[1:]]
    assert world.answers.given == []
    held.set()
    assert world.answers.wait(len(expected)) == expected
    assert world.answers.threads == {"recorder"}
    states = [e.state for e in world.ledger.entries().values()]
    assert states.count("pending") == 33 and states.count("leased") == 67


def test_a_folder_that_cannot_be_made_refuses_its_own_tasks_alone(
    world: World, tmp_path: Path
) -> None:
    plan = world.batch("a.png", "blocked/b.png", "c.png")
    (tmp_path / "blocked").write_text("a file in the way")
    attempts = world.begun(plan)
    refusals = [refusal for _, refusal in world.answers.given]
    assert refusals[0] is None and refusals[2] is None
    assert isinstance(refusals[1], StorageError) and "blocked" in str(refusals[1])
    world.recorder.fail(attempts[1], str(refusals[1]))
    world.recorder.close()
    entry = world.ledger.entries()["blocked/b.png"]
    assert entry.state == "failed" and entry.error == str(refusals[1])
    assert world.records() == {"b": "failed"}


def test_a_lease_that_the_ledger_refuses_takes_none_of_its_neighbours_with_it(
    world: World,
) -> None:
    plan = world.batch("a.png", "b.png", "c.png")
    held, holding = threading.Event(), threading.Event()

    def hold(refusal: Refusal | None) -> None:
        holding.set()
        held.wait(PATIENCE)

    a, b, c = (world.attempt(plan, job) for job in plan.tasks)
    world.recorder.begin(a, hold)
    assert holding.wait(PATIENCE)
    for name, attempt in (("b", b), ("a again", a), ("c", c)):  # in one commit, if all may be
        world.recorder.begin(attempt, world.answers.to(name))
    held.set()
    refusals = dict(world.answers.wait(3))
    assert refusals["b"] is None and refusals["c"] is None
    assert isinstance(refusals["a again"], LedgerError)
    assert {e.state for e in world.ledger.entries().values()} == {"leased"}


def waiting(world: World, *requests: Callable[[], None]) -> threading.Event:
    """Have the recorder find all of these at once, when what is returned is set."""
    held, holding = threading.Event(), threading.Event()

    def hold() -> None:
        holding.set()
        held.wait(PATIENCE)

    world.recorder.call(hold, lambda refusal: None)
    assert holding.wait(PATIENCE)
    for request in requests:
        request()
    return held


def test_results_that_wait_are_recorded_together_and_a_refused_one_takes_none_with_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = world.batch(*(f"{name}.png" for name in "abcde"))
    attempts = world.begun(plan)
    dones = [world.draw(attempt) for attempt in attempts]
    dones[3] = replace(dones[3], sha256="\udc80")  # no text: the ledger refuses it
    Path(attempts[4].partial_path).unlink()
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", synced.append)
    requests = [
        partial(world.recorder.keep, attempt, done, world.answers.to(attempt.admitted.task_id))
        for attempt, done in zip(attempts, dones, strict=True)
    ]
    waiting(world, *requests[:2]).set()
    assert world.answers.wait(7)[5:] == [("a", None), ("b", None)]
    assert len(synced) == 1, "of their folder"
    waiting(world, *requests[2:]).set()
    refusals = dict(world.answers.wait(10)[7:])
    assert refusals["c"] is None
    assert isinstance(refusals["d"], LedgerError) and isinstance(refusals["e"], StorageError)
    assert world.records() == {"a": "done", "b": "done", "c": "done"}


def test_a_lease_waits_for_no_more_than_one_of_the_results_that_wait(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = world.batch("a.png", "b.png", "c.png", "d.png")
    *kept, last = (world.attempt(plan, job) for job in plan.tasks)
    for attempt in kept:
        world.recorder.begin(attempt, world.answers.to("begin"))
    world.answers.wait(3)
    named: list[str] = []

    def slow(partial: str, final: str, size: int, sync: bool) -> None:
        if not named:  # asked for while the first gets its name
            world.recorder.begin(last, lambda refusal: named.append("lease"))
        named.append(Path(final).stem)

    monkeypatch.setattr("core.store.replaced.publish", slow)
    requests = [partial(world.recorder.keep, a, world.draw(a), world.answers.to("k")) for a in kept]
    waiting(world, *requests).set()
    world.answers.wait(6)
    assert named == ["a", "lease", "b", "c"]


def test_a_result_that_cannot_get_its_name_is_removed_and_may_fail_or_go_again(
    world: World, tmp_path: Path
) -> None:
    plan = world.batch("a.png", "b.png")
    first, second = world.begun(plan)
    for name in ("a.png", "b.png"):
        (tmp_path / name / "in the way").mkdir(parents=True)
    for attempt in (first, second):
        assert isinstance(world.keep(attempt), StorageError)
        assert not Path(attempt.partial_path).exists()
    world.recorder.fail(first, "the disk is full")
    world.recorder.end_lease_alone(second, "storage")
    world.recorder.close()
    entries = world.ledger.entries()
    assert (entries["a.png"].state, entries["a.png"].error) == ("failed", "the disk is full")
    assert entries["b.png"].state == "leased"  # its other lease decides about it
    world.ledger.close()
    left = Ledger.open(tmp_path)
    assert left.open_leases() == []
    left.close()


def test_what_an_ending_means_for_its_task_is_recorded(world: World) -> None:
    plan = world.batch("a.png", "b.png", "c.png")
    again, failed, quarantined = world.begun(plan)
    world.end(again, Ending("out_of_memory", "again"))
    world.end(failed, Ending("error", "failed", "too dark", 2.5))
    world.end(quarantined, Ending("crash", "quarantined", "it crashed"))
    entries = world.ledger.entries()
    assert {e.state for e in entries.values()} == {"pending", "failed", "quarantined"}
    entry = entries["b.png"]
    assert (entry.error, entry.elapsed, entry.worker) == ("too dark", 2.5, "gpu0")
    assert world.records() == {"b": "failed", "c": "quarantined"}
    second = world.begun(plan, 2)[0]
    assert world.keep(second) is None
    assert world.records()["a"] == "done"


def test_what_is_discarded_is_tried_again_by_the_next_run(world: World, tmp_path: Path) -> None:
    [attempt] = world.begun(world.batch("a.png"))
    world.draw(attempt)
    world.recorder.discard(attempt)
    world.close()
    assert not Path(attempt.partial_path).exists()
    left = Ledger.open(tmp_path)
    assert left.open_leases() == [Path(attempt.partial_path).name]
    left.close()


def test_each_batch_keeps_what_its_results_replace(world: World, tmp_path: Path) -> None:
    plans = [world.batch("a.png"), world.batch("b.png")]
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"old")
    for plan in plans:
        [attempt] = world.begun(plan)
        assert world.keep(attempt) is None
    kept = sorted(p.name for p in (tmp_path / ".replaced").rglob("*.png"))
    assert kept == ["a.png", "b.png"]
    assert len(list((tmp_path / ".replaced").iterdir())) == 2
    assert (tmp_path / "a.png").read_bytes() == PICTURE


def test_an_output_is_free_when_its_task_has_its_record(world: World) -> None:
    plan = world.batch("a.png", "b.png")
    first, _ = world.begun(plan)
    other = world.folder.admission(world.folder.claims.begin())
    assert not isinstance(other.admit(0, task("a.png")), Admitted)
    assert world.keep(first) is None
    assert isinstance(other.admit(0, task("a.png")), Admitted)
    assert not isinstance(other.admit(1, task("b.png")), Admitted)
    world.recorder.end_batch(plan.batch)
    assert isinstance(other.admit(1, task("b.png")), Admitted)


def test_an_attempt_that_outlives_its_batch_decides_nothing(world: World, tmp_path: Path) -> None:
    stopped = world.batch("a.png", "b.png")
    late, failed = world.begun(stopped)
    world.table.end(stopped.batch, [])
    world.recorder.end_batch(stopped.batch)
    again = world.batch("a.png", "b.png")
    assert len(again.tasks) == 2
    first, _ = world.begun(again, 2)
    assert isinstance(world.keep(late), LedgerError)
    world.end(failed, Ending("error", "failed", "too late"))
    assert world.keep(first) is None
    states = {key: e.state for key, e in world.ledger.entries().items()}
    assert states == {"a.png": "done", "b.png": "leased"}
    assert world.records() == {"a": "done"}
    assert not Path(late.partial_path).exists()


def test_closing_does_first_what_was_asked_for_and_refuses_what_comes_later(
    world: World, tmp_path: Path
) -> None:
    plan = world.batch(*(f"{i}.png" for i in range(50)))
    attempts = [world.attempt(plan, job) for job in plan.tasks]
    for attempt in attempts:
        world.recorder.begin(attempt, world.answers.to("begin"))
        world.recorder.keep(attempt, world.draw(attempt), world.answers.to("keep"))
    world.recorder.close()
    assert [refusal for _, refusal in world.answers.given] == [None] * 100
    assert len(list(tmp_path.glob("*.png"))) == 50
    world.recorder.begin(world.attempt(plan, plan.tasks[0], 2), world.answers.to("late"))
    name, refusal = world.answers.given[-1]
    assert name == "late" and "is closed" in str(refusal)


def test_a_recorder_that_breaks_down_still_answers_everything(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = world.batch("a.png", "b.png")
    attempts = world.begun(plan)

    def break_down(*_: object) -> None:
        raise MemoryError("simulated")

    monkeypatch.setattr(world.ledger, "end_all", break_down)
    refusals = [world.keep(attempts[0])]
    monkeypatch.undo()
    refusals.append(world.keep(attempts[1]))  # what the first one left is not known
    world.recorder.begin(attempts[0], world.answers.to("begin"))
    world.recorder.end(attempts[0], Ending("x", "again"), world.answers.to("end"))
    refusals += [refusal for _, refusal in world.answers.wait(6)[-2:]]
    assert all(isinstance(refusal, LedgerError) for refusal in refusals)
    assert "can no longer be recorded (MemoryError: simulated)" in str(refusals[0])


def test_an_answer_that_raises_takes_no_other_with_it(world: World) -> None:
    plan = world.batch("a.png", "b.png")

    def raises(refusal: Refusal | None) -> None:
        raise ValueError("simulated")

    for job in plan.tasks:
        world.recorder.begin(world.attempt(plan, job), raises)
    world.recorder.begin(world.attempt(plan, plan.tasks[0], 2), world.answers.to("begin"))
    assert world.answers.wait(1) == [("begin", None)]


def test_a_batch_without_a_folder_of_its_own_leaves_nothing_in_memory(tmp_path: Path) -> None:
    ledger = Ledger.in_memory()
    folder = Folder(tmp_path, ledger)
    recorder, answers = FolderRecorder(ledger, folder.root), Answers()
    plan = folder.plan("a.png")
    recorder.begin_batch(plan.batch)
    [job] = plan.tasks
    attempt = Attempt("l", plan.batch, job, 1, "gpu0", recorder.partial_path(job, "l"))
    recorder.begin(attempt, answers.to("begin"))
    recorder.fail(attempt, "the disk is full")
    recorder.end_batch(plan.batch)
    recorder.close()
    assert ledger.entries() == {}
    ledger.close()


def test_a_process_that_is_killed_leaves_a_table_of_what_was_done(tmp_path: Path) -> None:
    script = """
        import os, signal, sys
        from pathlib import Path
        from tests.test_folder_recorder import World

        world = World(Path("run"))
        for plan in (world.batch("a.png", "b.png", "c.png"), world.batch("d.png")):
            for attempt in world.begun(plan):
                if attempt.admitted.task_id != "c":
                    assert world.keep(attempt) is None
        os.kill(os.getpid(), signal.SIGKILL)
        """
    done = run_script(script, tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    world = World(tmp_path / "run")
    assert world.records() == {"a": "done", "b": "done", "d": "done"}
    world.close()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_judges_answers_last_until_its_verdict_and_no_longer(
    world: World, overwrite: bool
) -> None:
    """Who does everything anew begins without them; a second try of the same run does not."""
    plan = world.batch("a.png")
    if overwrite:
        world.recorder.begin_batch(plan.batch, None, plan.claims)
    score = ScoreTask("make it night", ("source.png",), "edited.png", output_path="a.png")
    job = replace(plan.tasks[0], task=score)
    kept = Path(answers_of(world.attempt(plan, job).partial_path, score))
    kept.write_text("of an earlier run")
    for number in (1, 2):
        attempt = world.attempt(plan, job, number)
        world.recorder.begin(attempt, world.answers.to("begin"))
        world.answers.wait(2 * number - 1)
        assert kept.exists() is not (overwrite and number == 1)
        kept.write_text("of this attempt")
        if number == 1:
            world.end(attempt, Ending("crash", "again"))
        else:
            assert world.keep(attempt) is None
            assert not kept.exists()
