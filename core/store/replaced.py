"""Results that others took the place of: kept in `.replaced/<time>/`, one folder per batch.

The old file gets its second name before the new one takes its first: at every instruction there
is a whole result under the name, and the old one is never without a name. Which files of a dead
run's folder were replaced in the end shows when the next run opens it.
"""

import contextlib
import errno
import filecmp
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from core.fault_points import fault_point
from core.paths import as_text, on_disk, printable
from core.store.dataset_folder import in_readable_order, settle, with_exact_seeds
from core.store.ledger_entry import Entry
from core.store.ledger_recovery import entry_of_result
from core.store.outputs import (
    FATAL_ERRNOS,
    PARTIAL_PREFIX,
    PICTURE_SUFFIXES,
    REPLACED,
    OutputPath,
    OutputRoot,
    discard,
    json_lines,
    make_folder,
    publish,
    storage_error,
    sync_folder,
    write_atomically,
)

# In a folder whose tables are not written yet. Temporary like all files of this prefix.
_OPEN = f"{PARTIAL_PREFIX}batch"
_COPY = f"{PARTIAL_PREFIX}copy"
PICTURES, VERDICTS = "metadata.jsonl", "results.jsonl"
_SUFFIXES = (*PICTURE_SUFFIXES, ".json")  # of results
_SETTINGS = ("model", "width", "height", "num_inference_steps", "guidance_scale")


class Replaced:
    """Keeps what one batch replaces. Several threads may publish.

    Args:
        before: what was finished under a name, by its key; it may grow with the batch.
    """

    def __init__(self, root: OutputRoot, before: Mapping[str, Entry]) -> None:
        self._root = root
        self._before = before
        self._folder: Path | None = None
        self._kept: dict[str, OutputPath] = {}
        self._one_at_a_time = threading.Lock()

    def publish(
        self, partial: str | Path, output: OutputPath, size: int, sync: bool = True
    ) -> None:
        """Give a finished result its name; what has the name now is kept.

        Args:
            sync: as in `core.store.outputs.publish`.

        Raises:
            StorageError: the file is not as the worker left it, or the disk refuses; the old
                result is still under its name, or kept and replaced.
        """
        with self._one_at_a_time:
            kept = self._keep(output)
        try:
            publish(partial, output.path, size, sync)
        finally:
            if kept is not None and _is_replaced(kept, output.file):
                self._kept[output.key] = output

    def has_kept(self, key: str) -> bool:
        """Whether the result under a name is a new one, whatever the ledger came to record."""
        return key in self._kept

    def write_tables(self, interrupted: bool = False) -> None:
        """Say what was kept, when the batch has ended.

        Args:
            interrupted: as in `core.store.dataset_folder.settle`.

        Raises:
            StorageError: the disk refuses; the next run writes them.
        """
        if self._folder is not None:
            entries = [(o.shown, self._entry(i, o)) for i, o in enumerate(self._kept.values())]
            _close(self._folder, entries, interrupted)
            with contextlib.suppress(OSError):  # there is something in it, as usual
                self._folder.parent.rmdir()
            self._folder, self._kept = None, {}

    def _entry(self, position: int, output: OutputPath) -> Entry | None:
        assert self._folder is not None
        known = self._before.get(output.key)
        return known or entry_of_result(
            self._folder / on_disk(output.shown), output.shown, position
        )

    def _keep(self, output: OutputPath) -> Path | None:
        """A second name for the file that is there; None if none is."""
        if not os.path.lexists(output.path):
            return None
        try:
            if self._folder is None:
                self._folder = self._begin()
            kept = self._folder / on_disk(output.shown)
            self._root.check_inside(kept)
            _make_folders(kept.parent, self._folder)
            fault_point("main.before-keep")
            _give_second_name(output.file, kept)
            fault_point("main.after-keep")
            try:
                sync_folder(kept.parent)
            except OSError:
                discard(kept)
                raise
        except OSError as error:
            raise storage_error(error, output.file) from None
        return kept

    def _begin(self) -> Path:
        """A new folder, marked as open."""
        base = self._root.folder / REPLACED
        self._root.check_inside(base / "x")
        make_folder(base)
        now = time.strftime("%Y%m%d_%H%M%S")
        for number in count(1):
            folder = base / (now if number == 1 else f"{now}-{number}")
            with contextlib.suppress(FileExistsError):
                folder.mkdir(parents=True)  # another batch may have removed an empty base
                break
        (folder / _OPEN).touch()
        for made in (folder, base, base.parent):
            sync_folder(made)
        return folder


