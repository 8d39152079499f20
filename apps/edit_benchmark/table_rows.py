"""Rows of any file that holds a table: JSON, JSONL, CSV, TSV, parquet, arrow."""

import csv
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from apps.edit_benchmark.arrow_tables import SUFFIXES as ARROW
from apps.edit_benchmark.arrow_tables import picture_columns, plain_rows
from apps.edit_benchmark.embedded import Embedded
from apps.edit_benchmark.encoded_pictures import DATA_URL
from apps.edit_benchmark.json_rows import LINES, json_rows
from apps.edit_benchmark.long_text import LongText
from apps.edit_benchmark.rows import inside, kept, label_of, text_of
from core.errors import InputError
from core.validation import shown

JSON = (".json", *LINES)
SEPARATED = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*JSON, *SEPARATED, *ARROW)
_NONE = ("", "none", "null", "nan")  # as tables write that there is no picture


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        values: its fields; those with pictures inside of the table hold addresses.
        file: where it stands.
        number: its place there, from 1.
        key: in an object of rows, the key under which it stands.
        problem: why it is no row.
        folder: where the names of its pictures begin.
    """

    values: Mapping[str, Any]
    file: Path
    number: int
    folder: Path
    key: str = ""
    problem: InputError | None = field(default=None, compare=False)

    @property
    def place(self) -> str:
        """File and row, as a message names them."""
        return f"{self.file.name} row {self.key or self.number}"

    def text(self, name: str, default: str | None = None) -> str:
        """A text field, as `rows.text_of` reads it."""
        return text_of(self.values, name, default)

    def label(self, name: str, default: str | None = None) -> str:
        """A name or a number, as `rows.label_of` reads it, without space around it."""
        return label_of(self.values, name, default).strip()

    def picture(self, name: str, default: str | None = None) -> str:
        """One picture: a file, or an address inside of the table.

        Raises:
            InputError: none without a default, no name, or one that leads out of the folder.
        """
        found = self.pictures(name, () if default is not None else None)
        if len(found) > 1:
            raise InputError(f"{name}: expected one picture (found {len(found)}).")
        return found[0] if found else str(default)

    def pictures(self, name: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """One picture or a list of them.

        Raises:
            InputError: as of `picture`.
        """
        value = self.values.get(name)
        values = value if isinstance(value, list | tuple) else [value]
        several = values is value
        there = [(i, each) for i, each in enumerate(values) if not _is_none(each)]
        if not there:
            if default is None:
                raise InputError(f"{name}: is missing or empty; expected the name of a picture.")
            return default
        return tuple(self._file(each, name, i if several else None) for i, each in there)

    def _file(self, value: Any, name: str, item: int | None) -> str:
        if isinstance(value, Embedded):
            return value
        if not isinstance(value, str):
            raise InputError(f"{name}: expected the name of a picture (found {shown(value)}).")
        if value.startswith(DATA_URL) and self.file.suffix.lower() in JSON:
            return self.encoded(name, item)
        return str(located(self.folder, value, name))

    def encoded(self, name: str, item: int | None = None) -> Embedded:
        """The address of the picture that stands in a field as base64 text.

        Args:
            item: which one, where the field is a list.
        """
        value = self.values.get(name)
        text = value if isinstance(value, LongText) else None
        return Embedded(self.file, name, self.number - 1, item, text)

    def others(self, *read: str) -> dict[str, Any]:
        """Fields that were not read, as far as they can be kept."""
        left = {
            name: value
            for name, value in self.values.items()
            if name not in read and not isinstance(value, Embedded) and value is not None
        }
        return kept(left)


def _is_none(value: Any) -> bool:
    if isinstance(value, Embedded):
        return False
    return value is None or (isinstance(value, str) and value.strip().lower() in _NONE)


def located(folder: Path, name: str, what: str) -> Path:
    """A picture that a row names: below its folder, or one folder deeper or higher.

    Benchmarks are packed with their pictures in a folder beside the table (`original_images`), or
    with names that begin at the table's own folder (`redbench/add/1.png`) or above it
    (`anybench/add/input_img/1.jpg`, beside the table in `anybench/add`).

    Raises:
        InputError: the name leads out of the folder, or is that of pictures in several folders.
    """
    file = inside(folder, name, what)
    if file.exists():
        return file
    parts = PurePosixPath(name).parts
    places = [
        folder.joinpath(*parts[at:]) for at in range(1, len(parts)) if parts[at - 1] == folder.name
    ]
    found = next((place for place in places if place.is_file()), None)
    if found is not None:
        return found
    deeper = [each for each in _folders_in(folder) if (each / name).is_file()]
    if len(deeper) > 1:
        raise InputError(
            f"{what}: {name!r} is in several folders of {folder} "
            f"({', '.join(each.name for each in deeper[:4])}); only that of the data may have it."
        )
    return deeper[0] / name if deeper else file


def _folders_in(folder: Path) -> tuple[Path, ...]:
    try:
        return _listed(folder, folder.stat().st_mtime_ns)
    except OSError:
        return ()


@lru_cache(maxsize=64)
def _listed(folder: Path, changed: int) -> tuple[Path, ...]:
    return tuple(sorted(e for e in folder.iterdir() if e.is_dir() and not e.name.startswith(".")))


def rows_of(file: Path, folder: Path | None = None) -> Iterator[Row]:
    """The rows of a table.

    Args:
        folder: where the names of pictures begin; by default where the table lies.

    Raises:
        InputError: the file cannot be read, or needs pyarrow, which is missing.
    """
    folder = folder or file.parent
    for number, (key, value) in enumerate(_values(file), 1):
        if isinstance(value, Mapping):
            yield Row(value, file, number, folder, key)
        else:
            problem = (
                value
                if isinstance(value, InputError)
                else InputError(f"expected an object, found {shown(value)}.")
            )
            yield Row({}, file, number, folder, key, problem)


def _values(file: Path) -> Iterator[tuple[str, Any]]:
    suffix = file.suffix.lower()
    if suffix in ARROW:
        names = dict.fromkeys(picture_columns(file))
        for number, (row, there) in enumerate(plain_rows(file)):
            yield "", {**row, **names, **{name: Embedded(file, name, number) for name in there}}
    elif suffix in SEPARATED:
        yield from (("", row) for row in _separated(file, SEPARATED[suffix]))
    else:
        yield from json_rows(file)


def _separated(file: Path, separator: str) -> Iterator[Any]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a cell may be a whole description
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream, delimiter=separator, strict=True)
            try:
                for row in rows:
                    row.pop(None, None)
                    yield row
            except csv.Error as error:
                raise InputError(f"{file}: not valid at line {rows.line_num}: {error}.") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 text (byte {error.start}).") from None
