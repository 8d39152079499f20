"""The ledger: what is recorded stays, what is damaged or foreign is refused in one line."""

import gc
import multiprocessing
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import LedgerError, MultiGPUError
from core.store.ledger import FILE_NAME, Entry, Ledger
from tests.conftest import PATIENCE

ENTRY = Entry("a.png", 0, "a", "a.png", "f1", "pending", task={"prompt": "x"})


def test_a_finished_task_is_there_after_a_restart(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path)
    batch = ledger.begin_batch([ENTRY])
    ledger.lease("l1", "a.png", 1, "gpu0", ".partial-l1")
    done = replace(ENTRY, state="done", size=5, sha256="s", worker="gpu0", used={"model": "m"})
    ledger.end_lease("l1", "done", done, batch)
    ledger.close()
    reopened = Ledger.open(tmp_path)
    assert reopened.entries() == {"a.png": done}
    assert list(reopened.finished()) == [done]
    assert reopened.open_leases() == []
    reopened.close()


def test_an_error_that_quotes_a_path_which_is_no_text_is_recorded(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path)
    ledger.begin_batch([replace(ENTRY, state="failed", error="cannot read b\udcff.png")])
    assert ledger.entries()["a.png"].error == "cannot read b\\udcff.png"
    ledger.close()


def test_an_open_lease_is_found_and_its_task_is_pending_again(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path)
    ledger.begin_batch([ENTRY])
    ledger.lease("l1", "a.png", 1, "gpu0", ".partial-l1")
    ledger.close()
    reopened = Ledger.open(tmp_path)
    assert reopened.open_leases() == [".partial-l1"]
    assert reopened.entries()["a.png"].state == "leased"
    reopened.begin_batch([])
    assert reopened.entries()["a.png"].state == "pending"
    assert reopened.open_leases() == []
    reopened.close()


@pytest.mark.parametrize("count", [0, 1, 2, 10, 11, 100, 101, 250])
def test_tasks_are_found_and_forgotten_by_their_keys(tmp_path: Path, count: int) -> None:
    ledger = Ledger.open(tmp_path)
    keys = [f"{n}.png" for n in range(count)]
    others = ["x.png", "y.png"]
    ledger.begin_batch([replace(ENTRY, key=key, output_path=key) for key in [*keys, *others]])
    assert sorted(ledger.entries_of([*keys, "unknown"])) == sorted(keys)
    assert ledger.knows_any(["unknown"] * count + keys) is bool(keys)
    ledger.forget(keys)
    assert sorted(ledger.entries()) == others
    ledger.close()


def test_a_ledger_does_not_grow_with_batches_of_ever_other_sizes(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path)
    before = _compiled_queries()
    for count in range(1, 130):
        keys = [f"{n}.png" for n in range(count)]
        ledger.entries_of(keys)
        ledger.knows_any(keys)
        ledger.forget(keys)
    assert _compiled_queries() - before < 20
    ledger.close()


def _compiled_queries() -> int:
    """Those that connections of this process keep."""
    gc.collect()
    return sum(
        f"{type(o).__module__}.{type(o).__name__}" == "sqlite3.Statement" for o in gc.get_objects()
    )


def test_inputs_without_output_do_not_pile_up(tmp_path: Path) -> None:
    rejected = Entry("#0", 0, "t", None, None, "failed", error="bad")
    ledger = Ledger.open(tmp_path)
    ledger.begin_batch([rejected, replace(rejected, key="#1", position=1)])
    ledger.begin_batch([rejected])
    assert list(ledger.entries()) == ["#0"]
    ledger.close()


def _hold(folder: Path, ready: "multiprocessing.synchronize.Event") -> None:
    ledger = Ledger.open(folder)
    ready.set()
    time.sleep(600)
    ledger.close()


def test_a_second_run_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready))
    holder.start()
    try:
        assert ready.wait(PATIENCE)
        with pytest.raises(LedgerError, match=f"in use by another run \\(pid {holder.pid} "):
            Ledger.open(tmp_path)
    finally:
        holder.kill()
        holder.join()
    Ledger.open(tmp_path).close()  # the lock died with its owner


def test_a_foreign_database_is_left_alone(tmp_path: Path) -> None:
    foreign = sqlite3.connect(tmp_path / FILE_NAME)
    foreign.execute("CREATE TABLE precious (x)")
    foreign.close()
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(LedgerError, match="belongs to another program"):
        Ledger.open(tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("my notes, which are long enough to be no header" * 5)
    with pytest.raises(LedgerError, match="damaged or no ledger"):
        Ledger.open(tmp_path)


def test_another_format_is_named(tmp_path: Path) -> None:
    Ledger.open(tmp_path).close()
    database = sqlite3.connect(tmp_path / FILE_NAME)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(LedgerError, match="has format 99, this program writes 1"):
        Ledger.open(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MultiGPUError, match="file/out: Not a directory"):
        Ledger.open(tmp_path / "file" / "out")
