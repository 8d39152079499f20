"""One output folder: what it remembers, what a batch has to do there, and its records.

Both facades stand on this: they bring models and tasks, the session everything that has to do
with the folder. Without a folder that lasts, its record lives as long as its process.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from loguru import logger

from core.engine.job import Job
from core.engine.recorder import Refusal, Then
from core.engine.task_engine import TaskEngine
from core.errors import LedgerError, StorageError
from core.events import Event, Listener, shape_of
from core.feeding import feed
from core.intake.admission import Admitted, Item
from core.intake.assessment import Assessed
from core.intake.differences import Change
from core.intake.kept_seeds import KeptSeeds
from core.intake.plan_summary import Standing
from core.intake.planning import Plan, Planner
from core.model_lora import ModelLora
from core.paths import on_disk
from core.status.status_file import StatusFile
from core.status.tracker import RunTracker
from core.store.claims import BatchClaims, Claims
from core.store.folder_input import FILE_NAME as INPUT
from core.store.folder_input import FolderInput, NoFile
from core.store.folder_recorder import FolderRecorder
from core.store.ledger import Entry, Ledger
from core.store.ledger_file import FILE_NAME as RECORD
from core.store.ledger_file import LOCK_NAME
from core.store.outputs import STATUS, OutputPath, OutputRoot, output_key
from core.store.tables import Tables, refuse_foreign_tables
from core.tasks import Result, Status

_Write = Callable[[Sequence[Result], Mapping[Status, int]], None]
NOTED_AT_ONCE = 250  # results that wait for others, to be written together


class Session:
    """The folder of a run, from its opening to its end.

    Args:
        folder: the output folder; None for results that lie anywhere and need not be found again.
        source: what the tasks are read from, if it is a file or folder.
        overwrite: redo what is done, and keep nothing of what is replaced.
        retry_quarantined: try tasks again that killed their workers in an earlier run.
        with_tables: the folder has `metadata.jsonl` and `results.jsonl`.
        with_status: it has `status.json` while a run goes on, and afterwards.
        looks_only: nothing in the folder is made, changed or locked: what its ledger says is
            copied, and what is planned is recorded in the copy. Nothing can be submitted.

    Attributes:
        tracker: how the run stands. It knows what it is told, and hears what `hearing` passes on.
        in_use_by: the other run that was at work in the folder when it was looked at, if any.
        damage: why its ledger could not be read then, if it could not.

    Raises:
        InputError: the folder holds the results of another input, or another program's tables.
        LedgerError: the folder is in use by another run, or its ledger is damaged.
        StorageError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path | None,
        source: Path | NoFile | None = None,
        overwrite: bool = False,
        retry_quarantined: bool = False,
        with_tables: bool = True,
        with_status: bool = True,
        looks_only: bool = False,
    ) -> None:
        self._given = (folder, source, overwrite, retry_quarantined, with_tables)
        self.lasts = folder is not None
        self.root = OutputRoot(folder or Path("."), confined=self.lasts)
        self.overwrite = overwrite or not self.lasts
        self.claims = Claims()
        self._retry_quarantined = retry_quarantined
        self._with_tables = with_tables and self.lasts
        self._looks_only = looks_only
        self._is_own = False  # the run that works in the folder is this program's
        self.in_use_by: str | None = None
        self.damage: str | None = None
        self._claim: FolderInput | None = None
        if self.lasts and source is not None:
            self._claim = FolderInput(self.root.folder, source, overwrite, keeps=not looks_only)
        self._ledger: Ledger | None = None
        self._tables: Tables | None = None
        self._recorder: FolderRecorder | None = None
        folder = self.root.folder
        self.tracker = RunTracker(folder if self.lasts else None)
        self._status: StatusFile | None = None
        if self.lasts and with_status and not looks_only:
            self._status = StatusFile(folder, self.tracker)
        self._planning = threading.RLock()  # one batch is planned at a time

    def looking(self) -> "Session":
        """Another session of the same folder that only looks; this one does not count as a run."""
        other = Session(*self._given, looks_only=True)
        other._is_own = self._ledger is not None
        other.tracker.headway = self.tracker.headway
        return other

    # -- the folder --------------------------------------------------------------

    @property
    def ledger(self) -> Ledger:
        """The record of the folder, which is opened and locked at the first look."""
        with self._planning:
            if self._ledger is None:
                with self.tracker.headway.at("reading the record"):
                    self._open()
            assert self._ledger is not None
            return self._ledger

    @property
    def is_fresh(self) -> bool:
        """No earlier result can be there: nothing needs to be looked for before work begins."""
        if not self.lasts:
            return True
        if not self.ledger.is_empty:
            return False
        ours = (INPUT, LOCK_NAME, RECORD, STATUS)
        return all(name.startswith(ours) for name in os.listdir(self.root.folder))

    def has_none_of(self, outputs: Sequence[str]) -> bool:
        """No result, and no record of one, is in the place of any of these.

        Args:
            outputs: paths relative to the folder.
        """
        folder = str(self.root.folder)
        if any(os.path.lexists(os.path.join(folder, on_disk(name))) for name in outputs):
            return False
        return not self.ledger.knows_any([output_key(name) for name in outputs])

    def _open(self) -> None:
        if not self.lasts:
            self._ledger = Ledger.in_memory()
        else:
            if self._claim is not None:
                self._claim.check()  # before anything is touched; again when the folder is ours
            if self._with_tables and not self.overwrite:
                refuse_foreign_tables(self.root.folder)
            if self._looks_only:
                self._ledger, copy = Ledger.look_at(self.root.folder)
                self.in_use_by = None if self._is_own else copy.in_use_by
                self.damage = copy.damage
                return
            self._ledger = Ledger.open(self.root.folder)
            if self._with_tables:
                self._tables = Tables(self.root.folder, self._ledger)
        table = self._tables.results if self._tables is not None else None
        self._recorder = FolderRecorder(self._ledger, self.root, table)

    def entries(self) -> dict[str, Entry]:
        """What the folder has on record, by key; a folder that is not open is only looked at."""
        with self._planning:
            if self._ledger is not None:
                return self._ledger.entries()
        look = self.looking()
        try:
            return look.ledger.entries()
        finally:
            look.close()

    def close(self) -> None:
        """Do what is still to be recorded and give the folder free; another use opens it again."""
        with self._planning:
            if self._recorder is not None:
                self._recorder.close()
            self.tracker.stop()
            if self._status is not None:
                self._status.close()
            if self._tables is not None:
                self._tables.close()
            if self._ledger is not None:
                self._ledger.close()
            self._ledger = self._tables = self._recorder = None

    def forget(self, output_paths: Sequence[str]) -> None:
        """Remove results from the record, once their files are gone; see the ledger's `forget`.

        Args:
            output_paths: as results say them, or relative to the folder.
        """
        prefix = os.path.join(self.root.folder, "")
        self.ledger.forget([output_key(path.removeprefix(prefix)) for path in output_paths])

    def kept_seed(self) -> Callable[[OutputPath], int | None] | None:
        """Finds the seed that an earlier run drew at random; None where nothing is kept."""
        return None if self.overwrite else KeptSeeds(self.ledger).of

    # -- what a batch has to do --------------------------------------------------

    def planner(self, model_loras: Sequence[ModelLora] = ()) -> Planner:
        """Compares what is asked for with what lies in the folder.

        Args:
            model_loras: of the model that is to draw.
        """
        return Planner(
            self.ledger,
            self.root,
            self.overwrite,
            self._retry_quarantined,
            model_loras,
            self.tracker.headway,
        )

    def begin(
        self,
        planner: Planner,
        admitted: Sequence[Item],
        known: Mapping[str, Entry] | None = None,
        claims: BatchClaims | None = None,
    ) -> Plan:
        """Plan a batch: what is to be done, and what is settled; see `Planner.begin`."""
        return planner.begin(admitted, self._claim, known, claims)

    def standings(
        self, planner: Planner, items: Sequence[Item]
    ) -> list[tuple[Assessed, Standing, list[Change]]]:
        """How inputs stand to what lies in the folder; see `Planner.standings`."""
        return planner.standings(items, self._claim)

    # -- its records while it runs -----------------------------------------------

    def submit(
        self,
        engine: TaskEngine,
        plan: Plan,
        tasks: Sequence[Admitted],
        settled: Sequence[Result] = (),
        priority: int = 0,
        owner: str | None = None,
        listener: Listener | None = None,
        sealed: bool = True,
        ends_batch: bool = True,
        previews: int = 0,
        promised: int = 0,
        told: Callable[[Result], None] | None = None,
    ) -> Job:
        """Hand a batch, or a part of it, to an engine.

        Args:
            sealed: no tasks will be added to this part.
            ends_batch: the batch is over when this part is: its tables are written then, before
                the job counts as finished.
            previews: how many previews of each task its listener is told of.
            promised: how many tasks may be added to this part, which is sealed then, whatever
                becomes of it.
            told: takes each result, and the job keeps none; see `Job`.
        """
        with self._planning:
            recorder = self._recorder
            assert recorder is not None
            replaced = plan.replaced if self.lasts else None
            recorder.begin_batch(plan.batch, replaced, plan.claims)
            if self._tables is not None and ends_batch:
                self._tables.begin(plan)
        finish = self._writer(plan) if ends_batch else None
        rest = 0 if plan.rest is None else len(plan.rest)
        self.tracker.begin(map(shape_of, tasks), settled, rest)
        rest += promised
        if self._status is not None:
            self._status.start()
        return engine.submit(
            tasks,
            _PartRecorder(recorder, self._tables, plan, self.root.folder, finish, self.tracker.end),
            settled,
            priority,
            owner,
            None if listener is None else self.hearing(listener),
            sealed and not rest,
            rest,
            previews,
            told,
        )

    @contextmanager
    def run(self) -> Iterator[None]:
        """A run of several jobs that ends with this block, and not between two of them."""
        self.tracker.begin(())
        if self._status is not None:
            self._status.start()
        try:
            yield
        finally:
            self.tracker.end()

    def hearing(self, listener: Listener) -> Listener:
        """A listener of an engine, behind what keeps up how the run stands."""

        note = self.tracker.hear  # and not the session: whoever drops that has its folder freed

        def hear(event: Event) -> None:
            note(event)
            listener(event)

        return hear

    def feed(
        self, engine: TaskEngine, job: Job, planner: Planner, plan: Plan, look: Callable[[], None]
    ) -> None:
        """Give a job the rest of its batch, if there is more; see `core.feeding`.

        Args:
            look: called now and then meanwhile.
        """
        if plan.rest is None:
            return
        tables = self._tables

        def told(refused: Sequence[Result]) -> None:
            if tables is not None and refused:
                tables.results.add(plan.batch, refused)

        feed(engine, job, planner, plan, told, look)

    def end(self, plan: Plan) -> None:
        """Forget a batch of which every part is finished."""
        if self._recorder is not None:
            self._recorder.end_batch(plan.batch)

    def _writer(self, plan: Plan) -> _Write:
        recorder, tables = self._recorder, self._tables
        assert recorder is not None

        def write(results: Sequence[Result], ended: Mapping[Status, int]) -> None:
            try:
                if tables is not None:
                    tables.write(plan, map(plan.told_of, results), ended)
                    if plan.replaced is not None:
                        plan.replaced.write_tables(bool(ended.get("interrupted")))
            except (LedgerError, StorageError) as error:
                logger.error(f"The metadata could not be written: {error}")
                raise
            finally:
                recorder.end_batch(plan.batch)

        return write


