"""The size in which edits are judged, and what it changes."""

from pathlib import Path

import pytest
from PIL import Image

from apps.edit_benchmark.output_size import OutputSize, size_judged, sizes_judged
from apps.edit_benchmark.pair import Pair
from core.intake.task_kinds import deciding
from core.messages import Lease
from core.tasks import ScoreTask, task_to_json
from workers.judges.pictures import edited_picture


@pytest.mark.parametrize(
    ("data_set", "asked", "size"),
    [
        ("gedit", "auto", "source"), ("editscore_bench", "auto", "source"),
        ("kris", "auto", "model"), ("gedit", "model", "model"), ("kris", "source", "source"),
    ],
)  # fmt: skip
def test_edits_are_judged_as_their_benchmark_does_or_as_asked(
    data_set: str, asked: OutputSize, size: str
) -> None:
    assert size_judged(Pair("1", "a", data_set=data_set), asked) == size


def test_a_run_says_in_which_size_edits_were_judged() -> None:
    pairs = [Pair("1", "a", data_set=name) for name in ("gedit", "kris")]
    assert sizes_judged(pairs, "auto") == "model and source" and sizes_judged([], "auto") == "model"


@pytest.mark.parametrize(("at_source_size", "size"), [(False, (64, 48)), (True, (50, 40))])
def test_a_judge_sees_an_edit_in_the_size_of_its_source(
    tmp_path: Path, at_source_size: bool, size: tuple[int, int]
) -> None:
    Image.new("RGB", (50, 40)).save(tmp_path / "source.png")
    edited = Image.effect_noise((64, 48), 60).convert("RGB")
    edited.save(tmp_path / "edit.png")
    task = ScoreTask(
        "x", (str(tmp_path / "source.png"),), str(tmp_path / "edit.png"),
        at_source_size=at_source_size,
    )  # fmt: skip
    lease = Lease("1", 0, task, None, "", str(tmp_path / "out"))
    seen = edited_picture(lease)
    assert seen.size == size
    assert seen.tobytes() == edited.resize(size).tobytes(), "GEdit-Bench's own filter"
    # What judged before there was this field is as it was.
    assert ("at_source_size" in task_to_json(task)) == at_source_size
    assert ("at_source_size" in deciding(task)) == at_source_size
