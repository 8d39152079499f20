"""Tasks multiplied: each of them once for every combination of seeds, settings and alternatives."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod
from pathlib import PurePosixPath
from typing import Any

from apps.prompts.alternatives import alternatives
from apps.prompts.bad_entry import BadEntry
from apps.prompts.settings import Choice, changed
from core.errors import InputError
from core.intake.task_kinds import Inputs, PlacedTask, TaskInput, at_its_place, rereadable
from core.names import bounded, counted
from core.seeds import RANDOM, seed_of_task

MOST = 1_000_000  # tasks of one run
MAX_ID_BYTES = 200


class Variants:
    """The variants of inputs, made as they are read.

    Names of pictures and ids of tasks say which variant they are of. Variants of one task without
    a seed of its own have one seed, so that they can be compared.

    Args:
        inputs: with `task_id` and `output_path` where they are usable.
        axes: every combination of their choices is drawn.
        changes: fields that every task gets, in place of its own.
        first_seed: of the first task that has none; RANDOM leaves it to the run.
        thing: what one input is called.

    Raises:
        InputError: they would be more than a million.
    """

    def __init__(
        self,
        inputs: Inputs,
        axes: Sequence[Sequence[Choice]],
        changes: Mapping[str, Any],
        first_seed: int,
        thing: str = "prompt",
    ) -> None:
        self._inputs = inputs
        self._axes = axes
        self._changes = changes
        self._first_seed = first_seed
        self._each = prod(map(len, axes))
        if len(self) > MOST:
            variants = f"{counted(len(inputs), thing)} in {self._each} variants"
            raise InputError(f"{variants} are {len(self)} pictures; the most of one run is {MOST}.")

    @property
    def rereadable(self) -> bool:
        """As the inputs are that they are made of."""
        return rereadable(self._inputs)

    def __len__(self) -> int:
        return len(self._inputs) * self._each

    def __iter__(self) -> Iterator[TaskInput]:
        for index, given in enumerate(self._inputs):
            for choices in product(*self._axes):
                yield self._variant(index, given, choices)

    def _variant(self, index: int, given: TaskInput, choices: Sequence[Choice]) -> TaskInput:
        suffix = "".join(f"_{choice.label}" for choice in choices if choice.label)
        if not isinstance(given, Mapping):
            return _bad(given, suffix) if isinstance(given, InputError) else given
        changes = dict(self._changes)
        for choice in choices:
            changes = changed(changes, choice.fields)
        fields = _named(changed(given, changes), suffix)
        if self._each > 1 and fields.get("seed") is None and self._first_seed != RANDOM:
            fields["seed"] = seed_of_task(self._first_seed, index)
        return like(given, fields)


def like(given: TaskInput, fields: dict[str, Any]) -> dict[str, Any]:
    """Other fields of a task, at the same place of its file."""
    return PlacedTask(fields, given.where) if isinstance(given, PlacedTask) else fields


def with_alternatives(inputs: Inputs, first_seed: int, wording: str = "prompt") -> list[TaskInput]:
    """Every reading of the prompts of inputs.

    Args:
        wording: the field that is read.

    Raises:
        InputError: they would be more than a million.
    """
    found: list[TaskInput] = []
    for index, given in enumerate(inputs):
        prompt = given.get(wording) if isinstance(given, Mapping) else None
        if not isinstance(given, Mapping) or not isinstance(prompt, str):
            found.append(given)
            continue
        try:
            readings = alternatives(prompt, wording)
        except InputError as error:
            found.append(BadEntry(at_its_place(given, str(error)), str(given.get("task_id"))))
            continue
        for label, text in readings:
            fields = _named({**given, wording: text}, f"_{label}" if label else "")
            if fields.get("seed") is None and first_seed != RANDOM:
                fields["seed"] = seed_of_task(first_seed, index)
            found.append(like(given, fields))
        if len(found) > MOST:
            raise InputError(f"the alternatives make more than {MOST} pictures.")
    return found


def _named(fields: dict[str, Any], suffix: str) -> dict[str, Any]:
    """A task with the name of its variant."""
    if not suffix:
        return fields
    id, path = fields.get("task_id"), fields.get("output_path")
    if isinstance(id, str):
        fields["task_id"] = bounded(f"{id}{suffix}", MAX_ID_BYTES)
    if isinstance(path, str):
        pure = PurePosixPath(path)
        fields["output_path"] = str(
            pure.with_name(f"{bounded(f'{pure.stem}{suffix}')}{pure.suffix}")
        )
    return fields


def _bad(error: InputError, suffix: str) -> InputError:
    id = getattr(error, "task_id", None)
    return BadEntry(str(error), f"{id}{suffix}") if isinstance(id, str) else error
