"""A ledger again, from what a damaged one still says and from the results that lie in its folder.

A result is durable before its ledger entry is: it says itself which task it is of, so the
folder is the record that a damaged, lost or too old ledger is made up from. Failures and
quarantines have no file; they are read from the rows that are still legible.
"""

import hashlib
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from loguru import logger

from core.errors import StorageError, one_line
from core.paths import as_text
from core.store.ledger_entry import UPSERT, Entry, from_row, to_row
from core.store.ledger_file import FILE_NAME, LOCK_NAME, DamagedLedger, connect, wal_of
from core.store.outputs import (
    GALLERY,
    PARTIAL_PREFIX,
    PICTURE_SUFFIXES,
    REPLACED,
    discard,
    output_key,
    storage_error,
    sync_folder,
)
from core.store.provenance import read_provenance

MAX_MISSES = 500  # tries to read on behind an illegible row, at a fraction of a millisecond each
STEADY_MISSES = 64  # after so many in a row the steps become longer, to get past a lost subtree
MIN_ROW_BYTES = 20  # in the file: a damaged tree that leads round in circles holds no more rows
MAX_VERDICT_BYTES = 1_000_000
_NEW_NAME = f"{PARTIAL_PREFIX}ledger"


def connect_or_recover(file: Path) -> sqlite3.Connection:
    """Open a ledger; a damaged one is kept under another name and replaced by what it holds.

    Raises:
        LedgerError: another program's, or of a newer format; it is left as it is.
        StorageError: the disk refuses.
    """
    try:
        return connect(file)
    except DamagedLedger as damage:
        rows = list(_legible_rows(file))
        aside = _replace(file, rows)
        shown = one_line(f"{file} could not be used ({damage})")
        logger.warning(
            f"{shown}. It is kept as {aside.name}; {len(rows)} of its "
            "entries were read, and results in its folder are recognised."
        )
        return connect(file)


