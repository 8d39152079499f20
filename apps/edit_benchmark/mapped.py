"""Pairs of a table of any form, by a mapping from ours to its columns."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field as Said

from apps.edit_benchmark.categories import UNSORTED
from apps.edit_benchmark.look import arrow_files, json_files, split_of
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.preferences import GROUP, RANK
from apps.edit_benchmark.row_pairs import Draft, pairs_of
from apps.edit_benchmark.rows import file_name, hint
from apps.edit_benchmark.table_rows import SEPARATED, SUFFIXES, Row, rows_of
from core.errors import InputError
from core.validation import shown

Name = Literal[
    "instruction", "image", "category", "id", "language", "target", "mask", "references",
    "edited", "group", "rank", "split",
]  # fmt: skip
"""What a pair may have, as the setting `fields` calls it."""

_PICTURES = ("image", "target", "mask", "references", "edited")
Columns = Annotated[str, Said(min_length=1)] | Annotated[list[str], Said(min_length=1)]
Fields = Mapping[Name, Columns]
"""For each, the column that holds it, or several; who names none has a column of that name."""


class Mapped:
    """A file with a table, or a folder with some, whose columns the settings name."""

    takes_any = True

    def __init__(self, fields: Fields) -> None:
        """Raises InputError for several columns where a pair has one value."""
        for name, columns in fields.items():
            if not isinstance(columns, str) and name not in _PICTURES:
                raise InputError(f"fields.{name}: expected one column (found {shown(columns)}).")
        self._fields = fields

    def fits(self, path: Path) -> bool:
        return True

    def read(self, path: Path, work_folder: Path) -> list[Pair]:
        """All pairs.

        Raises:
            InputError: no table there, or one that cannot be read.
        """
        return pairs_of(_rows(path), lambda row, draft: self._pairs(row, draft, path))

    def _pairs(self, row: Row, draft: Draft, path: Path) -> Iterator[Pair]:
        self._check(row)
        draft.category = self._label(row, "category") or UNSORTED
        draft.language = self._label(row, "language") or "en"
        split = self._label(row, "split")
        draft.subsets = tuple(dict.fromkeys([*split_of(row.file, path), *([split] * bool(split))]))
        draft.given_id = self._label(row, "id") or row.key or None
        edited = self._pictures(row, "edited", needed=False)
        sources = self._pictures(row, "image", needed=True)
        draft.pair_id = file_name(draft.given_id or _stem(sources[0]) or draft.pair_id)
        judged = {name: self._label(row, name) for name in (GROUP, RANK) if self._label(row, name)}
        read = [column for name in self._fields for column in self._columns(name)]
        yield Pair(
            draft.pair_id,
            draft.category,
            row.text(self._columns("instruction")[0]),
            sources,
            language=draft.language,
            target_images=self._pictures(row, "target", needed=False),
            reference_images=self._pictures(row, "references", needed=False),
            mask=next(iter(self._pictures(row, "mask", needed=False)), ""),
            edited_image=next(iter(edited), ""),
            given_id=draft.given_id,
            subsets=draft.subsets,
            metadata={**row.others(*read), **_judged(judged)},
        )

    def _check(self, row: Row) -> None:
        """Raises InputError for a column that a mapping names and no row has."""
        for name in self._fields:
            for column in self._columns(name):
                if column not in row.values and name in ("instruction", "image"):
                    there = ", ".join(map(str, row.values))
                    found = hint(row.values, column, ())
                    raise InputError(
                        f"{column}: is not a field of this row (`fields` maps {name} to it){found} "
                        f"It has {there}."
                    )

    def _columns(self, name: Name) -> list[str]:
        columns = self._fields.get(name, name)
        return [columns] if isinstance(columns, str) else list(columns)

    def _label(self, row: Row, name: Name | str) -> str:
        return row.label(self._columns(name)[0], "")  # type: ignore[arg-type]

    def _pictures(self, row: Row, name: Name, needed: bool) -> tuple[str, ...]:
        columns = self._columns(name)
        found = [row.pictures(column, ()) for column in columns]
        if needed and not any(found):
            return row.pictures(columns[0])  # says what is missing
        return tuple(picture for pictures in found for picture in pictures)


def _rows(path: Path) -> Iterator[Row]:
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(f"data: {path} is no table; expected one of {', '.join(SUFFIXES)}.")
        yield from rows_of(path)
        return
    separated = [file for file in sorted(path.iterdir()) if file.suffix.lower() in SEPARATED]
    files = arrow_files(path) or json_files(path, depth=0) or separated
    if not files:
        raise InputError(f"data: {path} holds no table; expected one of {', '.join(SUFFIXES)}.")
    for file in files:
        yield from rows_of(file)


def _stem(picture: str) -> str:
    return Path(picture).stem if "/" in picture else ""


def _judged(said: Mapping[str, str]) -> dict[str, str | float]:
    """Group and rank as `preferences` reads them.

    Raises:
        InputError: a rank that is no number.
    """
    judged: dict[str, str | float] = dict(said)
    if RANK in said:
        try:
            judged[RANK] = float(said[RANK])
        except ValueError:
            raise InputError(f"rank: expected a number (found {said[RANK]!r}).") from None
    return judged
