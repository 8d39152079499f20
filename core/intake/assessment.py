"""How one input stands to what earlier runs left: in the record, and under its name on the disk."""

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.intake.admission import Admitted, Item, Rejected
from core.intake.made import Made
from core.intake.plan_summary import Standing
from core.intake.task_kinds import kind_of
from core.store.ledger import Entry
from core.store.ledger_entry import entry_for
from core.store.provenance import read_provenance
from core.tasks import FAILURES


@dataclass(frozen=True)
class Assessed:
    """How one input stands to what earlier runs left.

    Attributes:
        entry: the state in which it enters the batch: pending, done, quarantined or failed.
        made: how the result under its name was made that it would replace.
    """

    item: Item
    entry: Entry
    standing: Standing
    made: Made | None = None


def assess(admitted: Admitted, known: Entry | None, retry_quarantined: bool) -> Assessed:
    """How `admitted` stands to its entry in the ledger and to the file under its name."""
    pending = entry_for(admitted, "pending")
    if known is not None and known.fingerprint == admitted.fingerprint:
        if known.state == "done" and _intact(admitted, known):
            entry = replace(
                known, position=admitted.position, task_id=admitted.task_id, task=pending.task
            )
            return Assessed(admitted, entry, "unchanged")
        if known.state == "quarantined" and not retry_quarantined:
            entry = replace(known, position=admitted.position, task_id=admitted.task_id)
            return Assessed(admitted, entry, "quarantined")
    file = admitted.output.file
    if not os.path.lexists(file):
        return Assessed(admitted, pending, _without_file(admitted, known))
    provenance = _provenance(file)
    if provenance is None:
        if known is not None and not _was_left_alone(known):
            return Assessed(admitted, pending, "altered")
        error = (
            f"{admitted.output.shown} exists and was not made by this program; "
            "move it away, or use --overwrite."
        )
        return Assessed(admitted, replace(pending, state="failed", error=error), "refused")
    made = Made.said_by(provenance)
    if made.fingerprint == admitted.fingerprint:
        # Published, perhaps, and not recorded: the disk refused, or the ledger lost its commits.
        found = entry_of_file(admitted, made)
        if found is not None:
            return Assessed(admitted, replace(found, task=pending.task), "unchanged")
    return Assessed(admitted, pending, "changed", made)


def _was_left_alone(known: Entry) -> bool:
    """Whether no worker ever had the task: what lies under its name was there before."""
    return known.state == "failed" and known.worker is None


def _without_file(admitted: Admitted, known: Entry | None) -> Standing:
    if known is None:
        return "new"
    if known.state == "done":
        return "missing"
    return "failed" if known.state in FAILURES else "new"


def _provenance(file: Path) -> dict[str, Any] | None:
    """What a file says of its own making; None if it is none of ours, or not there."""
    try:
        return read_provenance(file)
    except ValueError:
        return None


def entry_of_file(admitted: Admitted, made: Made) -> Entry | None:
    """The entry of the result that lies under a task's name; None if it cannot be read."""
    try:
        with admitted.output.file.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            size = stream.tell()
    except OSError:
        return None
    return replace(
        entry_for(admitted, "done"),
        task=dict(made.task),
        fingerprint=made.fingerprint,
        size=size,
        sha256=sha256,
        used=dict(made.used),
    )


def _intact(admitted: Admitted, known: Entry) -> bool:
    """Whether a result is as it was recorded: by its size, and where it is small by every byte.

    Verdicts are small, and their scores go into the tables.
    """
    file = admitted.output.file
    try:
        if file.stat().st_size != known.size:
            return False
        if known.sha256 is None or not kind_of(admitted.task).small_results:
            return True
        return hashlib.sha256(file.read_bytes()).hexdigest() == known.sha256
    except OSError:
        return False


def refused(item: Rejected) -> Assessed:
    """An input that cannot run; there is nothing to compare it with."""
    entry = Entry(
        key=f"#{item.position}",  # no output path is like this: they all have a suffix
        position=item.position,
        task_id=item.task_id,
        output_path=None,
        fingerprint=None,
        state="failed",
        error=item.error,
    )
    return Assessed(item, entry, "refused")
