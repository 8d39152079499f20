"""Pictures inside of tables, parquet, arrow or JSON: where they are, and how they become files.

A table is read without its pictures; those of the pairs that are run are then written to the work
folder, each under the hash of its content, a few at a time. An index says which picture of which
table is which file, so that a later run reads none of them again.
"""

import hashlib
import json
import os
import zlib
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

from apps.edit_benchmark.arrow_tables import SUFFIXES as ARROW
from apps.edit_benchmark.arrow_tables import pictures as arrow_pictures
from apps.edit_benchmark.encoded_pictures import encoded_pictures
from apps.edit_benchmark.long_text import LongText
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.rows import inside
from core.errors import InputError
from core.pictures.source_images import MAX_BYTES
from core.store.outputs import make_folder, write_atomically

INDEX = "embedded.json"
_WRITERS = 4
_LOCKS = 64
_AT_ONCE = 8  # pictures in memory


class Embedded(str):
    """The address of a picture in a table; the text is for people.

    Attributes:
        file: the table.
        column: the name of its column.
        row: from 0.
        item: which one, where the cell is a list; None for all of them.
        text: the cell, where it is a long text of a JSON file.
    """

    file: Path
    column: str
    row: int
    item: int | None
    text: LongText | None

    def __new__(
        cls,
        file: Path,
        column: str,
        row: int,
        item: int | None = None,
        text: LongText | None = None,
    ) -> "Embedded":
        place = f"{file.name} row {row + 1}: {column}"
        address = super().__new__(cls, place if item is None else f"{place}[{item}]")
        address.file, address.column, address.row, address.item = file, column, row, item
        address.text = text
        return address

    def of(self, item: int) -> "Embedded":
        """The address of one picture of a list."""
        return Embedded(self.file, self.column, self.row, item)

    @property
    def key(self) -> str:
        """What the index calls the whole cell."""
        return f"{self.column}/{self.row}"


def unpacked(pairs: Sequence[Pair], work_folder: Path) -> list[Pair]:
    """The pairs with files in place of addresses.

    A picture that is missing or cannot be kept fails its pair if the pair needs it.

    Raises:
        InputError: a table cannot be read.
        StorageError: `work_folder` cannot be written.
    """
    wanted: dict[Path, dict[str, Rows]] = defaultdict(lambda: defaultdict(dict))
    for pair in pairs:
        for address in _addresses(pair):
            wanted[address.file][address.column][address.row] = address.text
    if not wanted:
        return list(pairs)
    store = _Store(work_folder)
    cells = {file: store.cells(file, columns) for file, columns in wanted.items()}
    return [_with_files(pair, cells) for pair in pairs]


def _write_picture(data: memoryview, work_folder: Path) -> Path:
    """A picture as a file named by its content; one that is there is not written again.

    Raises:
        StorageError: the disk refuses.
    """
    path = work_folder / f"{hashlib.sha256(data).hexdigest()[:32]}.img"
    if not path.is_file() or path.stat().st_size != data.nbytes:
        make_folder(work_folder)
        write_atomically(path, data, sync=False)
    return path


Rows = dict[int, LongText | None]
"""Rows of a column, from 0, and what is known of where the picture of each stands."""
Cell = list[str | InputError]
"""The pictures of a cell as files, or why one is none."""