def _legible_rows(file: Path) -> list[tuple[Entry, int]]:
    """Entries with their batch, the newest of a key, as far as the file can be read."""
    found: dict[str, tuple[float, Entry, int]] = {}
    with (
        suppress(OSError, sqlite3.Error, UnicodeDecodeError),
        tempfile.TemporaryDirectory() as folder,
    ):
        copy = Path(folder) / "ledger"  # SQLite would write to the file itself
        shutil.copyfile(file, copy)
        if wal_of(file).exists():
            shutil.copyfile(wal_of(file), wal_of(copy))
        with closing(sqlite3.connect(copy)) as db:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA writable_schema = ON")  # or it would not read a shortened file
            kinds = db.execute("SELECT type FROM sqlite_master WHERE name = 'tasks'").fetchall()
            if [tuple(kind) for kind in kinds] != [("table",)]:
                return []  # a view would run what somebody else wrote
            for row in islice(_rows(db), file.stat().st_size // MIN_ROW_BYTES):
                with suppress(ValueError, TypeError, LookupError):
                    entry, batch, updated = from_row(row), int(row["batch"]), float(row["updated"])
                    if entry.key not in found or found[entry.key][0] <= updated:
                        found[entry.key] = (updated, entry, batch)
    return [(entry, batch) for _, entry, batch in found.values()]


def _rows(db: sqlite3.Connection) -> Iterator[sqlite3.Row]:
    """The rows of `tasks` in their table's order, past illegible pages."""
    query = "SELECT rowid AS place, * FROM tasks NOT INDEXED WHERE rowid > ? ORDER BY rowid"
    place = gap = 0
    for _ in range(MAX_MISSES):
        try:
            for row in db.execute(query, (place,)):
                place, gap = max(place, row["place"]), 0  # a damaged page may lead back
                yield row
            return
        except (sqlite3.DatabaseError, UnicodeDecodeError):
            place, gap = place + 1 + gap // STEADY_MISSES, gap + 1


def _replace(file: Path, rows: list[tuple[Entry, int]]) -> Path:
    """Put a new ledger in the place of `file`, which is kept under the name that is returned.

    At every moment one of both has the name; a death on the way leaves the damaged one to be
    recovered again.
    """
    new = file.with_name(_NEW_NAME)
    try:
        for leftover in (new, wal_of(new)):
            leftover.unlink(missing_ok=True)
        with closing(connect(new)) as db:
            now = time.time()
            db.execute("BEGIN")
            db.executemany(UPSERT, [to_row(entry, batch, now) for entry, batch in rows])
            db.execute("COMMIT")
        aside = _free_name(file)
        _copy(file, aside)
        if wal_of(file).exists():
            _copy(wal_of(file), wal_of(aside))
            wal_of(file).unlink()  # it would be read as the new file's
        file.with_name(f"{file.name}-shm").unlink(missing_ok=True)
        os.replace(new, file)
        sync_folder(file.parent)
    except OSError as error:
        raise storage_error(error, file) from None
    except sqlite3.Error as error:
        raise StorageError(f"{file}: it cannot be recovered: {error}.", fatal=True) from None
    return aside


def _free_name(file: Path) -> Path:
    """`ledger.damaged-1.sqlite`, or the next number that is free."""
    number = 1
    while (aside := file.with_name(f"{file.stem}.damaged-{number}{file.suffix}")).exists():
        number += 1
    return aside


def _copy(file: Path, copy: Path) -> None:
    try:
        os.link(file, copy)
    except OSError:  # a file system without hard links
        shutil.copy2(file, copy)


def results_beyond(
    folder: Path, is_recorded: Callable[[str], bool], sweeps: bool = True
) -> Iterator[Entry]:
    """Results of this program below `folder` that are not recorded by their keys.

    Folders further down with a ledger of their own are left alone: a run may be at work there.

    Args:
        sweeps: remove unfinished files of dead runs on the way.
    """
    position = 0
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if name != REPLACED and not _has_ledger(Path(place, name))
        )
        is_gallery = GALLERY in Path(place).relative_to(folder).parts  # no place of results
        for name in sorted(names):
            file = Path(place, name)
            if name.startswith(PARTIAL_PREFIX):
                if sweeps:
                    discard(file)
            elif not is_gallery and file.suffix.lower() in (*PICTURE_SUFFIXES, ".json"):
                shown = as_text(file.relative_to(folder))
                if not is_recorded(output_key(shown)) and not file.is_symlink():
                    entry = entry_of_result(file, shown, position)
                    if entry is not None:
                        position += 1
                        yield entry


def _has_ledger(folder: Path) -> bool:
    return any((folder / name).exists() for name in (FILE_NAME, LOCK_NAME))


def entry_of_result(file: Path, shown: str, position: int) -> Entry | None:
    """What a result says of itself; None if it is none, or was made for another place."""
    try:
        size = file.stat().st_size
        if file.suffix.lower() == ".json" and size > MAX_VERDICT_BYTES:
            return None
        record = read_provenance(file)
        with file.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, ValueError):
        return None
    task, used, fingerprint = (record.get(name) for name in ("task", "used", "fingerprint"))
    if not isinstance(task, dict) or not isinstance(fingerprint, str) or not _made_for(task, shown):
        return None
    task_id = task.get("task_id")
    return Entry(
        key=output_key(shown),
        position=position,
        task_id=task_id if isinstance(task_id, str) else file.stem,
        output_path=shown,
        fingerprint=fingerprint,
        state="done",
        task=task,
        size=size,
        sha256=sha256,
        used=used if isinstance(used, dict) else {},
    )


def _made_for(task: dict[str, Any], shown: str) -> bool:
    """Whether a task's output path means this place; its folder may have been moved."""
    given = task.get("output_path")
    if not isinstance(given, str):
        return False
    place, wanted = PurePosixPath(shown), PurePosixPath(os.path.normpath(given))
    return wanted == place or (
        wanted.is_absolute() and wanted.parts[-len(place.parts) :] == place.parts
    )
