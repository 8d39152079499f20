"""One page of two runs of the same pairs: source, both edits, and what they scored."""

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apps.gallery.data import EACH, item_row, script
from apps.gallery.items import Item
from apps.gallery.page import write_index
from apps.gallery.reading import read_folder
from core.errors import InputError
from core.paths import as_text


@dataclass(frozen=True)
class ComparisonTable:
    """Figures over the pairs, as the page shows them.

    Attributes:
        says: the most important one, in a few words.
        notes: lines below the table.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    says: str
    notes: Sequence[str] = ()


def write_comparison(
    a: Path, b: Path, file: Path, table: ComparisonTable, judge: str | None = None
) -> int:
    """Write a page that refers to the pictures of both folders; returns how many pairs it shows.

    Args:
        file: the page; by its place it finds the pictures.
        judge: whose scores are shown; by default the newest of each edit.

    Raises:
        InputError: a folder is none of a run, they share no pair, or the file is somebody else's.
        LedgerError, StorageError: a record cannot be read, or the disk refuses.
    """
    a, b, file = (Path(os.path.abspath(path)) for path in (a, b, file))
    if not file.parent.is_dir():
        raise InputError(f"{as_text(file)}: there is no folder {as_text(file.parent)}.")
    others = {_key(item): item for item in _edits(b, judge)}
    pairs = [(item, others[_key(item)]) for item in _edits(a, judge) if _key(item) in others]
    if not pairs:
        raise InputError(f"{as_text(a)} and {as_text(b)} have no pair in common.")
    rows = []
    for item, other in pairs:
        row, second = item_row(a, item, file.parent), item_row(b, other, file.parent)
        kept = ("url", "thumb", "file", "given", "verdicts", "error", "state", "seconds", "used")
        row["other"] = {key: second[key] for key in kept if key in second}
        if "failed" in (item.state, other.state):
            row["state"] = "failed"
            row.setdefault("error", other.error)
        rows.append(row)
    parts = [rows[start : start + EACH] for start in range(0, len(rows), EACH)]
    data = [script("add", number, part) for number, part in enumerate(parts)]
    run = _run(a, b, rows, table)
    write_index(file, run["title"], [*data, script("draw", []), script("tell", run)])
    return len(pairs)


def _run(a: Path, b: Path, rows: list[dict[str, Any]], table: ComparisonTable) -> dict[str, Any]:
    return {
        "title": f"A: {as_text(a.name)}, B: {as_text(b.name)}",
        "at": round(time.time(), 1),
        "running": False,
        "counts": dict(Counter(row["state"] for row in rows)),
        "says": table.says,
        "table": {
            "columns": list(table.columns),
            "rows": [list(row) for row in table.rows],
            "notes": list(table.notes),
        },
    }


def _edits(folder: Path, judge: str | None) -> list[Item]:
    items = [item for item in read_folder(folder).items if item.kind == "edit"]
    if judge is None:
        return items
    return [
        replace(item, verdicts=tuple(v for v in item.verdicts if v.judge == judge))
        for item in items
    ]


def _key(item: Item) -> tuple[str | None, str, str]:
    return (item.category, item.name, str(item.task.get("instruction")))
