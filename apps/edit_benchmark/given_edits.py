"""Edits that need no editor: those in a folder, and those that the data brings along."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from apps.edit_benchmark.layout import LAYOUTS, Layout, before_model, of_model
from apps.edit_benchmark.pair import Pair
from core.errors import InputError
from core.paths import as_text, on_disk, user_path
from core.store.outputs import PICTURE_SUFFIXES

MOST_FOLDERS = 500  # below the one that is given, in which edits may begin
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

    def _place(self, layout: Layout, pair: Pair) -> PurePosixPath:
        place = _place_of(layout, pair, self.one_language)
        return PurePosixPath(*of_model(place, self.model).parts[self.below :])


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
    chosen = _likeliest(given, usable) if usable else None
    if chosen is None:
        raise InputError(
            f"--score-only: {as_text(given)} has none of these edits: {_wanted(usable)}"
        )
    return chosen


def _likeliest(given: Path, pairs: Sequence[Pair]) -> FolderOfEdits | None:
    """The layout that has most of the pairs, and where it begins.

    Raises:
        InputError: several folders have as many, or there are several models.
    """
    best: tuple[int, bool, bool, int] | None = None
    found: list[FolderOfEdits] = []
    beside: list[FolderOfEdits] = []  # whatever their number, where a layout has models beside
    seen: dict[str, frozenset[str]] = {}
    ways = (False, True) if any(map(_is_second, pairs)) else (False,)
    places = {(n, one): _places(LAYOUTS[n], pairs, one) for one in ways for n in LAYOUTS}
    for depth, one in _candidates(given, places, pairs[0].data_set):
        count = _count(one, places[one.name, one.one_language], seen)
        rank = (count, one.name == pairs[0].data_set, not one.one_language, -depth)
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
        place = of_model(LAYOUTS[chosen.name].place(pairs[0]), as_text(chosen.model)).parent
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


Places = dict[PurePosixPath, set[str]]
"""Names of the edits in each folder of a layout, as they are on the disk, without suffixes."""


def _places(layout: Layout, pairs: Sequence[Pair], one_language: bool) -> Places:
    """Where a layout has the edits of pairs; a name that several would have is there once."""
    found: dict[str, set[str]] = {}
    for pair in pairs:
        folder, _, name = on_disk(str(_place_of(layout, pair, one_language))).rpartition("/")
        found.setdefault(folder, set()).add(name)
    return {PurePosixPath(folder): names for folder, names in found.items()}


def _place_of(layout: Layout, pair: Pair, one_language: bool) -> PurePosixPath:
    if one_language and _is_second(pair):
        pair = replace(pair, given_id=str(pair.given_id).removesuffix(SECOND))
    return layout.place(pair)


def _count(one: FolderOfEdits, places: Places, seen: dict[str, frozenset[str]]) -> int:
    """How many of the edits there are, by one look at each folder.

    Args:
        seen: stems of the pictures in a folder.
    """
    count = 0
    for folder, names in places.items():
        parts = of_model(folder, one.model).parts[one.below :]
        if not parts or os.path.isdir(one.start / parts[0]):
            count += len(names & _stems_in(os.path.join(one.start, *parts), seen))
    return count


def _candidates(
    given: Path, places: Mapping[tuple[str, bool], Places], data_set: str
) -> Iterator[tuple[int, FolderOfEdits]]:
    """Where edits may begin in which layout, with how far that is from the given folder."""
    starts = list(_starts(given))
    for (name, one_language), folders in places.items():
        for depth, one in _of_layout(given, starts, name, folders, data_set):
            yield depth, replace(one, one_language=one_language)


def _of_layout(
    given: Path, starts: Sequence[tuple[int, Path]], name: str, places: Places, data_set: str
) -> Iterator[tuple[int, FolderOfEdits]]:
    """Where the edits of one layout may begin."""
    to_models = _ways_to_models(places)
    for depth, start in starts:
        if not to_models:
            yield depth, FolderOfEdits(start, name)
        for model in _models_in(start, to_models):
            yield depth, FolderOfEdits(start, name, model)
    for start, model in _on_the_way(given, to_models):
        for each in [model] if model else _models_in(start, to_models):
            yield 0, FolderOfEdits(start, name, each)
    if to_models:
        return
    for start in {start for start, below in _on_the_way(given, places) if not below}:
        yield 0, FolderOfEdits(start, name)
    if len(places) == 1 and name == data_set:  # pictures with nothing above them
        [folder] = places
        yield FAR, FolderOfEdits(given, name, below=len(folder.parts))


def _is_second(pair: Pair) -> bool:
    """Whether a pair is of the second language of its row, which its id says."""
    return pair.language == "cn" and bool(pair.given_id) and str(pair.given_id).endswith(SECOND)


def _ways_to_models(places: Places) -> list[PurePosixPath]:
    """The folders of models, in a layout that has models on the way to the edits."""
    ways = (before_model(folder) for folder in places)
    return list(dict.fromkeys(way for way in ways if way is not None))


def _models_in(start: Path, to_models: Sequence[PurePosixPath]) -> list[str]:
    """Names of the models that have a folder below `start`."""
    folders = (_folders_in(start / way) for way in to_models)
    return list(dict.fromkeys(folder.name for several in folders for folder in several))


def _on_the_way(given: Path, to_models: Iterable[PurePosixPath]) -> set[tuple[Path, str]]:
    """Where places begin above the given folder, with the model's name where it is a model's.

    What begins in the folder above the given one is among `_starts`.
    """
    found = set()
    above = [given, *given.parents]
    for way in to_models:
        parts = way.parts
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
