"""Steps of a task on their way to the user's eyes: from real workers, and on a real terminal."""

import dataclasses
import os
import re
import time
from collections.abc import Iterator, Sequence
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from apps.log_lines import set_up_logging
from apps.progress import create_view
from apps.status_lines import status_lines
from core.events import (
    Event,
    ModelFetching,
    TaskEnded,
    TaskProgress,
    TaskShape,
    TaskStarted,
    WorkerState,
)
from core.messages import Lease, Log, StepsDone, decode
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.status.tracker import RunTracker
from core.tasks import EditTask, Result
from tests.both_engines import ON_BOTH
from tests.conftest import COMMAND, PATIENCE, Project, Workplace, simulated, wait_until
from tests.terminal import Terminal
from tests.test_native_image_generator import SMALL, lease, spec_for
from tests.tiny_pipelines import build_flux, build_flux_kontext, build_qwen_image, build_sdxl
from workers.channel import Channel
from workers.steps import SECONDS_BETWEEN

STEPS_OF_0_1 = {"seconds_per_megapixel_step": 0.1 * 1e6 / 64**2}  # seconds for 64 x 64 pixels


def watched(
    tasks: Sequence[dict[str, Any]], config: dict[str, Any], workers: int = 1
) -> tuple[list[Result], list[TaskProgress]]:
    """Run: results, and what was told of steps."""
    told: list[TaskProgress] = []

    def listen(event: Event) -> None:
        if isinstance(event, TaskProgress):
            told.append(event)

    with MultiGPUImageGenerator(workers, config=config, listener=listen) as generator:
        return generator.generate_batch(tasks), told


def task(name: str, steps: int, folder: Path) -> dict[str, Any]:
    file = str(folder / f"{name}.png")
    return {"prompt": name, "num_inference_steps": steps, "task_id": name, "output_path": file}


@ON_BOTH
def test_a_long_tasks_steps_come_at_most_twice_a_second_and_a_short_ones_never(
    tmp_path: Path, workplace: Workplace
) -> None:
    tasks = [task("short", 2, tmp_path), task("long", 16, tmp_path)]
    results, told = watched(tasks, workplace.simulated(simulated=STEPS_OF_0_1))
    of = {name: [e for e in told if e.task_id == name] for name in ("short", "long")}
    assert {(e.worker, e.total, e.together) for e in of["long"]} == {(results[1].worker, 16, 1)}
    done = [e.done for e in of["long"]]
    assert done == sorted(set(done)) and len(done) >= 1
    assert len(done) <= results[1].elapsed / SECONDS_BETWEEN
    # A busy machine may make it a long one.
    assert not of["short"] or results[0].elapsed >= SECONDS_BETWEEN


def test_a_real_worker_tells_its_pipelines_steps(tiny_model: Path, tmp_path: Path) -> None:
    config = {"model": str(tiny_model), "defaults": {"width": 64, "height": 64}}
    # Of two workers, so that each has one thread.
    results, told = watched([task("house", 100, tmp_path)], config, workers=2)
    assert [r.error for r in results] == [None]
    assert told and all(0 < e.done <= e.total == 100 for e in told)


def test_counting_steps_changes_no_pixel(tiny_model: Path) -> None:
    family, told = loaded(tiny_model)
    leases = [lease(num_inference_steps=3)]
    [counted] = family.run(leases)
    assert told == [(1, 3), (2, 3), (3, 3)]
    del family.pipeline.progress_bar  # the pipeline's own again
    [plain] = family.run(leases)
    assert len(told) == 3 and np.array_equal(counted.image, plain.image)


def test_pictures_that_are_drawn_together_count_their_steps_once(tiny_model: Path) -> None:
    family, told = loaded(tiny_model)
    leases = [dataclasses.replace(lease(), lease_id=str(n)) for n in range(3)]
    assert len(family.run(leases)) == 3
    assert told == [(1, 2), (2, 2)]


def loaded(model: Path) -> tuple[Any, list[tuple[int, int]]]:
    """The worker's own class in this process, and what it tells."""
    from workers.models.native_image_generator import NativeImageGenerator

    family = NativeImageGenerator(spec_for(str(model)), lambda level, text: None)
    told: list[tuple[int, int]] = []
    family.on_steps(lambda done, total: told.append((done, total)))
    family.load()
    return family, told


@pytest.mark.parametrize("build", [build_sdxl, build_flux, build_qwen_image])
def test_every_family_of_pipelines_counts_all_of_its_steps(build: Any, tmp_path: Path) -> None:
    build().save_pretrained(tmp_path)
    family, told = loaded(tmp_path)
    family.run([lease(num_inference_steps=3)])
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_an_editor_counts_its_steps(tmp_path: Path) -> None:
    from workers.models.native_image_editor import NativeImageEditor

    build_flux_kontext().save_pretrained(tmp_path)
    Image.new("RGB", (64, 64)).save(tmp_path / "source.png")
    spec = dataclasses.replace(spec_for(str(tmp_path)), role="edit")
    editor = NativeImageEditor(spec, lambda level, text: None)
    told: list[tuple[int, int]] = []
    editor.on_steps(lambda done, total: told.append((done, total)))
    editor.load()
    edit = EditTask("make it night", (str(tmp_path / "source.png"),), seed=1, **SMALL)
    editor.run([Lease("id", 1, edit, None, "fingerprint", "unused.png")])
    assert told == [(1, 2), (2, 2)]


