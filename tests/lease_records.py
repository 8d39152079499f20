"""What an output folder's record says of leases, read as any other program may read it."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from core.store.ledger import FILE_NAME


class LeaseRecord(NamedTuple):
    """One attempt; `outcome` is empty while it is out."""

    lease_id: str
    key: str
    outcome: str


def lease_records(folder: Path) -> list[LeaseRecord]:
    """All leases, in the order of their ends."""
    query = "SELECT lease_id, key, outcome FROM leases ORDER BY ended, rowid"
    with closing(sqlite3.connect(folder / FILE_NAME)) as ledger:
        return [LeaseRecord(i, key, outcome or "") for i, key, outcome in ledger.execute(query)]
