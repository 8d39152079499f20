"""The tasks of one batch on their way to one terminal record each.

Used by one thread at a time: the caller's until the batch is handed to the pool, then the
pool's. The pool asks for leases and reports what became of them; this file decides what
that means for a task (done, again, alone, quarantined, failed).
"""

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from loguru import logger

from core.engine.grouping import group_of
from core.engine.scheduler import Pending, Scheduler, Stack, Worker
from core.errors import LedgerError, StorageError
from core.events import Listener, TaskEnded, TaskStarted
from core.intake.admission import Admitted
from core.messages import Done, Failed, FailureKind, Lease, encode
from core.paths import as_text
from core.settings import SupervisionSettings
from core.store.ledger import Entry, Ledger, State
from core.store.ledger_entry import entry_for
from core.store.outputs import OutputRoot, discard, publish
from core.store.replaced import Replaced
from core.tasks import Result, Status

INTERRUPTED = "Not tried: the run was interrupted."
# Failures that another try, on another worker or with more free memory, may not repeat.
PASSING: frozenset[FailureKind] = frozenset({"out_of_memory", "device", "error"})
MOST_BYTES = 24 * 1024  # of leases that another one may follow; see `core.engine.worker_handle`


@dataclass
class _Task:
    """The fate of one job so far."""

    job: Admitted
    attempts: int = 0  # leases given
    failures: int = 0  # attempts that ended in a passing failure or a timeout
    crashes: int = 0  # attempts that took their worker with them
    kills: int = 0  # the same, by a plain SIGKILL
    alone: bool = False  # suspected: next to run with nothing else in its worker
    leases: set[str] = field(default_factory=set)  # that are out: two if it runs twice
    copied: bool = False
    avoid: set[str] = field(default_factory=set)
    result: Result | None = None


@dataclass(frozen=True)
class ActiveLease:
    """A lease that is out. `alone`: its worker must not get another beside it."""

    lease: Lease
    job: Admitted
    worker: str
    alone: bool


@dataclass(frozen=True)
class WorkerLoss:
    """Why a worker is gone. `hung`: main killed it because this lease passed its deadline."""

    reason: str
    by_sigkill: bool = False
    hung: bool = False


