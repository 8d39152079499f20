"""The rows of `metadata.jsonl` on their way into the file: what they share shows at the end.

A dataset's columns have one type, and rows of one table have one set of columns. Whether a seed is
too large for a number, or some row is of an edit, is known when all rows have been seen. So they
are put aside in a file without a name, and leave it as the table is to have them.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.store.dataset_folder import MAX_NUMBER, TYPED_BY
from core.store.outputs import json_line, storage_error

EDIT_COLUMNS = ("instruction", "source_images")  # of a folder with edits
IN_MEMORY = 8_000_000  # bytes of rows; more are put aside in the folder


class PictureRows:
    """Rows that were put aside, until they are closed.

    Attributes:
        columns: of all of them; none where there is no row.
        with_value: those in which some row has a value.
        seeds_are_numbers: none is too large for a column of numbers.
        of_edits: some row is that of an edit.

    Args:
        folder: on whose disk many rows are put aside.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows = tempfile.SpooledTemporaryFile(IN_MEMORY, dir=str(folder))  # noqa: SIM115
        self._first: list[bytes] = []  # rows that come first, for readers that guess types
        self._later: set[int] = set()  # their numbers
        self._count = self._size = 0
        self._plain: list[str] = []  # columns of the first row
        self._without_value: set[str] = set()  # columns, as yet
        self.seeds_are_numbers = True
        self.of_edits = False

    def close(self) -> None:
        """Let go of them."""
        self._rows.close()

    @property
    def columns(self) -> list[str]:
        return with_edit_columns(self._plain) if self.of_edits and self._plain else self._plain

    @property
    def with_value(self) -> set[str]:
        return set(self.columns) - self._without_value

    def add(self, row: dict[str, Any]) -> None:
        """Put a row aside.

        Raises:
            StorageError: the disk refuses.
        """
        line = json_line(row)
        if not self._count:
            self._plain = list(row)
            self._without_value = {*row, *EDIT_COLUMNS}
        seed = row["seed"]
        self.seeds_are_numbers &= seed is None or seed <= MAX_NUMBER
        self.of_edits = self.of_edits or not row.keys().isdisjoint(EDIT_COLUMNS)
        self._size += len(line)
        found = {name for name in self._without_value if row.get(name) is not None}
        self._without_value -= found
        if found and self._size > TYPED_BY // 2:
            self._first.append(line)
            self._later.add(self._count)
        try:
            self._rows.write(line)
        except OSError as error:
            raise storage_error(error, self._folder) from None
        self._count += 1

    def lines(self, seeds_are_numbers: bool, with_edits: bool) -> Iterator[bytes]:
        """The rows as a table has them; in their order, but for those that tell a column's type.

        `datasets` tells the types of columns by the beginning of a table, and fails where a value
        follows later: of a long table the first rows with a value in such columns come first.

        Args:
            seeds_are_numbers: seeds of the table are; else they are text.
            with_edits: it has the columns of edits.
        """
        self._rows.seek(0, os.SEEK_SET)
        kept = (line for n, line in enumerate(self._rows) if n not in self._later)
        for some in (self._first, kept):
            for line in some:
                if seeds_are_numbers and not with_edits:
                    yield line
                    continue
                row = json.loads(line)
                if not seeds_are_numbers and row["seed"] is not None:
                    row["seed"] = str(row["seed"])
                if with_edits:
                    row = {name: row.get(name) for name in with_edit_columns(list(row))}
                yield json_line(row)


def with_edit_columns(columns: list[str]) -> list[str]:
    """Columns with those of edits, behind the others."""
    return [*(name for name in columns if name not in EDIT_COLUMNS), *EDIT_COLUMNS]
