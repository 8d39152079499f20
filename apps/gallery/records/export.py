"""All records of a folder as one table: CSV, or Parquet where pyarrow is installed."""

import csv
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

from apps.gallery.items import Item
from apps.gallery.records.lists import loras_of
from core.errors import InputError
from core.paths import as_text, printable
from core.store.outputs import write_atomically

MOST_EXACT = 2**63 - 1  # that a column of whole numbers holds
USED = (
    "model",
    "width",
    "height",
    "num_inference_steps",
    "guidance_scale",
    "true_cfg_scale",
    "sampler",
)
_FRACTIONS = ("guidance_scale", "true_cfg_scale")
_COUNTS = ("width", "height", "num_inference_steps")


def export(items: Sequence[Item], file: Path) -> int:
    """Write a table with a row for each record; returns how many rows it has.

    Raises:
        InputError: the name ends neither in .csv nor in .parquet, or pyarrow is missing.
        StorageError: the disk refuses.
    """
    if not file.parent.is_dir():
        raise InputError(f"{as_text(file)}: there is no folder {as_text(file.parent)}.")
    rows = rows_of(items)
    if file.suffix.lower() == ".csv":
        write_atomically(file, _csv(rows))
    elif file.suffix.lower() in (".parquet", ".pq"):
        write_atomically(file, _parquet(rows))
    else:
        raise InputError(f"{as_text(file)}: expected a name that ends in .csv or .parquet.")
    return len(rows)


def rows_of(items: Sequence[Item]) -> list[dict[str, Any]]:
    """The rows; all have the same columns, and each column holds values of one type."""
    seeds = [item.task.get("seed") for item in items]
    exact = all(not isinstance(seed, int) or seed <= MOST_EXACT for seed in seeds)
    names = sorted({name for item in items for name in _scores(item)})
    return [_row(item, exact, names) for item in items]


def _row(item: Item, exact: bool, score_names: Sequence[str]) -> dict[str, Any]:
    task, used = item.task, item.used
    seed = task.get("seed")
    metadata = task.get("metadata")
    scores = _scores(item)
    when = datetime.fromtimestamp(item.updated, UTC) if item.updated else None
    return {
        "position": item.position,
        "task_id": item.name,
        "kind": item.kind,
        "state": item.state,
        "file": printable(shown) if (shown := item.file or item.given) else None,
        "prompt": _text(task.get("prompt")),
        "instruction": _text(task.get("instruction")),
        "negative_prompt": _text(task.get("negative_prompt")),
        "seed": seed if exact or seed is None else str(seed),
        "lora": loras_of(item) or None,
        **{name: _used(name, used.get(name)) for name in USED},
        "worker": item.worker,
        "seconds": item.seconds,
        "attempts": item.attempts,
        "cause": item.cause,
        "error": item.error,
        "category": item.category,
        **{f"score_{name}": scores.get(name) for name in score_names},
        "sources": json.dumps([printable(path) for path in item.sources]) if item.sources else None,
        "bytes": item.size or None,
        "sha256": item.sha256,
        "recorded": when.isoformat() if when else None,
        "metadata": json.dumps(metadata, ensure_ascii=False) if metadata else None,
    }


def _scores(item: Item) -> dict[str, float]:
    """The scores of the newest verdict that has some."""
    found = (verdict.scores for verdict in reversed(item.verdicts) if verdict.scores)
    return next(found, {})


def _used(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in _FRACTIONS:
        return float(value)
    return int(value) if name in _COUNTS else str(value)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    stream = StringIO()
    # A carriage return in a text that is not quoted would end its row.
    writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    if rows:
        writer.writerow(rows[0])
        writer.writerows(["" if v is None else v for v in row.values()] for row in rows)
    return stream.getvalue()


def _parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError(
            "Parquet files need pyarrow, which is not installed: pip install pyarrow. "
            "A name that ends in .csv needs nothing."
        ) from None
    stream = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), stream)
    return bytes(stream.getvalue().to_pybytes())


def default_name(folder: Path) -> Path:
    """Where an export goes whose file is not named: beside the folder's own tables."""
    return Path(os.path.abspath(folder)) / "records.csv"
