"""The SQLite file of a ledger: its schema, and whether a file is one, sound and of this format."""

import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

from core.errors import LedgerError, StorageError
from core.store.ledger_entry import from_row

FILE_NAME = "ledger.sqlite"
LOCK_NAME = "ledger.lock"
APPLICATION_ID = 0x6D676967  # "mgig": tells our ledgers from other SQLite files
SCHEMA_VERSION = 1
MAGIC = b"SQLite format 3\0"
HEADER_BYTES = 100
APPLICATION_ID_AT = slice(68, 72)  # in the header, big-endian
TABLES_OF_A_RUN = ("metadata.jsonl", "results.jsonl")

SCHEMA = """
CREATE TABLE tasks (
    key TEXT PRIMARY KEY,
    batch INTEGER NOT NULL,        -- the newest batch that asked for it
    position INTEGER NOT NULL,     -- its place in that batch's input
    task_id TEXT NOT NULL,
    output_path TEXT,
    fingerprint TEXT,
    task TEXT NOT NULL,            -- JSON
    state TEXT NOT NULL CHECK (state IN ('pending', 'leased', 'done', 'failed', 'quarantined')),
    worker TEXT,
    error TEXT,
    elapsed REAL NOT NULL DEFAULT 0,
    size INTEGER,                  -- bytes of the picture
    sha256 TEXT,
    used TEXT NOT NULL DEFAULT '{}',  -- JSON: the settings that the model really took
    updated REAL NOT NULL          -- Unix time
);
CREATE INDEX tasks_by_place ON tasks (batch, position);
CREATE TABLE leases (
    lease_id TEXT PRIMARY KEY,
    key TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    worker TEXT NOT NULL,
    partial_path TEXT NOT NULL,
    given REAL NOT NULL,
    ended REAL,
    outcome TEXT
);
CREATE INDEX open_leases ON leases (key) WHERE ended IS NULL;
"""
# What the beginning of a batch looks for, among all tasks ever asked for. No part of the format:
# whoever does not know them keeps them all the same, and a ledger without them gets them.
INDEXES = """
CREATE INDEX IF NOT EXISTS leased_tasks ON tasks (key) WHERE state = 'leased';
CREATE INDEX IF NOT EXISTS leases_of_tasks ON leases (key);
CREATE INDEX IF NOT EXISTS tasks_without_output ON tasks (key) WHERE output_path IS NULL;
"""


# Views and triggers would run what somebody else wrote; indexes are SQLite's to check.
_TABLES = "SELECT type, name, sql FROM sqlite_master WHERE type != 'index' ORDER BY name"


class DamagedLedger(LedgerError):
    """A ledger of this program that cannot be used as it stands; it can be set aside."""


def connect(file: Path | None) -> sqlite3.Connection:
    """Open or create a ledger; None for one in memory.

    Raises:
        DamagedLedger: damaged, or of an older format.
        LedgerError: another program's, or of a newer format; it is left as it is.
        StorageError: it cannot be opened.
    """
    shown = str(file or "in-memory ledger")
    with _opening(shown):
        if file is not None:
            _check_or_create(file)
        try:
            return _open(file)
        except sqlite3.OperationalError as error:
            if not _has_no_shared_memory(error):
                raise
        return _open(file, alone=True)


def _check_or_create(file: Path) -> None:
    if not file.exists():
        file.touch()  # with the umask's permissions, which SQLite gives its other files, too
    if not file.stat().st_size:
        return
    try:
        check(file)
    except sqlite3.OperationalError as error:
        if not _has_no_shared_memory(error):
            raise
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / file.name
            for original, copied in ((file, copy), (wal_of(file), wal_of(copy))):
                if original.exists():
                    shutil.copyfile(original, copied)
            check(copy, shown=file)


def _has_no_shared_memory(error: sqlite3.OperationalError) -> bool:
    """Whether SQLite failed to map files for WAL's index, as on some network and FUSE systems."""
    return getattr(error, "sqlite_errorname", "").startswith("SQLITE_IOERR_SHM")


def _open(file: Path | None, alone: bool = False) -> sqlite3.Connection:
    """A connection that is ready to be used.

    Args:
        alone: keep WAL's index in this process, which is sound where nobody else opens the file:
            the run's lock keeps other runs out.
    """
    # One thread at a time uses the connection, but it is made in another than it serves in.
    db = sqlite3.connect(file or ":memory:", isolation_level=None, check_same_thread=False)
    db.row_factory = sqlite3.Row
    try:
        if alone:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
        _prepare(db)
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection) -> None:
    if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        # Before WAL: so the file itself says whose it is, whatever becomes of the WAL.
        db.executescript(
            f"BEGIN; PRAGMA application_id = {APPLICATION_ID}; "
            f"PRAGMA user_version = {SCHEMA_VERSION}; {SCHEMA} COMMIT;"
        )
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.executescript(INDEXES)


