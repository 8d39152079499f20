"""Brings the records of several folders into one: those of drivers that shared an input."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from core.errors import InputError
from core.paths import as_text
from core.store.ledger import Ledger
from core.store.ledger_entry import Entry, from_row
from core.store.ledger_file import FILE_NAME, in_our_words

PORTION = 1000  # tasks that are read together


def merge_record(ledger: Ledger, batch: int, source: Path, part: int, parts: int) -> list[Entry]:
    """Record what another folder's ledger says, and return its entries in their order.

    Args:
        ledger: of the folder that gets it.
        batch: of that ledger, begun for this.
        source: the other folder, in which no run is at work.
        part: the other folder's tasks stand at places `part`, `part + parts`, … of the whole.

    Raises:
        InputError: both have a result of one output that is not the same one.
        LedgerError, StorageError: one of them cannot be used.
    """
    with in_our_words(), closing(sqlite3.connect(source / FILE_NAME)) as db:
        db.row_factory = sqlite3.Row
        entries = [
            _at(from_row(row), part, parts)
            for row in db.execute("SELECT * FROM tasks ORDER BY batch, position")
        ]
        news = _news(ledger, entries, source)
        for start in range(0, len(news), PORTION):
            some = news[start : start + PORTION]
            ledger.add_to_batch(batch, some)
        known = {entry.key for entry in news}
        rows = db.execute("SELECT * FROM leases WHERE ended IS NOT NULL")
        ledger.add_leases(tuple(row) for row in rows if row["key"] in known)
    return entries


def _at(entry: Entry, part: int, parts: int) -> Entry:
    fields = {**vars(entry), "position": entry.position * parts + part}
    if entry.state == "leased":  # its run was killed: it is to be tried
        fields["state"] = "pending"
    return Entry(**fields)


def _news(ledger: Ledger, entries: Sequence[Entry], source: Path) -> list[Entry]:
    """Entries that say more than the ledger does."""
    known = ledger.entries_of([entry.key for entry in entries])
    found = []
    for entry in entries:
        there = known.get(entry.key)
        if there is None or there.state != "done":
            found.append(entry)
        elif entry.state == "done" and entry.fingerprint != there.fingerprint:
            raise InputError(
                f"{as_text(source)}: {entry.output_path} is another picture than the one that "
                "lies in the place to merge into; give one of the two tasks another output_path."
            )
    return found
