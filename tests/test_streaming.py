"""Large inputs are checked, recorded and handed out piece by piece, while workers draw."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core import batches, feeding
from core.events import Event, TaskEnded, TaskStarted
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from tests.both_engines import ALWAYS_ON_BOTH, ON_BOTH
from tests.conftest import LOCAL, PATIENCE, PROJECT, Workplace, merged
from tests.inline_backend import InlineBackend

# Inputs that are checked before anything is drawn, and that are planned together later on; users
# have more of them.
FIRST, AT_ONCE = 40, 50
MANY = FIRST + 120
CONFIG = {
    "model": "simulated",
    "device": "cpu",
    "defaults": {"width": 16, "height": 16, "num_inference_steps": 1},
}


@pytest.fixture(autouse=True)
def few_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "FIRST", FIRST)
    monkeypatch.setattr(feeding, "AT_ONCE", AT_ONCE)


class Inputs:
    """Tasks that are made as they are read; at one of them something happens."""

    def __init__(self, at: int, happens: Callable[[], None], count: int = MANY) -> None:
        self._at, self._happens, self._count = at, happens, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number in range(self._count):
            if number == self._at:
                self._happens()
            yield task(number)


def task(number: int, **more: Any) -> dict[str, Any]:
    return {"prompt": f"picture {number}", "output_path": f"{number}.png", **more}


def open_generator(
    workplace: Workplace,
    folder: Path | None,
    listener: Callable[[Event], None] = lambda event: None,
) -> MultiGPUImageGenerator:
    config = merged(CONFIG, workplace.settings)
    return MultiGPUImageGenerator(
        2, config=config, output_dir=folder, listener=listener, backend=workplace.inline()
    )


@ALWAYS_ON_BOTH
def test_pictures_are_there_while_the_input_is_still_read(
    tmp_path: Path, workplace: Workplace
) -> None:
    drawn = threading.Event()

    def listen(event: Event) -> None:
        if isinstance(event, TaskEnded) and event.result.success:
            drawn.set()

    def wait_for_a_picture() -> None:
        assert drawn.wait(PATIENCE), "nothing was drawn before all was read"
        assert any((tmp_path / "out").glob("*.png"))

    with open_generator(workplace, tmp_path / "out", listen) as generator:
        plan = generator.prepare(Inputs(FIRST + 60, wait_for_a_picture), [])
        assert plan.to_run == MANY
        assert f"{MANY} new" in plan.summary.line("tasks")
        results = generator.execute(plan)
    assert [r.position for r in results] == list(range(MANY))
    assert {r.status for r in results} == {"done"}
    assert positions(tmp_path / "out" / "results.jsonl") == list(range(MANY))
    names = [row["file_name"] for row in rows(tmp_path / "out" / "metadata.jsonl")]
    assert names == [f"{number}.png" for number in range(MANY)]


@ON_BOTH
def test_an_output_is_one_tasks_however_far_apart_two_stand(
    tmp_path: Path, workplace: Workplace
) -> None:
    inputs = [task(number) for number in range(MANY)]
    inputs[FIRST + 80]["output_path"] = "7.PNG"
    inputs[FIRST + 100] = {"prompt": ""}
    told: list[TaskEnded] = []
    with open_generator(
        workplace, tmp_path / "out", lambda e: told.append(e) if isinstance(e, TaskEnded) else None
    ) as generator:
        results = generator.generate_batch(inputs)
    assert [r.position for r in results] == list(range(MANY))
    failed = {r.position: r for r in results if not r.success}
    assert sorted(failed) == [FIRST + 80, FIRST + 100]
    assert "is also the output of task 7" in str(failed[FIRST + 80].error)
    assert "prompt" in str(failed[FIRST + 100].error)
    assert sorted(e.result.position for e in told if e.refused) == sorted(failed)
    assert len(told) == MANY


def test_no_more_than_a_bound_is_read_ahead_of_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, most, portion, at = 50, 60, 16, 140
    monkeypatch.setattr(batches, "FIRST", first)
    monkeypatch.setattr(feeding, "MOST_WAITING", most)
    monkeypatch.setattr(feeding, "AT_ONCE", portion)
    monkeypatch.setattr(feeding, "ROOM_LOOK", 0.01)
    started: list[Event] = []
    begun_when_read: list[int] = []
    slow = {"seconds_per_megapixel_step": 0.01 / (16 * 16 / 1e6)}  # a picture takes 10 ms
    with MultiGPUImageGenerator(
        2,
        config={**CONFIG, "simulated": slow},
        output_dir=tmp_path / "out",
        listener=lambda event: started.append(event) if isinstance(event, TaskStarted) else None,
        backend=InlineBackend(),
    ) as generator:
        inputs = Inputs(at, lambda: begun_when_read.append(len(started)), count=150)
        results = generator.execute(generator.prepare(inputs, []))
    assert {r.status for r in results} == {"done"}
    assert begun_when_read[0] >= at - most - portion


@ON_BOTH
def test_a_run_that_is_interrupted_while_it_reads_records_every_input(
    tmp_path: Path, workplace: Workplace
) -> None:
    with open_generator(workplace, tmp_path / "out") as generator:
        inputs = Inputs(FIRST + 60, lambda: generator.stop_leasing())
        results = generator.execute(generator.prepare(inputs, []))
    assert [r.position for r in results] == list(range(MANY))
    assert [r.task_id for r in results] == [str(number) for number in range(MANY)]
    assert results[-1].status == "interrupted"
    assert {r.status for r in results} <= {"done", "interrupted"}
    assert positions(tmp_path / "out" / "results.jsonl") == list(range(MANY))
    with open_generator(workplace, tmp_path / "out") as generator:
        again = generator.generate_batch([task(number) for number in range(MANY)])
    kept = {r.position for r in results if r.status == "done"}
    assert {r.position for r in again if r.status == "skipped"} == kept
    assert all(r.success for r in again)


@ON_BOTH
def test_an_error_of_whoever_makes_the_inputs_costs_those_and_no_others(
    tmp_path: Path, workplace: Workplace
) -> None:
    def fail() -> None:
        raise RuntimeError("the line went dead")

    with open_generator(workplace, tmp_path / "out") as generator:
        results = generator.execute(generator.prepare(Inputs(FIRST + 10, fail), []))
    assert [r.position for r in results] == list(range(MANY))
    assert all(r.success for r in results[: FIRST + 10])
    assert all(r.status == "failed" for r in results[FIRST + 10 :])
    assert "the line went dead" in str(results[FIRST + 10].error)


@ON_BOTH
def test_a_timeout_counts_for_what_is_not_read_yet(tmp_path: Path, workplace: Workplace) -> None:
    with open_generator(workplace, tmp_path / "out") as generator:
        plan = generator.prepare(Inputs(MANY, lambda: None), [])
        results = generator.execute(plan, timeout=0.0)
    assert [r.position for r in results] == list(range(MANY))
    assert results[-1].status == "timeout"


@ON_BOTH
def test_without_a_folder_the_first_pictures_do_not_wait_for_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workplace: Workplace
) -> None:
    drawn = threading.Event()

    def listen(event: Event) -> None:
        if isinstance(event, TaskEnded):
            drawn.set()

    def wait_for_a_picture() -> None:
        assert drawn.wait(PATIENCE)

    monkeypatch.chdir(tmp_path)
    with open_generator(workplace, None, listen) as generator:
        plan = generator.prepare(Inputs(FIRST + 60, wait_for_a_picture), [])
        results = generator.execute(plan)
    assert all(r.success for r in results)


KILLED = """
import os, signal, sys
from pathlib import Path
from core import batches, feeding
from tests.conftest import LOCAL
from tests.test_streaming import AT_ONCE, FIRST, Inputs, open_generator
batches.FIRST, feeding.AT_ONCE = FIRST, AT_ONCE
with open_generator(LOCAL, Path(sys.argv[1])) as generator:
    die = lambda: os.kill(os.getpid(), signal.SIGKILL)
    generator.execute(generator.prepare(Inputs(FIRST + 60, die), []))
