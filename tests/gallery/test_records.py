"""`records.py`: what the record of a folder tells, whether files match it, and what may go."""

import csv
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from apps.gallery.command import main as gallery
from apps.gallery.places import HIDDEN
from apps.gallery.records.command import main
from tests.gallery.conftest import PROMPTS, SEED, run_tweets


@pytest.fixture
def folder(drawn: Path, tmp_path: Path) -> Path:
    """A folder of its own: a copy of one with failures."""
    return Path(shutil.copytree(drawn, tmp_path / "copy"))


def said(capsys: pytest.CaptureFixture[str], code: int, *arguments: Any) -> str:
    """What a command prints that ends with `code`."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == code
    found = capsys.readouterr()
    return found.out + found.err


def files(folder: Path) -> dict[str, bytes]:
    found = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in found}


def test_lists_say_what_failed_and_how_long_things_took(
    drawn: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    before = files(drawn)
    summary = said(capsys, 0, drawn)
    assert "28 records: 25 done, 3 failed" in summary
    assert "2 x a simulated failure that a retry would repeat" in summary
    failed = said(capsys, 0, drawn, "failed")
    assert "multiple of 16 (found 17)" in failed and "!nan two" in failed
    assert len(said(capsys, 0, drawn, "slowest", "--limit", 4).splitlines()) == 6
    assert "cpu0      25" in said(capsys, 0, drawn, "by-worker")
    by_lora = said(capsys, 0, drawn, "by-lora")
    assert "(none)    24       3" in by_lora and "wash       1       0" in by_lora
    assert files(drawn) == before  # nothing is touched


def test_a_picture_that_was_deleted_is_counted_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_tweets(tmp_path, "three", [{"prompt": f"p{n}", "width": 32} for n in range(3)])
    capsys.readouterr()
    next(folder.glob("*.png")).unlink()
    summary = said(capsys, 0, folder)
    assert "3 records: 3 done (1 of them without a file any more)" in summary


def test_an_export_has_all_records_and_every_digit(
    drawn: Path, edited: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, 0, drawn, "export", tmp_path / "all.csv")
    with (tmp_path / "all.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 28 and [row["prompt"] for row in rows[:4]] == list(PROMPTS)
    assert rows[0]["seed"] == str(SEED) and rows[24]["width"] == "1024"

    import pyarrow.parquet

    for folder in (drawn, edited):
        said(capsys, 0, folder, "export", tmp_path / "all.parquet")
        table = pyarrow.parquet.read_table(tmp_path / "all.parquet").to_pylist()
        if folder is drawn:
            assert [str(row["seed"]) for row in table] == [row["seed"] or "None" for row in rows]
    assert {"score_SC", "score_PQ", "score_O", "category", "instruction"} <= table[0].keys()
    assert "ends in .csv or .parquet" in said(capsys, 2, drawn, "export", tmp_path / "all.txt")


def test_parquet_without_pyarrow_is_refused_in_a_line(
    drawn: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    [line] = said(capsys, 2, drawn, "export", tmp_path / "all.parquet").splitlines()
    assert "pip install pyarrow" in line and not (tmp_path / "all.parquet").exists()


def test_verify_finds_what_is_gone_and_what_was_changed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, 0, folder, "verify") == "25 results: 25 whole\n"
    (folder / "a_b_03.png").unlink()
    changed = folder / "a_b_05.png"
    content = bytearray(changed.read_bytes())
    content[-1] ^= 1
    changed.write_bytes(content)
    (folder / "a_b_06.png").write_bytes(b"short")
    lines = said(capsys, 1, folder, "verify").splitlines()
    assert lines[0] == "missing: a_b_03.png (the file is gone)"
    assert lines[1] == "changed: a_b_05.png (its content is another one)"
    assert lines[2].startswith("changed: a_b_06.png (5 bytes instead of ")
    assert lines[3] == "25 results: 2 changed, 1 missing, 22 whole"


def test_prune_lists_first_and_removes_nothing_that_is_recorded_or_foreign(
    folder: Path, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = run_tweets(tmp_path, "other", [{"prompt": "else", "width": 32, "height": 32}])
    shutil.copy(other / "other_00.png", folder / "unknown.png")
    (folder / ".partial-123").write_bytes(b"torn")
    (folder / "mine.png").write_bytes(b"a picture of my own")
    stale = folder / HIDDEN / "thumbnails" / "aa" / "bb.jpg"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"old")
    shutil.copytree(other, folder / "other run")
    before = files(folder)
    listed = said(capsys, 0, folder, "prune")
    assert files(folder) == before
    assert "3 files, " in listed and "--delete removes them" in listed
    assert "3 files removed" in said(capsys, 0, folder, "prune", "--delete")
    gone = before.keys() - files(folder).keys()
    assert gone == {"unknown.png", ".partial-123", str(stale.relative_to(folder))}
    assert said(capsys, 0, folder, "prune") == "nothing lies in the way\n"
    assert said(capsys, 0, folder, "verify") == "25 results: 25 whole\n"


def test_what_is_no_output_folder_is_refused_in_a_line(
    tmp_path: Path, drawn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [line] = said(capsys, 2, tmp_path / "none").splitlines()
    assert "there is no such folder" in line
    [line] = said(capsys, 2, drawn.parent).splitlines()
    assert f"Did you mean {drawn}?" in line
    for what in ("verify", "prune"):
        [line] = said(capsys, 2, tmp_path, what).splitlines()
        assert "it has no ledger.sqlite" in line or "as it has no ledger.sqlite" in line
    assert os.listdir(tmp_path) == []
    (tmp_path / "ledger.sqlite").write_bytes(b"SQLite format 3\0" + bytes(4000))
    for command in (main, gallery):
        assert command([str(tmp_path)]) == 2
    assert "Traceback" not in capsys.readouterr().err
