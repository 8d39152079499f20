"""Edits that need no editor: those in a folder, and those that the data brings along."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from apps.edit_benchmark.layout import LAYOUTS, Layout
from apps.edit_benchmark.pair import Pair
from core.errors import InputError
from core.paths import as_text, on_disk, user_path
from core.store.outputs import PICTURE_SUFFIXES

MOST_FOLDERS = 500  # below the one that is given, in which edits may begin
LOOKED_AT = 200  # pairs by which layouts and folders are told apart
GivenEdit = Path | InputError
"""The file of an edit, or why there is none."""


@dataclass(frozen=True)
class FolderOfEdits:
    """Edits of one model in a folder.

    Attributes:
        start: the folder below which the layout's places lie: the given one, or one near it.
        name: of the layout.
    """

    start: Path
    name: str

    @property
    def line(self) -> str:
        """What edited, in a table's line."""
        return f"edits in {as_text(self.start)} ({self.name})"

    def find(self, pair: Pair) -> GivenEdit:
        """The file of a pair's edit."""
        layout = LAYOUTS[self.name]
        found = _file(self.start, layout, pair)
        if found is not None:
            return found
        place = f"{layout.place(pair)}{layout.suffixes[0]}"
        return InputError(f"edit: {place} is missing in {as_text(self.start)}.")


def find_edits(folder: str | Path, pairs: Sequence[Pair]) -> FolderOfEdits:
    """Tell in which layout the edits of a folder are named, and where they begin.

    The layout that has most of the pairs counts; of equal ones that of the data's own benchmark,
    and then the one that begins nearest to the given folder.

    Raises:
        InputError: there is no such folder, it has no edit of these pairs, or it has edits of
            several models.
    """
    given = Path(os.path.abspath(user_path(folder, "--score-only")))
    if not given.is_dir():
        raise InputError(f"--score-only: {as_text(given)} is not a folder.")
    some = [pair for pair in pairs if pair.problem is None][:LOOKED_AT]
    best: tuple[int, bool, int] | None = None
    found: list[FolderOfEdits] = []
    seen: dict[str, frozenset[str]] = {}
    for depth, start in _starts(given):
        for name in LAYOUTS:
            layout = LAYOUTS[name]
            count = sum(_is_there(start, layout, pair, seen) for pair in some)
            rank = (count, name == some[0].data_set, -depth)
            if count and (best is None or rank > best):
                best, found = rank, []
            if count and rank == best:
                found.append(FolderOfEdits(start, name))
    if not found:
        raise InputError(f"--score-only: {as_text(given)} has none of these edits: {_wanted(some)}")
    starts = {one.start for one in found}
    if len(starts) > 1:
        several = ", ".join(as_text(start.name) for start in sorted(starts)[:4])
        raise InputError(
            f"--score-only: {as_text(given)} has edits in several folders ({several}); name one."
        )
    return found[0]


def brought_edit(pair: Pair) -> GivenEdit | None:
    """The edit that the data brings along for a pair; None if it brings none."""
    if not pair.edited_image:
        return None
    if not os.path.isfile(on_disk(pair.edited_image)):
        return InputError(f"edited_image: {pair.edited_image!r} is missing.")
    return Path(on_disk(pair.edited_image))


def _starts(given: Path) -> Iterator[tuple[int, Path]]:
    """Folders below which edits may lie, with how far they are from the given one.

    Scripts want a model's folder, a folder of models, or the folder of the pictures itself.
    """
    yield 0, given
    yield 1, given.parent
    level, seen = [given], 0
    for depth in (1, 2):
        below = [child for folder in level for child in _folders_in(folder)]
        for child in below:
            seen += 1
            if seen > MOST_FOLDERS:
                return
            yield depth, child
        level = below


def _folders_in(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(e.path) for e in entries if e.is_dir() and e.name[0] != ".")
    except OSError:
        return []


def _file(start: Path, layout: Layout, pair: Pair) -> Path | None:
    """The file of a pair's edit, in the usual format before others."""
    place = start / on_disk(str(layout.place(pair)))
    for suffix in dict.fromkeys((*layout.suffixes, *PICTURE_SUFFIXES)):
        for spelt in (suffix, suffix.upper()):
            file = place.parent / f"{place.name}{spelt}"
            if file.is_file():
                return file
    return None


def _is_there(start: Path, layout: Layout, pair: Pair, seen: dict[str, frozenset[str]]) -> bool:
    """Whether a pair's edit is there, by one look at each folder. `seen`: stems by folder."""
    folder, _, stem = os.path.join(start, on_disk(str(layout.place(pair)))).rpartition(os.sep)
    if folder not in seen:
        try:
            names = os.listdir(folder)
        except OSError:
            names = []
        pictures = (os.path.splitext(name) for name in names)
        seen[folder] = frozenset(s for s, end in pictures if end.lower() in PICTURE_SUFFIXES)
    return stem in seen[folder]


def _wanted(pairs: Sequence[Pair]) -> str:
    """Where the first pair's edit would lie in each layout, that of its own benchmark first."""
    if not pairs:
        return "no pair of the data can be used."
    names = sorted(LAYOUTS, key=lambda name: name != pairs[0].data_set)
    places: Mapping[str, str] = {
        name: f"{LAYOUTS[name].place(pairs[0])}{LAYOUTS[name].suffixes[0]}" for name in names
    }
    return ", ".join(f"{place} ({name})" for name, place in places.items()) + ", and so on."