def check(file: Path, shown: Path | None = None) -> None:
    """See that an existing file is a sound ledger, without a change to it.

    Args:
        shown: the file of which `file` is a copy, with which anything may be done.

    Raises:
        DamagedLedger, LedgerError, sqlite3.OperationalError.
    """
    try:
        with closing(read_only(file) if shown is None else _open_copy(file)) as db:
            _check_format(db, shown or file)
            if _tables(db) != _our_tables():
                raise DamagedLedger("its tables are not a ledger's")
            found = str(db.execute("PRAGMA integrity_check(1)").fetchone()[0])
            if found != "ok":
                raise DamagedLedger(" ".join(found.split()))
            for row in db.execute("SELECT * FROM tasks"):
                from_row(row)
            for (partial,) in db.execute("SELECT partial_path FROM leases"):
                if not isinstance(partial, str) or "\0" in partial:
                    raise ValueError(f"partial_path is {partial!r}")
            size = db.execute("PRAGMA page_size").fetchone()[0]
            if file.stat().st_size % size and not wal_of(file).exists():
                raise DamagedLedger("its last page is cut short")
    except sqlite3.OperationalError as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)  # none: text not in UTF-8
        if code & 0xFF != sqlite3.SQLITE_ERROR:  # the disk, not the content
            raise
        raise _damaged(shown or file, error) from None
    except (sqlite3.DatabaseError, ValueError) as error:
        raise _damaged(shown or file, error) from None


def _tables(db: sqlite3.Connection) -> list[tuple[str, ...]]:
    """Kind, name and definition of each table and index, less comments and spaces."""
    return [
        (kind, name, " ".join(re.sub("--.*", "", sql or "").split()))
        for kind, name, sql in db.execute(_TABLES)
    ]


@cache
def _our_tables() -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(SCHEMA)
        return _tables(db)


def read_only(file: Path) -> sqlite3.Connection:
    """A connection that changes nothing; others may be writing."""
    # Without a WAL there is nothing to share, and nothing must be created beside a foreign file.
    immutable = "" if wal_of(file).exists() else "&immutable=1"
    db = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro{immutable}", uri=True)
    db.row_factory = sqlite3.Row
    return db


def _open_copy(file: Path) -> sqlite3.Connection:
    db = sqlite3.connect(file)
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA locking_mode = EXCLUSIVE")  # without shared memory
    return db


def wal_of(file: Path) -> Path:
    """SQLite's write-ahead log beside `file`."""
    return file.with_name(f"{file.name}-wal")


def _check_format(db: sqlite3.Connection, file: Path) -> None:
    application = db.execute("PRAGMA application_id").fetchone()[0]
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        return
    if application != APPLICATION_ID:
        raise LedgerError(f"{file} belongs to another program. Choose another output folder.")
    found = f"format {version}, this program writes {SCHEMA_VERSION}"
    if version > SCHEMA_VERSION:
        raise LedgerError(f"{file} has {found}. Use the newer program. {WAY_OUT}")
    if version < SCHEMA_VERSION:
        raise DamagedLedger(found)


def _damaged(file: Path, error: Exception) -> LedgerError:
    """The error for a file that is ours and damaged, or another's with our name."""
    with file.open("rb") as stream:
        header = stream.read(HEADER_BYTES)
    if header.startswith(MAGIC) and len(header) == HEADER_BYTES:
        ours = int.from_bytes(header[APPLICATION_ID_AT], "big") == APPLICATION_ID
    else:
        torn = MAGIC.startswith(header[: len(MAGIC)]) or not any(header)
        ours = torn or any((file.parent / name).is_file() for name in TABLES_OF_A_RUN)
    if ours:
        return DamagedLedger(" ".join(str(error).split()))
    return LedgerError(f"{file} is damaged or no ledger ({error}). {WAY_OUT}")


WAY_OUT = (
    "Move it away and run again: finished pictures are recognised by what their PNG says of "
    "itself and are not drawn again."
)


@contextmanager
def _opening(shown: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StorageError(f"{shown}: {error}.", fatal=True) from None
    except sqlite3.DatabaseError as error:
        raise LedgerError(f"{shown} is damaged or no ledger ({error}). {WAY_OUT}") from None
    except OSError as error:
        raise StorageError(f"{shown}: {error.strerror or error}.", fatal=True) from None


@contextmanager
def in_our_words() -> Iterator[None]:
    """Turn sqlite3's errors while a run uses its ledger into this project's own."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StorageError(f"{FILE_NAME}: {error}.", fatal=True) from None
    except (sqlite3.DatabaseError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise LedgerError(
            f"{FILE_NAME} is damaged ({reason}). Run again: it is set aside then, and what is "
            "finished is not drawn again."
        ) from None
