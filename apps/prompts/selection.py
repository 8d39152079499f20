"""Chooses some of a run's tasks: by their ids, or by what the output folder has on record."""

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from apps.prompts.variants import like
from apps.record_filter import Condition, all_hold, refuse_unknown, view_of
from core.intake.admission import claimed_id
from core.intake.task_kinds import Inputs, TaskInput
from core.seeds import RANDOM, seed_of_task
from core.store.ledger import Entry
from core.store.outputs import output_key


def chosen(
    inputs: Inputs,
    records: Mapping[str, Entry],
    folder: str,
    only: Collection[str],
    conditions: Sequence[Condition],
    first_seed: int,
) -> list[TaskInput]:
    """Inputs that have one of the ids and fulfil all conditions, with the seeds of their places.

    Args:
        records: of the output folder, by key.
        folder: the output folder.
        only: ids; all inputs, if there are none.
        first_seed: of the first input; RANDOM leaves seeds to the run.

    Raises:
        InputError: an id is no input's.
    """
    without_output = {entry.task_id: entry for key, entry in records.items() if key[:1] == "#"}
    found: list[TaskInput] = []
    ids: set[str] = set()
    for index, given in enumerate(inputs):
        id = _id(given, index)
        ids.add(id)
        if only and id not in only:
            continue
        task = given if isinstance(given, Mapping) else {}
        entry = records.get(_key(task, folder)) or without_output.get(id)
        if all_hold(conditions, view_of(entry, task, id)):
            found.append(with_seed(given, index, first_seed))
    refuse_unknown(only, ids)
    return found


def _id(given: TaskInput, index: int) -> str:
    own = getattr(given, "task_id", None)
    return own if isinstance(own, str) else claimed_id(given, index)


def _key(task: Mapping[str, Any], folder: str) -> str:
    path = task.get("output_path")
    if not isinstance(path, str):
        return ""
    return output_key(os.path.normpath(path.removeprefix(os.path.join(folder, ""))))


def with_seed(given: TaskInput, index: int, first_seed: int) -> TaskInput:
    """An input with the seed of its place, which it keeps wherever it stands then."""
    if not isinstance(given, Mapping) or given.get("seed") is not None or first_seed == RANDOM:
        return given
    return like(given, {**given, "seed": seed_of_task(first_seed, index)})
