"""A look at the ledger of an output folder: a copy in memory, and nothing in the folder changes.

SQLite would make files beside a ledger that it only reads, and take the write-ahead log of a dead
run apart. So the file is copied first, unless a run is at work in the folder: that one keeps the
log in order, and SQLite reads beside it.
"""

import fcntl
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from core.errors import StorageError
from core.store.ledger_file import (
    FILE_NAME,
    LOCK_NAME,
    DamagedLedger,
    check,
    connect,
    wal_of,
)
from core.store.outputs import OutputRoot, storage_error
from core.store.run_lock import in_use, read_owner


@dataclass(frozen=True)
class LedgerCopy:
    """What a folder's ledger says.

    Attributes:
        db: a ledger in memory.
        in_use_by: the run that works in the folder now; None if there is none.
        damage: why the file could not be read, so that `db` is empty; None for a sound one, and
            where there is none.
    """

    db: sqlite3.Connection
    in_use_by: str | None = None
    damage: str | None = None


def copy_of_ledger(folder: Path) -> LedgerCopy:
    """Copy the ledger of a folder into memory, if there is one.

    Attempts that are out are left out of the copy.

    Raises:
        LedgerError: another program's, or of a newer format.
        StorageError: it cannot be read.
    """
    file = folder / FILE_NAME
    owner = run_in(folder)
    found, damage = connect(None), None
    try:
        if file.is_file() and file.stat().st_size:
            with _readable(file, owner is not None) as source:
                source.backup(found)
            found.execute("DELETE FROM leases")
    except DamagedLedger as error:
        damage = str(error)
    except OSError as error:
        found.close()
        raise storage_error(error, file) from None
    except sqlite3.OperationalError as error:
        found.close()
        raise StorageError(f"{file}: {error}.") from None
    except sqlite3.DatabaseError as error:
        damage = " ".join(str(error).split())
    except BaseException:
        found.close()
        raise
    if damage is not None:
        found.close()
        found = connect(None)
    return LedgerCopy(found, owner, damage)


@contextmanager
def _readable(file: Path, in_use: bool) -> Iterator[sqlite3.Connection]:
    if in_use:  # the run that has it checked it
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as db:
            yield db
        return
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / FILE_NAME
        for original, copied in ((file, copy), (wal_of(file), wal_of(copy))):
            if original.exists():
                shutil.copyfile(original, copied)
        check(copy, shown=file)
        with closing(sqlite3.connect(copy)) as db:
            yield db


def run_in(folder: Path) -> str | None:
    """The run that works in a folder now: its process, host, start and command; None for none.

    The lock is looked at for a moment; a run that wants it then tries again (`RunLock`).
    """
    file = folder / LOCK_NAME
    try:
        with file.open("rb") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return read_owner(file)
            fcntl.flock(stream, fcntl.LOCK_UN)
    except OSError:  # no lock, none that may be read, or a file system without locks
        return None
    return None


def refuse_in_use(folder: Path) -> None:
    """See that no other run works in an output folder; it is only looked at.

    Raises:
        LedgerError: one does now; who comes to lock it later sees anew.
    """
    folder = OutputRoot(folder).folder
    owner = run_in(folder)
    if owner is not None:
        raise in_use(folder, owner)


def host_of_last_run(folder: Path) -> str | None:
    """Name of the machine whose run was the last to work in a folder; None where nothing says."""
    try:
        return str(json.loads((folder / LOCK_NAME).read_text("utf-8"))["host"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
