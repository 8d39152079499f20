"""A quick look at what lies at a path, by which a data set is recognised."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from apps.edit_benchmark.arrow_tables import SUFFIXES as ARROW
from apps.edit_benchmark.arrow_tables import columns_of
from apps.edit_benchmark.json_rows import json_rows
from apps.edit_benchmark.table_rows import JSON, Row, rows_of
from core.errors import InputError

_DEPTH = 2  # folders between a data set's own and its tables: `data/`, or `<subset>/<split>/`
_SHARD = re.compile(r"^(?P<split>.+?)-\d{5}-of-\d{5}")


def arrow_files(path: Path) -> list[Path]:
    """Parquet and arrow files of a data set, in the order of their names."""
    return _files(path, ARROW, _DEPTH)


def json_files(path: Path, depth: int = 1) -> list[Path]:
    """JSON and JSONL files of a folder and of those in it; a file is itself all there is."""
    return _files(path, JSON, depth)


def tables_named(path: Path, names: Sequence[str]) -> list[Path]:
    """Tables with one of these names in a folder, or else in the folders in it; the first name that
    a folder has counts."""
    for folders in ([path], _folders(path), [f for d in _folders(path) for f in _folders(d)]):
        found = [next((f / n for n in names if (f / n).is_file()), None) for f in folders]
        if any(found):
            return [file for file in found if file is not None]
    return []


def _folders(folder: Path) -> list[Path]:
    try:
        return _listed(folder, folder.stat().st_mtime_ns)[1]
    except OSError:
        return []


def table_columns(path: Path) -> frozenset[str]:
    """Columns of the parquet or arrow table at a path; none where there is no such table."""
    files = arrow_files(path)
    return columns_of(files[0]) if files else frozenset()


def table_rows(path: Path) -> Iterator[Row]:
    """Rows of all parquet and arrow files at a path."""
    for file in arrow_files(path):
        yield from rows_of(file)


def first_entry(file: Path) -> tuple[str, Any]:
    """Key and value of the first row of a JSON or JSONL file; an empty one where there is none."""
    try:
        stat = file.stat()
        return _first_entry(file, stat.st_mtime_ns, stat.st_size)
    except (OSError, InputError):
        return "", None


def first_row(file: Path) -> Mapping[str, Any]:
    """The first row of a JSON or JSONL file; empty where it is no object."""
    value = first_entry(file)[1]
    return value if isinstance(value, Mapping) else {}


@lru_cache(maxsize=256)
def _first_entry(file: Path, changed: int, size: int) -> tuple[str, Any]:
    return next(json_rows(file), ("", None))


def split_of(file: Path, path: Path) -> tuple[str, ...]:
    """Names of the parts that a table belongs to: folders below the data set's own, its split.

    Args:
        path: of the data set, a folder or the table itself.
    """
    shard = _SHARD.match(file.name)
    folders = () if file == path else file.parent.relative_to(path).parts
    names = [name for name in folders if name not in ("data", "default")]
    return tuple(dict.fromkeys([*names, *([shard["split"]] if shard else [])]))


def _files(path: Path, suffixes: Sequence[str], depth: int) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix.lower() in suffixes else []
    try:
        files, folders = _listed(path, path.stat().st_mtime_ns)
    except OSError:
        return []
    # `datasets` leaves copies of what it computed beside the data.
    found = [f for f in files if f.suffix.lower() in suffixes and not f.name.startswith("cache-")]
    for folder in folders if depth else ():
        found += _files(folder, suffixes, depth - 1)
    return found


@lru_cache(maxsize=256)
def _listed(folder: Path, changed: int) -> tuple[list[Path], list[Path]]:
    """Files that may be tables, and folders; hidden ones are left out."""
    files, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.name.lower().endswith((*ARROW, *JSON)):
                files.append(folder / entry.name)
            elif entry.is_dir():
                folders.append(folder / entry.name)
    return sorted(files), sorted(folders)
