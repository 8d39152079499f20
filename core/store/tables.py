"""The two tables that a run leaves beside its pictures.

`metadata.jsonl`: one line per picture, in the form that makes the folder a Hugging Face
`imagefolder` dataset (`file_name` and free columns). A picture that was to be replaced, and was
not, keeps its line: it is what lies there. In a folder with edits all lines have the columns
of edits, too. `results.jsonl`: one line per input, failures and verdicts included; see
`core.store.results_table`.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from os.path import isfile, join
from pathlib import Path
from typing import Any, Protocol

from core.errors import InputError
from core.lora_paths import file_or_folder
from core.paths import as_text, on_disk, printable
from core.store.dataset_folder import settle
from core.store.ledger import Entry, Ledger
from core.store.ledger_entry import recorded_result
from core.store.ledger_file import LOCK_NAME
from core.store.ledger_recovery import entry_of_result
from core.store.outputs import PICTURE_SUFFIXES, append, as_json, write_atomically
from core.store.picture_rows import EDIT_COLUMNS, PictureRows
from core.store.replaced import Replaced
from core.store.results_table import ResultsTable
from core.tasks import MAX_TASK_BYTES, Result, Status

_TASK_COLUMNS = ("prompt", "negative_prompt", "seed", "lora_strength")
_USED_COLUMNS = (
    "model",
    "width",
    "height",
    "num_inference_steps",
    "guidance_scale",
    "true_cfg_scale",
)
_OURS = {"metadata.jsonl": "fingerprint", "results.jsonl": "status"}  # a column of each
UNTOUCHED = {"interrupted", "skipped"}  # statuses of tasks that left the folder as it was
_FRACTIONS = ("guidance_scale", "true_cfg_scale")  # also where a pipeline's default is an integer


def refuse_foreign_tables(folder: Path) -> None:
    """See that a first run here takes the place of nobody else's table; nothing is written.

    Raises:
        InputError: it would.
    """
    if (folder / LOCK_NAME).exists():
        return
    for name, column in _OURS.items():
        first = _first_line(folder / name)
        if first and f'"{column}": ' not in first:
            raise InputError(
                f"{as_text(folder / name)} was not made by this program, and would be replaced; "
                "move it away, choose another folder (--name, --output-dir), or use --overwrite."
            )


def _first_line(file: Path) -> str:
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            return lines.readline(MAX_TASK_BYTES * 4).strip()
    except OSError:  # none, or what cannot be written either
        return ""


def _recorded(ledger: Ledger, folder: Path, batch: int) -> Iterator[Result]:
    """What the ledger says of a batch's tasks that have their results."""
    for entry in ledger.entries_in(batch):
        result = recorded_result(entry, folder)
        if result is not None:
            yield result


class BatchPlan(Protocol):
    """What the tables need to know of a batch: see `core.intake.planning.Plan`."""

    @property
    def batch(self) -> int: ...
    @property
    def settled(self) -> Sequence[Result]: ...
    @property
    def renews(self) -> bool: ...
    @property
    def before(self) -> Mapping[str, Entry]: ...
    @property
    def replaced(self) -> Replaced | None: ...