def test_a_main_that_does_not_listen_holds_no_worker_up_and_keeps_room_for_results() -> None:
    reader, writer = Pipe(duplex=False)
    channel = Channel(Pipe(duplex=False)[0], writer)
    began = time.monotonic()
    sent = sum(channel.offer(StepsDone("lease", n, 10_000)) for n in range(10_000))
    assert 0 < sent < 100
    for _ in range(10):  # what counts still finds room
        channel.send(Log("INFO", "x" * 2000))
    assert time.monotonic() - began < PATIENCE
    first = decode(reader.recv_bytes())
    assert isinstance(first, StepsDone) and first.done == 0


def test_a_hang_that_began_with_steps_is_ended_at_its_deadline(tmp_path: Path) -> None:
    """Steps move no deadline: a task that goes on for ever, telling of it, is ended."""
    rules = {"task_timeout": 3.0, "max_attempts": 1, "restart_backoff": 0.01}
    config = simulated(simulated=STEPS_OF_0_1, supervision=rules)
    results, told = watched([task("endless", 600, tmp_path)], config)
    assert [r.status for r in results] == ["failed"] and told
    assert "took longer than allowed" in str(results[0].error)


# -- the terminal ------------------------------------------------------------------------------


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    yield Terminal()


def test_the_terminals_line_of_a_worker_says_how_far_its_task_is(
    project: Project, terminal: Terminal
) -> None:
    # Longer than anybody waits for it: what it shows for a moment may be missed.
    tweets = project.write_tweets([{"prompt": "a", "num_inference_steps": 1000}])
    config = project.write_settings(simulated(simulated=STEPS_OF_0_1))
    line = [str(tweets), "1", "--config", str(config), "--output-dir", str(project.folder / "out")]
    with open(os.devnull, "w") as nowhere:
        run = terminal.start(COMMAND, line, project.folder, nowhere.fileno())
    try:
        told = r"cpu0 .*tweets_00 +(\d+)/1000\b"
        wait_until(lambda: len({*re.findall(told, terminal.text)}) > 1, "its steps")
    finally:
        run.kill()
        run.wait()


def test_a_line_shows_steps_of_what_runs_and_no_others() -> None:
    """Where the next task is given ahead, and after a task's end."""
    tracker = RunTracker(memory=lambda devices: None)
    tracker.begin([TaskShape()] * 3)
    for name in ("gpu0", "gpu1"):
        tracker.hear(WorkerState(name, "ready", "generate"))

    def shown(*events: Event) -> str:
        for event in events:
            tracker.hear(event)
        [line] = [x.plain for x in status_lines(tracker.status(), 80) if "gpu0" in x.plain]
        return " ".join(line.split()[1:])

    steps = TaskProgress("[a]", "gpu0", 5, 28)
    assert shown(TaskStarted("[a]", "gpu0")) == "[a]"
    assert shown(steps, TaskStarted("b", "gpu0")) == "[a] 5/28"
    # Another worker's copy of the task was first.
    assert shown(TaskEnded(Result(0, "[a]", "done", "a.png", worker="gpu1"))) == "b"
    assert shown(TaskProgress("b", "gpu0", 1, 4, 3)) == "b +2 1/4"
    assert shown(WorkerState("gpu0", "stopping")) == "stopping"


def test_a_download_has_a_bar_of_its_own_until_it_is_done() -> None:
    tracker = RunTracker(memory=lambda devices: None)
    tracker.begin([TaskShape()] * 3)
    tracker.hear(ModelFetching("[a]/model", 5_125_000_000, 20_500_000_000))
    [line] = [x.plain for x in status_lines(tracker.status(), 80) if "[a]/model" in x.plain]
    assert "━" in line and line.endswith("5.1 GB/20.5 GB   25 %")
    assert tracker.status().phase == "downloading"
    tracker.hear(ModelFetching("[a]/model", 20_500_000_000, 20_500_000_000))
    assert not any("model" in x.plain for x in status_lines(tracker.status(), 80))


def test_without_a_terminal_a_download_has_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.progress.DOWNLOAD_PAUSE", 0.0)
    try:
        with create_view(RunTracker(), "plain", "INFO") as view:
            for hundredth in range(101):
                view.show(ModelFetching("a/model", hundredth * 10**8, 10**10))
        said = capsys.readouterr().err
    finally:
        monkeypatch.undo()
        set_up_logging("INFO")
    assert re.findall(r"a/model: (.*)", said) == [
        f"{n}.0 GB of 10.0 GB ({n}0 %)" for n in range(1, 11)
    ]
