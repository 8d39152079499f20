"""GEdit-Bench, as it is published and as its own example script leaves it.

Published (stepfun-ai/GEdit-Bench): a table in arrow or parquet with the columns `task_type`, `key`,
`instruction`, `instruction_language`, `Intersection_exist` and the picture as `input_image` (and,
larger, as `input_image_raw`, which is not needed). Left by the script:
`fullset/<task type>/<language>/<key>_SRCIMG.png`, without instructions; they are taken from that
table, or from a `metadata.jsonl` with the same columns, beside `fullset`.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apps.edit_benchmark.categories import UNSORTED, category_of
from apps.edit_benchmark.data_set import DATA_SETS
from apps.edit_benchmark.embedded import Embedded
from apps.edit_benchmark.look import table_columns, table_rows
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.row_pairs import Draft, pairs_of
from apps.edit_benchmark.rows import (
    INSTRUCTION_HINTS,
    file_name,
    kept,
    label_of,
    text_of,
    truth_of,
)
from apps.edit_benchmark.table_rows import Row, rows_of
from core.errors import InputError
from core.paths import as_text

SUFFIX = "_SRCIMG.png"
# As the data set spells it; the tables of its own scripts, and other copies, differ.
_INTERSECTION = "Intersection_exist"


@dataclass(frozen=True)
class _Picture:
    """A source picture, with what its path says of it."""

    file: Path
    task_type: str
    language: str
    key: str


_COLUMNS = {"task_type", "key", "instruction", "instruction_language"}
_READ = (*_COLUMNS, _INTERSECTION)
_PICTURES = ("input_image", "input_image_raw", "source_image")


@DATA_SETS.add_one("gedit")
class GEdit:
    """A folder with a folder `fullset`, or a table with GEdit-Bench's columns."""

    takes_any = False

    def fits(self, path: Path) -> bool:
        return (path / "fullset").is_dir() or _has_columns(path)

    def read(self, path: Path, work_folder: Path) -> list[Pair]:
        if not (path / "fullset").is_dir():
            pairs = pairs_of(table_rows(path), _table_pairs)
        elif (path / "metadata.jsonl").is_file():
            pairs = _read(path, "metadata.jsonl", rows_of(path / "metadata.jsonl"))
        elif _has_columns(path):
            pairs = _read(path, "its table", table_rows(path))
            pairs = [replace(pair, seed_by_id=True) for pair in pairs]
        else:
            raise InputError(
                f"data: {path} has pictures and no instructions. To score the edits in it, give "
                "GEdit-Bench's own table (*.arrow or *.parquet) as data, and this folder as "
                "--score-only; to edit these pictures, put that table, or a metadata.jsonl with "
                "task_type, instruction_language, key and instruction, beside fullset."
            )
        return [replace(pair, subsets=_subsets(pair)) for pair in pairs]


def _has_columns(path: Path) -> bool:
    columns = table_columns(path)
    return columns >= _COLUMNS and any(name in columns for name in _PICTURES)


def _words(row: Row) -> dict[str, Any]:
    """A row's fields without pictures inside of its table."""
    return {name: v for name, v in row.values.items() if not isinstance(v, Embedded)}


def _subsets(pair: Pair) -> tuple[str, ...]:
    return ("fullset", "intersection") if pair.intersection_exist else ("fullset",)


def _table_pairs(row: Row, draft: Draft) -> Iterator[Pair]:
    draft.category = row.label("task_type", "") or UNSORTED
    draft.language = row.label("instruction_language", "")
    name = f"{draft.language or 'en'}_{row.label('key')}"
    draft.pair_id, draft.given_id = file_name(name), name
    picture = next(each for each in _PICTURES if each in row.values)
    yield Pair(
        draft.pair_id,
        draft.category,
        row.text("instruction"),
        (row.picture(picture),),
        language=draft.language,
        intersection_exist=_is_in_intersection(dict(row.values)),
        given_id=name,
        metadata={**row.others(*_READ), "key": row.label("key")},
    )


