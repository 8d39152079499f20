"""What a batch has to do: which of its tasks are done already, which are to be (re)drawn."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loguru import logger

from core.intake.admission import Admitted, Item, Rejected
from core.intake.changes import Comparison, field_changes
from core.intake.differences import TEXTS, Change
from core.intake.made import Made, text_of
from core.intake.plan_summary import MOVED, PlanSummary, Standing
from core.intake.remaining import Remaining
from core.intake.task_kinds import kind_of
from core.model_lora import ModelLora
from core.store.claims import BatchClaims
from core.store.folder_input import FolderInput
from core.store.ledger import Entry, Ledger
from core.store.ledger_entry import entry_for
from core.store.outputs import OutputRoot
from core.store.provenance import read_provenance
from core.store.replaced import Replaced
from core.tasks import GenerateTask, Result, fields_of

# Standings of inputs with a line in the tables that this batch may change.
_THERE: tuple[Standing, ...] = ("changed", "altered", "again", "unchanged")


@dataclass
class Plan:
    """`tasks` to run, and results that are settled before the start.

    Attributes:
        batch: its number in the ledger.
        keys: of all its tasks that have an output, with those that were added.
        renews: some of them were done before.
        summary: what is to be done, for the user; of the inputs that it began with.
        before: finished results of other settings that lie under the names of tasks, by key.
        replaced: keeps them when they are replaced; None if they are not to be kept.
        claims: on the outputs of its tasks; None where nobody else asks for outputs.
        rest: inputs that are checked and planned while the tasks run; None if there are none.
    """

    tasks: list[Admitted]
    settled: list[Result]
    batch: int
    keys: list[str]
    renews: bool
    summary: PlanSummary
    before: dict[str, Entry]
    replaced: Replaced | None
    claims: BatchClaims | None = None
    rest: Remaining | None = None

    @property
    def to_run(self) -> int:
        """How many tasks workers will be given, as far as is known."""
        return len(self.tasks) + (len(self.rest) if self.rest is not None else 0)

    def continue_with(self, rest: Remaining) -> None:
        """Let more inputs follow, of which none can have been done before."""
        self.rest = rest
        self.summary = self.summary.with_unchecked(len(rest))


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


def tell_plan(summary: PlanSummary, noun: str, why_moved: str, title: str = "Plan") -> None:
    """Log what is about to be done, before it begins.

    Args:
        noun: what the inputs are, in the plural.
        why_moved: how inputs come to be done anew that only stand at another place.
    """
    logger.info(summary.line(noun, title))
    if summary.moved:
        logger.info(why_moved)


class Planner:
    """Compares what is asked for with what earlier runs left, and records it in the ledger.

    Done and unchanged is skipped; changed is redone; failed is tried again; quarantined only
    if asked. A result that the ledger does not know is recognised by what it says of itself.

    Args:
        overwrite: redo what is done, and keep nothing of it.
        model_loras: of the model that is to draw.
    """

    def __init__(
        self,
        ledger: Ledger,
        root: OutputRoot,
        overwrite: bool,
        retry_quarantined: bool,
        model_loras: Sequence[ModelLora] = (),
    ) -> None:
        self._ledger = ledger
        self._root = root
        self._overwrite = overwrite
        self._retry_quarantined = retry_quarantined
        self._lora_names = {lora.identity: lora.name for lora in model_loras}

    def known(self, items: Sequence[Item]) -> dict[str, Entry]:
        """What earlier runs left of inputs, by the key of their output."""
        return self._ledger.entries_of([i.output.key for i in items if isinstance(i, Admitted)])

    def begin(
        self,
        admitted: Sequence[Item],
        claim: FolderInput | None = None,
        known: Mapping[str, Entry] | None = None,
        claims: BatchClaims | None = None,
    ) -> Plan:
        """Plan a new batch. The first one in a folder sweeps what dead runs left unfinished.

        Args:
            claim: holds the folder for the input that the batch comes from.
            known: what `known` gave for the same inputs, where it was asked already.
            claims: on the outputs of the inputs. Those of inputs that are settled are given up.

        Raises:
            InputError: the folder says nowhere whose it is, and its results are another input's.
        """
        keys = [item.output.key for item in admitted if isinstance(item, Admitted)]
        known = self.known(admitted) if known is None else known
        assessed = [self._assess(item, known) for item in admitted]
        summary = self._summary(assessed, known)
        if claim is not None:
            if not claim.check() and self._is_of_others(assessed):
                claim.refuse_as_foreign()
            claim.claim()
        for partial in self._ledger.open_leases():
            self._root.sweep(partial)
        before: dict[str, Entry] = {}
        for one in assessed:
            self._remember(one, known, before)
        batch = self._ledger.begin_batch([one.entry for one in assessed])
        _give_up_settled(claims, assessed)
        return Plan(
            [one.item for one in assessed if _runs(one) and isinstance(one.item, Admitted)],
            [_settled_result(one.entry, one.item) for one in assessed if not _runs(one)],
            batch,
            keys,
            _renews(assessed, known),
            summary,
            before,
            None if self._overwrite else Replaced(self._root, before),
            claims,
        )

    def add(self, plan: Plan, items: Sequence[Item]) -> list[Admitted | Result]:
        """Plan more inputs of a batch: for each the task that is to run, or its settled result."""
        known = self.known(items)
        assessed = [self._assess(item, known) for item in items]
        for one in assessed:
            self._remember(one, known, plan.before)
        self._ledger.add_to_batch(plan.batch, [one.entry for one in assessed])
        _give_up_settled(plan.claims, assessed)
        plan.keys += [item.output.key for item in items if isinstance(item, Admitted)]
        plan.renews = plan.renews or _renews(assessed, known)
        return [
            one.item
            if _runs(one) and isinstance(one.item, Admitted)
            else _settled_result(one.entry, one.item)
            for one in assessed
        ]

    def look(self, items: Sequence[Item]) -> list[tuple[Standing, list[Change]]]:
        """How inputs stand that are not planned yet; nothing is recorded."""
        comparison, known = Comparison(self._lora_names), self.known(items)
        return [_reasons(self._assess(item, known), comparison) for item in items]

    def _assess(self, item: Item, known: Mapping[str, Entry]) -> Assessed:
        if isinstance(item, Rejected):
            return Assessed(item, _rejected_entry(item), "refused")
        entry = known.get(item.output.key)
        if self._overwrite:
            there = os.path.lexists(item.output.file)
            return Assessed(item, entry_for(item, "pending"), "again" if there else "new")
        return _judge(item, entry, self._retry_quarantined)

    def _remember(
        self, one: Assessed, known: Mapping[str, Entry], before: dict[str, Entry]
    ) -> None:
        """Keep the entry of a finished result that a task will replace."""
        if one.entry.state != "pending" or not isinstance(one.item, Admitted):
            return
        entry = known.get(one.item.output.key)
        if self._overwrite:  # without a look at the file
            entry = entry if entry is not None and entry.state == "done" else None
        elif one.made is None:
            entry = None
        elif entry is None or entry.state != "done" or entry.fingerprint != one.made.fingerprint:
            entry = _entry_of(one.item, one.made)
        if entry is not None:
            before[entry.key] = entry

    def _summary(self, assessed: Sequence[Assessed], known: Mapping[str, Entry]) -> PlanSummary:
        comparison = Comparison(self._lora_names)
        standings = [_reasons(one, comparison) for one in assessed]
        moves = _Moves(assessed, known, self._ledger)
        for place, one in enumerate(assessed):
            standing, changes = standings[place]
            if standing == "changed":
                standings[place] = standing, moves.seen(one, changes)
        return PlanSummary.of(standings)

    def _is_of_others(self, assessed: Sequence[Assessed]) -> bool:
        """Whether this input would replace results, and knows none of the folder's prompts."""
        if not any(one.standing == "changed" for one in assessed):
            return False
        there = {text_of(entry.task) for entry in self._ledger.finished()}
        there |= {one.made.text for one in assessed if one.made is not None}
        asked = {text_of(one.entry.task) for one in assessed if isinstance(one.item, Admitted)}
        return not (asked & there)


