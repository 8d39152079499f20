"""What a batch has to do: which of its tasks are done already, which are to be (re)drawn."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from loguru import logger

from core.headway import Headway
from core.intake.admission import Admitted, Item, Rejected
from core.intake.assessment import Assessed, assess, entry_of_file, refused
from core.intake.changes import Comparison
from core.intake.differences import Change
from core.intake.made import text_of
from core.intake.moved_tasks import MovedTasks
from core.intake.plan_summary import PlanSummary, Standing
from core.intake.remaining import Remaining
from core.model_lora import ModelLora
from core.store.claims import BatchClaims
from core.store.folder_input import FolderInput
from core.store.ledger import Entry, Ledger
from core.store.ledger_entry import entry_for
from core.store.outputs import OutputRoot
from core.store.replaced import Replaced
from core.tasks import Result

FAILED_BEFORE = "It failed in an earlier run:"
# Standings of inputs with a line in the tables that this batch may change.
_THERE: tuple[Standing, ...] = ("changed", "altered", "again", "unchanged")


@dataclass
class Plan:
    """`tasks` to run, and results that are settled before the start.

    Attributes:
        batch: its number in the ledger.
        renews: some of them were done before.
        summary: what is to be done, for the user; of the inputs that it began with.
        before: finished results of other settings that lie under the names of tasks, by key.
        replaced: keeps them when they are replaced; None if they are not to be kept.
        failed_before: why tasks failed in an earlier run, by their place.
        claims: on the outputs of its tasks; None where nobody else asks for outputs.
        rest: inputs that are checked and planned while the tasks run; None if there are none.
    """

    tasks: list[Admitted]
    settled: list[Result]
    batch: int
    renews: bool
    summary: PlanSummary
    before: dict[str, Entry]
    replaced: Replaced | None
    claims: BatchClaims | None = None
    rest: Remaining | None = None
    failed_before: dict[int, str] = field(default_factory=dict)

    @property
    def to_run(self) -> int:
        """How many tasks workers will be given, as far as is known."""
        return len(self.tasks) + (len(self.rest) if self.rest is not None else 0)

    def told(self, results: Sequence[Result]) -> list[Result]:
        """Results, of which those that were not tried say why they failed in an earlier run."""
        return [self.told_of(result) for result in results]

    def told_of(self, result: Result) -> Result:
        """A result; if it was not tried, it says why it failed in an earlier run."""
        before = self.failed_before.get(result.position)
        if before is None or result.attempts or result.status not in ("interrupted", "timeout"):
            return result
        return replace(result, error=f"{result.error} {FAILED_BEFORE} {before}")

    def continue_with(self, rest: Remaining, all_new: bool) -> None:
        """Let more inputs follow, which are looked at while the first ones run.

        Args:
            all_new: none of them can have been done before.
        """
        self.rest = rest
        self.summary = self.summary.with_unchecked(len(rest), all_new)


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
        headway: told of long comparisons.
    """

    def __init__(
        self,
        ledger: Ledger,
        root: OutputRoot,
        overwrite: bool,
        retry_quarantined: bool,
        model_loras: Sequence[ModelLora] = (),
        headway: Headway | None = None,
    ) -> None:
        self._headway = headway or Headway()
        self._ledger = ledger
        self._root = root
        self._overwrite = overwrite
        self._retry_quarantined = retry_quarantined
        self._lora_names = {lora.identity: lora.name for lora in model_loras}

    def known(self, items: Sequence[Item]) -> dict[str, Entry]:
        """What earlier runs left of inputs, by the key of their output."""
        with self._headway.at("reading the record"):
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
        known = self.known(admitted) if known is None else known
        assessed = self._assess_all(admitted, known)
        summary = PlanSummary.of(self._standings(assessed, known))
        if claim is not None:
            if not claim.check() and self._is_of_others(assessed):
                claim.refuse_as_foreign()
            claim.claim()
        for unfinished in self._ledger.open_leases():
            self._root.sweep(unfinished)
        before: dict[str, Entry] = {}
        for one in self._headway.over("comparing what changed", assessed, len(assessed)):
            self._remember(one, known, before)
        with self._headway.at("recording the plan"):
            batch = self._ledger.begin_batch([one.entry for one in assessed])
        if claims is not None:
            claims.recorded_by(partial(self._ledger.position_in, batch))
        _give_up_settled(claims, assessed)
        return Plan(
            [one.item for one in assessed if _runs(one) and isinstance(one.item, Admitted)],
            [_settled_result(one.entry, one.item) for one in assessed if not _runs(one)],
            batch,
            _renews(assessed, known),
            summary,
            before,
            None if self._overwrite else Replaced(self._root, before),
            claims,
            failed_before=_failed_before(admitted, known),
        )

    def add(self, plan: Plan, items: Sequence[Item]) -> list[Admitted | Result]:
        """Plan more inputs of a batch: for each the task that is to run, or its settled result."""
        known = self.known(items)
        assessed = [self._assess(item, known) for item in items]
        for one in assessed:
            self._remember(one, known, plan.before)
        self._ledger.add_to_batch(plan.batch, [one.entry for one in assessed])
        _give_up_settled(plan.claims, assessed)
        plan.failed_before |= _failed_before(items, known)
        plan.renews = plan.renews or _renews(assessed, known)
        return [
            one.item
            if _runs(one) and isinstance(one.item, Admitted)
            else _settled_result(one.entry, one.item)
            for one in assessed
        ]

    def settled(self, plan: Plan, items: Sequence[Item]) -> list[Result | None]:
        """Results of inputs that have nothing to do, and None for others; nothing is recorded."""
        known = self.known(items)
        plan.failed_before |= _failed_before(items, known)
        assessed = [self._assess(item, known) for item in items]
        return [None if _runs(one) else _settled_result(one.entry, one.item) for one in assessed]

    def look(self, items: Sequence[Item]) -> list[tuple[Standing, list[Change]]]:
        """How inputs stand that are not planned yet; nothing is recorded."""
        comparison, known = Comparison(self._lora_names), self.known(items)
        return [_reasons(one, comparison) for one in self._assess_all(items, known)]

    def _assess_all(self, items: Sequence[Item], known: Mapping[str, Entry]) -> list[Assessed]:
        counted = self._headway.over("comparing", items, len(items))
        return [self._assess(item, known) for item in counted]

    def _assess(self, item: Item, known: Mapping[str, Entry]) -> Assessed:
        if isinstance(item, Rejected):
            return refused(item)
        return _mindful(self._compared(item, known), known.get(item.output.key))

    def _compared(self, item: Admitted, known: Mapping[str, Entry]) -> Assessed:
        entry = known.get(item.output.key)
        if self._overwrite:
            there = os.path.lexists(item.output.file)
            return Assessed(item, entry_for(item, "pending"), "again" if there else "new")
        return assess(item, entry, self._retry_quarantined)

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
            entry = entry_of_file(one.item, one.made)
        if entry is not None:
            before[entry.key] = entry

    def standings(
        self, items: Sequence[Item], claim: FolderInput | None = None
    ) -> list[tuple[Assessed, Standing, list[Change]]]:
        """How all inputs of a batch stand, and what each changed by; nothing is recorded.

        Args:
            claim: of the input on the folder, which is only checked.

        Raises:
            InputError: as `begin` raises it.
        """
        known = self.known(items)
        assessed = self._assess_all(items, known)
        if claim is not None and not claim.check() and self._is_of_others(assessed):
            claim.refuse_as_foreign()
        standings = self._standings(assessed, known)
        return [(one, *standing) for one, standing in zip(assessed, standings, strict=True)]

    def _standings(
        self, assessed: Sequence[Assessed], known: Mapping[str, Entry]
    ) -> list[tuple[Standing, list[Change]]]:
        comparison = Comparison(self._lora_names)
        counted = self._headway.over("comparing what changed", assessed, len(assessed))
        standings = [_reasons(one, comparison) for one in counted]
        moves = MovedTasks(assessed, known, self._ledger)
        for place, one in enumerate(assessed):
            standing, changes = standings[place]
            if standing == "changed":
                standings[place] = standing, moves.seen(one, changes)
        return standings

    def _is_of_others(self, assessed: Sequence[Assessed]) -> bool:
        """Whether this input would replace results, and knows none of the folder's prompts."""
        if not any(one.standing == "changed" for one in assessed):
            return False
        there = {text_of(entry.task) for entry in self._ledger.finished()}
        there |= {one.made.text for one in assessed if one.made is not None}
        asked = {text_of(one.entry.task) for one in assessed if isinstance(one.item, Admitted)}
        return not (asked & there)


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


