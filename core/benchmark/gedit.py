"""Pairs in GEdit-Bench's layout on disk.

`fullset/<task type>/<language>/<key>_SRCIMG.png` are the pictures, as its own scripts write
them; the dataset's other columns stand in a `metadata.jsonl` beside `fullset`.
"""

from pathlib import Path
from typing import Any

from core.benchmark.categories import UNSORTED
from core.benchmark.pairs import Pair
from core.benchmark.rows import file_name, json_lines, text_of
from core.errors import InputError

SUFFIX = "_SRCIMG.png"


def is_gedit(folder: Path) -> bool:
    return (folder / "fullset").is_dir()


def read_gedit(folder: Path) -> list[Pair]:
    """One pair per source picture.

    Raises:
        InputError: no metadata.jsonl.
    """
    table = folder / "metadata.jsonl"
    if not table.is_file():
        raise InputError(f"data: {folder} has no metadata.jsonl with keys and instructions.")
    rows: dict[str, dict[str, Any]] = {}
    broken: list[Pair] = []
    for position, row in enumerate(json_lines(table)):
        if isinstance(row, InputError):
            broken.append(Pair(f"line_{position:04d}", UNSORTED, problem=row))
        else:
            rows[str(row.get("key"))] = row
    sources = sorted((folder / "fullset").glob(f"*/*/*{SUFFIX}"))
    return [_pair(source, rows) for source in sources] + broken


def _pair(source: Path, rows: dict[str, dict[str, Any]]) -> Pair:
    key = source.name.removesuffix(SUFFIX)
    language, category = source.parent.name, source.parent.parent.name
    name = file_name(f"{language}_{key}")
    try:
        row = rows.get(key)
        if row is None:
            raise InputError(f"key: {key!r} is not in metadata.jsonl.")
        return Pair(
            name,
            category,
            text_of(row, "instruction"),
            (str(source),),
            language=language,
            intersection_exist=bool(row.get("Intersection_exist", True)),
            metadata={"key": key},
        )
    except InputError as problem:
        return Pair(name, category, problem=problem, language=language)