class Tables:
    """The tables of one folder, for as long as its ledger is open. Safe for several threads.

    A table is written whole or not at all. But a batch that only adds pictures adds their lines,
    but for those that the table has because another batch ended meanwhile: or a session of many
    small batches would write each line as often as there are batches. What a killed process leaves
    of such a line goes with the next run's first batch.
    """

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self._folder = folder
        self._ledger = ledger
        self.results = ResultsTable(folder, partial(_recorded, ledger, folder))  # no cycle
        self._lock = threading.RLock()  # a signal handler may end what it interrupts
        self._running: set[int] = set()  # batches
        self._in_part: set[int] = set()  # of which the file may have some lines already
        # For these: keys in the file, and whether with the result of this run or an older one.
        self._listed: dict[str, bool] = {}
        self._written: tuple[int, ...] | None = None  # the file, when it was written last
        self._seeds_are_numbers = True  # in the file
        self._columns: list[str] = []  # of the file
        self._empty: set[str] = set()  # those without any value
        self._interrupted = False  # the last batch was

    def begin(self, plan: BatchPlan) -> None:
        """Begin with a batch, before anything of it runs."""
        with self._lock:
            self._running.add(plan.batch)
            self.results.begin(plan.batch, plan.settled)

    def write(
        self, plan: BatchPlan, results: Iterable[Result], ended: Mapping[Status, int]
    ) -> None:
        """Bring the tables up to date with a batch that has just ended.

        Args:
            results: those that `results` may not have been told, or otherwise.
            ended: how many of its tasks ended in which way.

        Raises:
            LedgerError, StorageError: the disk refuses, or the ledger is damaged.
        """
        with self._lock:
            self._running.discard(plan.batch)
            self._interrupted = bool(ended.get("interrupted"))
            try:
                self._write_pictures(plan, ended)
            finally:
                self.results.end(plan.batch, results)

    def _write_pictures(self, plan: BatchPlan, ended: Mapping[Status, int]) -> None:
        statuses = {status for status, count in ended.items() if count}
        there = ended.get("done", 0) + ended.get("skipped", 0)
        file = self._folder / "metadata.jsonl"
        is_ours = self._written == _stamp(file)
        self._written = None  # until all of it is there
        if is_ours and statuses and statuses <= UNTOUCHED:
            pass  # of a batch that was closed before any of it was done
        elif plan.renews or not is_ours or not self._add(plan, file, there):
            self._listed.clear()
            with closing(self._picture_rows(self._entries(plan))) as rows:
                self._seeds_are_numbers = rows.seeds_are_numbers
                self._columns = rows.columns
                self._empty = set(rows.columns) - rows.with_value
                write_atomically(file, rows.lines(rows.seeds_are_numbers, rows.of_edits))
            self._in_part = set(self._running)
        self._in_part.discard(plan.batch)
        if not self._in_part:
            self._listed.clear()
        self._written = _stamp(file)

    def _entries(self, plan: BatchPlan) -> Iterator[Entry]:
        """What lies in the folder, in the order in which it was asked for."""
        for position, entry in enumerate(self._ledger.with_output()):
            found: Entry | None = entry
            if entry.state != "done":  # a failed or unfinished try leaves the old one in its place
                renewed = plan.replaced is not None and plan.replaced.has_kept(entry.key)
                before = None if renewed else plan.before.get(entry.key)
                found = before or self._said_by_file(entry, position)
            if found is not None:
                if self._running:
                    self._listed[entry.key] = entry.state == "done"
                yield found

    def _said_by_file(self, entry: Entry, position: int) -> Entry | None:
        shown = str(entry.output_path)
        file = self._folder / on_disk(shown)
        return entry_of_result(file, shown, position) if file.is_file() else None

    def close(self) -> None:
        """Prepare the folder for readers that need more than the table."""
        if self._written is not None:
            settle(self._folder, self._interrupted)

    def _add(self, plan: BatchPlan, file: Path, there: int) -> bool:
        """Add the batch's pictures to the table.

        Args:
            there: how many of its tasks have a result. What a later batch has asked for meanwhile
                is that batch's in the ledger, and it may have nothing to write of it.

        Returns:
            False if its columns do not take them, it says something else of one, or some are
            another batch's by now.
        """
        listed = self._listed if plan.batch in self._in_part else {}
        says_otherwise = False
        found = 0

        def new() -> Iterator[Entry]:
            nonlocal says_otherwise, found
            for entry in self._ledger.entries_in(plan.batch):
                if entry.state != "done":
                    continue
                found += 1
                if not listed.get(entry.key):
                    says_otherwise = says_otherwise or entry.key in listed
                    yield entry

        with closing(self._picture_rows(new())) as rows:
            with_edits = not set(EDIT_COLUMNS).isdisjoint(self._columns)
            if found < there or says_otherwise:
                return False
            if rows.columns not in ([], self._columns) and not with_edits:
                return False
            if self._seeds_are_numbers and not rows.seeds_are_numbers:
                return False
            if not self._empty.isdisjoint(rows.with_value):
                return False
            append(file, rows.lines(self._seeds_are_numbers, with_edits))
        return True

    def _picture_rows(self, entries: Iterable[Entry]) -> PictureRows:
        pictures = (e for e in entries if str(e.output_path).lower().endswith(PICTURE_SUFFIXES))
        folder = str(self._folder)  # a `Path` for each would take longer than the look
        rows = PictureRows(self._folder)
        for entry in pictures:
            if isfile(join(folder, on_disk(str(entry.output_path)))):
                rows.add(_picture_row(entry))
        return rows


def _stamp(file: Path) -> tuple[int, ...]:
    """Device, inode, size and time of a file, by which a change is seen."""
    try:
        found = file.stat()
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _picture_row(entry: Entry) -> dict[str, Any]:
    """One picture. A dataset's columns have one type, so every row has them all.

    Those of edits are only in rows of edits; `PictureRows` adds them to the others.
    """
    loras = [(_lora_name(x.get("path")), x.get("strength")) for x in _loras(entry.task)]
    stack = [{"lora": name, "strength": strength} for name, strength in loras]
    return {
        "file_name": entry.output_path,
        "task_id": entry.task_id,
        **{name: entry.task.get(name) for name in _TASK_COLUMNS},
        **_of_edit(entry.task),
        **({"lora_strength": None} if len(loras) > 1 else {}),
        "lora": " + ".join(name for name, _ in loras) or None,
        "loras": as_json(stack),
        **{name: entry.used.get(name) for name in _USED_COLUMNS},
        **{n: float(v) for n in _FRACTIONS if (v := entry.used.get(n)) is not None},
        "sha256": entry.sha256,
        "fingerprint": entry.fingerprint,
        # Free-form values differ in type from row to row: one JSON text each.
        "metadata": as_json(entry.task.get("metadata") or {}),
    }


def _of_edit(task: Mapping[str, Any]) -> dict[str, Any]:
    """The instruction of an edit, and the names of its sources as one JSON text."""
    if task.get("instruction") is None:
        return {}
    names = [_name(path) for path in task.get("source_images") or ()]
    return {
        "instruction": task["instruction"],
        "source_images": as_json(names),
    }


def _loras(task: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """A recorded task's LoRAs, in whichever way it was given them."""
    if task.get("lora_path"):
        return [{"path": task["lora_path"], "strength": task.get("lora_strength")}]
    loras = task.get("loras")
    return [x for x in loras if isinstance(x, Mapping)] if isinstance(loras, list) else []


def _lora_name(path: Any) -> str:
    return printable(file_or_folder(str(path)))


def _name(path: Any) -> str:
    return printable(Path(str(path)).name)