def recover_replaced(folder: Path) -> None:
    """Finish what dead runs left of their folders of replaced results below `folder`.

    Raises:
        StorageError: the disk refuses.
    """
    base = folder / REPLACED
    if base.is_symlink() or not base.is_dir():
        return
    try:
        for kept_in in sorted(p for p in base.iterdir() if p.is_dir() and not p.is_symlink()):
            if (kept_in / _OPEN).exists():
                _recover(kept_in, folder)
            elif not any(kept_in.iterdir()):  # its run died before it was marked
                kept_in.rmdir()
    except OSError as error:
        raise storage_error(error, base) from None
    with contextlib.suppress(OSError):  # there is something in it
        base.rmdir()


def _recover(kept_in: Path, folder: Path) -> None:
    names = []
    for file in sorted(kept_in.rglob("*")):
        name = str(file.relative_to(kept_in))
        if file.is_dir() or name == _OPEN:
            continue
        if file.name.startswith(PARTIAL_PREFIX):
            discard(file)
        elif _may_be_result(file) and _is_replaced(file, folder / name):
            names.append(name)
    _close(
        kept_in,
        [(as_text(n), entry_of_result(kept_in / n, as_text(n), i)) for i, n in enumerate(names)],
    )


def _may_be_result(file: Path) -> bool:
    """Whether a file may be a result: tables lie beside results, and what `settle` makes."""
    return not file.is_symlink() and file.suffix.lower() in _SUFFIXES


def _is_replaced(kept: Path, current: Path) -> bool:
    """Whether another file has the old name; if it is still the old one, it needs no second."""
    try:
        same = filecmp.cmp(kept, current, shallow=False)
    except OSError:  # the new one is gone again
        return kept.exists()
    if same:
        discard(kept)
    return not same


def _close(
    kept_in: Path, entries: Sequence[tuple[str, Entry | None]], interrupted: bool = False
) -> None:
    """Write the tables of a folder and take its mark away; without any result it goes, too."""
    kept = list(_rows(entries))
    pictures = [row for row in kept if _is_picture(row["file_name"])]
    pictures = in_readable_order(with_exact_seeds(pictures))
    verdicts = [row for row in kept if not _is_picture(row["file_name"])]
    for name, rows in ((PICTURES, pictures), (VERDICTS, verdicts)):
        if rows:
            write_atomically(kept_in / name, json_lines(rows))
    if pictures:
        settle(kept_in, interrupted)
    discard(kept_in / _OPEN)
    if not entries:
        _remove_empty(kept_in)


def _rows(entries: Sequence[tuple[str, Entry | None]]) -> Iterator[dict[str, Any]]:
    """One per file, all with the same columns; without an entry it does not say how it was made."""
    for name, entry in entries:
        task: Mapping[str, Any] = entry.task if entry else {}
        used: Mapping[str, Any] = entry.used if entry else {}
        yield {
            "file_name": printable(name),
            "task_id": entry.task_id if entry else None,
            "prompt": task.get("prompt", task.get("instruction")),
            "seed": task["seed"] if isinstance(task.get("seed"), int) else None,
            **{column: used.get(column) for column in _SETTINGS},
            **({} if _is_picture(name) else {"scores": used.get("scores")}),
            "sha256": entry.sha256 if entry else None,
            "fingerprint": entry.fingerprint if entry else None,
            # Free-form values differ in type from row to row: one JSON text each.
            "task": json.dumps(task, ensure_ascii=False),
            "used": json.dumps(used, ensure_ascii=False),
        }


def _is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURE_SUFFIXES)


def _give_second_name(file: Path, second: Path) -> None:
    try:
        os.link(file, second)
    except OSError as error:
        if error.errno in FATAL_ERRNOS or error.errno == errno.EEXIST:
            raise
        # A file system without hard links, or a file with too many.
        copy = second.with_name(_COPY)
        try:
            shutil.copyfile(file, copy)
            with copy.open("rb") as stream:
                os.fsync(stream.fileno())
            os.replace(copy, second)
        except OSError:
            discard(copy)
            raise


def _make_folders(folder: Path, top: Path) -> None:
    """Make `folder` and those between it and `top`, each durable in the one above."""
    missing = []
    while folder != top and not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for made in reversed(missing):
        made.mkdir()
        sync_folder(made.parent)


def _remove_empty(folder: Path) -> None:
    """Remove `folder` and those below it, as far as they hold nothing."""
    for place, _, _ in sorted(os.walk(folder), reverse=True):
        with contextlib.suppress(OSError):
            os.rmdir(place)