def _read(folder: Path, table: str, rows: Iterable[Row]) -> list[Pair]:
    """The pairs of every row, then the pictures that no row knows."""
    pictures = _pictures(folder)
    known: set[Path] = set()
    pairs: list[Pair] = []
    for position, row in enumerate(rows):
        values = _words(row)
        try:
            if row.problem is not None:
                raise row.problem
            found = _pictures_of(values, pictures)
        except InputError as problem:
            failed = Pair(f"line_{position:04d}", UNSORTED, problem=problem, language="")
            pairs.append(_placed(failed, row))
            continue
        known.update(picture.file for picture in found)
        of_row = [_pair(values, picture) for picture in found] or [_without_picture(values)]
        pairs += [_placed(pair, row) for pair in of_row]
    every = (picture for same_key in pictures.values() for picture in same_key)
    return pairs + [_unknown(picture, table) for picture in every if picture.file not in known]


def _placed(pair: Pair, row: Row) -> Pair:
    """The pair, whose problem says in which row it is."""
    if pair.problem is None:
        return pair
    return replace(pair, problem=InputError(f"{row.place}: {pair.problem}"))


def _pictures(folder: Path) -> Mapping[str, list[_Picture]]:
    """Source pictures by key; languages of one pair may share a picture."""
    pictures: dict[str, list[_Picture]] = defaultdict(list)
    for file in sorted((folder / "fullset").glob(f"*/*/*{SUFFIX}")):
        key, language = as_text(file.name).removesuffix(SUFFIX), as_text(file.parent.name)
        pictures[key].append(_Picture(file, as_text(file.parent.parent.name), language, key))
    return pictures


def _pictures_of(row: dict[str, Any], pictures: Mapping[str, list[_Picture]]) -> list[_Picture]:
    """The picture of a row; where it leaves task type or language open, all that fit.

    Raises:
        InputError: no key, or something in its columns that is no text.
    """
    task_type, language = label_of(row, "task_type", ""), text_of(row, "instruction_language", "")
    return [
        picture
        for picture in pictures.get(_key(row), [])
        if task_type in ("", picture.task_type) and language in ("", picture.language)
    ]


def _key(row: dict[str, Any]) -> str:
    return label_of(row, "key")


def _is_in_intersection(row: dict[str, Any]) -> bool:
    """Whether GEdit-Bench has the pair in every language; it has what nothing is said of."""
    name = next((n for n in row if _letters(n) == _letters(_INTERSECTION)), _INTERSECTION)
    return truth_of(row, name, True)


def _letters(column: str) -> str:
    return re.sub(r"[\W_]+", "", column).casefold()


def _pair(row: dict[str, Any], picture: _Picture) -> Pair:
    name = f"{picture.language}_{picture.key}"
    try:
        return Pair(
            file_name(name),
            picture.task_type,
            text_of(row, "instruction", hints=INSTRUCTION_HINTS),
            (str(picture.file),),
            language=picture.language,
            intersection_exist=_is_in_intersection(row),
            given_id=name,
            metadata={
                **kept({k: v for k, v in row.items() if k not in _READ and v is not None}),
                "key": picture.key,
            },
        )
    except InputError as problem:
        return _failed(picture, problem, row)


def _without_picture(row: dict[str, Any]) -> Pair:
    key, category = _key(row), category_of(row, "task_type")
    language = text_of(row, "instruction_language", "")
    place = f"fullset/{label_of(row, 'task_type', '*')}/{language or '*'}/{key}{SUFFIX}"
    wanted = _Picture(Path(place), category, language, key)
    return _failed(wanted, InputError(f"key: {key!r} has no picture: {place!r} is missing."), row)


def _unknown(picture: _Picture, table: str) -> Pair:
    return _failed(picture, InputError(f"key: {picture.key!r} is not in {table}."), {})


def _failed(picture: _Picture, problem: InputError, row: dict[str, Any]) -> Pair:
    """A failed pair, counted where its row places it, as far as that can be read."""
    name = f"{picture.language or 'en'}_{picture.key}"
    try:
        intersection = _is_in_intersection(row) if row else None
    except InputError:
        intersection = None
    return Pair(
        file_name(name),
        picture.task_type,
        problem=problem,
        language=picture.language,
        intersection_exist=intersection,
        given_id=name,
    )
