"""Edits that a run was given to score: pictures of somebody else, outside of its folder."""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from apps.gallery.items import STATES, Item, sources_of
from apps.gallery.verdicts import newest_of_each_judge
from core.paths import on_disk
from core.store.ledger_reading import Recorded

_SCORE_OF = "score "  # how a benchmark begins a score's name, before that of its pair
_OF_THE_EDIT = ("instruction", "source_images", "metadata")  # the rest is about the judge


def given_edits(folder: Path, scores: Sequence[Recorded]) -> list[Item]:
    """One item for each picture that was scored, with all verdicts; time is that of the newest."""
    found: dict[tuple[str, str], list[Recorded]] = defaultdict(list)
    for score in sorted(scores, key=lambda score: (score.batch, score.entry.position)):
        name = score.entry.task_id.removeprefix(_SCORE_OF)
        found[name, str(score.entry.task["edited_image"])].append(score)
    return [_item(folder, name, edit, of_it) for (name, edit), of_it in found.items()]


def _item(folder: Path, name: str, edit: str, scores: Sequence[Recorded]) -> Item:
    newest = scores[-1]
    entry = newest.entry
    states = {STATES[score.entry.state] for score in scores}
    state = "done" if "done" in states else STATES[entry.state]
    is_there = os.path.isfile(folder / on_disk(edit))
    return Item(
        id=entry.key,
        batch=newest.batch,
        position=entry.position,
        name=name,
        kind="edit",
        state=state,
        task={key: entry.task[key] for key in _OF_THE_EDIT if key in entry.task},
        given=edit,
        is_missing=not is_there,
        worker=entry.worker,
        seconds=entry.elapsed,
        updated=max(score.updated for score in scores),
        error=entry.error if state == "failed" else None,
        sources=sources_of(entry.task),
        verdicts=newest_of_each_judge(folder, scores),
    )
