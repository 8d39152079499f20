"""Prompts, or pictures to edit, shared out among several commands become the folder of one."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image

from apps.edit_images.command import main as edit_main
from apps.gallery.records import command as records
from tests.folder_command import FolderCommand
from tests.inline_command import InlineCommand, rows

TWEETS = [{"prompt": f"a house, number {n}"} for n in range(7)]


@pytest.fixture
def command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> InlineCommand:
    return InlineCommand(tmp_path, capfd)


def pictures(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*.png"))}


def test_parts_of_a_file_make_the_same_folder_as_one_command(command: InlineCommand) -> None:
    file = command.write("tweets.json", TWEETS)
    assert command.run(file, "--name", "whole")[0] == 0
    for part in ("1/3", "2/3", "3/3"):
        assert command.run(file, "--shard", part, gallery=part == "2/3")[0] == 0
    parts = [pictures(command.out / f"tweets.shard-{n}-of-3") for n in (1, 2, 3)]
    assert [len(part) for part in parts] == [3, 2, 2]

    merged = command.out / "tweets"
    assert records.main([str(merged), "merge"]) == 0
    assert pictures(merged) == pictures(command.out / "whole")
    names = [line["file_name"] for line in rows(merged / "metadata.jsonl")]
    assert names == list(pictures(merged))
    assert [line["position"] for line in rows(merged / "results.jsonl")] == list(range(7))
    assert records.main([str(merged), "verify"]) == 0
    assert "7 unchanged" in command.plan(file)  # of the whole file, in the folder that was merged
    page = (merged / "index.html").read_text("utf-8")
    assert all(name in page for name in names)
    (merged / "index.html").write_text("somebody else's")
    assert records.main([str(merged), "merge"]) == 0  # once more changes nothing
    assert pictures(merged) == pictures(command.out / "whole")
    assert (merged / "index.html").read_text("utf-8") == "somebody else's"


def test_a_merge_names_the_part_that_is_missing(
    command: InlineCommand, capfd: pytest.CaptureFixture[str]
) -> None:
    file = command.write("shared.json", TWEETS)
    assert command.run(file, "--shard", "2/2")[0] == 0
    assert records.main([str(command.out / "shared"), "merge"]) == 2
    assert "of its 2 parts these are not here: 1." in capfd.readouterr().err
    assert not (command.out / "shared").exists()
    assert records.main([str(command.out / "shared.shard-2-of-2"), "merge"]) == 2
    assert f"python records.py {command.out / 'shared'} merge" in capfd.readouterr().err


def test_a_failed_prompt_of_a_part_is_drawn_by_the_whole_file(
    command: InlineCommand, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = [*TWEETS[:3], {"prompt": "a house", "lora_path": "gone.safetensors"}]
    file = command.write("shared.json", bad)
    assert command.run(file, "--shard", "1/2")[0] == 0
    assert command.run(file, "--shard", "2/2")[0] == 1
    assert records.main([str(command.out / "shared"), "merge"]) == 0
    assert "3 done, 1 failed" in capfd.readouterr().out
    command.write("shared.json", [*bad[:3], {"prompt": "a house"}])
    assert "3 unchanged" in command.plan(file)


class Edits(FolderCommand):
    """`edit_images.py` on a simulated device."""

    main = staticmethod(edit_main)
    usual: ClassVar[dict[str, Any]] = {
        "model": "simulated", "editor": {"model": "simulated"}, "gallery": False
    }  # fmt: skip


def test_parts_of_edits_make_the_same_folder_as_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Names, seeds and places are those of the whole, also where two pictures are called alike."""
    monkeypatch.chdir(tmp_path)
    edits, out = Edits(tmp_path, capfd), tmp_path / "outputs"
    for n, name in enumerate(("a/house.png", "b/house.png", "b/tree.png")):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (60 * n, 90, 40)).save(file)
    what = ("photos", "--instruction", "make it night", "--instruction", "make it day")
    assert edits.run(*what, "--num-gpus", "1", "--name", "whole")[0] == 0
    for part in ("1/4", "2/4", "3/4", "4/4"):
        assert edits.run(*what, "--num-gpus", "1", "--name", "shared", "--shard", part)[0] == 0
    assert records.main([str(out / "shared"), "merge"]) == 0

    def made(name: str) -> dict[str, bytes]:
        found = (out / name).rglob("*.png")
        return {str(f.relative_to(out / name)): f.read_bytes() for f in found}

    assert made("shared") == made("whole") and len(made("whole")) == 6
    places = {row["position"]: row["task_id"] for row in edits.records("whole")}
    assert {row["position"]: row["task_id"] for row in edits.records("shared")} == places
    assert records.main([str(out / "shared"), "verify"]) == 0
    assert "6 skipped" in edits.run(*what, "--num-gpus", "1", "--name", "shared")[1]


@pytest.mark.parametrize("part", ["0/2", "3/2", "2", "a/b"])
def test_a_part_that_is_none_is_refused(part: str, command: InlineCommand) -> None:
    code, said = command.run(command.write("shared.json", TWEETS), "--shard", part)
    assert code == 2 and "expected a part such as 2/8" in said
    assert not command.out.exists()
