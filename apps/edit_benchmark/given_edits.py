"""Edits that need no editor: those in a folder, and those that the data brings along."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from apps.edit_benchmark.layout import LAYOUTS, Layout, before_model, of_model
from apps.edit_benchmark.pair import Pair
from core.errors import InputError
from core.paths import as_text, on_disk, user_path
from core.store.outputs import PICTURE_SUFFIXES

MOST_FOLDERS = 500  # below the one that is given, in which edits may begin
LOOKED_AT = 200  # about how many pairs tell layouts and folders apart
FAR = 9  # further from the given folder than where edits are sought
SECOND = "_cn"  # how the id of a row's second language ends
GivenEdit = Path | InputError
"""The file of an edit, or why there is none."""


@dataclass(frozen=True)
class FolderOfEdits:
    """Edits of one model in a folder.

    Attributes:
        start: the folder below which the layout's places lie: the given one, or one near it.
        name: of the layout.
        model: the part of the places that is the model's name, where the layout has it there.
        below: how many folders on the way of every place lie above `start`.
        one_language: the edits of a row's second language have the names of its first.
    """

    start: Path
    name: str
    model: str = ""
    below: int = 0
    one_language: bool = False

    @property
    def line(self) -> str:
        """What edited, in a table's line."""
        of = f"of {as_text(self.model)} " if self.model else ""
        return f"edits {of}in {as_text(self.start)} ({self.name})"

    def find(self, pair: Pair) -> GivenEdit:
        """The file of a pair's edit."""
        layout = LAYOUTS[self.name]
        place = self._place(layout, pair)
        found = _file(self.start / on_disk(str(place)), layout.suffixes_of(pair))
        if found is not None:
            return found
        missing = f"{as_text(str(place))}{layout.suffixes_of(pair)[0]}"
        return InputError(f"edit: {missing} is missing in {as_text(self.start)}.")

    def count(self, pairs: Sequence[Pair], seen: dict[str, frozenset[str]]) -> int:
        """How many edits of the pairs there are, by one look at each folder.

        Args:
            seen: stems of the pictures in a folder.
        """
        layout = LAYOUTS[self.name]
        # A name that several pairs would have is one edit: it is of one of them alone.
        places = {self.start / on_disk(str(self._place(layout, pair))) for pair in pairs}
        return sum(place.name in _stems_in(str(place.parent), seen) for place in places)

    def _place(self, layout: Layout, pair: Pair) -> PurePosixPath:
        if self.one_language and _is_second(pair):
            pair = replace(pair, given_id=str(pair.given_id).removesuffix(SECOND))
        parts = of_model(layout.place(pair), self.model).parts
        return PurePosixPath(*parts[self.below :])


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
    usable = [pair for pair in pairs if pair.problem is None]
    some = usable[:: max(1, len(usable) // LOOKED_AT)]
    chosen = _likeliest(given, some) or _likeliest(given, usable)  # few edits may be of no other
    if chosen is None:
        raise InputError(f"--score-only: {as_text(given)} has none of these edits: {_wanted(some)}")
    return chosen


def _likeliest(given: Path, some: Sequence[Pair]) -> FolderOfEdits | None:
    """The layout that has most of the pairs, and where it begins.

    Raises:
        InputError: several folders have as many, or there are several models.
    """
    best: tuple[int, bool, bool, int] | None = None
    found: list[FolderOfEdits] = []
    beside: list[FolderOfEdits] = []  # whatever their number, where a layout has models beside
    seen: dict[str, frozenset[str]] = {}
    for depth, one in _candidates(given, some):
        count = one.count(some, seen)
        rank = (count, one.name == some[0].data_set, not one.one_language, -depth)
        if count and (best is None or rank > best):
            best, found = rank, []
        if count and rank == best:
            found.append(one)
        if count and one.model:
            beside.append(one)
    if not found:
        return None
    starts = {one.start for one in found}
    if len(starts) > 1:
        several = ", ".join(as_text(start.name) for start in sorted(starts)[:4])
        raise InputError(
            f"--score-only: {as_text(given)} has edits in several folders ({several}); name one."
        )
    chosen = found[0]
    models = {one.model for one in beside if (one.start, one.name) == (chosen.start, chosen.name)}
    if chosen.model and len(models) > 1:
        several = ", ".join(as_text(model) for model in sorted(models)[:4])
        place = of_model(LAYOUTS[chosen.name].place(some[0]), as_text(chosen.model)).parent
        raise InputError(
            f"--score-only: {as_text(given)} has edits of several models ({several}); name a "
            f"folder of one of them, such as {as_text(chosen.start)}/{place}."
        )
    return chosen


def brought_edit(pair: Pair) -> GivenEdit | None:
    """The edit that the data brings along for a pair; None if it brings none."""
    if not pair.edited_image:
        return None
    if not os.path.isfile(on_disk(pair.edited_image)):
        return InputError(f"edited_image: {pair.edited_image!r} is missing.")
    return Path(on_disk(pair.edited_image))


def _candidates(given: Path, some: Sequence[Pair]) -> Iterator[tuple[int, FolderOfEdits]]:
    """Where edits may begin in which layout, with how far that is from the given folder."""
    for depth, one in _plain_candidates(given, some):
        yield depth, one
        if any(map(_is_second, some)):
            yield depth, replace(one, one_language=True)


def _plain_candidates(given: Path, some: Sequence[Pair]) -> Iterator[tuple[int, FolderOfEdits]]:
    ways = {name: _ways_to_models(LAYOUTS[name], some) for name in LAYOUTS}
    for depth, start in _starts(given):
        for name, to_models in ways.items():
            if not to_models:
                yield depth, FolderOfEdits(start, name)
            for model in _models_in(start, to_models):
                yield depth, FolderOfEdits(start, name, model)
    for name, to_models in ways.items():
        for start, model in _on_the_way(given, to_models):
            for each in [model] if model else _models_in(start, to_models):
                yield 0, FolderOfEdits(start, name, each)
        folders = [] if to_models else _folders_of(LAYOUTS[name], some)
        for start in {start for start, below in _on_the_way(given, folders) if not below}:
            yield 0, FolderOfEdits(start, name)
        if len(folders) == 1 and some[0].data_set == name:  # pictures with nothing above them
            yield FAR, FolderOfEdits(given, name, below=len(folders[0].parts))


def _is_second(pair: Pair) -> bool:
    """Whether a pair is of the second language of its row, which its id says."""
    return pair.language == "cn" and bool(pair.given_id) and str(pair.given_id).endswith(SECOND)


def _folders_of(layout: Layout, some: Sequence[Pair]) -> list[PurePosixPath]:
    """The folders in which a layout has the edits of pairs."""
    folders = dict.fromkeys(layout.place(pair).parent for pair in some)
    return [folder for folder in folders if folder.parts]


def _ways_to_models(layout: Layout, some: Sequence[Pair]) -> list[PurePosixPath]:
    """The folders of models, in a layout that has models on the way to the edits."""
    ways = (before_model(layout.place(pair)) for pair in some)
    return list(dict.fromkeys(way for way in ways if way is not None))


def _models_in(start: Path, to_models: Sequence[PurePosixPath]) -> list[str]:
    """Names of the models that have a folder below `start`."""
    folders = (_folders_in(start / on_disk(str(way))) for way in to_models)
    return list(dict.fromkeys(folder.name for several in folders for folder in several))


def _on_the_way(given: Path, to_models: Sequence[PurePosixPath]) -> set[tuple[Path, str]]:
    """Where places begin above the given folder, with the model's name where it is a model's.

    What begins in the folder above the given one is among `_starts`.
    """
    found = set()
    above = [given, *given.parents]
    for way in to_models:
        parts = PurePosixPath(on_disk(str(way))).parts
        for taken in range(2, len(parts) + 1):
            if given.parts[-taken:] == parts[:taken]:
                found.add((above[taken], ""))
        if len(given.parts) > len(parts) + 1 and given.parts[-len(parts) - 1 : -1] == parts:
            found.add((above[len(parts) + 1], given.name))
    return found


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


def _file(place: Path, suffixes: Sequence[str]) -> Path | None:
    """The file of an edit whose place has no suffix, in the usual format before others."""
    for suffix in dict.fromkeys((*suffixes, *PICTURE_SUFFIXES)):
        for spelt in dict.fromkeys((suffix, suffix.upper())):
            file = place.parent / f"{place.name}{spelt}"
            if file.is_file():
                return file
    return None


def _stems_in(folder: str, seen: dict[str, frozenset[str]]) -> frozenset[str]:
    """Stems of the pictures in a folder."""
    if folder not in seen:
        try:
            names = os.listdir(folder)
        except OSError:
            names = []
        pictures = (os.path.splitext(name) for name in names)
        seen[folder] = frozenset(s for s, end in pictures if end.lower() in PICTURE_SUFFIXES)
    return seen[folder]


def _wanted(pairs: Sequence[Pair]) -> str:
    """Where the first pair's edit would lie in each layout, that of its own benchmark first."""
    if not pairs:
        return "no pair of the data can be used."
    names = sorted(LAYOUTS, key=lambda name: name != pairs[0].data_set)
    places: Mapping[str, str] = {
        name: f"{LAYOUTS[name].place(pairs[0])}{LAYOUTS[name].suffixes_of(pairs[0])[0]}"
        for name in names
    }
    return ", ".join(f"{place} ({name})" for name, place in places.items()) + ", and so on."
