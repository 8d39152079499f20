"""A generator that lives long: what a batch costs does not grow with the batches before it."""

import errno
import json
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from core.events import Event, TaskEnded, ignore
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.store.ledger import FILE_NAME, Ledger
from core.store.ledger_entry import Entry
from tests.conftest import PATIENCE, simulated, wait_until

EARLIER = 3000  # pictures


def done(number: int) -> Entry:
    name = f"earlier{number}.png"
    return Entry(name, number, name, name, "f", "done", {"prompt": "x"}, size=1, sha256="s")


def task(name: str, **fields: Any) -> dict[str, Any]:
    return {"prompt": "a red house", "output_path": f"{name}.png", **fields}


class Databases:
    """Watches SQLite: what it opens, and what it does, in steps of its virtual machine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: list[sqlite3.Connection] = []
        self.count = 0
        self._connect = sqlite3.connect
        monkeypatch.setattr(sqlite3, "connect", self._watched)

    def _watched(self, *args: Any, **options: Any) -> sqlite3.Connection:
        database: sqlite3.Connection = self._connect(*args, **options)
        database.set_progress_handler(self._step, 1)
        self.opened.append(database)
        return database

    def _step(self) -> int:
        self.count += 1
        return 0

    def taken(self) -> int:
        count, self.count = self.count, 0
        return count


@pytest.fixture
def databases(monkeypatch: pytest.MonkeyPatch) -> Databases:
    return Databases(monkeypatch)


@pytest.fixture
def generator(tmp_path: Path) -> Iterator[MultiGPUImageGenerator]:
    with MultiGPUImageGenerator(1, config=simulated(), output_dir=tmp_path) as generator:
        yield generator


def test_a_batch_is_prepared_without_a_look_at_all_earlier_ones(
    databases: Databases, tmp_path: Path
) -> None:
    generator = MultiGPUImageGenerator(1, config=simulated(), output_dir=tmp_path)

    def steps_for(name: str) -> int:
        generator.prepare([task(f"before {name}")], [])  # opens the folder
        databases.taken()
        generator.prepare([task(name)], [])
        steps = databases.taken()
        generator.stop()
        return steps

    few = steps_for("first")
    ledger = Ledger.open(tmp_path)
    batch = ledger.begin_batch(map(done, range(EARLIER)))
    for number in range(EARLIER):
        ledger.lease(f"l{number}", f"earlier{number}.png", 1, "gpu0", ".partial-x")
        ledger.end_lease(f"l{number}", "done", done(number), batch)
    ledger.close()
    assert 0 < steps_for("second") < 1.5 * few


def test_a_ledger_from_before_finds_its_way_as_fast(databases: Databases, tmp_path: Path) -> None:
    Ledger.open(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as older:
        for name in ("leased_tasks", "tasks_without_output"):
            older.execute(f"DROP INDEX {name}")
    ledger = Ledger.open(tmp_path)
    databases.taken()
    ledger.begin_batch([])
    before = databases.taken()
    ledger.begin_batch(map(done, range(EARLIER)))
    databases.taken()
    ledger.begin_batch([])
    assert 0 < databases.taken() < 1.5 * before
    assert len(ledger.entries()) == EARLIER
    ledger.close()


def test_without_an_output_folder_nothing_is_remembered(
    databases: Databases, tmp_path: Path
) -> None:
    with MultiGPUImageGenerator(1, config=simulated()) as generator:
        for number in range(3):
            [result] = generator.generate_batch([task(str(tmp_path / f"{number}"))])
            assert result.success
        [ledger] = databases.opened

        def rows() -> list[int]:
            tables = ("tasks", "leases")
            return [ledger.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in tables]

        # The last batch is forgotten a moment after its results are there.
        wait_until(lambda: rows() == [0, 0], "an empty record")


def listed(folder: Path) -> list[str]:
    lines = (folder / "metadata.jsonl").read_text("utf-8").splitlines()
    return [Path(json.loads(line)["file_name"]).stem for line in lines]


def test_new_pictures_are_added_to_the_metadata_of_all_earlier_ones(
    generator: MultiGPUImageGenerator, tmp_path: Path
) -> None:
    generator.generate_batch([task("b"), task("a")])
    file = tmp_path / "metadata.jsonl"
    before = file.stat().st_ino
    generator.generate_batch([task("d"), task("bad", steps="many"), task("c")])
    generator.generate_batch([task("e")])
    assert listed(tmp_path) == ["b", "a", "d", "c", "e"]
    assert file.stat().st_ino == before, "it was written anew"


def test_metadata_that_a_batch_changes_are_written_anew(
    generator: MultiGPUImageGenerator, tmp_path: Path
) -> None:
    generator.generate_batch([task("a"), task("b"), task("c")])
    generator.generate_batch([task("a", seed=7), task("d")])  # one is redone
    assert listed(tmp_path) == ["b", "c", "a", "d"]
    generator.generate_batch([task("b"), task("e")])  # one is there already
    assert listed(tmp_path) == ["c", "a", "d", "b", "e"]
    (tmp_path / "metadata.jsonl").unlink()
    (tmp_path / "c.png").unlink()
    generator.generate_batch([task("f")])
    assert listed(tmp_path) == ["a", "d", "b", "e", "f"]
    (tmp_path / "metadata.jsonl").write_text("mine\n")
    generator.generate_batch([task("g")])
    assert listed(tmp_path) == ["a", "d", "b", "e", "f", "g"]


def test_pictures_of_a_batch_that_was_interrupted_before_its_tables_are_not_missed(
    generator: MultiGPUImageGenerator, tmp_path: Path
) -> None:
    interrupted = threading.Event()

    def interrupt(event: Event) -> None:
        """Ctrl-C when the picture is there, and nothing more until the caller has met it."""
        if isinstance(event, TaskEnded):
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupted.wait(PATIENCE)

    def meet(*_: object) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    generator.generate_batch([task("a")])
    generator.listener = interrupt
    before = signal.signal(signal.SIGINT, meet)
    try:
        with pytest.raises(KeyboardInterrupt):
            generator.generate_batch([task("b")])
    finally:
        signal.signal(signal.SIGINT, before)
    generator.listener = ignore
    generator.generate_batch([task("c")])
    assert listed(tmp_path) == ["a", "b", "c"]


def test_a_refusing_disk_leaves_the_metadata_whole(
    generator: MultiGPUImageGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator.generate_batch([task("a")])
    sync = os.fsync

    def full(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("metadata.jsonl"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr("core.store.outputs.os.fsync", full)
        generator.generate_batch([task("b")])
    assert "No space left on device" in str(generator.tables_error)
    assert listed(tmp_path) == ["a"]
    generator.generate_batch([task("c")])
    assert generator.tables_error is None
    assert listed(tmp_path) == ["a", "b", "c"]
