"""Edits and scores as two jobs of one engine.

A score is asked for as soon as its edit is there. Who has which model when is the engine's
matter; `stages` in the settings is a bound on that. Everything here runs in the caller's thread.
"""

import queue
from collections.abc import Callable, Sequence

from loguru import logger

from apps.edit_benchmark.edits import Edits
from apps.edit_benchmark.engine_choice import EngineChoice
from apps.edit_benchmark.scores import Scores
from core.engine.job import Job
from core.engine.model_switch import Stages
from core.engine.task_engine import TaskEngine
from core.events import Event, Listener, TaskEnded, TaskShape, TaskSpared, shape_of
from core.intake.admission import Admitted
from core.intake.planning import Plan
from core.names import counted
from core.role_model import RoleModel
from core.session import Session
from core.tasks import Result
from core.worker_spec import Role

WAIT_SLICE = 0.5  # seconds between looks at an interrupt


class Execution:
    """Makes edits and scores, and notes the result of each.

    Args:
        choice: what the engine is made of.
        listener: told of events.

    Attributes:
        edits, scores: results by the positions of their edits; those that are known before the
            start belong here, too.
    """

    def __init__(self, choice: EngineChoice, session: Session, listener: Listener) -> None:
        self._choice = choice
        self._session = session
        self._tell = listener
        self.edits: dict[int, Result] = {}
        self.scores: dict[int, Result] = {}
        self._engine: TaskEngine | None = None
        self._jobs: dict[Role, Job] = {}
        self._ended: queue.SimpleQueue[tuple[Role, Result]] = queue.SimpleQueue()
        self._stopping = False
        self._bound: Stages = "sequential"  # what the stages of this run may be

    def close(self) -> None:
        """Kill what still runs."""
        if self._engine is not None:
            self._engine.stop(at_once=True)

    def interrupt(self, at_once: bool = False) -> None:
        """Finish what runs, or with `at_once` nothing; safe in a signal handler."""
        self._stopping = True
        for job in list(self._jobs.values()):
            job.interrupt(at_once)
        if at_once and self._engine is not None:  # it may be waiting for workers, with no job left
            self._engine.hurry()

    def run(self, plan: Plan, edits: Edits, scores: Scores) -> None:
        """Make the edits of a plan, and score all that are there.

        Args:
            edits: plans those of later turns when their turn comes.
            scores: plans the scores.
        """
        self._plan, self._planned_edits, self._planned_scores = plan, edits, scores
        for result in self.edits.values():
            self._tell_settled(result)
        there = [edit for _, edit in sorted(self.edits.items()) if edit.success]
        to_score = [item for edit in there if (item := self._score(edit)) is not None]
        if plan.tasks or to_score:
            self._work(plan.tasks, to_score)

    def _work(self, edits: Sequence[Admitted], to_score: Sequence[Admitted]) -> None:
        again = sum(getattr(item.task, "more_asks", 0) > 0 for item in to_score)
        if again:
            logger.info(f"{counted(again, 'verdict')} without a score: asked for again.")
        engine = self._start([r for r in self._choice.roles if edits or r.role == "score"])
        waiting = self._planned_edits.waiting
        editing = self._submit("edit", edits, sealed=not waiting, promised=waiting)
        try:
            scoring = self._submit("score", to_score, sealed=not edits)
            self._until_all_ended(engine, editing, scoring, len(edits))
        except BaseException:
            engine.seal(editing)  # else its end would wait for the turns that were promised
            raise
        engine.stop(at_once=self._stopping)
        for waited, steps in engine.waits_in_step:
            logger.info(
                f"enable_batch_sync: workers waited {waited:.1f} s for each other in {steps} steps."
            )

    def _until_all_ended(
        self, engine: TaskEngine, editing: Job, scoring: Job, unfinished: int
    ) -> None:
        """Have each edit scored, and the next turn made of it, until all have ended.

        Args:
            unfinished: edits that the engine knows.
        """
        waiting = self._planned_edits.waiting
        self._expect(engine, waiting, unfinished + waiting)
        engine.start()  # now it knows of both when it shares the devices out
        while not (editing.finished and scoring.finished and self._ended.empty()):
            found = self._next_ended()
            if found is None or found[0] == "score":
                continue
            later, to_score = self._after(found[1])
            for job, items in ((scoring, to_score), (editing, later)):
                if items:
                    self._session.tracker.add(map(shape_of, items))
                    engine.extend(job, items)
            unfinished += len(later) - 1
            was_waiting, waiting = waiting, self._planned_edits.waiting
            self._expect(engine, waiting, unfinished + waiting)
            if was_waiting and not waiting:
                engine.seal(editing)
            if unfinished + waiting == 0:
                engine.seal(scoring)

    def _after(self, edit: Result) -> tuple[list[Admitted], list[Admitted]]:
        """Edits to be made of an edit that has ended, and scores of what is there now."""
        to_make, ended = [], [edit]
        for one in self._planned_edits.after(self._plan, edit):
            if isinstance(one, Admitted):
                to_make.append(one)
            else:
                self.edits[one.position] = one
                self._tell_settled(one)
                ended.append(one)
        scores = [self._score(each) for each in ended if each.success]
        return to_make, [item for item in scores if item is not None]

    def _tell_settled(self, edit: Result) -> None:
        """Tell of an edit that no worker was given."""
        if not edit.success:
            logger.error(f"{edit.task_id}: {edit.status}: {edit.error}")
            self._tell(TaskSpared())
        self._session.tracker.settle(edit, "edit")
        self._tell(TaskEnded(edit, shape=TaskShape("edit")))

    def _start(self, needed: Sequence[RoleModel]) -> TaskEngine:
        choice, tracker = self._choice, self._session.tracker
        for role in needed:
            role.ensure()  # as where a result was removed after the planning
            logger.info(role.reason)
            tracker.serves(role.role, role.model.shown)
            tracker.has_workers(role.devices, choice.server.name if choice.server else None)
        self._bound = choice.stages
        hear = self._session.hearing(self._tell)
        self._engine = choice.make(needed, self._bound, hear)
        return self._engine

    def _submit(
        self, role: Role, tasks: Sequence[Admitted], sealed: bool, promised: int = 0
    ) -> Job:
        assert self._engine is not None
        job = self._jobs[role] = self._session.submit(
            self._engine,
            self._plan,
            tasks,
            owner="benchmark",
            listener=self._told(role),
            sealed=sealed,
            ends_batch=False,
            promised=promised,
        )
        if self._stopping:  # asked for before there was a job
            job.interrupt()
        return job

    def _expect(self, engine: TaskEngine, edits: int, scores: int) -> None:
        """Say how many edits wait for the turn before them, and how many may still be scored."""
        for role, count in (("edit", edits), ("score", scores)):
            engine.expect(self._jobs[role], role, count)
            self._session.tracker.expect(role, count)

    def _score(self, edit: Result) -> Admitted | None:
        """What is to be done to score an edit; None if its score is there, or will not be made.

        After an interrupt only edits that have a verdict are looked at: it may still be theirs.
        """
        if self._stopping and not self._planned_scores.has_verdict(edit.position):
            return None
        item = self._planned_scores.of(self._plan, edit, ask_again=not self._stopping)
        if isinstance(item, Admitted):
            return None if self._stopping else item
        if not item.success:
            logger.error(f"{item.task_id}: {item.status}: {item.error}")
        self.scores[item.position] = item
        self._session.tracker.settle(item, "score")
        self._tell(TaskEnded(item, shape=TaskShape("score")))
        return None

    def _next_ended(self) -> tuple[Role, Result] | None:
        """The next result, noted; None after a moment without."""
        try:
            role, result = self._ended.get(timeout=WAIT_SLICE)
        except queue.Empty:
            return None
        if role == "edit":
            self.edits[result.position] = result
        elif result.status != "interrupted" or result.attempts or self._began_to_score:
            self.scores[result.position] = result
        return role, result

    @property
    def _began_to_score(self) -> bool:
        """Whether scoring has begun as a stage of its own, or goes on beside the editing."""
        return self._bound != "sequential" or self._jobs["edit"].finished

    def _told(self, role: Role) -> Callable[[Event], None]:
        def told(event: Event) -> None:
            if isinstance(event, TaskEnded):
                if role == "edit" and not event.result.success:
                    self._tell(TaskSpared())
                self._tell(event)
                self._ended.put((role, event.result))
            else:
                self._tell(event)

        return told
