"""A table for the terminal, whose figures are never cut.

Where a line is too short, names give way, and what still does not fit follows below in a table of
its own.
"""

import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from apps.cells import cut
from apps.edit_benchmark.parts import Subset
from core.errors import one_line

NONE = "-"
PIPED = 100  # columns where there is no terminal, and COLUMNS says nothing
GAP = 2  # between two columns
LEAST_NAME = 12  # columns that a name gets before figures go to a table of their own


@dataclass(frozen=True)
class Row:
    """One line: its name, and the cells of all columns but that of the names."""

    name: str
    cells: list[str]


def letters_of(count: int) -> list[str]:
    """A, B, ... Z, then A2, B2 and so on: short names for columns."""
    return [f"{ascii_uppercase[i % 26]}{i // 26 + 1 if i >= 26 else ''}" for i in range(count)]


def part_cell(language: str | None, subset: Subset | None) -> str:
    """A language, and the subset where it is not all of it."""
    shown = cut(one_line(language or NONE), LEAST_NAME)
    return f"{shown}, {subset}" if subset == "intersection" else shown


def columns_of_terminal() -> int:
    return shutil.get_terminal_size((PIPED, 24)).columns


def print_note(text: str) -> None:
    """Print a sentence in lines of the terminal's width. Words, such as paths, stay whole."""
    width = columns_of_terminal()
    print(textwrap.fill(one_line(text), width, break_long_words=False, break_on_hyphens=False))


def print_table(keys: Sequence[str], figures: Sequence[str], rows: Sequence[Row]) -> None:
    """One table, or several below each other where the line is too short for one.

    Args:
        keys: columns that each of the tables has; the first is that of the names.
    """
    # On one line: in a bare string Rich would read [brackets] as styles.
    names = [one_line(row.name) for row in rows]
    columns = [*keys[1:], *figures]
    widths = [
        GAP + max(cell_len(column), *(cell_len(row.cells[i]) for row in rows))
        for i, column in enumerate(columns)
    ]
    marks, rest = list(range(len(keys) - 1)), list(range(len(keys) - 1, len(columns)))
    least = min(LEAST_NAME, max(map(cell_len, [keys[0], *names])))
    line = columns_of_terminal()
    room = line - least - sum(widths[i] for i in marks)
    for block in ([*marks, *some] for some in _blocks(rest, widths, room)):
        room = max(line - sum(widths[i] for i in block), least)
        table = Table(box=None, pad_edge=False)
        table.add_column(keys[0], no_wrap=True)
        for i in block:
            side: Literal["left", "right"] = "left" if i in marks else "right"
            table.add_column(columns[i], justify=side, no_wrap=True)
        for row, name in zip(rows, names, strict=True):
            table.add_row(Text(cut(name, room)), *(Text(row.cells[i]) for i in block))
        # Rich would shorten figures, where a terminal only breaks the line.
        Console(width=max(line, room + sum(widths[i] for i in block))).print(table)


def _blocks(columns: Sequence[int], widths: Sequence[int], room: int) -> list[list[int]]:
    """The columns that stand beside each other in `room`."""
    blocks: list[list[int]] = [[]]
    used = 0
    for i in columns:
        if blocks[-1] and used + widths[i] > room:
            blocks.append([])
            used = 0
        blocks[-1].append(i)
        used += widths[i]
    return blocks
