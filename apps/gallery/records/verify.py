"""Whether every file is what the record says: there, of the recorded size, with that content."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from core.paths import on_disk
from core.store.ledger_entry import Entry
from core.store.ledger_reading import Recorded
from core.store.provenance import read_provenance

THREADS = 4  # read files side by side; hashing lets go of the interpreter's lock
Finding = Literal["whole", "missing", "changed", "unreadable"]


@dataclass(frozen=True)
class Checked:
    """What was found of one recorded result, with a reason unless it is whole."""

    entry: Entry
    finding: Finding
    reason: str = ""


def verify(folder: Path, tasks: Sequence[Recorded]) -> Iterator[Checked]:
    """Check the results that the record calls done, pictures and verdicts alike, in their order."""
    done = [task.entry for task in tasks if task.entry.state == "done" and task.entry.output_path]
    with ThreadPoolExecutor(THREADS) as threads:
        yield from threads.map(partial(_check, folder), done)


def _check(folder: Path, entry: Entry) -> Checked:
    file = folder / on_disk(str(entry.output_path))
    try:
        size = file.stat().st_size
        if entry.size is not None and size != entry.size:
            return Checked(entry, "changed", f"{size} bytes instead of {entry.size}")
        if entry.sha256 is None:  # of an early version: the file says itself what it is
            if read_provenance(file)["fingerprint"] != entry.fingerprint:
                return Checked(entry, "changed", "it was made for another task")
            return Checked(entry, "whole")
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        return Checked(entry, "missing", "the file is gone")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Checked(entry, "unreadable", str(reason))
    if found != entry.sha256:
        return Checked(entry, "changed", "its content is another one")
    return Checked(entry, "whole")
