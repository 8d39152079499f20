"""Runs whose caller takes each result as it comes: nothing of a task stays when it has ended."""

import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from apps.prompts import streamed
from apps.tweets import tweets_file
from apps.tweets.tweets_file import read_tweets
from core import batches, feeding
from core.errors import StorageError
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.store.ledger import Ledger
from core.tasks import Result
from tests.conftest import LOCAL, PATIENCE, PROJECT, wait_until
from tests.inline_backend import InlineBackend
from tests.inline_command import InlineCommand
from tests.test_streaming import (
    AT_ONCE,
    CONFIG,
    FIRST,
    MANY,
    Inputs,
    open_generator,
    positions,
    rows,
    task,
)


@pytest.fixture(autouse=True)
def few_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "FIRST", FIRST)
    monkeypatch.setattr(feeding, "AT_ONCE", AT_ONCE)


class Mixed(Inputs):
    """Inputs of which some fail: unusable, on the device, or for an output that another one has."""

    def __iter__(self) -> Any:
        for number, given in enumerate(super().__iter__()):
            if number % 19 == 5:
                given = {"prompt": ""}
            elif number % 19 == 6:
                given = {**given, "prompt": "!bug"}
            elif number % 19 == 7 and number > 19:
                given = {**given, "output_path": f"{number - 18}.png"}
            yield given


def run(
    generator: MultiGPUImageGenerator, inputs: Any, told: Callable[[Result], None] | None = None
) -> dict[int, Result]:
    """Run inputs, and take each result as it comes; each comes once."""
    found: dict[int, Result] = {}

    def take(result: Result) -> None:
        assert result.position not in found
        found[result.position] = result
        if told is not None:
            told(result)

    generator.run(generator.prepare(inputs, []), take)
    return found


def told_alike(one: Result | dict[str, Any]) -> dict[str, Any]:
    """What two runs say alike of a task: not which worker did it, how long that took, nor whether
    it ran twice."""
    said = dict(one.as_dict() if isinstance(one, Result) else one)
    for name in ("elapsed", "worker", "output_path", "attempts"):
        said.pop(name)
    return said


def test_each_result_is_handed_out_once_and_the_tables_are_those_of_a_run_that_keeps_them(
    tmp_path: Path,
) -> None:
    inputs = Mixed(-1, lambda: None)
    with open_generator(LOCAL, tmp_path / "kept") as generator:
        kept = generator.execute(generator.prepare(inputs, []))
    with open_generator(LOCAL, tmp_path / "out") as generator:
        found = run(generator, inputs)
    assert {r.status for r in kept} == {"done", "failed"}
    assert [told_alike(found[i]) for i in range(MANY)] == list(map(told_alike, kept))
    for folder in ("kept", "out"):
        assert positions(tmp_path / folder / "results.jsonl") == list(range(MANY))
    tables = [rows(tmp_path / folder / "results.jsonl") for folder in ("kept", "out")]
    assert list(map(told_alike, tables[1])) == list(map(told_alike, tables[0]))
    assert {row["cause"] for row in tables[1]} == {None, "input", "exception"}
    pictures = [rows(tmp_path / folder / "metadata.jsonl") for folder in ("kept", "out")]
    assert [r["file_name"] for r in pictures[1]] == [r["file_name"] for r in pictures[0]]


def test_a_run_that_is_interrupted_has_a_line_for_each_input_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_generator(LOCAL, tmp_path / "out") as generator:
        ended = list[Result]()

        def interrupt() -> None:
            wait_until(lambda: ended, "the end of a task")
            generator.stop_leasing()

        found = run(generator, Inputs(FIRST + 60, interrupt), ended.append)
    assert sorted(found) == list(range(MANY))
    assert {r.status for r in found.values()} == {"done", "interrupted"}
    lines = rows(tmp_path / "out" / "results.jsonl")
    assert lines == [found[i].as_dict() for i in range(MANY)]
    monkeypatch.setattr(batches, "MOST_WAITING", 30)  # what is there is looked at in pieces, too
    with open_generator(LOCAL, tmp_path / "out") as generator:
        plan = generator.prepare(Inputs(-1, lambda: None), [])
        line = plan.summary.line("tasks")
        assert f"{MANY - 30} more are compared with what is there during the run" in line
        again: list[Result] = []
        generator.run(plan, again.append)
    assert sorted(r.position for r in again) == list(range(MANY))
    done = {position for position, result in found.items() if result.status == "done"}
    assert {r.position for r in again if r.status == "skipped"} == done
    assert {r.position for r in again if r.status == "done"} == set(range(MANY)) - done
    lines = rows(tmp_path / "out" / "results.jsonl")
    assert [line["position"] for line in lines] == list(range(MANY))
    assert {line["position"] for line in lines if line["status"] == "skipped"} == done
    assert len(rows(tmp_path / "out" / "metadata.jsonl")) == MANY


THERE = MANY - 40  # inputs that an earlier run has finished


