"""Previews from real workers to a job's listener: when they come, and that none is left."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core.errors import InputError
from core.events import Event, TaskEnded, TaskPreview, TaskStarted
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.tasks import Result
from tests.both_engines import ON_BOTH
from tests.conftest import LOCAL, PATIENCE, Workplace, simulated
from workers.previews import preview_steps


class Watcher:
    """A job's listener that reads each preview as it is told of it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.pictures: list[Image.Image] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, TaskPreview):
            picture = Image.open(io.BytesIO(Path(event.path).read_bytes()))
            picture.load()
            self.pictures.append(picture)

    @property
    def previews(self) -> list[TaskPreview]:
        return [event for event in self.events if isinstance(event, TaskPreview)]


def task(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "prompt": name, "task_id": name, "output_path": f"{name}.png",
        "width": 64, "height": 64, "num_inference_steps": 4, "seed": 1, **fields,
    }  # fmt: skip


def run(
    workplace: Workplace,
    tasks: Sequence[dict[str, Any]],
    folder: Path,
    previews: int,
    config: dict[str, Any] | None = None,
    workers: int = 1,
) -> tuple[list[Result], Watcher]:
    watcher = Watcher()
    config = config or workplace.simulated()
    with MultiGPUImageGenerator(workers, config=config, output_dir=folder) as generator:
        job = generator.submit(tasks, listener=watcher, previews=previews)
        results = job.results(PATIENCE)
    assert not list(folder.rglob(".partial*")), "something unfinished was left"
    return results, watcher


@pytest.mark.parametrize(
    ("previews", "total", "steps"),
    [
        (0, 8, []),
        (1, 8, [4]),
        (2, 8, [3, 5]),
        (3, 8, [2, 4, 6]),
        (3, 50, [13, 25, 38]),
        (3, 4, [1, 2, 3]),
        (3, 2, [1]),
        (3, 1, []),
    ],
)
def test_previews_are_spread_over_the_steps_before_the_last(
    previews: int, total: int, steps: list[int]
) -> None:
    assert preview_steps(previews, total) == {step: n for n, step in enumerate(steps, 1)}


@ON_BOTH
def test_a_jobs_listener_is_shown_its_tasks_on_their_way(
    tmp_path: Path, workplace: Workplace
) -> None:
    results, watcher = run(workplace, [task("a"), task("b")], tmp_path, previews=3)
    assert [result.status for result in results] == ["done", "done"]
    assert {event.worker for event in watcher.previews} == {results[0].worker}
    for name in ("a", "b"):
        own = [e for e in watcher.events if name in (getattr(e, "task_id", ""), _ended(e))]
        assert [type(e) for e in own] == [TaskStarted, *[TaskPreview] * 3, TaskEnded]
        steps = [(e.step, e.total, e.job) for e in own if isinstance(e, TaskPreview)]
        assert steps == [(1, 4, 1), (2, 4, 1), (3, 4, 1)]
    assert {picture.format for picture in watcher.pictures} == {"JPEG"}


def _ended(event: Event) -> str:
    return event.result.task_id if isinstance(event, TaskEnded) else ""


@ON_BOTH
def test_two_jobs_are_each_told_of_their_own(tmp_path: Path, workplace: Workplace) -> None:
    with_some, without = Watcher(), Watcher()
    with MultiGPUImageGenerator(1, config=workplace.simulated(), output_dir=tmp_path) as generator:
        first = generator.submit([task("a")], listener=with_some, previews=2)
        second = generator.submit([task("b")], listener=without)
        for job in (first, second):
            job.results(PATIENCE)
    assert {event.task_id for event in with_some.previews} == {"a"}
    assert len(with_some.previews) == 2 and not without.previews


def test_who_asks_for_previews_gets_the_file_that_others_get(
    tiny_model: Path, tmp_path: Path
) -> None:
    files, watcher = [], Watcher()
    same = task("a", output_path=str(tmp_path / "a.png"))
    with MultiGPUImageGenerator(1, config={"model": str(tiny_model)}) as generator:
        for previews in (0, 3):
            job = generator.submit([same], listener=watcher, previews=previews)
            assert [result.error for result in job.results(PATIENCE)] == [None]
            assert len(watcher.pictures) == previews
            files.append((tmp_path / "a.png").read_bytes())
    assert files[0] == files[1]


def test_asked_for_or_not_a_task_is_the_same_one_to_a_later_run(tmp_path: Path) -> None:
    run(LOCAL, [task("a")], tmp_path, previews=3)
    [result], watcher = run(LOCAL, [task("a")], tmp_path, previews=0)
    assert result.status == "skipped"
    [result], watcher = run(LOCAL, [task("a")], tmp_path, previews=3)
    assert result.status == "skipped" and not watcher.previews


@ON_BOTH
def test_edits_have_previews_and_scores_none(
    tmp_path: Path, pictures: list[str], workplace: Workplace
) -> None:
    edit: dict[str, Any] = {"instruction": "make it night", "source_images": [pictures[0]]}
    score = {**edit, "edited_image": pictures[1], "task_id": "score"}
    config = workplace.simulated(editor={"model": "simulated"}, judge={"model": "simulated"})
    tasks = [{**edit, "task_id": "edit", "num_inference_steps": 4}, score]
    results, watcher = run(workplace, tasks, tmp_path, 3, config)
    assert [result.error for result in results] == [None, None]
    assert [event.task_id for event in watcher.previews] == ["edit"] * 3


@ON_BOTH
def test_a_worker_that_dies_leaves_no_preview_and_the_next_one_begins_again(
    tmp_path: Path, workplace: Workplace
) -> None:
    """It dies while the picture is saved, when all previews have been written."""
    results, watcher = run(workplace, [task("!save-crash:1"), task("b")], tmp_path, previews=3)
    assert [result.status for result in results] == ["done", "done"]
    assert [e.step for e in watcher.previews if e.task_id != "b"] == [1, 2, 3, 1, 2, 3]


@ON_BOTH
def test_a_job_that_is_cancelled_at_once_leaves_no_preview(
    tmp_path: Path, workplace: Workplace
) -> None:
    slow = workplace.simulated(simulated={"seconds_per_megapixel_step": 0.2 * 1e6 / 64**2})
    with MultiGPUImageGenerator(1, config=slow, output_dir=tmp_path) as generator:

        def cancel(event: Event) -> None:
            if isinstance(event, TaskPreview):
                generator.abandon()

        [result] = generator.submit([task("a")], listener=cancel, previews=3).results(PATIENCE)
    assert result.status == "interrupted"
    assert not list(tmp_path.rglob(".partial*"))


@ON_BOTH
def test_a_listener_that_cannot_read_a_preview_harms_nobody(
    tmp_path: Path, workplace: Workplace
) -> None:
    def broken(event: Event) -> None:
        raise OSError("a listener's own trouble")

    with MultiGPUImageGenerator(1, config=workplace.simulated(), output_dir=tmp_path) as generator:
        job = generator.submit([task("a")], listener=broken, previews=3)
        assert job.results(PATIENCE)[0].status == "done"


@pytest.mark.parametrize("previews", [-1, 4, 1.0, True, "2"])
def test_a_number_of_previews_that_there_is_not_is_refused(tmp_path: Path, previews: Any) -> None:
    generator = MultiGPUImageGenerator(1, config=simulated(), output_dir=tmp_path)
    with pytest.raises(InputError, match="previews: must be 0 to 3"):
        generator.submit([task("a")], previews=previews)
    generator.stop()
