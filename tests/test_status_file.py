"""`status.json`: what it says, when it is written, and whom it leaves in peace."""

import json
import os
import socket
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from apps.run_summary import Tally, failure_lines
from core import batches, feeding
from core.events import Event, TaskEnded, TaskShape, TaskStarted, WorkerState
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.status.run_status import PROGRAM, RunStatus
from core.status.status_file import StatusFile, read_status
from core.status.tracker import RunTracker
from core.tasks import Result
from tests.conftest import wait_until
from tests.inline_backend import InlineBackend

SETTINGS = {"model": "simulated"}


def generate(folder: Path, tasks: list[dict[str, Any]], **options: Any) -> list[Result]:
    with MultiGPUImageGenerator(
        1, config=SETTINGS, output_dir=folder, backend=InlineBackend(), **options
    ) as generator:
        return generator.generate_batch(tasks)


def document(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "status.json").read_text("utf-8"))
    return found


def test_a_run_says_how_it_ended(tmp_path: Path) -> None:
    generate(tmp_path, [{"prompt": "a"}, {"prompt": "b"}])
    told = document(tmp_path)
    assert told["state"] == told["phase"] == "completed"
    assert (told["total"], told["done"], told["failed"], told["waiting"]) == (2, 2, 0, 0)
    assert (told["pid"], told["host"]) == (os.getpid(), socket.gethostname())
    assert told["folder"] == str(tmp_path)
    [worker] = told["workers"]
    assert worker["name"] == "cpu0" and worker["done"] == 2 and worker["model"] == "simulated"
    times = [datetime.fromisoformat(told[name]) for name in ("started", "updated", "ended")]
    assert all(at.tzinfo is not None for at in times) and times == sorted(times)


def test_what_failed_stands_there_with_its_reason(tmp_path: Path) -> None:
    generate(tmp_path, [{"prompt": "a"}, {"prompt": "!nan", "task_id": "b"}, {"width": 7}])
    told = document(tmp_path)
    assert (told["state"], told["done"], told["failed"]) == ("failed", 1, 2)
    failures = {one["task_id"]: one for one in told["failures"]}
    assert failures["b"]["worker"] == "cpu0" and "failure" in failures["b"]["error"]
    assert any("prompt" in one["error"] for one in failures.values())


def test_what_is_done_already_is_counted_apart(tmp_path: Path) -> None:
    generate(tmp_path, [{"prompt": "a"}])
    generate(tmp_path, [{"prompt": "a"}, {"prompt": "b"}])
    told = document(tmp_path)
    assert (told["total"], told["done"], told["already_done"]) == (1, 1, 1)
    generate(tmp_path, [{"prompt": "a"}, {"prompt": "b"}])
    told = document(tmp_path)
    assert (told["state"], told["total"], told["already_done"]) == ("completed", 0, 2)


def test_each_batch_after_the_last_is_a_run_of_its_own(tmp_path: Path) -> None:
    with MultiGPUImageGenerator(
        1, config=SETTINGS, output_dir=tmp_path, backend=InlineBackend()
    ) as generator:
        generator.generate_batch([{"prompt": "!nan"}])
        assert generator.status().state == "failed"
        generator.generate_batch([{"prompt": "a"}])
        status = generator.status()
    assert (status.state, status.total, status.failures) == ("completed", 1, ())


def test_jobs_with_a_listener_of_their_own_count_as_well(tmp_path: Path) -> None:
    heard: list[Event] = []
    with MultiGPUImageGenerator(
        1, config=SETTINGS, output_dir=tmp_path, backend=InlineBackend()
    ) as generator:
        generator.submit([{"prompt": "a"}], listener=heard.append).results()
        assert generator.status().done == 1
    ended = [event for event in heard if isinstance(event, TaskEnded)]
    assert [event.shape.kind for event in ended] == ["generate"]


