"""The records of one output folder, made by a thread of their own: no disk delays a device.

What it does for an attempt is the folder's side of a task's life: a lease is recorded before it
is sent; a finished result gets its name, and then its record; what an attempt left behind goes.
"""

import os
import queue
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from loguru import logger

from core.errors import LedgerError, StorageError, one_line
from core.messages import Done
from core.store.attempt import Attempt, Ending, Refusal
from core.store.claims import BatchClaims
from core.store.ledger import Ledger
from core.store.ledger_entry import Entry, Recordable, State, entry_for, result_of
from core.store.outputs import (
    OutputRoot,
    answers_of,
    discard,
    discard_previews,
    partial_of,
    publish,
    sync_names,
)
from core.store.replaced import Replaced
from core.store.results_table import ResultsTable
from core.tasks import Result, ScoreTask, Status

Then = Callable[[Refusal | None], None]
MOST_AT_ONCE = 64  # leases, or results, in one commit
CLOSED = "The record of this output folder is closed."


@dataclass(frozen=True)
class _Batch:
    """What becomes of a batch's results beside their record."""

    replaced: Replaced | None
    claims: BatchClaims | None


@dataclass(frozen=True)
class _Begin:
    """A lease to be recorded. Several that wait are recorded in one commit."""

    attempt: Attempt
    then: Then


@dataclass(frozen=True)
class _Keep:
    """A result to be kept. Several that wait one behind the other are recorded in one commit."""

    attempt: Attempt
    done: Done
    then: Then


@dataclass(frozen=True)
class _Act:
    """Any other request; it raises what the disk refuses."""

    do: Callable[[], None]
    then: Then


_Acts = deque[_Keep | _Act | None]
"""What waits beside leases; None: the end."""


