"""Chooses pairs by their ids, and by what the output folder has on record of them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from apps.edit_benchmark.attempt import Attempt, attempts_of
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.records import Outcome
from apps.edit_benchmark.selection import with_turns_before
from apps.record_filter import Condition, all_hold, refuse_unknown, view_of
from core.store.ledger import Entry
from core.store.outputs import output_key
from core.tasks import FAILURES

FIELDS = ("outcome", "category", "language")
"""What records of pairs have beside those of other records; and scores, by their names."""


class RecordedPairs:
    """What the record of a folder says of pairs.

    Args:
        records: of the output folder, by key.
        judge: the name of this run's.
        suffix: of edits.
        edits_per_pair: as the settings say it.
    """

    def __init__(
        self, records: Mapping[str, Entry], judge: str, suffix: str, edits_per_pair: int
    ) -> None:
        self._records = records
        # What was refused before it had a place has none to be known by.
        self._refused = {entry.task_id: entry for key, entry in records.items() if key[:1] == "#"}
        self._judge, self._suffix, self._edits = judge, suffix, edits_per_pair

    def chosen(
        self, pairs: Sequence[Pair], only: Collection[str], conditions: Sequence[Condition]
    ) -> list[Pair]:
        """Pairs that have one of the ids and fulfil all conditions, and the turns before them.

        Args:
            only: ids, or categories with ids as logs name pairs; all pairs, if there are none.

        Raises:
            InputError: an id is no pair's.
        """
        refuse_unknown(only, {id for pair in pairs for id in _ids(pair)})
        named = [pair for pair in pairs if not only or any(id in only for id in _ids(pair))]
        found = [pair for pair in named if all_hold(conditions, self._view(pair))]
        return with_turns_before(found, pairs)

    def _view(self, pair: Pair) -> dict[str, Any]:
        """What conditions see of a pair; of several edits the fields are those of the first."""
        attempts = attempts_of([pair], self._edits)
        entries = [self._entries(attempt) for attempt in attempts]
        outcomes = [_outcome(edit, score) for edit, score in entries]
        edit, score = entries[0]
        task = {"instruction": pair.instruction, "source_images": pair.source_images}
        view = view_of(edit, {**task, "metadata": pair.metadata}, pair.name)
        known = [entry for both in entries for entry in both if entry is not None]
        view |= {"id": list(_ids(pair)), "outcome": outcomes, "status": _status(known, outcomes)}
        view["failed"] = "yes" if view["status"] in FAILURES else "no"
        view["error"] = [entry.error for entry in known if entry.error]
        scores = (score.used.get("scores") if score is not None else None) or {}
        return {**view, "category": pair.category, "language": pair.language, **scores}

    def _entries(self, attempt: Attempt) -> tuple[Entry | None, Entry | None]:
        """The entries of an edit and of its score."""
        edit = self._records.get(output_key(attempt.edit_place(self._suffix)))
        score = self._records.get(output_key(attempt.verdict_place(self._judge)))
        refused = self._refused
        return edit or refused.get(attempt.name), score or refused.get(f"score {attempt.name}")


def _ids(pair: Pair) -> tuple[str, str]:
    return pair.pair_id, pair.name


def _outcome(edit: Entry | None, score: Entry | None) -> Outcome:
    if edit is not None and edit.state in FAILURES:
        return "edit_failed"
    if score is not None and score.state in FAILURES:
        return "score_failed"
    if score is None or score.state != "done":
        return "not_tried"
    return "scored" if score.used.get("scores") is not None else "unparsed"


def _status(known: Sequence[Entry], outcomes: Sequence[Outcome]) -> str:
    """As records of other runs have it: failed is whatever was tried and has no score."""
    if any(entry.state == "quarantined" for entry in known):
        return "quarantined"
    if any(outcome in ("edit_failed", "score_failed", "unparsed") for outcome in outcomes):
        return "failed"
    if all(outcome == "scored" for outcome in outcomes):
        return "done"
    return "unfinished" if known else "new"
