"""What a judge's questions may name of an edit: row fields of the data, and which pictures it has.

A row is a mapping from names to texts. `instruction` is always there; `category`, `language` and
the data's own fields are there where the prompt file names them and the pair has them; `target`,
`references` and `mask` stand for pictures of that kind, where there are any.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from core.validation import text_of_value

if TYPE_CHECKING:
    from core.tasks import ScoreTask

INSTRUCTION = "instruction"
PICTURES = {"target": "target_images", "references": "reference_images", "mask": "mask"}
"""Kinds of pictures that a pair may lack, with the fields of a task that hold them."""
ALWAYS_KNOWN = frozenset({"category", "language"})  # to conditions, without being declared

Condition = bool | str | Sequence[str]
Where = dict[str, Condition]
Row = Mapping[str, str]


def row_of(task: "ScoreTask") -> dict[str, str]:
    """The row of a task."""
    row = {**task.fields, INSTRUCTION: task.instruction}
    row |= {kind: kind for kind, field in PICTURES.items() if getattr(task, field)}
    return row


def fields_named(given: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    """Those fields of a pair that are named, as text; null and NaN are no value.

    Numbers, lists and objects are written as JSON has them.
    """
    found = {name: text_of_value(given[name]) for name in names if name in given}
    return {name: text for name, text in found.items() if text is not None}


def fits(row: Row, where: Mapping[str, Condition]) -> bool:
    """Whether a row fulfils all conditions: a value, one of several, true (any), false (none)."""
    return all(_fulfils(row.get(name, "").strip(), condition) for name, condition in where.items())


def _fulfils(value: str, condition: Condition) -> bool:
    if isinstance(condition, bool):
        return bool(value) is condition
    return value == condition if isinstance(condition, str) else value in condition