class FolderRecorder:
    """Records attempts of several batches in one folder; `core.engine.recorder` says how.

    Leases come first, as a device waits for each; everything else is done in the order in which it
    was asked for. What waits together shares a commit and a sync, which cost most of what a record
    costs. The thread starts with the first request, and lives until `close`.

    Args:
        table: gets a line as a task gets its record; None where there is none.
    """

    def __init__(self, ledger: Ledger, root: OutputRoot, table: ResultsTable | None = None) -> None:
        self._ledger = ledger
        self._root = root
        self._table = table
        self._batches: dict[int, _Batch] = {}
        self._requests: queue.SimpleQueue[_Begin | _Keep | _Act | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._broken: LedgerError | None = None
        # Nothing may be asked for behind the last request. A signal handler may close it.
        self._asking = threading.RLock()

    # -- batches -----------------------------------------------------------

    def begin_batch(
        self, batch: int, replaced: Replaced | None = None, claims: BatchClaims | None = None
    ) -> None:
        """Get to know a batch, before any attempt of it.

        Args:
            replaced: keeps what its results replace; None if that is not to be kept.
            claims: on its outputs; each is given up as its task gets its record.
        """
        self._batches[batch] = _Batch(replaced, claims)

    def end_batch(self, batch: int) -> None:
        """Forget a batch that has ended; its outputs are free at once.

        Attempts of it that are still out decide nothing any more.
        """
        known = self._batches.get(batch)
        if known is not None and known.claims is not None:
            known.claims.release_all()
        self._ask(_Act(partial(self._forget, batch), _ignore))

    def _forget(self, batch: int) -> None:
        self._batches.pop(batch, None)
        self._ledger.end_batch(batch)

    # -- attempts ----------------------------------------------------------

    def partial_path(self, admitted: Recordable, lease_id: str) -> str:
        """The file to which the attempt of a lease writes; made without a look at the disk."""
        return partial_of(admitted.output, lease_id)

    def begin(self, attempt: Attempt, then: Then) -> None:
        """Record a lease and make its folder; it may be sent to the worker afterwards."""
        self._ask(_Begin(attempt, then))

    def keep(self, attempt: Attempt, done: Done, then: Then) -> None:
        """Give a finished result its name, and record it; a refused one is removed."""
        self._ask(_Keep(attempt, done, then))

    def end(self, attempt: Attempt, ending: Ending, then: Then) -> None:
        """Remove what an attempt left, close its lease and record what became of its task."""
        self._ask(_Act(partial(self._end, attempt, ending), then))

    def end_lease_alone(self, attempt: Attempt, cause: str) -> None:
        """Remove what an attempt left, and close its lease; another one decides about its task."""

        def end() -> None:
            _discard(attempt)
            self._ledger.end_lease_alone(attempt.lease_id, cause)

        self._ask(_Act(end, _ignore))  # refused, it stays open, which does no harm

    def fail(self, attempt: Attempt, error: str) -> None:
        """Record that a task failed because the disk refused; itself refused, it is let be."""
        self._ask(_Act(partial(self._fail, attempt, error), _ignore))

    def discard(self, attempt: Attempt) -> None:
        """Remove what an attempt left, and keep its lease open: the next run tries its task."""
        self._ask(_Act(partial(_discard, attempt), _ignore))

    def call(self, do: Callable[[], None], then: Then) -> None:
        """Do anything else that belongs behind what was asked for before."""
        self._ask(_Act(do, then))

    def close(self) -> None:
        """Do everything that was asked for, and end the thread; later requests are refused."""
        with self._asking:
            if not self._closed:
                self._closed = True
                self._requests.put(None)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    # -- the thread --------------------------------------------------------

    def _ask(self, request: _Begin | _Keep | _Act) -> None:
        with self._asking:
            if not self._closed:
                self._requests.put(request)
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._serve, name="recorder", daemon=True
                    )
                    self._thread.start()
                return
        _answer(request.then, LedgerError(CLOSED))

    def _serve(self) -> None:
        acts: _Acts = deque()
        while True:
            self._begin_all(self._waiting_begins(acts))
            if keeps := _keeps_first_in(acts):
                self._keep_all(keeps, acts)
            elif acts:
                act = acts.popleft()
                if not isinstance(act, _Act):
                    return
                _answer(act.then, self._refusal_of(act.do))

    def _waiting_begins(self, acts: _Acts, wait: bool = True) -> list[_Begin]:
        """Leases that were asked for by now; what else was, goes to `acts`.

        Args:
            wait: for the first request, where there is nothing to do.
        """
        begins: list[_Begin] = []
        with suppress(queue.Empty):
            while len(begins) < MOST_AT_ONCE:
                request = self._requests.get(block=wait and not (acts or begins))
                if isinstance(request, _Begin):
                    begins.append(request)
                else:
                    acts.append(request)
        return begins

    def _refusal_of(self, do: Callable[[], None]) -> Refusal | None:
        """Do what was asked for; returns why it could not be done, if it could not.

        After an error that is no answer of a disk nobody knows what is recorded and what is not:
        from then on everything is refused.
        """
        if self._broken is not None:
            return self._broken
        try:
            do()
        except (StorageError, LedgerError) as refusal:
            return refusal
        except BaseException as error:
            logger.exception("The recorder broke down.")
            what = one_line(f"{type(error).__name__}: {error}")
            self._broken = LedgerError(
                f"What becomes of tasks in {self._root.folder} can no longer be recorded ({what}). "
                "Run again: what is finished is not drawn again."
            )
            return self._broken
        return None

    def _begin_all(self, begins: Sequence[_Begin]) -> None:
        """Record leases in one commit; if that is refused, each in its own."""
        if len(begins) > 1 and self._refusal_of(partial(self._lease, begins)) is None:
            for begin in begins:
                _answer(begin.then, None)
        else:
            for begin in begins:
                _answer(begin.then, self._refusal_of(partial(self._lease, [begin])))

    def _keep_all(self, keeps: Sequence[_Keep], acts: _Acts) -> None:
        """Give results their names, and record them in one commit; if refused, each in its own.

        Leases still come between them. Results that are asked for meanwhile wait for the next
        commit, so that the first of these does not wait for one after the other.
        """
        named: list[_Keep] = []
        for keep in keeps:
            refusal = self._refusal_of(partial(self._name, keep))
            discard_previews(keep.attempt.partial_path, keep.attempt.previews)
            if refusal is None:
                named.append(keep)
            else:
                _answer(keep.then, refusal)
            self._begin_all(self._waiting_begins(acts, wait=False))
        if len(named) > 1 and self._refusal_of(partial(self._record_done, named)) is None:
            for keep in named:
                _answer(keep.then, None)
        else:
            for keep in named:
                _answer(keep.then, self._refusal_of(partial(self._record_done, [keep])))

    # -- what is done ------------------------------------------------------

    def _lease(self, begins: Sequence[_Begin]) -> None:
        for folder in {os.path.dirname(begin.attempt.partial_path) for begin in begins}:
            self._root.prepare(folder)
        self._ledger.lease_all(
            (a.lease_id, a.admitted.output.key, a.number, a.worker, self._root.relative(file))
            for a, file in ((b.attempt, b.attempt.partial_path) for b in begins)
        )
        for attempt in (begin.attempt for begin in begins):
            if attempt.number == 1 and self._keeps_nothing(attempt.batch):
                _discard_answers(attempt)

    def _keeps_nothing(self, batch: int) -> bool:
        """Whether all is done anew in a batch, as though nothing had been there."""
        known = self._batches.get(batch)
        return known is not None and known.replaced is None

    def _name(self, keep: _Keep) -> None:
        """Give a result its name, which is durable when its folder is synced."""
        attempt, size = keep.attempt, keep.done.size
        batch = self._batches.get(attempt.batch)
        file, output = attempt.partial_path, attempt.admitted.output
        try:
            if batch is None:
                raise LedgerError(f"Batch {attempt.batch} of {self._root.folder} has ended.")
            if batch.replaced is not None:
                batch.replaced.publish(file, output, size, sync=False)
            else:
                publish(file, output.path, size, sync=False)
        except (StorageError, LedgerError):
            discard(file)
            raise

    def _record_done(self, keeps: Sequence[_Keep]) -> None:
        for folder in {os.path.dirname(keep.attempt.partial_path) for keep in keeps}:
            sync_names(folder)
        ends = [(keep.attempt, entry_of(keep.attempt, keep.done)) for keep in keeps]
        self._ledger.end_all((a.lease_id, "done", entry, a.batch) for a, entry in ends)
        for attempt, _ in ends:
            _discard_answers(attempt)
        self._tell("done", ends)

    def _end(self, attempt: Attempt, ending: Ending) -> None:
        _discard(attempt)
        if ending.outcome == "again":
            self._record(attempt, ending.cause, entry_for(attempt.admitted, "pending"))
        else:
            self._end_task(
                attempt, ending.cause, ending.outcome, ending.error, ending.elapsed, ending.blame
            )

    def _fail(self, attempt: Attempt, error: str) -> None:
        _discard(attempt)
        self._end_task(attempt, "storage", "failed", error, blame="storage")

    def _end_task(
        self,
        attempt: Attempt,
        cause: str,
        state: State,
        error: str | None,
        elapsed: float = 0.0,
        blame: str | None = None,
    ) -> None:
        entry = entry_for(
            attempt.admitted, state, worker=attempt.worker, error=error, elapsed=elapsed
        )
        self._record(attempt, cause, entry)
        status: Status = "quarantined" if state == "quarantined" else "failed"
        self._tell(status, [(attempt, entry)], blame)

    def _record(self, attempt: Attempt, cause: str, entry: Entry) -> None:
        """Close a lease; an attempt that outlives its batch decides nothing about its task."""
        if attempt.batch in self._batches:
            self._ledger.end_lease(attempt.lease_id, cause, entry, attempt.batch)
        else:
            self._ledger.end_lease_alone(attempt.lease_id, cause)

    def _tell(
        self, status: Status, ends: Sequence[tuple[Attempt, Entry]], cause: str | None = None
    ) -> None:
        """Tasks have their records: their outputs are free, and their lines are due."""
        results: dict[int, list[Result]] = defaultdict(list)
        for attempt, entry in ends:
            task, tried = attempt.admitted, attempt.number
            batch = self._batches.get(attempt.batch)
            if batch is not None and batch.claims is not None:
                batch.claims.release(task.output.key)
            results[attempt.batch].append(
                result_of(task, status, entry.worker, entry.error, entry.elapsed, tried, cause)
            )
        if self._table is not None:
            for number, some in results.items():
                self._table.add(number, some)