@pytest.mark.slow
def test_a_streamed_input_is_counted_from_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "FIRST", 40)
    monkeypatch.setattr(feeding, "AT_ONCE", 50)
    tasks = [{"prompt": f"{n}", "width": 64, "height": 64} for n in range(160)]
    tasks[150] = {"width": 64}
    totals: set[int] = set()

    def listen(event: Event) -> None:
        if isinstance(event, TaskEnded):
            totals.add(generator.tracker.counts()[1])

    with MultiGPUImageGenerator(
        1, config=SETTINGS, output_dir=tmp_path, backend=InlineBackend(), listener=listen
    ) as generator:
        generator.generate_batch(tasks)
    told = document(tmp_path)
    assert totals == {160}, "also while most of it is not looked at"
    assert (told["total"], told["done"], told["failed"]) == (160, 159, 1)


def test_without_a_folder_there_is_a_status_and_no_file(tmp_path: Path) -> None:
    with MultiGPUImageGenerator(1, config=SETTINGS, backend=InlineBackend()) as generator:
        generator.generate_batch([{"prompt": "a", "output_path": str(tmp_path / "a.png")}])
        assert generator.status().done == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_an_interrupted_run_says_so(tmp_path: Path) -> None:
    results = generate_interrupted(tmp_path)
    told = document(tmp_path)
    not_tried = sum(result.status == "interrupted" for result in results)
    assert told["state"] == "interrupted" and told["not_tried"] == not_tried > 0
    assert told["done"] + told["not_tried"] == told["total"] == 50


def test_what_failed_before_and_was_not_tried_again_keeps_its_reason(tmp_path: Path) -> None:
    tasks = [{"prompt": f"{n}"} for n in range(49)] + [{"prompt": "!nan"}]
    assert generate(tmp_path, tasks)[49].status == "failed"
    last = generate_interrupted(tmp_path, tasks, overwrite=True)[49]
    assert last.status == "interrupted" and "It failed in an earlier run: a" in str(last.error)
    rows = (tmp_path / "results.jsonl").read_text("utf-8").splitlines()
    assert json.loads(rows[49])["error"] == last.error
    assert failure_lines(Tally.of([last]), "again", "table")[0] == (
        "1 failed in an earlier run, not tried again: a simulated failure that a retry would repeat"
    )


def test_a_second_interruption_in_a_row_keeps_the_reason_too(tmp_path: Path) -> None:
    tasks: list[dict[str, Any]] = [{"prompt": f"{n}"} for n in range(99)] + [{"prompt": "!nan"}]
    assert generate(tmp_path, tasks)[99].status == "failed"
    for n in range(97):  # there is something to do before the last one is tried
        tasks[n]["seed"] = 7
    first = generate_interrupted(tmp_path, tasks)[99]
    tasks[98]["seed"] = 7
    second = generate_interrupted(tmp_path, tasks)[99]
    assert second.status == "interrupted" and second.error == first.error
    assert generate(tmp_path, tasks)[99].error == "a simulated failure that a retry would repeat"


def generate_interrupted(
    folder: Path, tasks: Sequence[dict[str, Any]] = (), **options: Any
) -> list[Result]:
    def listen(event: Event) -> None:
        if isinstance(event, TaskEnded) and event.result.success:
            generator.stop_leasing()

    with MultiGPUImageGenerator(
        1, config=SETTINGS, output_dir=folder, backend=InlineBackend(), listener=listen, **options
    ) as generator:
        return generator.generate_batch(tasks or [{"prompt": f"{n}"} for n in range(50)])


# -- the file ----------------------------------------------------------------------------


