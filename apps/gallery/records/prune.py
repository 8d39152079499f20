"""What lies in an output folder and serves nothing: found first, removed only if that is asked for.

Never found is what the record points at, nor anything that this program did not make.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from apps.gallery.items import Item
from apps.gallery.places import HIDDEN
from apps.gallery.thumbnails import unused
from core.paths import as_text
from core.store.ledger_file import FILE_NAME, LOCK_NAME
from core.store.ledger_reading import FolderRecord
from core.store.outputs import (
    ANSWERS_PREFIX,
    PARTIAL_PREFIX,
    PICTURE_SUFFIXES,
    REPLACED,
    output_key,
)
from core.store.provenance import read_provenance


@dataclass(frozen=True)
class Useless:
    """A file that may go, with its bytes and what it is."""

    file: Path
    size: int
    what: str


def find_useless(
    folder: Path, record: FolderRecord, items: list[Item], replaced: bool
) -> list[Useless]:
    """All that may go.

    Args:
        replaced: also what `.replaced` keeps of results that were made anew.
    """
    recorded = {task.entry.key for task in record.tasks}
    found = [_useless(file, what) for file, what in _files(folder, recorded)]
    found += [_useless(file, "small copy of nothing") for file in unused(folder, items)]
    if replaced:
        kept = sorted(p for p in (folder / REPLACED).rglob("*") if p.is_file() or p.is_symlink())
        found += [_useless(file, "result that was replaced") for file in kept]
    return [one for one in found if one is not None]


def _useless(file: Path, what: str) -> Useless | None:
    try:
        return Useless(file, file.lstat().st_size, what)
    except OSError:  # it went meanwhile
        return None


def _files(folder: Path, recorded: set[str]) -> Iterator[tuple[Path, str]]:
    """Unfinished files, and results of this program of which the record says nothing."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if name not in (REPLACED, HIDDEN) and not _is_others(Path(place, name))
        )
        for name in sorted(names):
            file = Path(place, name)
            if file.is_symlink():
                continue
            if name.startswith(PARTIAL_PREFIX):
                yield file, "unfinished file"
            elif name.startswith(ANSWERS_PREFIX):
                yield file, "a judge's answers about an edit without a verdict"
            elif file.suffix.lower() in (*PICTURE_SUFFIXES, ".json"):
                key = output_key(as_text(file.relative_to(folder)))
                if key not in recorded and _is_ours(file):
                    yield file, "result that the record does not know"


def _is_others(folder: Path) -> bool:
    """Whether a folder has a record of its own: a run may be at work there."""
    return any((folder / name).exists() for name in (FILE_NAME, LOCK_NAME))


def _is_ours(file: Path) -> bool:
    try:
        return bool(read_provenance(file))
    except ValueError:
        return False