def entry_of(attempt: Attempt, done: Done) -> Entry:
    """What the ledger keeps of an attempt that has its result."""
    return entry_for(
        attempt.admitted,
        "done",
        worker=attempt.worker,
        elapsed=done.elapsed,
        size=done.size,
        sha256=done.sha256,
        used=done.used,
    )


def _keeps_first_in(acts: _Acts) -> list[_Keep]:
    """Remove the results to be kept that come before anything else."""
    keeps: list[_Keep] = []
    while acts and len(keeps) < MOST_AT_ONCE and isinstance(keep := acts[0], _Keep):
        keeps.append(keep)
        acts.popleft()
    return keeps


def _discard(attempt: Attempt) -> None:
    """Remove what an attempt left: its unfinished file, and its previews."""
    discard(attempt.partial_path)
    discard_previews(attempt.partial_path, attempt.previews)


def _discard_answers(attempt: Attempt) -> None:
    """Remove what a judge's server has answered about an edit, where one may have been asked."""
    task = attempt.admitted.task
    if isinstance(task, ScoreTask):
        discard(answers_of(attempt.partial_path, task))


def _answer(then: Then, refusal: Refusal | None) -> None:
    """An answer that raises must not take the answers of others with it."""
    try:
        then(refusal)
    except Exception:
        logger.exception("An answer of the recorder was not taken.")


def _ignore(refusal: Refusal | None) -> None:
    """Ignore a refusal: what was asked for does no harm by being left undone."""
