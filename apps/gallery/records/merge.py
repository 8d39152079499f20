"""Merges the output folders of drivers that shared one input into the folder of the whole."""

import os
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import InputError, StorageError
from core.paths import as_text, on_disk
from core.store.folder_input import FILE_NAME as INPUT
from core.store.ledger import Entry, Ledger
from core.store.ledger_file import FILE_NAME, LOCK_NAME
from core.store.ledger_merge import merge_record
from core.store.run_lock import RunLock
from core.store.tables import Tables
from core.tasks import Result, Status, in_input_order

_PART = re.compile(r"(?P<name>.+)\.shard-(?P<number>\d+)-of-(?P<of>\d+)")


@dataclass(frozen=True)
class Part:
    """The folder of one driver; `number` counts from 1."""

    folder: Path
    number: int
    of: int


@dataclass
class _Merged:
    """The merged batch, as the tables ask for it."""

    batch: int
    settled: Sequence[Result] = ()
    renews: bool = True
    before: Mapping[str, Entry] = field(default_factory=dict)
    replaced: None = None


def find_parts(folder: Path) -> list[Part]:
    """The folders beside `folder` that hold the parts of its run.

    Raises:
        InputError: there are none, not all of them, or those of several ways to share it out.
    """
    found = []
    beside = folder.parent.iterdir() if folder.parent.is_dir() else ()
    for one in beside:
        match = _PART.fullmatch(one.name)
        if match and match["name"] == folder.name and one.is_dir():
            found.append(Part(one, int(match["number"]), int(match["of"])))
    where = as_text(folder)
    itself = _PART.fullmatch(folder.name)
    if not found and itself:
        whole = as_text(folder.with_name(itself["name"]))
        raise InputError(
            f"{where}: is one of {itself['of']} parts; name the folder of the whole: "
            f"python records.py {shlex.quote(whole)} merge"
        )
    if not found:
        raise InputError(f"{where}: no folders {folder.name}.shard-1-of-N and so on lie beside it.")
    numbers = {part.of for part in found}
    if len(numbers) > 1:
        shown = " and ".join(str(number) for number in sorted(numbers))
        raise InputError(
            f"{where}: beside it lie parts of {shown}: move those away that do not count."
        )
    [of] = numbers
    missing = sorted(set(range(1, of + 1)) - {part.number for part in found})
    if missing:
        raise InputError(
            f"{where}: of its {of} parts these are not here: {', '.join(map(str, missing))}. "
            "Copy their folders beside the others, or run them here."
        )
    return sorted(found, key=lambda part: part.number)


def merge(folder: Path, parts: Sequence[Part]) -> Counter[str]:
    """Bring all parts together; returns how many tasks have which state.

    Pictures are linked where the file system can, and copied elsewhere; the parts stay as they
    are. What was merged before is let be, so that a merge that was interrupted is made again.

    Raises:
        InputError: two parts have different pictures of one name.
        LedgerError: a run is at work in one of the folders, or a ledger cannot be used.
        StorageError: the disk refuses.
    """
    with ExitStack() as stack:
        for part in parts:
            if not (part.folder / FILE_NAME).is_file():
                raise InputError(f"{as_text(part.folder)}: no run was here: no {FILE_NAME}.")
            stack.callback(RunLock(part.folder / LOCK_NAME).release)
        ledger = Ledger.open(folder)
        stack.callback(ledger.close)
        batch = ledger.begin_batch([])
        entries: list[Entry] = []
        for part in parts:
            merged = merge_record(ledger, batch, part.folder, part.number - 1, part.of)
            for entry in merged:
                _bring(entry, part.folder, folder)
            entries += merged
            if not (folder / INPUT).exists() and (part.folder / INPUT).exists():
                _place(part.folder / INPUT, folder / INPUT)
        plan = _Merged(batch)
        results = [_result(entry, folder) for entry in entries]
        tables = Tables(folder, ledger)
        tables.begin(plan)
        ended = Counter(result.status for result in results)
        tables.write(plan, in_input_order(results), ended)
        tables.close()
        return Counter(entry.state for entry in entries)


def _bring(entry: Entry, source: Path, folder: Path) -> None:
    """Have a finished picture lie in the folder, too."""
    if entry.state != "done" or entry.output_path is None:
        return
    there, here = (root / on_disk(entry.output_path) for root in (source, folder))
    if here.exists() or not there.exists():
        return
    _place(there, here)


def _place(there: Path, here: Path) -> None:
    try:
        here.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(there, here)
        except OSError:  # another file system, or one without links
            partial = here.with_name(f".partial-{here.name}")
            shutil.copy2(there, partial)
            partial.replace(here)
    except OSError as error:
        raise StorageError(f"{as_text(here)}: {error.strerror or error}.") from None


def _result(entry: Entry, folder: Path) -> Result:
    states: dict[str, Status] = {
        "done": "done",
        "failed": "failed",
        "quarantined": "quarantined",
    }
    status = states.get(entry.state, "interrupted")
    path = None
    if status == "done" and entry.output_path is not None:
        path = str(folder / on_disk(entry.output_path))
    return Result(
        position=entry.position,
        task_id=entry.task_id,
        status=status,
        output_path=path,
        elapsed=entry.elapsed,
        error=entry.error,
        worker=entry.worker,
        seed=entry.task.get("seed"),
    )
