"""Parquet and arrow files: their columns, their rows without pictures, and pictures row by row.

As `datasets` writes them, a picture is a struct of `bytes` and `path`; `save_to_disk` leaves arrow
files in the streaming format. Nothing is held longer than its batch, and of large row groups in
parquet one picture at a time (`parquet_pages`).
"""

import json
import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from apps.edit_benchmark.parquet_pages import NotStreamed, streamed_values
from core.errors import InputError

SUFFIXES = (".parquet", ".arrow")
_ROWS_AT_ONCE = 1024
_PICTURES_AT_ONCE = 4
_PARQUET = b"PAR1"  # at both ends of a file
_FOOTED = b"ARROW1"  # with which a file begins that has its list of batches at the end


def need_pyarrow(file: Path) -> None:
    """Raises InputError with what to do where pyarrow is not installed."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise InputError(
            f"data: {file} needs pyarrow, which is not installed: pip install pyarrow."
        ) from None


def columns_of(file: Path) -> frozenset[str]:
    """The names of a table's columns; none where it, or pyarrow, cannot be read."""
    try:
        stat = file.stat()
        return _columns(file, stat.st_mtime_ns, stat.st_size)
    except (OSError, InputError, ImportError):
        return frozenset()


@lru_cache(maxsize=64)
def _columns(file: Path, changed: int, size: int) -> frozenset[str]:
    return frozenset(_schema(file).names)


def picture_columns(file: Path) -> list[str]:
    """Columns that hold pictures, or lists of them."""
    return [field.name for field in _schema(file) if _holds_pictures(field.type)]