class _Moves:
    """Finds tasks that are the same as before but for their place in the input.

    A default seed goes by the place, and so does a default name: the result under a moved
    task's name is another task's, and its own lies under another name.
    """

    def __init__(
        self, assessed: Sequence[Assessed], known: Mapping[str, Entry], ledger: Ledger
    ) -> None:
        self._assessed = assessed
        self._known = known
        self._ledger = ledger
        self._origins: dict[str, list[tuple[str, Made]]] | None = None
        self._now = {
            one.item.output.key: text_of(one.entry.task)
            for one in assessed
            if isinstance(one.item, Admitted)
        }

    def seen(self, one: Assessed, changes: list[Change]) -> list[Change]:
        """The changes of a task, in view of where it stood."""
        assert isinstance(one.item, Admitted) and one.made is not None
        changed = {change.what for change in changes}
        if changed & set(TEXTS) and isinstance(one.item.task, GenerateTask):
            origin = self._origin(one.item)
            if origin is None:
                return changes
            seed = "seed" if origin.task.get("seed") != one.item.task.seed else "name"
            made = [change for change in changes if change.of_the_maker]
            return [Change(f"{seed} {MOVED}"), *field_changes(one.item, origin), *made]
        entry = self._known.get(one.item.output.key)
        if "seed" in changed and entry is not None and entry.fingerprint == one.made.fingerprint:
            seeds = one.made.task.get("seed"), one.item.task.seed
            if isinstance(seeds[0], int) and seeds[1] is not None:
                by = one.item.position - entry.position
                if by and seeds[1] - seeds[0] == by:
                    others = [change for change in changes if change.what != "seed"]
                    return [Change(f"seed {MOVED}"), *others]
        return changes

    def _origin(self, admitted: Admitted) -> Made | None:
        """The result that was made of this task's prompt, under a name that another one has now."""
        if self._origins is None:
            self._origins = {}
            for key, made in self._results():
                if made.text is not None:
                    self._origins.setdefault(made.text, []).append((key, made))
        text = text_of(fields_of(admitted.task))
        found = self._origins.get(text or "", [])
        return next((made for key, made in found if self._now.get(key) != text), None)

    def _results(self) -> Iterator[tuple[str, Made]]:
        for one in self._assessed:
            if one.made is not None and isinstance(one.item, Admitted):
                yield one.item.output.key, one.made
        for entry in self._ledger.finished():
            yield entry.key, Made(entry.task, entry.used, None, [], str(entry.fingerprint))


