"""What a batch has to do: which of its tasks are done already, which are to be (re)drawn."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from core.admission import Job, Rejected
from core.batch import job_entry
from core.ledger import Entry, Ledger
from core.outputs import OutputRoot
from core.provenance import read_provenance
from core.tasks import Result


@dataclass(frozen=True)
class Plan:
    """`jobs` to run, and results that are settled before the start."""

    jobs: list[Job]
    settled: list[Result]


def plan_batch(
    admitted: Sequence[Job | Rejected],
    ledger: Ledger,
    root: OutputRoot,
    overwrite: bool,
    retry_quarantined: bool,
) -> Plan:
    """Compare a batch with what earlier runs left, and record it in the ledger.

    Done and unchanged is skipped; changed is redone; failed is tried again; quarantined only
    if asked. A picture that the ledger does not know is recognised by its own metadata.
    """
    for partial in ledger.open_leases():
        root.sweep(partial)
    known = ledger.entries()
    jobs: list[Job] = []
    settled: list[Result] = []
    entries: list[Entry] = []
    for item in admitted:
        if isinstance(item, Rejected):
            entry = _rejected_entry(item)
        else:
            entry = _judge(item, known.get(item.output.key), overwrite, retry_quarantined)
            if entry.state == "pending":
                jobs.append(item)
        entries.append(entry)
        if entry.state != "pending":
            settled.append(_settled_result(entry, item, root))
    ledger.begin_batch(entries)
    return Plan(jobs, settled)


def _judge(job: Job, known: Entry | None, overwrite: bool, retry_quarantined: bool) -> Entry:
    """The state in which `job` enters the batch: pending, done, quarantined or failed."""
    pending = job_entry(job, "pending")
    if overwrite:
        return pending
    if known is None:
        return _judge_unknown(job, pending)
    if known.fingerprint != job.fingerprint:
        return pending
    if known.state == "done" and _picture_intact(job, known):
        return replace(known, position=job.position, task_id=job.task_id, task=pending.task)
    if known.state == "quarantined" and not retry_quarantined:
        return replace(known, position=job.position, task_id=job.task_id)
    return pending


def _judge_unknown(job: Job, pending: Entry) -> Entry:
    """A picture without a ledger entry: ours if it says so itself, else somebody's."""
    file = job.output.file
    if not file.exists():
        return pending
    try:
        provenance = read_provenance(file)
    except ValueError:
        error = (
            f"{job.output.shown} exists and was not made by this program; "
            "move it away, or use --overwrite."
        )
        return replace(pending, state="failed", error=error)
    if provenance.get("fingerprint") != job.fingerprint:
        return pending
    used = provenance.get("used")
    size = file.stat().st_size
    return replace(pending, state="done", size=size, used=used if isinstance(used, dict) else {})


def _picture_intact(job: Job, known: Entry) -> bool:
    try:
        return job.output.file.stat().st_size == known.size
    except OSError:
        return False


def _rejected_entry(item: Rejected) -> Entry:
    return Entry(
        key=f"#{item.position}",  # no output path begins like this: paths end in .png
        position=item.position,
        task_id=item.task_id,
        output_path=None,
        fingerprint=None,
        state="failed",
        error=item.error,
    )


def _settled_result(entry: Entry, item: Job | Rejected, root: OutputRoot) -> Result:
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