def plain_rows(file: Path) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Every row without its pictures, and the names of the columns in which it has some.

    Raises:
        InputError: the file is damaged, or pyarrow is missing.
    """
    schema = _schema(file)
    pictures = [field for field in schema if _holds_pictures(field.type)]
    named = {field.name for field in pictures}
    plain = [name for name in schema.names if name not in named]
    # In parquet the `path` of a picture is a column of its own, and tells where there is none.
    read = [*plain, *(_where_it_is(field) for field in pictures if _is_struct(field.type))]
    unsure = [field.name for field in pictures if not _is_struct(field.type)]
    labels = {name: names for name, names in _labels(schema).items() if name in plain}
    for _, batch in _batches(file, read, _ROWS_AT_ONCE):
        with _readable(file):
            rows = batch.select(plain).to_pylist() if plain else [{}] * batch.num_rows
        there = {name: batch.column(name).is_valid() for name in named - {*unsure}}
        for number, row in enumerate(rows):
            for name, names in labels.items():
                row[name] = _name_of(row[name], names)
            yield row, [*unsure, *(name for name, valid in there.items() if valid[number].as_py())]


def _labels(schema: Any) -> dict[str, list[str]]:
    """Columns that `datasets` calls ClassLabel, numbers that stand for names, with those names."""
    try:
        said = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            name: list(feature["names"])
            for name, feature in said.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}  # no table of theirs, or in another form: numbers stay numbers


def _name_of(value: Any, names: list[str]) -> Any:
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def _where_it_is(field: Any) -> str:
    return f"{field.name}.path"


def _is_struct(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_struct(kind))


def pictures(file: Path, column: str, rows: Sequence[int]) -> Iterator[tuple[int, list[Any]]]:
    """The pictures of some rows of a column, each as a buffer, or as the name of a file.

    They come in any order.

    Args:
        rows: from 0.

    Raises:
        InputError: the file is damaged.
    """
    left = set(rows)
    if file.suffix.lower() == ".parquet":
        with _readable(file), suppress(NotStreamed):
            for row, value in streamed_values(file, column, rows):
                left.discard(row)
                yield row, [value]
    if not left:
        return
    wanted = sorted(left)
    for first, batch in _batches(file, [column], _PICTURES_AT_ONCE, wanted):
        values = batch.column(batch.schema.get_field_index(column))
        for row in _between(wanted, first, first + batch.num_rows):
            with _readable(file):
                found = [*_contents(values[row - first])]
            yield row, found


def _contents(cell: Any) -> Iterator[Any]:
    """Contents of the pictures in a cell, without a copy; None for one that is empty."""
    from pyarrow import types

    if not cell.is_valid:
        yield None
    elif types.is_struct(cell.type):
        data, name = cell["bytes"], cell["path"]
        yield data.as_buffer() if data.is_valid else name.as_py()
    elif types.is_binary(cell.type) or types.is_large_binary(cell.type):
        yield cell.as_buffer()
    else:
        for each in cell:
            yield from _contents(each)


def _between(rows: Sequence[int], first: int, end: int) -> Sequence[int]:
    return rows[bisect_left(rows, first) : bisect_left(rows, end)]


def _batches(
    file: Path, columns: Sequence[str], size: int, wanted: Sequence[int] | None = None
) -> Iterator[tuple[int, Any]]:
    """Batches of a table, each with the number of its first row.

    Args:
        wanted: rows, ascending; batches without any of them are left out.
    """
    read = _parquet_batches if file.suffix.lower() == ".parquet" else _arrow_batches
    with _readable(file):
        for first, batch in read(file, columns, size, wanted):
            if wanted is None or _between(wanted, first, first + batch.num_rows):
                yield first, batch


def _parquet_batches(
    file: Path, columns: Sequence[str], size: int, wanted: Sequence[int] | None
) -> Iterator[tuple[int, Any]]:
    import pyarrow.parquet

    first = 0
    with pyarrow.parquet.ParquetFile(file, memory_map=True) as table:
        for group in range(table.num_row_groups):
            count = table.metadata.row_group(group).num_rows
            if wanted is None or _between(wanted, first, first + count):
                at = first
                for batch in table.iter_batches(size, [group], list(columns)):
                    yield at, batch
                    at += batch.num_rows
            first += count


def _arrow_batches(
    file: Path, columns: Sequence[str], size: int, wanted: Sequence[int] | None
) -> Iterator[tuple[int, Any]]:
    first = 0
    with _arrow_reader(file) as batches:
        for whole in batches:
            # Offsets are taken from the file as they are: a damaged one would lead anywhere.
            whole.select([name.partition(".")[0] for name in columns]).validate(full=True)
            for start in range(0, whole.num_rows, size):
                part = whole.slice(start, size)
                yield first + start, part
            first += whole.num_rows


@contextmanager
def _arrow_reader(file: Path) -> Iterator[Iterator[Any]]:
    """Batches of an arrow file in either of its formats: a stream, or a file with a footer."""
    import pyarrow

    with pyarrow.memory_map(str(file)) as mapped:
        if mapped.read(len(_FOOTED)) == _FOOTED:
            reader = pyarrow.ipc.open_file(mapped)
            yield (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            mapped.seek(0)
            yield iter(pyarrow.ipc.open_stream(mapped))


def _schema(file: Path) -> Any:
    """The table's schema.

    Raises:
        InputError: not such a table, or pyarrow is missing.
    """
    need_pyarrow(file)
    import pyarrow
    import pyarrow.parquet

    with _readable(file):
        if file.suffix.lower() == ".parquet":
            schema = pyarrow.parquet.read_schema(file, memory_map=True)
        else:
            with pyarrow.memory_map(str(file)) as mapped:
                footed = mapped.read(len(_FOOTED)) == _FOOTED
                mapped.seek(0)
                opened = pyarrow.ipc.open_file if footed else pyarrow.ipc.open_stream
                schema = opened(mapped).schema
        # Names are decoded when they are asked for: here, where a damaged one is told of.
        [(field.name, _holds_pictures(field.type)) for field in schema]
        return schema


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Raises InputError for what pyarrow finds wrong with a file, texts that are none included."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(file, error) from None


def _damaged(file: Path, error: Exception) -> InputError:
    kind = file.suffix.lower().removeprefix(".")
    if kind == "parquet" and _is_cut_short(file):
        return InputError(
            f"{file}: is cut short: it is still being downloaded, or its download was interrupted."
        )
    why = str(error).splitlines()[0].rstrip(".")
    return InputError(f"{file}: cannot be read as {kind}: {why}.")


def _is_cut_short(file: Path) -> bool:
    """Whether a file begins as parquet and does not end so."""
    with suppress(OSError), file.open("rb") as stream:
        begins = stream.read(len(_PARQUET)) == _PARQUET
        stream.seek(-min(len(_PARQUET), file.stat().st_size), os.SEEK_END)
        return begins and stream.read() != _PARQUET
    return False


def _holds_pictures(kind: Any) -> bool:
    from pyarrow import types

    while types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        kind = kind.value_type
    if types.is_struct(kind):
        return {kind.field(i).name for i in range(kind.num_fields)} == {"bytes", "path"}
    return bool(types.is_binary(kind) or types.is_large_binary(kind))
