"""What becomes of the tasks that a daemon has: their leases, their results, their ends.

A lease is recorded when the daemon begins a task; its result is fetched, written where a worker
would have written it, and recorded.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from core.engine.attempts import WorkerLoss
from core.engine.job import CANCELLED
from core.engine.job_run import JobRun
from core.engine.task_state import ActiveAttempt, TaskState
from core.events import TaskProgress
from core.messages import Done, Failed, Lease
from core.remote.helpers import Helpers
from core.remote.portion import Patience, Portion, SentTask, ServerGone
from core.remote.server import Server, ServerRefusal
from core.store.outputs import FATAL_ERRNOS
from core.store.relabel import OtherResult, relabelled

Outcome = Literal["failed", "quarantined"]


class SentTasks:
    """Decides about tasks by what a daemon says of them. Called from the engine's thread alone.

    Args:
        helpers: fetch results.
        hand_over: has something done in the engine's thread.
        again: has a task wait to be sent once more.
        over: told of a portion of which no task is open any more.
    """

    def __init__(
        self,
        server: Server,
        patience: Patience,
        helpers: Helpers,
        hand_over: Callable[[Callable[[], None]], None],
        again: Callable[[JobRun, TaskState], None],
        over: Callable[[Portion], None],
    ) -> None:
        self._server = server
        self._patience = patience
        self._helpers = helpers
        self._hand_over = hand_over
        self._again = again
        self._over = over

    # -- what the daemon says --------------------------------------------------------

    def step(self, portion: Portion, told: Mapping[str, Any]) -> None:
        """A worker has a task, or tells of its steps."""
        sent = next((s for s in portion.tasks if s.name == told["task_id"]), None)
        if sent is None or sent.over or sent.view is not None:
            return
        active = self._begin(portion, sent, str(told["worker"]))
        if active is not None and told["step"]:
            admitted, run = sent.task.admitted, portion.run
            event = TaskProgress(
                admitted.task_id,
                active.attempt.worker,
                int(told["step"]),
                int(told["steps"]),
                job=run.number,
            )
            run.tell(event)

    def _begin(self, portion: Portion, sent: SentTask, worker: str) -> ActiveAttempt | None:
        """The attempt at a task, begun now if need be; None for a task that has its result."""
        run = portion.run
        if sent.active is None and run.has(sent.task) and run.job.closed_as is None:
            # The answer may come before `begin` returns, where the recorder's thread is fast.
            sent.active = run.attempts.begin(
                sent.task, worker, lambda _, recorded: self._begun(portion, sent, recorded)
            )
        elif sent.active is not None and sent.active.attempt.worker != worker:
            # The daemon tries it again, on another worker.
            sent.active.attempt = replace(sent.active.attempt, worker=worker)
        return sent.active

    def _begun(self, portion: Portion, sent: SentTask, recorded: bool) -> None:
        if not recorded:
            self._is_over(portion, sent)
            return
        sent.begun = True
        if sent.view is not None:
            self._take_in(portion, sent)

    def result(self, portion: Portion, view: Mapping[str, Any]) -> None:
        """A task has its result, as `/v1/jobs` gives it."""
        sent = portion.tasks[int(view["position"])]
        if sent.over or sent.view is not None:
            return
        sent.view = view
        run, worker = portion.run, view["worker"]
        if not run.has(sent.task):
            self._is_over(portion, sent)
        elif view["status"] == "cancelled":
            self._cancelled(portion, sent)
        elif worker is None and sent.active is None:
            self._is_over(portion, sent)
            run.refuse_task(sent.task, "failed", str(view["error"]), view["cause"])
        else:
            if worker is None and sent.active is not None:
                worker = sent.active.attempt.worker
            self._begin(portion, sent, str(worker))
            self._count(sent, max(1, int(view["attempts"])))
            if sent.begun:
                self._take_in(portion, sent)

    def _count(self, sent: SentTask, attempts: int) -> None:
        """Note how often the daemon tried a task."""
        sent.task.attempts = attempts
        if sent.active is not None:
            sent.active.attempt = replace(sent.active.attempt, number=attempts)

    def _cancelled(self, portion: Portion, sent: SentTask) -> None:
        """A task was not begun any more, or came to nothing while its job was being ended."""
        if portion.run.job.ends_as is None:
            portion.run.stop(CANCELLED)  # somebody cancelled it at the daemon
        self._let_go(portion, sent, "it was not tried to the end")

    def _let_go(self, portion: Portion, sent: SentTask, why: str) -> None:
        """A task is to be tried again, unless its job ends."""
        self._is_over(portion, sent)
        run = portion.run
        if sent.active is not None:
            run.attempts.lost(sent.active, WorkerLoss(why), blamed=False)
        elif run.has(sent.task) and run.job.ends_as is None:
            self._again(run, sent.task)

    def _take_in(self, portion: Portion, sent: SentTask) -> None:
        """Do what is to be done with a result, now that its lease is recorded."""
        active, view = sent.active, sent.view
        assert active is not None and view is not None
        if view["success"]:
            self._helpers.give(self._bring, portion, sent, active, view)
            return
        outcome: Outcome = "quarantined" if view["status"] == "quarantined" else "failed"
        self._is_over(portion, sent)
        portion.run.attempts.ended_elsewhere(
            active, outcome, str(view["error"]), float(view["elapsed"]), view["cause"]
        )

    def ended(self, portion: Portion) -> None:
        """A job has ended; what has no result now gets none."""
        for sent in portion.tasks:
            if sent.view is None and not sent.over:
                self._let_go(portion, sent, "the server gave no result")

    def forgotten(self, portion: Portion) -> None:
        """The daemon dropped a job, as this process was not heard for long: it gets it again."""
        for sent in portion.tasks:
            if not sent.over and (sent.view is None or not sent.begun):
                self._let_go(portion, sent, "the server dropped it")

    def refused(self, portion: Portion, reason: str) -> None:
        """The daemon did not take a job, or says what nobody understands."""
        for sent in portion.tasks:
            if not sent.over:
                self._is_over(portion, sent)
                if sent.active is not None:
                    portion.run.attempts.ended_elsewhere(sent.active, "failed", reason, 0.0, None)
                elif portion.run.has(sent.task):
                    portion.run.refuse_task(sent.task, "failed", reason, None)

    def _is_over(self, portion: Portion, sent: SentTask) -> None:
        if sent.over:
            return
        sent.over = True
        portion.open -= 1
        if portion.open == 0:
            self._over(portion)

    # -- in the fetchers' threads ----------------------------------------------------

    def _bring(
        self, portion: Portion, sent: SentTask, active: ActiveAttempt, view: Mapping[str, Any]
    ) -> None:
        """Fetch a result and write it where a worker would have."""
        path = f"/v1/jobs/{portion.id}/results/{sent.position}/content"
        come: Callable[[], None]
        try:
            data = self._patience.ask(
                lambda: self._server.content(path), lambda: not active.thrown_away
            )
            done = _written(data, active.lease, float(view["elapsed"]))
        except ServerGone:
            come = lambda: self._let_go(portion, sent, "the server is gone")  # noqa: E731
        except ServerRefusal as error:
            text = f"The result could not be fetched: {error}"
            come = lambda: self._failed(portion, sent, "error", text)  # noqa: E731
        except (ValueError, OtherResult) as error:
            other = f"The server's result cannot be used: {error}."
            come = lambda: self._failed(portion, sent, "error", other)  # noqa: E731
        except OSError as error:
            refusal = f"{active.admitted.task.output_path}: {error.strerror or error}"
            kind = "storage" if error.errno in FATAL_ERRNOS else "error"
            come = lambda: self._failed(portion, sent, kind, refusal)  # noqa: E731
        else:
            come = lambda: self._brought(portion, sent, done)  # noqa: E731
        self._hand_over(come)

    def _brought(self, portion: Portion, sent: SentTask, done: Done) -> None:
        assert sent.active is not None
        run = portion.run
        run.attempts.done(sent.active, done, recorded=lambda: self._is_over(portion, sent))

    def _failed(self, portion: Portion, sent: SentTask, kind: Any, error: str) -> None:
        assert sent.active is not None
        self._is_over(portion, sent)
        if kind == "storage":
            failed = Failed(sent.active.lease_id, "storage", error)
            portion.run.attempts.failed(sent.active, failed)
        else:
            portion.run.attempts.ended_elsewhere(sent.active, "failed", error, 0.0, kind)


def _written(data: bytes, lease: Lease, elapsed: float) -> Done:
    """Write a result as a worker does; it is complete and synced on return.

    Raises:
        ValueError: it is not what the lease asks for.
        OSError: the disk refuses.
    """
    content, used = relabelled(data, lease)
    with Path(lease.partial_path).open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    digest = hashlib.sha256(content).hexdigest()
    return Done(lease.lease_id, len(content), digest, elapsed, used)