"""


def test_a_run_that_is_killed_while_it_reads_goes_on_where_it_was(tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "out")], cwd=PROJECT)
    assert run.returncode == -signal.SIGKILL
    there = {file.name for file in (tmp_path / "out").glob("*.png")}
    with open_generator(LOCAL, tmp_path / "out") as generator:
        plan = generator.prepare([task(number) for number in range(MANY)], [])
        assert plan.rest is None  # what is there decides the plan: all is compared first
        results = generator.execute(plan)
    assert [r.position for r in results] == list(range(MANY))
    assert all(r.success for r in results)
    assert there <= {f"{r.position}.png" for r in results if r.status == "skipped"}
    assert not list((tmp_path / "out").glob(".partial-*"))


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def positions(file: Path) -> list[int]:
    return [row["position"] for row in rows(file)]


@ON_BOTH
def test_a_folder_with_other_results_is_no_reason_to_wait_for_the_whole_input(
    tmp_path: Path, workplace: Workplace
) -> None:
    with open_generator(workplace, tmp_path) as generator:
        generator.generate_batch([task(-1)])
        plan = generator.prepare([task(number) for number in range(MANY)], [])
        assert (len(plan.tasks), plan.to_run) == (FIRST, MANY)
        assert {r.status for r in generator.execute(plan)} == {"done"}
    assert len(rows(tmp_path / "metadata.jsonl")) == MANY + 1


@pytest.mark.parametrize("there", ["recorded", "a file"])
def test_all_of_an_input_is_looked_at_first_where_any_of_it_is_there(
    tmp_path: Path, there: str
) -> None:
    """What is to be done is told before it begins; the last task is where it shows."""
    inputs = [task(number, seed=1) for number in range(MANY)]
    with open_generator(LOCAL, tmp_path / "out") as generator:
        generator.generate_batch([task(MANY - 1, seed=1)])
    if there == "a file":
        for record in (tmp_path / "out").glob(".[!.]*"):
            if record.is_file():
                record.unlink()
    with open_generator(LOCAL, tmp_path / "out") as generator:
        if there == "a file":
            generator.generate_batch([task(-1)])
        plan = generator.prepare(inputs, [])
        assert len(plan.tasks) == plan.to_run == MANY - 1
