"""A damaged ledger costs no finished picture: it is set aside, and the same command continues."""

import random
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import LedgerError
from core.store.ledger import FILE_NAME, Entry, Ledger
from core.store.ledger_file import APPLICATION_ID, APPLICATION_ID_AT
from core.store.outputs import PARTIAL_PREFIX
from tests.conftest import Project
from tests.hostile.world import (
    FULL,
    PICTURES,
    WAL_NAME,
    FinishedRun,
    finish_run,
    folder_in_memory,
    replan,
)

PAGE = 4096
STRIDE = 1 if FULL else 1013
WHOLE = {"to do": 1, "quarantined": 1, "skipped": PICTURES}
QUARANTINE_LOST = {"to do": 2, "skipped": PICTURES}


@pytest.fixture(scope="module")
def run() -> Iterator[FinishedRun]:
    with folder_in_memory() as folder:
        yield finish_run(folder / "run")


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """What is told of a folder, as a warning or worse; not that a busy machine is slow."""
    from loguru import logger

    lines: list[str] = []
    sink = logger.add(
        lambda line: lines.append(str(line)),
        level="WARNING",
        format="{message}",
        filter=lambda record: "fork server" not in record["message"],
    )
    yield lines
    logger.remove(sink)


def test_an_unharmed_ledger_is_the_measure(run: FinishedRun, warnings: list[str]) -> None:
    run.restore({FILE_NAME: run.ledger})
    assert replan(run.folder) == WHOLE
    run.restore(run.in_use)
    assert replan(run.folder) == WHOLE
    assert not warnings and not run.asides()


def test_cut_short_anywhere_in_its_last_pages_it_is_recovered(
    run: FinishedRun, warnings: list[str]
) -> None:
    size = len(run.ledger)
    edges = [size - n * PAGE + d for n in range(4) for d in (-1, 0, 1)]
    cuts = sorted({*range(size - 3 * PAGE, size, STRIDE), *edges} - {size, size + 1})
    for kept in cuts:
        run.restore({FILE_NAME: run.ledger[:kept]})
        warnings.clear()
        # Its first rows, the quarantined one among them, lie in front of every cut.
        assert replan(run.folder) == WHOLE, f"cut at byte {kept} of {size}"
        assert run.asides() == [run.ledger[:kept]], kept
        assert len(warnings) == 1 and "\n" not in warnings[0].strip(), kept
        assert "kept as ledger.damaged-1.sqlite" in warnings[0], kept
    assert replan(run.folder) == WHOLE and len(run.asides()) == 1  # recovered for good


def test_cut_short_in_its_first_page_no_picture_is_lost(run: FinishedRun) -> None:
    cuts = range(0, PAGE + 1) if FULL else [*range(0, 110, 7), 16, 99, 100, 511, 512, 4095, 4096]
    for kept in cuts:
        run.restore({FILE_NAME: run.ledger[:kept]})
        assert replan(run.folder) in (WHOLE, QUARANTINE_LOST), kept


