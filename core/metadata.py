"""The two tables that a run leaves beside its pictures.

`metadata.jsonl`: one line per picture, in the form that makes the folder a Hugging Face
`imagefolder` dataset (`file_name` and free columns). A picture that was to be replaced, and was
not, keeps its line: it is what lies there. `results.jsonl`: one line per input of
the newest batch, failures included, in input order.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from core.ledger import Entry, Ledger
from core.ledger_recovery import entry_of_result
from core.outputs import append, write_atomically
from core.planning import Plan
from core.tasks import Result

# A dataset's column has one type, and Arrow's int64 ends here. One larger seed in a folder would
# make all of them rounded floats, so that they all are text then.
MOST_OF_A_COLUMN = 2**63 - 1

_TASK_COLUMNS = ("prompt", "negative_prompt", "seed", "lora_strength", "metadata")
_USED_COLUMNS = (
    "model",
    "width",
    "height",
    "num_inference_steps",
    "guidance_scale",
    "true_cfg_scale",
)


class Tables:
    """The tables of one folder, for as long as its ledger is open.

    A table is written whole or not at all. But a batch that only adds pictures adds their lines,
    or a session of many small batches would write each line as often as there are batches; what
    a killed process leaves of such a line goes with the next run's first batch.
    """

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self._folder = folder
        self._ledger = ledger
        self._written: tuple[int, tuple[int, ...]] | None = None  # last batch, and the file then
        self._seeds_as_text = False  # in the file

    def write(self, plan: Plan, results: Sequence[Result]) -> None:
        """Bring the tables up to date with a batch that has just ended.

        Raises:
            LedgerError, StorageError: the disk refuses, or the ledger is damaged.
        """
        file = self._folder / "metadata.jsonl"
        added = self._added(plan, file)
        self._written = None  # until all of it is there
        if added is not None:
            append(file, self._picture_lines(added))
        else:
            entries = list(self._entries(plan))
            self._seeds_as_text = any(map(_has_large_seed, entries))
            write_atomically(file, self._picture_lines(entries))
        self._written = (plan.batch, _stamp(file))
        write_atomically(
            self._folder / "results.jsonl", _lines(result.as_dict() for result in results)
        )

    def _entries(self, plan: Plan) -> Iterator[Entry]:
        """What lies in the folder, in the order in which it was asked for."""
        for position, entry in enumerate(self._ledger.with_output()):
            found: Entry | None = entry
            if entry.state != "done":  # a failed or unfinished try leaves the old one in its place
                renewed = plan.replaced is not None and plan.replaced.has_kept(entry.key)
                before = None if renewed else plan.before.get(entry.key)
                found = before or self._said_by_file(entry, position)
            if found is not None:
                yield found

    def _said_by_file(self, entry: Entry, position: int) -> Entry | None:
        shown = str(entry.output_path)
        file = self._folder / shown
        return entry_of_result(file, shown, position) if file.is_file() else None

    def _added(self, plan: Plan, file: Path) -> list[Entry] | None:
        """What to add to the table; None if the table has to be written anew."""
        if plan.renews or self._written != (plan.batch - 1, _stamp(file)):
            return None
        added = self._ledger.entries_of(plan.keys).values()
        done = sorted((e for e in added if e.state == "done"), key=lambda e: e.position)
        if not self._seeds_as_text and any(map(_has_large_seed, done)):
            return None
        return done

    def _picture_lines(self, entries: Iterable[Entry]) -> str:
        return _lines(
            _picture_row(entry, self._seeds_as_text)
            for entry in entries
            if (self._folder / str(entry.output_path)).is_file()
        )


def _stamp(file: Path) -> tuple[int, ...]:
    """By which a file is seen to be as it was left."""
    try:
        found = file.stat()
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _has_large_seed(entry: Entry) -> bool:
    seed = entry.task.get("seed")
    return isinstance(seed, int) and seed > MOST_OF_A_COLUMN


def _picture_row(entry: Entry, seed_as_text: bool) -> dict[str, Any]:
    """One picture. The same columns in every row, because a dataset's columns have one type."""
    lora = entry.task.get("lora_path")
    columns = {name: entry.task.get(name) for name in _TASK_COLUMNS if name != "metadata"}
    if seed_as_text and columns["seed"] is not None:
        columns["seed"] = str(columns["seed"])
    return {
        "file_name": entry.output_path,
        "task_id": entry.task_id,
        **columns,
        "lora": Path(lora).name if lora else None,
        **{name: entry.used.get(name) for name in _USED_COLUMNS},
        "sha256": entry.sha256,
        "fingerprint": entry.fingerprint,
        # Free-form values differ in type from row to row: one JSON text each.
        "metadata": json.dumps(entry.task.get("metadata") or {}, ensure_ascii=False),
    }


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