class _PartRecorder:
    """The recorder of one job: its folder's, and what is to be written when the job ends."""

    def __init__(
        self,
        recorder: FolderRecorder,
        tables: Tables | None,
        plan: Plan,
        folder: Path,
        finish: _Write | None,
        ended: Callable[[], None],
    ) -> None:
        self.folder = folder
        self.batch = plan.batch
        self._tables = tables
        self._told_of = plan.told_of
        self._noted: list[Result] = []  # what the tables are still to be told
        self._finish = finish
        self._ended = ended
        self._recorder = recorder
        self.partial_path = recorder.partial_path
        self.begin = recorder.begin
        self.keep = recorder.keep
        self.end = recorder.end
        self.end_lease_alone = recorder.end_lease_alone
        self.fail = recorder.fail
        self.discard = recorder.discard

    def note(self, result: Result) -> None:
        """Have the tables say a result, together with others."""
        self._noted.append(self._told_of(result))
        if len(self._noted) >= NOTED_AT_ONCE:
            self._write_noted()

    def _write_noted(self) -> None:
        noted, self._noted = self._noted, []
        if noted and self._tables is not None:
            add = partial(self._tables.results.add, self.batch, noted)
            self._recorder.call(add, lambda refusal: None)  # what is refused comes at the end

    def finish(self, results: Sequence[Result], ended: Mapping[Status, int], then: Then) -> None:
        """Write what tells of the whole job, after everything else that was asked for."""
        self._write_noted()

        def finished(refusal: Refusal | None) -> None:
            self._ended()
            then(refusal)

        if self._finish is None:
            finished(None)
        else:
            self._recorder.call(partial(self._finish, results, ended), finished)