def _reasons(one: Assessed, comparison: Comparison) -> tuple[Standing, list[Change]]:
    if one.standing != "changed" or one.made is None or not isinstance(one.item, Admitted):
        return one.standing, []
    return one.standing, comparison.changes(one.item, one.made)


def _runs(one: Assessed) -> bool:
    return one.entry.state == "pending"


def _renews(assessed: Sequence[Assessed], known: Mapping[str, Entry]) -> bool:
    """Whether tables that hold earlier results have lines of these inputs."""
    return any(one.standing in _THERE for one in assessed) or any(
        entry.state == "done" for entry in known.values()
    )


def _give_up_settled(claims: BatchClaims | None, assessed: Sequence[Assessed]) -> None:
    """Release the claims on outputs that this batch will not write."""
    if claims is not None:
        for one in assessed:
            if not _runs(one) and isinstance(one.item, Admitted):
                claims.release(one.item.output.key)


def _judge(admitted: Admitted, known: Entry | None, retry_quarantined: bool) -> Assessed:
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
        found = _entry_of(admitted, made)
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
    return "failed" if known.state in ("failed", "quarantined") else "new"


def _provenance(file: Path) -> dict[str, Any] | None:
    """What a file says of its own making; None if it is none of ours, or not there."""
    try:
        return read_provenance(file)
    except ValueError:
        return None


def _entry_of(admitted: Admitted, made: Made) -> Entry | None:
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


def _settled_result(entry: Entry, item: Item) -> Result:
    done = entry.state == "done"
    return Result(
        position=entry.position,
        task_id=entry.task_id,
        status="skipped" if done else "quarantined" if entry.state == "quarantined" else "failed",
        output_path=str(item.output.file) if done and isinstance(item, Admitted) else None,
        elapsed=entry.elapsed,
        error=entry.error,
        worker=entry.worker,
        seed=item.task.seed if isinstance(item, Admitted) else None,
        cause=None if isinstance(item, Admitted) else item.cause,
    )
