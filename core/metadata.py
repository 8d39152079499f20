"""The two tables that a run leaves beside its pictures.

`metadata.jsonl`: one line per picture, in the form that makes the folder a Hugging Face
`imagefolder` dataset (`file_name` and free columns). `results.jsonl`: one line per input of
the newest batch, failures included, in input order.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from core.ledger import Entry
from core.outputs import write_atomically
from core.tasks import Result

_TASK_COLUMNS = ("prompt", "negative_prompt", "seed", "lora_strength", "metadata")
_USED_COLUMNS = (
    "model",
    "width",
    "height",
    "num_inference_steps",
    "guidance_scale",
    "true_cfg_scale",
)


def write_metadata(folder: Path, pictures: Iterable[Entry], results: Sequence[Result]) -> None:
    """Write both tables, each whole or not at all.

    Raises:
        StorageError: the disk refuses.
    """
    present = (entry for entry in pictures if (folder / str(entry.output_path)).is_file())
    write_atomically(folder / "metadata.jsonl", _lines(_picture_row(e) for e in present))
    write_atomically(folder / "results.jsonl", _lines(r.as_dict() for r in results))


def _picture_row(entry: Entry) -> dict[str, Any]:
    """One picture. The same columns in every row, because a dataset's columns have one type."""
    lora = entry.task.get("lora_path")
    return {
        "file_name": entry.output_path,
        "task_id": entry.task_id,
        **{name: entry.task.get(name) for name in _TASK_COLUMNS if name != "metadata"},
        "lora": Path(lora).name if lora else None,
        **{name: entry.used.get(name) for name in _USED_COLUMNS},
        "sha256": entry.sha256,
        "fingerprint": entry.fingerprint,
        # Free-form values differ in type from row to row: one JSON text each.
        "metadata": json.dumps(entry.task.get("metadata") or {}, ensure_ascii=False),
    }


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
