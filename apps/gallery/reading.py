"""Items of an output folder, from its record; without one, from the tables beside its pictures."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apps.gallery.choices import with_choices
from apps.gallery.given_edits import given_edits
from apps.gallery.items import STATES, Item, Kind, sources_of
from apps.gallery.verdicts import Verdicts
from apps.run_folders import runs_below
from core.errors import InputError
from core.paths import as_text, on_disk
from core.store.ledger_entry import Entry
from core.store.ledger_reading import FolderRecord, Recorded, RecordedLease, read_record
from core.store.outputs import PICTURE_SUFFIXES
from core.tasks import FAILURES

METADATA, RESULTS = "metadata.jsonl", "results.jsonl"


@dataclass(frozen=True)
class FolderContents:
    """A folder as its gallery shows it, and the attempts behind it."""

    items: list[Item]
    leases: list[RecordedLease]


def read_folder(folder: Path) -> FolderContents:
    """Read an output folder, of a run that has ended, was killed or goes on.

    Raises:
        InputError: it is no output folder.
        LedgerError, StorageError: its record cannot be read.
    """
    if folder.is_file():
        raise InputError(f"{as_text(folder)} is a file; give the output folder of a run.")
    record = read_record(folder)
    if record is not None and record.tasks:
        return FolderContents(_items(folder, record), record.leases)
    if not folder.is_dir():
        raise InputError(f"{as_text(folder)}: there is no such folder.")
    items = list(_from_tables(folder))
    if not items and record is None:
        raise InputError(
            f"{as_text(folder)}: no output folder of a run, as it has neither ledger.sqlite nor "
            f"{METADATA}.{runs_below(folder)}"
        )
    return FolderContents(items, [])


def _items(folder: Path, record: FolderRecord) -> list[Item]:
    attempts = Counter(lease.key for lease in record.leases)
    ends = {lease.key: lease.outcome for lease in record.leases if lease.ended is not None}
    scores = [task for task in record.tasks if kind_of(task.entry.task) == "score"]
    others = [task for task in record.tasks if kind_of(task.entry.task) != "score"]
    verdicts = Verdicts(folder, scores, [task.entry for task in others])
    own = [replace(_item(folder, task), verdicts=verdicts.of(task.entry.key)) for task in others]
    return [
        replace(
            item,
            attempts=attempts[item.id],
            cause=ends.get(item.id) if item.state == "failed" else None,
        )
        for item in with_choices(own) + given_edits(folder, verdicts.alone)
    ]


def kind_of(task: dict[str, Any]) -> Kind:
    """The kind of a recorded task."""
    if "edited_image" in task:
        return "score"
    return "edit" if "source_images" in task or "instruction" in task else "generate"


def _item(folder: Path, recorded: Recorded) -> Item:
    entry = recorded.entry
    state = STATES[entry.state]
    size = _size(folder, entry) if state == "done" else 0
    is_missing = state == "done" and size is None
    return Item(
        id=entry.key,
        batch=recorded.batch,
        position=entry.position,
        name=entry.task_id,
        kind=kind_of(entry.task),
        state=state,
        task=entry.task,
        file=entry.output_path if state == "done" and not is_missing else None,
        is_missing=is_missing,
        size=size or 0,
        sha256=entry.sha256,
        used=entry.used,
        worker=entry.worker,
        seconds=entry.elapsed,
        updated=recorded.updated,
        error=entry.error,
        sources=sources_of(entry.task),
    )


def _size(folder: Path, entry: Entry) -> int | None:
    """Bytes of a finished result; None where it is gone."""
    try:
        return os.stat(os.path.join(folder, on_disk(str(entry.output_path)))).st_size
    except (OSError, ValueError):
        return None


def _from_tables(folder: Path) -> Iterator[Item]:
    """Items of a folder whose record is gone: its pictures, and what the tables say of them."""
    number = 0
    for row in _rows(folder / METADATA):
        name = row.get("file_name")
        if not isinstance(name, str) or not name.lower().endswith(PICTURE_SUFFIXES):
            continue
        path = folder / on_disk(name)
        there = path.is_file()
        yield Item(
            id=name,
            batch=1,
            position=number,
            name=str(row.get("task_id") or row.get("pair_id") or name),
            kind="edit" if row.get("instruction") else "generate",
            state="done",
            task=_task_of(row),
            file=name if there else None,
            is_missing=not there,
            size=path.stat().st_size if there else 0,
            sha256=row["sha256"] if isinstance(row.get("sha256"), str) else None,
            used={key: row[key] for key in _USED if row.get(key) is not None},
        )
        number += 1
    for row in _rows(folder / RESULTS):
        if row.get("success") is False and row.get("status") in FAILURES:
            yield Item(
                id=f"{row.get('position')} {row.get('task_id')}",
                batch=1,
                position=number,
                name=str(row.get("task_id")),
                kind="generate",
                state="failed",
                task={"seed": row.get("seed")},
                worker=row.get("worker"),
                seconds=_number(row.get("elapsed")),
                attempts=int(_number(row.get("attempts"))),
                error=str(row.get("error")),
                cause=row.get("cause"),
            )
            number += 1


_USED = ("model", "width", "height", "num_inference_steps", "guidance_scale", "true_cfg_scale")
_TASK = ("prompt", "instruction", "negative_prompt", "seed")


def _task_of(row: dict[str, Any]) -> dict[str, Any]:
    task: dict[str, Any] = {key: row[key] for key in _TASK if row.get(key) is not None}
    if isinstance(task.get("seed"), str) and task["seed"].isdecimal():
        task["seed"] = int(task["seed"])
    loras = _json(row.get("loras"))
    if isinstance(loras, list) and loras:
        task["loras"] = [
            {"path": str(x.get("lora")), "strength": _number(x.get("strength"))}
            for x in loras
            if isinstance(x, dict)
        ]
    metadata = _json(row.get("metadata"))
    task["metadata"] = metadata if isinstance(metadata, dict) else {}
    if isinstance(row.get("category"), str):
        task["metadata"]["category"] = row["category"]
    return task


def _json(text: Any) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) else 0.0


def _rows(file: Path) -> Sequence[dict[str, Any]]:
    """Objects of a JSONL file; what cannot be read is left out."""
    try:
        text = file.read_text("utf-8", errors="replace")
    except OSError:
        return []
    rows = (_json(line) for line in text.split("\n") if line.strip())
    return [row for row in rows if isinstance(row, dict)]
