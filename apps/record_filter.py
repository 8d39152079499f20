"""Conditions on records, such as `status=failed`, `lora=ink*` or `seconds>30`.

Nothing of a condition is run as code. Texts are compared without regard to case, `*` stands for
anything, and numbers are compared as numbers.
"""

import argparse
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Any

from core.errors import InputError
from core.intake import spellings
from core.intake.setting_values import is_number
from core.lora_paths import file_or_folder, lora_name, name_of
from core.paths import as_text
from core.store.ledger_entry import Entry
from core.tasks import FAILURES
from core.validation import shown

STATUSES = ("new", "done", "failed", "quarantined", "unfinished")
"""new: never asked for. unfinished: asked for, and not tried to the end."""
NONE = "none"
MOST_SHOWN = 5  # ids that one message names
_FORM = re.compile(r"\s*([\w.\- ]+?)\s*(!=|!~|>=|<=|=|~|>|<)\s*(.*?)\s*", re.DOTALL)
_NUMERIC = (">", "<", ">=", "<=")
_OF_RECORDS = {  # by how people may call them
    "status": "status", "state": "status", "failed": "failed", "id": "id", "taskid": "id",
    "prompt": "prompt",
    "instruction": "prompt", "lora": "lora", "loras": "lora", "loraname": "lora",
    "worker": "worker", "gpu": "worker", "error": "error", "reason": "error",
    "seconds": "seconds", "elapsed": "seconds", "time": "seconds", "file": "file",
    "filename": "file", "outputpath": "file", "model": "model", "picture": "picture",
    "source": "picture", "sourceimages": "picture", "image": "picture",
}  # fmt: skip
FIELDS = ("status", "id", "prompt", "seed", "steps", "cfg", "lora", "worker", "error", "seconds",
          "file", "model", "picture")  # fmt: skip
"""Those that messages name; settings have any of their usual names, too."""


@dataclass(frozen=True)
class Condition:
    """What a record has to fulfil.

    Attributes:
        field: of a record's view, see `view_of`; of its metadata with `metadata.` before it.
        operator: =, !=, ~ (contains), !~, >, <, >= or <=.
        value: as it was written.
    """

    field: str
    operator: str
    value: str

    def holds(self, view: Mapping[str, Any]) -> bool:
        """Whether a record fulfils it."""
        found = view.get(self.field)
        values = found if isinstance(found, list) else [found]
        if self.operator.startswith("!"):
            positive = Condition(self.field, self.operator[1:], self.value)
            return not positive.holds(view)
        return any(self._fits(value) for value in values)

    def _fits(self, found: Any) -> bool:
        if self.operator in _NUMERIC:
            return is_number(found) and _compared(float(found), self.operator, float(self.value))
        text = NONE if found is None else str(found).casefold()
        wanted = self.value.casefold()
        if self.operator == "~":
            return wanted in text
        if is_number(found) and is_number(wanted):
            return float(found) == float(wanted)
        return fnmatchcase(text, wanted.replace("[", "[[]"))


FAILED = Condition("failed", "=", "yes")
"""It failed, or was put into quarantine."""


def read_condition(text: str, others: Collection[str] = ()) -> Condition:
    """A condition as users write it.

    Args:
        others: fields that these records have beside the usual ones.

    Raises:
        InputError: it is none, or its field or value cannot be.
    """
    match = _FORM.fullmatch(text)
    if match is None or not match[3]:
        raise InputError(
            f"expected FIELD=VALUE, like status=failed, lora=ink* or seconds>30 (found "
            f"{shown(text)})."
        )
    field, operator, value = match[1], match[2], match[3]
    name = _field(field, others)
    if operator in _NUMERIC and not is_number(value):
        raise InputError(f"{text.strip()}: {operator} compares numbers (found {shown(value)}).")
    is_status = any(fnmatchcase(status, value.casefold()) for status in STATUSES)
    if name == "status" and operator in ("=", "!=") and not is_status:
        raise InputError(f"status is one of {', '.join(STATUSES)} (found {shown(value)}).")
    return Condition(name, operator, value)


def _conditions(texts: Sequence[str], others: Collection[str] = ()) -> list[Condition]:
    try:
        return [read_condition(as_text(text), others) for text in texts]
    except InputError as error:
        raise InputError(f"--where: {error}") from None