def _failed_before(items: Sequence[Item], known: Mapping[str, Entry]) -> dict[int, str]:
    """Why inputs failed in an earlier run, by their place."""
    found = {}
    for item in items:
        entry = known.get(item.output.key) if isinstance(item, Admitted) else None
        if (reason := _reason_of(entry)) is not None:
            found[item.position] = reason
    return found


def _reason_of(known: Entry | None) -> str | None:
    """Why a task failed when it was last tried, if it did."""
    if known is None or known.state not in ("failed", "pending"):
        return None
    return known.error or None


def _mindful(one: Assessed, known: Entry | None) -> Assessed:
    """A task that is to be tried again remembers why it failed, for as long as it is not tried."""
    reason = _reason_of(known)
    if reason is None or not _runs(one):
        return one
    return replace(one, entry=replace(one.entry, error=reason))


def _give_up_settled(claims: BatchClaims | None, assessed: Sequence[Assessed]) -> None:
    """Release the claims on outputs that this batch will not write."""
    if claims is not None:
        for one in assessed:
            if not _runs(one) and isinstance(one.item, Admitted):
                claims.release(one.item.output.key)


def _settled_result(entry: Entry, item: Item) -> Result:
    """What a run says of an input that it has nothing to do for.

    `recorded_result` tells what a folder has, whoever made it and when: there a picture is done
    and lies where the record says. Here it is skipped, lies where this run's input names it, and
    an input that was refused has a cause, which no record keeps.
    """
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
