"""Rows of `benchmarks.gpu`, written the moment that they are measured.

A run that is killed leaves every row that it had: `rows.jsonl` grows line by line, and
`results.md` is made of it anew after each part.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROWS = "rows.jsonl"
RESULTS = "results.md"
Value = float | int | str | None


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        table: the heading under which it stands.
        name: of the contender, or of the check.
        values: by column. Seconds unless the column says otherwise.
    """

    table: str
    name: str
    values: Mapping[str, Value] = field(default_factory=dict)


def add(out: Path, row: Row) -> None:
    """Append a row and show it."""
    with (out / ROWS).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(asdict(row)) + "\n")
    print(shown(row), flush=True)


def shown(row: Row) -> str:
    """A row on one line."""
    values = ", ".join(f"{k} {_shown(v)}" for k, v in row.values.items() if v is not None)
    return f"[{row.table}] {row.name}: {values}"


def read(out: Path) -> list[Row]:
    """All rows so far; a line that a kill cut short is passed over."""
    if not (out / ROWS).exists():
        return []
    rows = []
    for line in (out / ROWS).read_text("utf-8").splitlines():
        try:
            rows.append(Row(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return rows


def write_results(out: Path, title: str) -> None:
    """`results.md`: a table per heading, in the order in which they were begun."""
    rows = read(out)
    text = [f"# {title}", ""]
    for table in dict.fromkeys(row.table for row in rows):
        own = [row for row in rows if row.table == table]
        columns = list(dict.fromkeys(column for row in own for column in row.values))
        text += [f"## {table}", "", f"| what | {' | '.join(columns)} |"]
        text.append("|" + " --- |" * (len(columns) + 1))
        for row in own:
            cells = (_shown(row.values.get(column)) for column in columns)
            text.append(f"| {row.name} | {' | '.join(cells)} |")
        text.append("")
    (out / RESULTS).write_text("\n".join(text), "utf-8")


def _shown(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value).replace("|", "/")
