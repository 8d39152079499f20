"""What a batch has to do: which of its tasks are done already, which are to be (re)drawn."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.admission import Job, Rejected
from core.batch import job_entry
from core.ledger import Entry, Ledger
from core.outputs import OutputRoot
from core.provenance import read_provenance
from core.tasks import Result


@dataclass(frozen=True)
class Plan:
    """`jobs` to run, and results that are settled before the start.

    Attributes:
        batch: its number in the ledger.
        keys: of all its tasks that have an output.
        renews: some of them were done before.
    """

    jobs: list[Job]
    settled: list[Result]
    batch: int
    keys: list[str]
    renews: bool


class Planner:
    """Compares what is asked for with what earlier runs left, and records it in the ledger.

    Done and unchanged is skipped; changed is redone; failed is tried again; quarantined only
    if asked. A result that the ledger does not know is recognised by what it says of itself.
    """

    def __init__(
        self, ledger: Ledger, root: OutputRoot, overwrite: bool, retry_quarantined: bool
    ) -> None:
        self._ledger = ledger
        self._root = root
        self._overwrite = overwrite
        self._retry_quarantined = retry_quarantined

    def begin(self, admitted: Sequence[Job | Rejected]) -> Plan:
        """Plan a new batch; what a dead run left unfinished is swept."""
        for partial in self._ledger.open_leases():
            self._root.sweep(partial)
        keys = [item.output.key for item in admitted if isinstance(item, Job)]
        known = self._ledger.entries_of(keys)
        jobs: list[Job] = []
        settled: list[Result] = []
        entries: list[Entry] = []
        for item in admitted:
            entry = self._entry(item, known)
            entries.append(entry)
            if entry.state == "pending" and isinstance(item, Job):
                jobs.append(item)
            else:
                settled.append(_settled_result(entry, item))
        batch = self._ledger.begin_batch(entries)
        renews = any(entry.state == "done" for entry in known.values())
        return Plan(jobs, settled, batch, keys, renews)

    def add(self, item: Job | Rejected) -> Job | Result:
        """Plan one input more of the batch that was begun last."""
        keys = [item.output.key] if isinstance(item, Job) else []
        entry = self._entry(item, self._ledger.entries_of(keys))
        self._ledger.set_state(entry)
        if entry.state == "pending" and isinstance(item, Job):
            return item
        return _settled_result(entry, item)

    def _entry(self, item: Job | Rejected, known: Mapping[str, Entry]) -> Entry:
        if isinstance(item, Rejected):
            return _rejected_entry(item)
        before = known.get(item.output.key)
        return _judge(item, before, self._overwrite, self._retry_quarantined)


def _judge(job: Job, known: Entry | None, overwrite: bool, retry_quarantined: bool) -> Entry:
    """The state in which `job` enters the batch: pending, done, quarantined or failed."""
    pending = job_entry(job, "pending")
    if overwrite:
        return pending
    if known is None:
        return _judge_unknown(job, pending)
    if known.fingerprint == job.fingerprint:
        if known.state == "done" and _intact(job, known):
            return replace(known, position=job.position, task_id=job.task_id, task=pending.task)
        if known.state == "quarantined" and not retry_quarantined:
            return replace(known, position=job.position, task_id=job.task_id)
    # Published, perhaps, and not recorded: the disk refused, or the ledger lost its last commits.
    return _recognised(job, pending, _provenance(job.output.file))


def _judge_unknown(job: Job, pending: Entry) -> Entry:
    """A file without a ledger entry: ours if it says so itself, else somebody's."""
    file = job.output.file
    if not file.exists():
        return pending
    provenance = _provenance(file)
    if provenance is None:
        error = (
            f"{job.output.shown} exists and was not made by this program; "
            "move it away, or use --overwrite."
        )
        return replace(pending, state="failed", error=error)
    return _recognised(job, pending, provenance)


def _provenance(file: Path) -> dict[str, Any] | None:
    """What a file says of its own making; None if it is none of ours, or not there."""
    try:
        return read_provenance(file)
    except ValueError:
        return None


def _recognised(job: Job, pending: Entry, provenance: Mapping[str, Any] | None) -> Entry:
    """Done, if the file that is there says of itself that it is this job's result."""
    if provenance is None or provenance.get("fingerprint") != job.fingerprint:
        return pending
    used = provenance.get("used")
    try:
        with job.output.file.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            size = stream.tell()
    except OSError:
        return pending
    used = used if isinstance(used, dict) else {}
    return replace(pending, state="done", size=size, sha256=sha256, used=used)


def _intact(job: Job, known: Entry) -> bool:
    try:
        return job.output.file.stat().st_size == known.size
    except OSError:
        return False


def _rejected_entry(item: Rejected) -> Entry:
    return Entry(
        key=f"#{item.position}",  # no output path is like this: they all have a suffix
        position=item.position,
        task_id=item.task_id,
        output_path=None,
        fingerprint=None,
        state="failed",
        error=item.error,
    )


def _settled_result(entry: Entry, item: Job | Rejected) -> Result:
    done = entry.state == "done"
    return Result(
        position=entry.position,
        task_id=entry.task_id,
        status="skipped" if done else "quarantined" if entry.state == "quarantined" else "failed",
        output_path=str(item.output.file) if done and isinstance(item, Job) else None,
        elapsed=entry.elapsed,
        error=entry.error,
        worker=entry.worker,
        seed=item.task.seed if isinstance(item, Job) else None,
    )