@pytest.fixture
def mostly_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with most of the pictures, of which a run compares few before it begins."""
    with open_generator(LOCAL, tmp_path / "out") as generator:
        found = run(generator, Inputs(-1, lambda: None, THERE))
    assert {result.status for result in found.values()} == {"done"}
    monkeypatch.setattr(batches, "MOST_WAITING", 30)
    return tmp_path / "out"


def expect_what_is_there_and(status: str, found: dict[int, Result], folder: Path) -> None:
    for position in range(MANY):
        assert found[position].status == ("skipped" if position < THERE else status), position
    assert rows(folder / "results.jsonl") == [found[n].as_dict() for n in range(MANY)]
    assert len(rows(folder / "metadata.jsonl")) == THERE


def test_what_is_there_stays_finished_when_a_run_is_interrupted_before_it_looked_at_it(
    mostly_done: Path,
) -> None:
    with open_generator(LOCAL, mostly_done) as generator:
        found = run(generator, Inputs(40, lambda: generator.stop_leasing()))
    expect_what_is_there_and("interrupted", found, mostly_done)


def test_what_is_there_stays_finished_when_the_disk_refuses_the_rest_of_the_plan(
    mostly_done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StorageError("no space left")

    with open_generator(LOCAL, mostly_done) as generator:
        plan = generator.prepare(Inputs(-1, lambda: None), [])
        monkeypatch.setattr(Ledger, "add_to_batch", refuse)
        found: dict[int, Result] = {}
        generator.run(plan, lambda result: found.update({result.position: result}))
    assert {found[n].status for n in range(THERE)} == {"skipped"}
    assert {found[n].status for n in range(THERE, MANY)} == {"failed"}


def test_who_interrupts_twice_does_not_wait_for_a_comparison(mostly_done: Path) -> None:
    def interrupt() -> None:
        generator.stop_leasing()
        generator.abandon()

    with open_generator(LOCAL, mostly_done) as generator:
        found = run(generator, Inputs(40, interrupt))
    assert sorted(found) == list(range(MANY))
    read = 40 + AT_ONCE + feeding.INPUTS_A_BREATH  # at most: what is begun is compared
    assert read < THERE
    assert {found[n].status for n in range(read, MANY)} == {"interrupted"}


def test_an_output_of_a_task_that_has_ended_is_still_that_tasks(tmp_path: Path) -> None:
    drawn: list[Result] = []

    class Again(Inputs):
        def __iter__(self) -> Any:
            for number in range(MANY):
                if number == MANY - 1:
                    wait_until(lambda: any(r.position == 7 for r in drawn), "its end")
                    yield task(number, output_path="7.PNG")
                else:
                    yield task(number)

    with open_generator(LOCAL, tmp_path / "out") as generator:
        found = run(generator, Again(-1, lambda: None), drawn.append)
    last = found[MANY - 1]
    assert last.status == "failed" and "is also the output of task 7" in str(last.error)


def test_a_table_that_somebody_edits_meanwhile_is_whole_at_the_end(tmp_path: Path) -> None:
    table = tmp_path / "out" / "results.jsonl"

    def edit() -> None:
        wait_until(lambda: table.exists() and table.stat().st_size, "lines of the table")
        table.write_bytes(b"\n" + table.read_bytes())

    with open_generator(LOCAL, tmp_path / "out") as generator:
        found = run(generator, Inputs(FIRST + 60, edit))
    assert positions(table) == list(range(MANY))
    for line in rows(table):
        told = found[line["position"]].as_dict()
        assert {name for name in told if told[name] != line[name]} <= {"attempts"}


def test_an_output_that_another_job_has_asked_for_since_is_still_that_tasks(
    tmp_path: Path,
) -> None:
    drawn = threading.Event()

    class Again(Inputs):
        def __iter__(self) -> Any:
            for number in range(MANY):
                if number == MANY - 1:
                    assert drawn.wait(PATIENCE)
                    assert generator.submit([task(7, seed=1)]).results()[0].status == "skipped"
                name = 7 if number == MANY - 1 else number
                yield task(number, seed=1, output_path=f"{name}.png")

    def see(result: Result) -> None:
        if result.position == 7:
            drawn.set()

    with open_generator(LOCAL, tmp_path / "out") as generator:
        found = run(generator, Again(-1, lambda: None), see)
    last = found[MANY - 1]
    assert last.status == "failed" and "is also the output of task 7" in str(last.error)


def test_a_table_that_somebody_moves_away_meanwhile_is_whole_at_the_end(tmp_path: Path) -> None:
    table = tmp_path / "out" / "results.jsonl"

    def move() -> None:
        wait_until(table.exists, "the table")
        table.rename(tmp_path / "moved.jsonl")

    with open_generator(LOCAL, tmp_path / "out") as generator:
        run(generator, Inputs(FIRST + 60, move))
    assert positions(table) == list(range(MANY))


def test_a_file_that_is_changed_during_the_run_is_drawn_as_far_as_it_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed, "LARGE", 0)
    monkeypatch.setattr(tweets_file, "FEW", FIRST)
    file, changed = tmp_path / "prompts.txt", threading.Event()
    file.write_text("".join(f"old {n}\n" for n in range(MANY)))
    read = read_tweets(file).inputs

    class Held(Inputs):
        def __iter__(self) -> Any:
            for number, given in enumerate(read):
                assert number < FIRST + 60 or changed.wait(PATIENCE)
                yield given

    def change(result: Result) -> None:
        if not changed.is_set():
            file.write_text("".join(f"another {n}\n" for n in range(MANY)))
            changed.set()

    with open_generator(LOCAL, tmp_path / "out") as generator:
        found = run(generator, Held(-1, lambda: None), change)
    assert sorted(found) == list(range(MANY))
    failed = [r for r in found.values() if not r.success]
    assert failed and all("it was changed while it was read" in str(r.error) for r in failed)
    assert found[0].success and not found[MANY - 1].success
    drawn = rows(tmp_path / "out" / "metadata.jsonl")
    assert {row["prompt"].split()[0] for row in drawn} == {"old"}


def test_inputs_that_end_too_early_have_a_record_for_each_that_was_promised(
    tmp_path: Path,
) -> None:
    class Short(Inputs):
        def __iter__(self) -> Any:
            return islice(super().__iter__(), 3)

    with open_generator(LOCAL, tmp_path / "out") as generator:
        found = run(generator, Short(-1, lambda: None))
    assert sorted(found) == list(range(MANY))
    assert [found[n].success for n in range(5)] == [True, True, True, False, False]
    assert {r.error for r in found.values() if not r.success} == {
        "The input has ended before this place."
    }


def test_a_finished_run_that_is_run_again_loads_no_model(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed, "LARGE", 0)
    monkeypatch.setattr(tweets_file, "FEW", FIRST)
    monkeypatch.setattr(batches, "MOST_WAITING", 30)
    command, file = InlineCommand(tmp_path, capfd), tmp_path / "prompts.txt"
    started: list[str] = []
    start = InlineBackend.start

    def begin(backend: InlineBackend, slot: str, *rest: Any) -> None:
        started.append(slot)
        start(backend, slot, *rest)

    monkeypatch.setattr(InlineBackend, "start", begin)
    texts = [f"picture {n}" for n in range(MANY)]
    size = {"defaults": CONFIG["defaults"]}
    file.write_text("\n".join(texts[:-1]))
    assert command.run(file, **size)[0] == 0 and len(started) == 1
    assert command.run(file, **size)[0] == 0 and len(started) == 1
    file.write_text("\n".join(texts))  # one more, behind those that are compared at first
    assert command.run(file, **size)[0] == 0 and len(started) == 2
    [out] = tmp_path.glob("out/**/results.jsonl")
    assert [row["status"] for row in rows(out)] == ["skipped"] * (MANY - 1) + ["done"]


MEASURED = """
import gc, sys, time, tracemalloc
from pathlib import Path
from core import batches, feeding
from core.engine import served_model
from tests.conftest import LOCAL, wait_until
from tests.test_streaming import Inputs, open_generator
batches.FIRST, feeding.MOST_WAITING, feeding.AT_ONCE = 20, 20, 8  # few are in memory
served_model.WAITS_KEPT = 16  # all are there soon
FIRST, LAST = 20 + 16 * 9, 20 + 16 * 59  # read once all before them are handed over
held, ended = {}, 0
for number in range(300_000):  # the table of interned strings, of parts of paths, has its size now
    sys.intern(f"{number}.png")
tracemalloc.start()

def bytes_at_rest():
    # The least of some looks: threads may be about to let go of something. Python itself keeps
    # names of attributes, made anew for each picture, until their places are needed.
    looks = []
    for _ in range(10):
        gc.collect()
        sys._clear_type_cache()
        looks.append(tracemalloc.get_traced_memory()[0])
        time.sleep(0.01)
    return min(looks)

class Halting(Inputs):
    # Goes on at two of its tasks when nothing is in work: a picture that is being written would
    # count, with 64 KiB of its writer's.
    def __iter__(self):
        for number, given in enumerate(super().__iter__()):
            if number in (FIRST, LAST):
                wait_until(lambda: ended == number, f"the end of {number} tasks")
                held[number] = bytes_at_rest()
            yield given

def told(result):
    global ended
    ended += 1

with open_generator(LOCAL, Path(sys.argv[1])) as generator:
    generator.run(generator.prepare(Halting(-1, lambda: None, LAST + 1), []), told)
print((held[LAST] - held[FIRST]) / (LAST - FIRST))
"""


@pytest.mark.slow
def test_a_task_that_has_ended_leaves_next_to_nothing_in_memory(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path / "out")],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 50, "bytes a task"