def test_the_file_is_not_written_where_nothing_changed(tmp_path: Path) -> None:
    tracker = RunTracker(tmp_path)
    file = StatusFile(tmp_path, tracker, every=0.005)
    tracker.begin([TaskShape()])
    file.start()
    wait_until((tmp_path / "status.json").exists, "the file")
    before = (tmp_path / "status.json").stat().st_ino
    version = tracker.version
    wait_until(lambda: file.looks > 20, "twenty looks")
    assert tracker.version == version and (tmp_path / "status.json").stat().st_ino == before
    tracker.hear(TaskStarted("a", "gpu0"))
    wait_until(lambda: document(tmp_path)["running"] == 1, "the task")
    tracker.end()
    file.close()
    assert document(tmp_path)["state"] != "running", "its last word comes before `close` returns"
    assert [file.name for file in tmp_path.iterdir()] == ["status.json"]


def test_somebody_elses_file_is_left_as_it_is(tmp_path: Path) -> None:
    mine = '{"status": "my own"}'
    (tmp_path / "status.json").write_text(mine)
    assert all(result.success for result in generate(tmp_path, [{"prompt": "a"}]))
    assert (tmp_path / "status.json").read_text() == mine


def test_what_a_power_cut_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_bytes(b"")
    generate(tmp_path, [{"prompt": "a"}])
    assert document(tmp_path)["state"] == "completed"


def test_a_disk_that_refuses_it_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "status.json").mkdir()
    assert all(result.success for result in generate(tmp_path, [{"prompt": "a"}]))


def test_no_result_may_have_its_name(tmp_path: Path) -> None:
    score = {
        "instruction": "x",
        "source_images": ["a.png"],
        "edited_image": "b.png",
        "output_path": "Status.json",
    }
    [result] = generate(tmp_path, [score])
    assert not result.success and "status.json" in str(result.error).lower()


def test_an_empty_folder_with_a_status_counts_as_new(tmp_path: Path) -> None:
    from core.session import Session

    (tmp_path / "status.json").write_text(json.dumps({"program": PROGRAM}))
    session = Session(tmp_path)
    try:
        assert session.is_fresh
    finally:
        session.close()


def test_the_document_is_read_as_it_was_written(tmp_path: Path) -> None:
    generate(tmp_path, [{"prompt": "a"}, {"prompt": "!nan"}])
    status = read_status(tmp_path)
    assert status is not None and status.as_json() == document(tmp_path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "no JSON"),
        ("[]", "not written by this program"),
        (json.dumps({"program": PROGRAM, "format": 99}), "format 99"),
        (json.dumps({"program": PROGRAM, "format": 1}), "'state'"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_another_document_is_refused_in_words(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "status.json").write_text(text)
    with pytest.raises(ValueError, match=why):
        read_status(tmp_path)


def test_a_field_of_a_newer_program_is_passed_over() -> None:
    told = RunTracker().status().as_json()
    told["workers"] = [{"name": "gpu0", "temperature": 70}]
    assert RunStatus.from_json({**told, "colour": "red"}).workers[0].name == "gpu0"


def test_a_session_that_is_closed_in_the_middle_says_interrupted(tmp_path: Path) -> None:
    tracker = RunTracker(tmp_path)
    tracker.begin([TaskShape()])
    tracker.stop()
    assert tracker.status().state == "interrupted"


def test_a_status_costs_next_to_nothing() -> None:
    """Eight workers, each a result a second: below a thousandth of a core for a second's news."""
    tracker = RunTracker(memory=lambda devices: None)
    shapes = [TaskShape("generate", float(n % 5 + 1), (f"style{n % 7}",)) for n in range(10_000)]
    tracker.begin(shapes)
    for n in range(8):
        tracker.hear(WorkerState(f"gpu{n}", "ready", "generate"))

    def second(start: int) -> float:
        began = time.thread_time()
        for n in range(8):
            shape, name = shapes[start + n], f"t{start + n}"
            tracker.hear(TaskStarted(name, f"gpu{n}", 1, shape=shape))
            result = Result(start + n, name, "done", "x.png", worker=f"gpu{n}")
            tracker.hear(TaskEnded(result, 1, shape=shape))
        json.dumps(tracker.status().as_json())
        return time.thread_time() - began

    assert min(second(8 * n) for n in range(50)) < 0.001