class _Store:
    """The work folder and its index of what was written there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._index = _read_index(folder / INDEX)
        # Two cells may hold one picture: by the end of its content, one is written at a time.
        self._locks = [Lock() for _ in range(_LOCKS)]

    def cells(self, file: Path, columns: Mapping[str, Rows]) -> dict[str, Cell]:
        """Files of a table's cells, by `Embedded.key`."""
        table = _identity(file)
        known: dict[str, list[list[Any]]] = self._index.get(table, {})
        found: dict[str, Cell] = {}
        missing: dict[str, Rows] = {}
        for column, rows in columns.items():
            for row, text in sorted(rows.items()):
                key = f"{column}/{row}"
                files = self._there(known.get(key))
                if files is None:
                    missing.setdefault(column, {})[row] = text
                else:
                    found[key] = files
        if missing:
            written = self._write(file, missing)
            found |= written
            kept = {key: cell for key, cell in written.items() if _all_files(cell)}
            self._remember(table, known, kept)
        return found

    def _there(self, entry: list[list[Any]] | None) -> Cell | None:
        if entry is None:
            return None
        files: Cell = []
        for name, size in entry:
            path = self._folder / name
            try:
                if path.stat().st_size != size:
                    return None
            except OSError:
                return None
            files.append(str(path))
        return files

    def _write(self, file: Path, columns: Mapping[str, Rows]) -> dict[str, Cell]:
        begun: deque[tuple[str, Future[str | InputError]]] = deque()
        written: dict[str, Cell] = {}

        def settle(most: int) -> None:
            while len(begun) > most:
                key, task = begun.popleft()
                written[key].append(task.result())

        before: Any = None
        with ThreadPoolExecutor(_WRITERS) as pool:
            for column, rows in columns.items():
                for row, values in _pictures(file, column, rows):
                    key = f"{column}/{row}"
                    written[key] = []
                    for value in values:
                        if value is not before or not isinstance(value, bytes):
                            before, task = value, pool.submit(self._kept, value, file)
                        begun.append((key, task))
                    settle(_AT_ONCE)
            settle(0)
        return written

    def _kept(self, value: Any, file: Path) -> str | InputError:
        """The file of one picture, from its content or the name of a file beside the table."""
        if isinstance(value, InputError):
            return value
        if not value:
            return InputError("holds no picture.")
        if isinstance(value, str):
            try:
                return str(inside(file.parent, value, "path"))
            except InputError as problem:
                return problem
        data = memoryview(value)
        if data.nbytes > MAX_BYTES:
            return InputError(f"larger than {MAX_BYTES // 1024**2} MiB.")
        with self._locks[zlib.crc32(data[-4096:]) % _LOCKS]:
            return str(_write_picture(data, self._folder))

    def _remember(
        self, table: str, known: dict[str, list[list[Any]]], cells: Mapping[str, Cell]
    ) -> None:
        for key, cell in cells.items():
            paths = [Path(str(path)) for path in cell]
            if all(path.parent == self._folder for path in paths):
                known[key] = [[path.name, path.stat().st_size] for path in paths]
        self._index[table] = known
        make_folder(self._folder)
        write_atomically(self._folder / INDEX, json.dumps(self._index))


def _pictures(file: Path, column: str, rows: Rows) -> Iterable[tuple[int, Sequence[Any]]]:
    if file.suffix.lower() in ARROW:
        return arrow_pictures(file, column, sorted(rows))
    return encoded_pictures(file, column, rows)


def _all_files(cell: Cell) -> bool:
    return bool(cell) and not any(isinstance(each, InputError) for each in cell)


def _identity(file: Path) -> str:
    """A table as the index knows it: another content, or another place, has another identity."""
    stat = file.stat()
    # Tables of two folders may be of one name, size and time, as where an archive was unpacked.
    folder = hashlib.sha256(os.fsencode(file.parent)).hexdigest()[:16]
    return f"{folder} {file.name} {stat.st_size} {stat.st_mtime_ns}"


def _read_index(file: Path) -> dict[str, dict[str, list[list[Any]]]]:
    try:
        index = json.loads(file.read_text("utf-8"))
        return index if isinstance(index, dict) else {}
    except (OSError, ValueError, RecursionError):
        return {}  # made anew


def _addresses(pair: Pair) -> Iterable[Embedded]:
    every = (
        *pair.source_images,
        *pair.target_images,
        *pair.reference_images,
        pair.mask,
        pair.edited_image,
    )
    return (each for each in every if isinstance(each, Embedded))


def _with_files(pair: Pair, cells: Mapping[Path, Mapping[str, Cell]]) -> Pair:
    if not any(True for _ in _addresses(pair)):
        return pair
    try:
        return replace(
            pair,
            source_images=_files(pair.source_images, cells, needed=True),
            target_images=_files(pair.target_images, cells),
            reference_images=_files(pair.reference_images, cells),
            mask=_file(pair.mask, cells),
            edited_image=_file(pair.edited_image, cells, needed=True),
        )
    except InputError as problem:
        return replace(
            pair,
            source_images=(),
            target_images=(),
            reference_images=(),
            mask="",
            edited_image="",
            problem=pair.problem or problem,
        )


def _file(path: str, cells: Mapping[Path, Mapping[str, Cell]], needed: bool = False) -> str:
    return next(iter(_files((path,) if path else (), cells, needed)), "")


def _files(
    paths: Iterable[str], cells: Mapping[Path, Mapping[str, Cell]], needed: bool = False
) -> tuple[str, ...]:
    files: list[str] = []
    for path in paths:
        if not isinstance(path, Embedded):
            files.append(path)
            continue
        cell = cells[path.file].get(path.key, [])
        chosen = cell if path.item is None else cell[path.item : path.item + 1]
        problem = next((each for each in chosen if isinstance(each, InputError)), None)
        if needed and not chosen:
            problem = InputError("holds no picture.")
        if problem is not None and needed:
            raise InputError(f"{path}: {problem}")
        files += [each for each in chosen if not isinstance(each, InputError)]
    return tuple(files)