class Batch:
    """Jobs with their scheduler, records and retry rules.

    Args:
        settled: results known before the start (rejected inputs, pictures already there).
        open_ended: jobs may be added while it runs, until it is sealed.
        replaced: keeps results that this batch replaces; None if they need not be kept.
        number: its own in the ledger.
    """

    def __init__(
        self,
        jobs: Sequence[Admitted],
        settled: Sequence[Result],
        ledger: Ledger,
        root: OutputRoot,
        rules: SupervisionSettings,
        max_passed_over: int,
        listener: Listener,
        open_ended: bool = False,
        replaced: Replaced | None = None,
        number: int = 0,
    ) -> None:
        self._replaced = replaced
        self._number = number
        self._sealed = not open_ended
        self._tasks = {job.position: _Task(job) for job in jobs}
        self._settled = list(settled)
        self._ledger = ledger
        self._root = root
        self._rules = rules
        self._listener = listener
        self._scheduler = Scheduler(map(_pending, self._tasks.values()), max_passed_over)
        self._active: dict[str, ActiveLease] = {}
        self._abandoned: dict[str, Path] = {}
        self._unsettled = len(jobs)
        self._leasing = True
        self._closed_as: tuple[Status, str] = ("interrupted", INTERRUPTED)
        self._finished = threading.Event()
        self.storage_error: StorageError | LedgerError | None = None
        self._finish_if_complete()

    @property
    def finished(self) -> bool:
        return self._finished.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until every task has its record; False after `timeout` seconds."""
        return self._finished.wait(timeout)

    def results(self) -> list[Result]:
        """One record per input, in input order; call it on a finished batch."""
        ran = [t.result for t in self._tasks.values() if t.result is not None]
        return sorted([*self._settled, *ran], key=lambda r: r.position)

    def undecided(self) -> list[Admitted]:
        """Jobs of a finished batch that were closed with it, and not by what became of them."""
        results = [t.result for t in self._tasks.values()]
        return [self._tasks[r.position].job for r in results if r is not None and r.worker is None]

    def add(self, job: Admitted) -> None:
        """One job more, while the batch is open."""
        task = self._tasks[job.position] = _Task(job)
        self._unsettled += 1
        if self._leasing:
            self._scheduler.add(_pending(task))
        else:
            self._close(task, self._closed_as[0], None, self._closed_as[1])

    @property
    def keeps_results(self) -> bool:
        """Some of its inputs have results of earlier runs, which stay."""
        return any(result.success for result in self._settled)

    def remake(self, remade: Callable[[Admitted], Admitted]) -> None:
        """Change jobs that nobody has begun, all in one way that leaves their work as it is."""
        for task in self._tasks.values():
            if task.attempts == 0:
                task.job = remade(task.job)

    def seal(self) -> None:
        """No more jobs will come."""
        self._sealed = True
        self._settle_waiting_if_drained()
        self._finish_if_complete()

    # -- leases ------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Tasks that wait for a lease."""
        return len(self._scheduler)

    def next_leases(self, worker: Worker, most: int) -> list[ActiveLease]:
        """Up to `most` attempts that may run together; a suspect comes alone."""
        first = self.next_lease(worker)
        if first is None:
            return []
        if most == 1:
            return [first]
        group, size = [first], len(encode(first.lease))
        while len(group) < most and not first.alone and size < MOST_BYTES:
            active = self.next_lease(worker, beside=first.job)
            if active is None:
                break
            group.append(active)
            size += len(encode(active.lease))
        return group

    def next_lease(self, worker: Worker, beside: Admitted | None = None) -> ActiveLease | None:
        """The next attempt for `worker`, recorded; None if it has to wait or nothing is left.

        Args:
            beside: with which it has to run together.
        """
        while self._leasing and not self.finished:
            if beside is None:
                pending = self._scheduler.take(worker)
            else:
                first = _pending(self._tasks[beside.position])
                pending = self._scheduler.take_with(first, worker)
            if pending is None:
                return None
            task = self._tasks[pending.position]
            try:
                return self._give(task, worker.name)
            except (StorageError, LedgerError) as error:
                self._disk_refused(task, error, worker.name)
        return None

    def copy(self, lease_id: str, worker: str) -> ActiveLease | None:
        """A second lease for the task of one that is out; whichever is done first counts.

        Once per task, and only while it did nobody harm: a suspect would do it twice.
        """
        first = self._active.get(lease_id)
        if first is None or not self._leasing or not self._sealed:
            return None
        task = self._tasks[first.job.position]
        if task.copied or task.alone or task.failures or task.crashes or task.kills:
            return None
        task.copied = True
        with contextlib.suppress(StorageError, LedgerError):  # the first run will meet it, too
            return self._give(task, worker)
        return None

    def _give(self, task: _Task, worker: str) -> ActiveLease:
        lease_id = uuid4().hex[:16]
        job = task.job
        partial = self._root.partial(job.output, lease_id)
        # Relative, so that a folder may be moved between runs.
        name = as_text(os.path.relpath(partial, self._root.folder))
        self._ledger.lease(lease_id, job.output.key, task.attempts + 1, worker, name)
        task.attempts += 1
        lease = Lease(
            lease_id,
            task.attempts,
            job.task,
            job.lora_sha256,
            job.fingerprint,
            str(partial),
            job.contents.pictures,
            loras_sha256=job.contents.loras,
        )
        active = ActiveLease(lease, job, worker, task.alone)
        self._active[lease_id] = active
        task.leases.add(lease_id)
        self._listener(TaskStarted(job.task_id, worker))
        return active

    # -- what became of them -----------------------------------------------

    def done(self, message: Done) -> None:
        """A picture is complete: give it its name, then record it, then say so."""
        active = self._end(message.lease_id)
        if active is None:
            return
        task = self._tasks[active.job.position]
        partial = Path(active.lease.partial_path)
        try:
            if self._replaced is not None:
                self._replaced.publish(partial, active.job.output, message.size)
            else:
                publish(partial, active.job.output.file, message.size)
            entry = self._entry(
                task,
                "done",
                worker=active.worker,
                elapsed=message.elapsed,
                size=message.size,
                sha256=message.sha256,
                used=message.used,
            )
            self._ledger.end_lease(message.lease_id, "done", entry, self._number)
        except (StorageError, LedgerError) as error:
            discard(partial)
            if not self._runs_elsewhere(task, active, "storage"):
                self._disk_refused(task, error, active.worker, message.lease_id)
            return
        self._settle(task, "done", active.worker, elapsed=message.elapsed)

    def failed(self, message: Failed) -> None:
        """An attempt ended in an error that its worker reported."""
        active = self._end(message.lease_id)
        if active is None:
            return
        task = self._tasks[active.job.position]
        discard(Path(active.lease.partial_path))
        if self._runs_elsewhere(task, active, message.kind):
            return
        if message.kind == "storage":
            error = StorageError(message.error, fatal=True)
            self._disk_refused(task, error, active.worker, message.lease_id)
        elif message.kind in PASSING:
            self._again_or_fail(task, active, message.kind, message.error, message.elapsed)
        else:
            self._fail(task, active, message.kind, message.error, message.elapsed)

    def worker_lost(self, lease_id: str, loss: WorkerLoss, blamed: bool) -> None:
        """The worker of a lease is gone.

        Args:
            blamed: the task may be why: it was running, or its picture was being saved.
                Otherwise it goes again without a mark. Who is to blame among several shows when
                each has run alone; before, nobody is quarantined.
        """
        active = self._end(lease_id)
        if active is None:
            return
        task = self._tasks[active.job.position]
        discard(Path(active.lease.partial_path))
        crashed = blamed and not loss.hung
        task.kills += crashed and loss.by_sigkill
        task.crashes += crashed and not loss.by_sigkill
        if self._runs_elsewhere(task, active, "crash" if crashed else "released"):
            return
        if not blamed:
            self._requeue(task, active, "released")
        elif loss.hung:
            self._again_or_fail(task, active, "hung", loss.reason)
        else:
            self._again_alone_or_quarantined(task, active, loss)

    def _runs_elsewhere(self, task: _Task, ended: ActiveLease, outcome: str) -> bool:
        """The copy of a task whose run ended badly decides about it."""
        if not task.leases:
            return False
        if outcome != "released":
            task.avoid.add(ended.worker)
        self._end_lease_alone(ended.lease.lease_id, outcome)
        return True

    def _end_lease_alone(self, lease_id: str, outcome: str) -> None:
        with contextlib.suppress(StorageError, LedgerError):  # an open lease does no harm
            self._ledger.end_lease_alone(lease_id, outcome)

    def _again_alone_or_quarantined(
        self, task: _Task, active: ActiveLease, loss: WorkerLoss
    ) -> None:
        if active.alone:
            error = (
                f"It took its worker with it {task.crashes + task.kills} times, the last time "
                f"alone ({loss.reason}). Run again with --retry-quarantined to try it once more."
            )
            self._fail(task, active, "crash", error, state="quarantined")
            return
        task.alone = (
            task.crashes >= self._rules.crashes_before_quarantine
            or task.kills >= self._rules.kills_before_quarantine
        )
        self._requeue(task, active, f"crash: {loss.reason}")

    def _again_or_fail(
        self, task: _Task, active: ActiveLease, outcome: str, error: str, elapsed: float = 0.0
    ) -> None:
        task.failures += 1
        if task.failures >= self._rules.max_attempts:
            tries = f" (after {task.failures} attempts)" if task.failures > 1 else ""
            self._fail(task, active, outcome, error + tries, elapsed)
        else:
            logger.warning(f"{task.job.task_id}: {error}; it goes to the back of the queue")
            self._requeue(task, active, outcome)

    def _requeue(self, task: _Task, active: ActiveLease, outcome: str) -> None:
        if outcome != "released":
            task.avoid.add(active.worker)
        try:
            entry = self._entry(task, "pending")
            self._ledger.end_lease(active.lease.lease_id, outcome, entry, self._number)
        except (StorageError, LedgerError) as error:
            self._disk_refused(task, error, active.worker)
            return
        self._scheduler.add(_pending(task))
        self._settle_waiting_if_drained()

    def _fail(
        self,
        task: _Task,
        active: ActiveLease,
        outcome: str,
        error: str,
        elapsed: float = 0.0,
        state: State = "failed",
    ) -> None:
        try:
            entry = self._entry(task, state, worker=active.worker, error=error, elapsed=elapsed)
            self._ledger.end_lease(active.lease.lease_id, outcome, entry, self._number)
        except (StorageError, LedgerError) as refused:
            self._disk_refused(task, refused, active.worker)
            return
        status: Status = "quarantined" if state == "quarantined" else "failed"
        self._settle(task, status, active.worker, error, elapsed)

    def _disk_refused(
        self,
        task: _Task,
        error: StorageError | LedgerError,
        worker: str,
        lease_id: str | None = None,
    ) -> None:
        """One picture cannot be kept. If none can, drawing more would only waste the devices."""
        try:
            entry = self._entry(task, "failed", worker=worker, error=str(error))
            if lease_id is None:
                self._ledger.set_state(entry, self._number)
            else:
                self._ledger.end_lease(lease_id, "storage", entry, self._number)
        except (StorageError, LedgerError):
            pass  # the result below says it; the open lease makes the next run try again
        self._settle(task, "failed", worker, str(error))
        if isinstance(error, LedgerError) or error.fatal:
            self.storage_error = error
            self.abandon("failed", f"Not tried: the output folder cannot be written ({error})")

    # -- the end -----------------------------------------------------------

    def stop_leasing(self) -> None:
        """Let what runs finish and give out nothing more."""
        self._leasing = False
        self._settle_waiting_if_drained()

    def abandon(self, status: Status, reason: str, brief: str | None = None) -> None:
        """Close every open task now; pictures that still arrive are thrown away.

        The ledger keeps these tasks as they are, so that a resumed run tries them.

        Args:
            brief: the reason for the log, if that has the whole already.
        """
        self._leasing, self._sealed = False, True
        self._closed_as = (status, reason)
        for active in self._active.values():
            self._abandoned[active.lease.lease_id] = Path(active.lease.partial_path)
            self._tasks[active.job.position].leases.clear()
        self._active.clear()
        still_open = [task for task in self._tasks.values() if task.result is None]
        if still_open:
            left = f"{len(still_open)} task{'s' * (len(still_open) > 1)} left"
            level = "ERROR" if status == "failed" and brief is None else "WARNING"
            logger.log(level, f"Stopped with {left}. {brief or reason}")
        for task in still_open:
            self._close(task, status, None, reason)
        self._finish_if_complete()

    def sweep(self) -> None:
        """Remove partial files of leases that nobody works on any more."""
        for partial in self._abandoned.values():
            discard(partial)
        self._abandoned.clear()

    def _end(self, lease_id: str) -> ActiveLease | None:
        abandoned = self._abandoned.pop(lease_id, None)
        if abandoned is not None:
            discard(abandoned)
        active = self._active.pop(lease_id, None)
        if active is not None:
            self._tasks[active.job.position].leases.discard(lease_id)
        return active

    def _settle(
        self,
        task: _Task,
        status: Status,
        worker: str | None,
        error: str | None = None,
        elapsed: float = 0.0,
    ) -> None:
        self._close(task, status, worker, error, elapsed)
        self._settle_waiting_if_drained()
        self._finish_if_complete()

    def _close(
        self,
        task: _Task,
        status: Status,
        worker: str | None,
        error: str | None = None,
        elapsed: float = 0.0,
    ) -> None:
        job = task.job
        task.result = Result(
            position=job.position,
            task_id=job.task_id,
            status=status,
            output_path=str(job.output.file) if status == "done" else None,
            elapsed=elapsed,
            error=error,
            worker=worker,
            attempts=task.attempts,
            seed=job.task.seed,
        )
        self._unsettled -= 1
        for lease_id in task.leases:  # a copy that comes too late
            late = self._active.pop(lease_id)
            self._abandoned[lease_id] = Path(late.lease.partial_path)
            self._end_lease_alone(lease_id, "superseded")
        task.leases.clear()
        self._listener(TaskEnded(task.result))

    def _settle_waiting_if_drained(self) -> None:
        if not self._leasing and not self._active and self._unsettled:
            self.abandon("interrupted", INTERRUPTED)

    def _finish_if_complete(self) -> None:
        if self._unsettled == 0 and self._sealed:
            self._finished.set()

    def _entry(self, task: _Task, state: State, **fields: object) -> Entry:
        return entry_for(task.job, state, **fields)


def _stack_of(job: Admitted) -> Stack:
    return next(iter(job.loads)) if len(job.loads) == 1 else job.loads or None


def _pending(task: _Task) -> Pending:
    retry = task.failures + task.crashes + task.kills
    return Pending(
        position=task.job.position,
        work=task.job.work,
        lora=_stack_of(task.job),
        retry=retry,
        avoid=frozenset(task.avoid),
        # What failed in company tries alone: one bad task must not fail the others with it.
        group=None if retry else group_of(task.job),
        suspect=task.alone,
    )
