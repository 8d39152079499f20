"""A real small disk that is full, then has room, then is read-only."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.store.outputs import write_atomically
from tests.conftest import Project


@pytest.fixture
def small_disk(project: Project) -> Iterator[Path]:
    """400 kB of tmpfs under the output folder; needs the right to mount."""
    out = project.folder / "out"
    out.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", out], capture_output=True, check=False
    ).returncode:
        pytest.skip("this user may not mount a tmpfs")
    yield out
    subprocess.run(["umount", "--lazy", out], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)


@pytest.mark.slow
def test_a_full_disk_loses_nothing_and_a_read_only_one_is_named(
    project: Project, small_disk: Path
) -> None:
    tweets = [{"prompt": f"p{i}", "width": 1024, "height": 1024} for i in range(40)]
    file = project.write_tweets(tweets)
    full = project.run([file, 2])
    assert full.process.returncode == 1
    assert "No space left on device" in full.errors and "Traceback" not in full.errors
    assert len(full.errors.splitlines()) < 20  # one reason, not one per tweet
    assert not project.leftovers()

    remount(small_disk, "size=40m")
    resumed = project.run([file, 2])
    assert resumed.process.returncode == 0, resumed.errors
    assert [r["success"] for r in project.records()] == [True] * 40

    remount(small_disk, "ro")
    refused = project.run([file, 2])
    assert refused.process.returncode == 2
    assert "Read-only file system" in refused.errors and "Traceback" not in refused.errors


def test_a_signal_while_a_table_is_written_leaves_no_unfinished_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before there is a run to end, Ctrl-C is a KeyboardInterrupt wherever main is."""
    file = tmp_path / "table.jsonl"
    file.write_text("old")

    def interrupted(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(file, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["table.jsonl"]
    assert file.read_text() == "old"