@pytest.mark.parametrize("seed", range(400 if FULL else 40))
def test_changed_bytes_lose_no_picture(run: FinishedRun, seed: int) -> None:
    rng = random.Random(seed)
    content = bytearray(run.ledger)
    for _ in range(rng.choice([1, 4, 200])):
        content[rng.randrange(len(content))] = rng.randrange(256)
    if rng.random() < 0.3:  # a page that was never written
        start = rng.randrange(len(content) // PAGE) * PAGE
        content[start : start + PAGE] = bytes(PAGE)
    run.restore({FILE_NAME: bytes(content)})
    try:
        found = replan(run.folder)
    except LedgerError as error:  # its header says that it is another program's, or newer
        assert "\n" not in str(error)
        assert content[APPLICATION_ID_AT] != run.ledger[APPLICATION_ID_AT] or "newer" in str(error)
        assert "Choose another" in str(error) or "Move it away" in str(error)
        assert (run.folder / FILE_NAME).read_bytes() == content
        return
    assert found["skipped"] == PICTURES, found


@pytest.mark.parametrize(
    "before, after", [(b"outcome TEXT", b"outcomf TEXT"), (b"'quarantined'))", b"'quarantinee'))")]
)
def test_changed_definitions_of_its_tables_lose_no_record(
    run: FinishedRun, before: bytes, after: bytes
) -> None:
    assert run.ledger.count(before) == 1
    run.restore({FILE_NAME: run.ledger.replace(before, after)})
    assert replan(run.folder) == WHOLE


@pytest.mark.slow
def test_a_torn_wal_loses_no_picture(run: FinishedRun) -> None:
    wal = run.in_use[WAL_NAME]
    assert len(wal) > 10 * PAGE
    stride = 101 if FULL else 20_011
    for kept in [0, 1, 31, 32, 33, 56, *range(57, len(wal), stride), len(wal) - 1]:
        run.restore({**run.in_use, WAL_NAME: wal[:kept]})
        assert replan(run.folder)["skipped"] == PICTURES, kept


@pytest.mark.parametrize("seed", range(100 if FULL else 12))
def test_changed_bytes_in_the_wal_lose_no_picture(run: FinishedRun, seed: int) -> None:
    rng = random.Random(seed)
    wal = bytearray(run.in_use[WAL_NAME])
    wal[rng.randrange(len(wal))] ^= 1 << rng.randrange(8)
    run.restore({**run.in_use, WAL_NAME: bytes(wal)})
    assert replan(run.folder)["skipped"] == PICTURES


@pytest.mark.parametrize(
    "kept", [{FILE_NAME}, {WAL_NAME}, set()], ids=["no WAL", "WAL alone", "nothing"]
)
def test_a_lost_file_loses_no_picture(run: FinishedRun, kept: set[str]) -> None:
    run.restore({name: content for name, content in run.in_use.items() if name in kept})
    assert replan(run.folder)["skipped"] == PICTURES
    entries = recorded(run.folder)
    assert sum(e.state == "done" for e in entries.values()) == PICTURES


def test_the_wal_of_another_ledger_loses_no_picture(run: FinishedRun, tmp_path: Path) -> None:
    other = finish_run(tmp_path / "other")
    run.restore({FILE_NAME: run.ledger, WAL_NAME: other.in_use[WAL_NAME]})
    assert replan(run.folder)["skipped"] == PICTURES


def test_what_was_not_asked_for_again_stays_on_record(run: FinishedRun) -> None:
    run.restore({FILE_NAME: run.ledger})
    before = recorded(run.folder)
    run.restore({})
    after = recorded(run.folder)
    finished = {k: e for k, e in before.items() if e.state == "done"}
    assert {k: (e.fingerprint, e.size, e.sha256, e.task) for k, e in after.items()} == {
        k: (e.fingerprint, e.size, e.sha256, e.task) for k, e in finished.items()
    }


def recorded(folder: Path) -> dict[str, Entry]:
    ledger = Ledger.open(folder)
    entries = ledger.entries()
    ledger.close()
    return entries


def changed_database(content: bytes, folder: Path, *statements: str) -> bytes:
    file = folder / "changed.sqlite"
    file.write_bytes(content)
    database = sqlite3.connect(file)
    for statement in statements:
        database.execute(statement)
    database.commit()
    database.execute("PRAGMA journal_mode = DELETE")
    database.close()
    return file.read_bytes()


OLDER = {
    "version": ["PRAGMA user_version = 0"],
    "a column less": ["PRAGMA user_version = 0", "ALTER TABLE tasks DROP COLUMN sha256"],
    "a column more": ["PRAGMA user_version = 0", "ALTER TABLE tasks ADD COLUMN priority INTEGER"],
    "no leases": ["PRAGMA user_version = 0", "DROP TABLE leases"],
    "no tasks": ["PRAGMA user_version = 0", "DROP TABLE tasks"],
    "tasks of this version lost": ["DROP TABLE tasks"],
    "leases of this version lost": ["DROP TABLE leases"],
    "an endless view": [
        "ALTER TABLE tasks RENAME TO old",
        "CREATE VIEW tasks AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) "
        "SELECT old.* FROM old, n WHERE i > 1",
    ],
    "a trigger": [
        "CREATE TRIGGER t AFTER UPDATE ON leases BEGIN DELETE FROM tasks; END",
    ],
    "text for JSON": ["UPDATE tasks SET task = 'x' WHERE position = 5"],
    "a list for an object": ["UPDATE tasks SET used = '[]' WHERE position = 5"],
    "deep JSON": [f"UPDATE tasks SET task = '{'[' * 100_000}' WHERE position = 5"],
    "a blob for text": ["UPDATE tasks SET task_id = x'ff00' WHERE position = 5"],
    "text for a number": ["UPDATE tasks SET size = 'big' WHERE position = 5"],
    "text that is no UTF-8": ["UPDATE tasks SET task = CAST(x'7bff7d' AS TEXT) WHERE position = 5"],
}


@pytest.mark.parametrize("statements", OLDER.values(), ids=OLDER.keys())
def test_an_older_format_and_rows_of_another_kind_are_recovered(
    run: FinishedRun, tmp_path: Path, statements: list[str], warnings: list[str]
) -> None:
    content = changed_database(run.ledger, tmp_path, *statements)
    run.restore({FILE_NAME: content})
    assert replan(run.folder)["skipped"] == PICTURES
    assert run.asides() == [content] and len(warnings) == 1


@pytest.mark.parametrize("change", ["fingerprint = 'older'", "state = 'failed'", "size = 1"])
def test_a_picture_that_is_there_counts_whatever_its_entry_says(
    run: FinishedRun, tmp_path: Path, change: str
) -> None:
    statement = f"UPDATE tasks SET {change} WHERE state = 'done'"
    run.restore({FILE_NAME: changed_database(run.ledger, tmp_path, statement)})
    assert replan(run.folder) == WHOLE and not run.asides()
    run.restore({})
    assert replan(run.folder)["skipped"] == PICTURES
    assert all(e.sha256 for e in recorded(run.folder).values() if e.state == "done")


def test_a_second_damage_gets_a_second_name(run: FinishedRun) -> None:
    run.restore({FILE_NAME: run.ledger[:-1], "ledger.damaged-1.sqlite": b"the first"})
    assert replan(run.folder) == WHOLE
    assert run.asides() == [b"the first", run.ledger[:-1]]


FOREIGN = {
    "notes": (b"my notes, which are long enough to be no header" * 5, "damaged or no ledger"),
    "zip": (b"PK\x03\x04" + bytes(500), "damaged or no ledger"),
    "sqlite": (None, "belongs to another program"),
    "newer": (["PRAGMA user_version = 2"], "has format 2, this program writes 1"),
    "another id": (["PRAGMA application_id = 7"], "belongs to another program"),
}


@pytest.mark.parametrize(("content", "message"), FOREIGN.values(), ids=FOREIGN.keys())
def test_a_foreign_file_is_refused_in_one_line_and_left_alone(
    run: FinishedRun, project: Project, content: bytes | list[str] | None, message: str
) -> None:
    file = project.pictures / FILE_NAME
    file.parent.mkdir(parents=True)
    if content is None:
        database = sqlite3.connect(file)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE precious (x)")
        database.close()
    elif isinstance(content, list):
        file.write_bytes(changed_database(run.ledger, project.folder, *content))
    else:
        file.write_bytes(content)
    before = file.read_bytes()
    for _ in range(2):  # the first refusal must not make it ours
        refused = project.run([project.write_tweets([{"prompt": "a"}])])
        assert refused.process.returncode == 2
        assert len(refused.errors.splitlines()) == 1 and message in refused.errors
    assert file.read_bytes() == before


def test_the_same_command_goes_on_after_damage(project: Project) -> None:
    file = project.write_tweets([{"prompt": f"p{i}"} for i in range(6)])
    assert project.run([file]).process.returncode == 0
    ledger = project.pictures / FILE_NAME
    for damage in (ledger.read_bytes()[:-PAGE], b"x" * 5000, b"", ledger.read_bytes()[:300]):
        ledger.write_bytes(damage)
        run = project.run([file, "--limit", 4])
        assert run.process.returncode == 0, run.errors
        assert run.output.splitlines()[0] == "4 tweets: 4 skipped"
        rows = (project.pictures / "metadata.jsonl").read_text().splitlines()
        assert len(rows) == 6  # what this command did not ask for is on record, too
        assert sum("could not be used" in x for x in run.errors.splitlines()) == (damage != b"")
    assert len(list(project.pictures.glob("ledger.damaged-*.sqlite"))) == 3


def test_a_damaged_ledger_of_a_benchmark_costs_no_edit_and_no_verdict(project: Project) -> None:
    from tests.edit_world import Bench, pair

    bench = Bench(project)
    bench.write_pairs([pair(i) for i in range(3)])
    assert bench.run().process.returncode == 0
    before = {f: f.stat().st_mtime_ns for f in [*bench.edits(), *bench.verdicts()]}
    ledger = bench.results / FILE_NAME
    ledger.write_bytes(ledger.read_bytes()[:-PAGE])
    assert bench.run().process.returncode == 0
    assert {f: f.stat().st_mtime_ns for f in before} == before
    ledger.unlink()
    assert bench.run().process.returncode == 0
    assert {f: f.stat().st_mtime_ns for f in before} == before and len(before) == 6


def test_copies_and_strangers_in_the_folder_are_not_taken_for_results(run: FinishedRun) -> None:
    run.restore({})
    picture = next(run.folder.glob("*.png"))
    (run.folder / "best").mkdir(exist_ok=True)
    (run.folder / "best" / "copy.png").write_bytes(picture.read_bytes())
    (run.folder / "link.png").symlink_to(picture)
    (run.folder / "notes.json").write_text("[" * 100_000)
    (run.folder / "deep").mkdir(exist_ok=True)
    (run.folder / "deep" / ".partial-old").write_text("unfinished")
    entries = recorded(run.folder)
    assert len(entries) == PICTURES
    assert not (run.folder / "deep" / ".partial-old").exists()


def test_a_run_in_a_folder_further_down_is_left_alone(run: FinishedRun, tmp_path: Path) -> None:
    outer, inner = tmp_path, tmp_path / "inner"
    Ledger.open(outer).close()
    shutil.copytree(run.folder, inner)
    at_work = inner / f"{PARTIAL_PREFIX}0.png"
    at_work.write_bytes(b"half of a picture")
    assert not recorded(outer)
    assert at_work.exists()


def test_the_file_says_whose_it_is_without_its_wal(run: FinishedRun) -> None:
    header = run.in_use[FILE_NAME]
    assert int.from_bytes(header[68:72], "big") == APPLICATION_ID