def conditions_of(options: argparse.Namespace, others: Collection[str] = ()) -> list[Condition]:
    """What `--where` and `--only-failed` ask of a record.

    Args:
        others: as in `read_condition`.

    Raises:
        InputError: a condition that is none.
    """
    asked = _conditions(options.where or (), others)
    return [*asked, FAILED] if options.only_failed else asked


def refuse_unknown(only: Collection[str], ids: Collection[str]) -> None:
    """Raises InputError for an id of `--only` that nothing has."""
    unknown = [id for id in only if id not in ids]
    if not unknown:
        return
    near = get_close_matches(unknown[0], sorted(ids), 1)
    hint = f"did you mean {near[0]}?" if near else f"ids here are like {min(ids, default='none')}."
    names = ", ".join(shown(id) for id in unknown[:MOST_SHOWN])
    raise InputError(f"--only: nothing here is called {names}; {hint}")


def _field(name: str, others: Collection[str]) -> str:
    key = spellings.plain(name)
    for other in others:
        if spellings.plain(other) == key:
            return other
    if name.startswith("metadata."):
        return name
    known = _OF_RECORDS.get(key) or spellings.setting(name)
    if known is None or known in ("size", "metadata"):
        fields = (*FIELDS, *others)
        near = get_close_matches(
            key, [*_OF_RECORDS, *map(spellings.plain, fields)], 1, spellings.ALIKE
        )
        hint = f"did you mean {near[0]!r}?" if near else f"records have {', '.join(fields)}, …"
        raise InputError(f"{shown(name)} is no field of a record; {hint}")
    return {"lora_path": "lora", "output_path": "file", "task_id": "id"}.get(known, known)


def view_of(entry: Entry | None, task: Mapping[str, Any], id: str | None = None) -> dict[str, Any]:
    """What conditions see: a record, or a task that has none yet.

    Args:
        task: its fields, where there is no record.
    """
    fields = entry.task if entry is not None and entry.task else task
    view = {key: value for key, value in fields.items() if key not in ("metadata", "loras")}
    metadata = fields.get("metadata")
    if isinstance(metadata, Mapping):
        view |= {f"metadata.{key}": value for key, value in metadata.items()}
    used = entry.used if entry is not None else {}
    for name in ("num_inference_steps", "width", "height", "guidance_scale"):
        if view.get(name) is None and used.get(name) is not None:
            view[name] = used[name]
    view["prompt"] = fields.get("prompt") or fields.get("instruction")
    if "true_cfg_scale" in fields:
        view["cfg"] = fields["true_cfg_scale"]
    view["picture"] = _pictures(fields.get("source_images"))
    view["lora"] = _loras(fields)
    view["id"] = entry.task_id if entry is not None else id
    view["file"] = entry.output_path if entry is not None else fields.get("output_path")
    view["model"] = used.get("model")
    view["status"] = "new" if entry is None else _status(entry)
    view["failed"] = "yes" if view["status"] in FAILURES else "no"
    view["worker"] = entry.worker if entry is not None else None
    view["error"] = entry.error if entry is not None else None
    view["seconds"] = entry.elapsed if entry is not None else None
    return view


def _status(entry: Entry) -> str:
    return entry.state if entry.state in STATUSES else "unfinished"


def _loras(fields: Mapping[str, Any]) -> list[str | None]:
    """LoRAs by their names, with and without the ending of their files."""
    loras = fields.get("loras")
    paths = [x.get("path") for x in loras if isinstance(x, Mapping)] if loras else []
    paths = paths or [fields.get("lora_path")]
    names = [str(path).replace("\\", "/") for path in paths if path]
    ways = (str, file_or_folder, lora_name, name_of, lambda path: path.rpartition("/")[2])
    found = {called(name) for name in names for called in ways}
    return [*sorted(found)] if found else [None]


def _pictures(sources: Any) -> list[str | None]:
    """The picture that was edited, by its path and by its name."""
    if not sources:
        return [None]
    path = PurePath(str(sources if isinstance(sources, str) else sources[0]))
    return [str(path), path.name, path.stem]


def _compared(found: float, operator: str, wanted: float) -> bool:
    return {
        ">": found > wanted,
        "<": found < wanted,
        ">=": found >= wanted,
        "<=": found <= wanted,
    }[operator]


def all_hold(conditions: Sequence[Condition], view: Mapping[str, Any]) -> bool:
    """Whether a record fulfils every condition."""
    return all(condition.holds(view) for condition in conditions)
