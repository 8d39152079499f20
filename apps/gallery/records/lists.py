"""Lists of an output folder's records: what failed, what was slow, by LoRA and by worker."""

import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from statistics import median

from rich.cells import set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from apps.gallery.items import Item, State
from core.errors import one_line
from core.names import counted

PIPED = 100  # columns where there is no terminal
NO_LORA, NOBODY = "(none)", "(none)"
Rows = list[list[str]]


def prompt_of(item: Item) -> str:
    """What was asked for, in one line."""
    return one_line(str(item.task.get("prompt") or item.task.get("instruction") or ""))


def loras_of(item: Item) -> str:
    """Names and strengths of its LoRAs, such as `ink 0.8 + night`; empty without one."""
    path, given = item.task.get("lora_path"), item.task.get("loras")
    loras = [{"path": path, "strength": item.task.get("lora_strength")}] if path else given or []
    return " + ".join(_lora(lora) for lora in loras if isinstance(lora, dict))


def _lora(lora: dict[str, object]) -> str:
    name = str(lora.get("path")).rsplit("/", 1)[-1].removesuffix(".safetensors")
    strength = lora.get("strength")
    known = isinstance(strength, int | float) and strength != 1
    return one_line(f"{name} {strength:g}" if known else name)


def print_summary(items: Sequence[Item]) -> None:
    """Counts of states, and reasons of failures."""
    counts = Counter(item.state for item in items)
    gone = sum(item.is_missing for item in items)
    parts = [f"{counts[state]} {word}" for state, word in _WORDS.items() if counts[state]]
    if gone:
        parts.append(f"{gone} done, whose files are gone")
    print(f"{counted(len(items), 'record')}: {', '.join(parts)}")
    reasons = Counter(one_line(item.error or "") for item in items if item.state == "failed")
    for reason, count in reasons.most_common(10):
        print(f"  {count} x {reason}")
    done = sorted(item.seconds for item in items if item.state == "done" and item.seconds)
    if done:
        print(f"seconds for one: median {median(done):.1f}, most {done[-1]:.1f}")


_WORDS: dict[State, str] = {
    "done": "done",
    "failed": "failed",
    "running": "begun and not ended",
    "waiting": "not done yet",
}


def failed(items: Sequence[Item]) -> Rows:
    """Those that failed, with the reason."""
    return [
        [item.name, item.cause or "", one_line(item.error or ""), prompt_of(item)]
        for item in items
        if item.state == "failed"
    ]


def slowest(items: Sequence[Item]) -> Rows:
    """Those that are done, the slowest first."""
    done = [item for item in items if item.state == "done"]
    done.sort(key=lambda item: -item.seconds)
    return [
        [item.name, f"{item.seconds:.1f}", item.worker or "", loras_of(item), prompt_of(item)]
        for item in done
    ]


def by(items: Sequence[Item], of: Callable[[Item], str]) -> Rows:
    """Counts and times of groups, the largest first."""
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[of(item)].append(item)
    rows = []
    for name, members in sorted(groups.items(), key=lambda group: -len(group[1])):
        done = [item.seconds for item in members if item.state == "done"]
        rows.append(
            [
                name,
                str(len(done)),
                str(sum(item.state == "failed" for item in members)),
                f"{median(done):.1f}" if done else "-",
                f"{max(done):.1f}" if done else "-",
                f"{sum(done):.0f}",
            ]
        )
    return rows


def print_rows(columns: Sequence[str], rows: Rows, limit: int | None) -> None:
    """A table; texts are cut where the line ends."""
    width = shutil.get_terminal_size((PIPED, 24)).columns
    shown = rows if limit is None else rows[:limit]
    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        figures = bool(rows) and all(_is_figure(row[number]) for row in rows)
        table.add_column(column, justify="right" if figures else "left", no_wrap=True)
    for row in shown:
        table.add_row(*(Text(_cut(text, width)) for text in row))
    Console(width=max(width, 40)).print(table)
    if len(shown) < len(rows):
        print(f"and {len(rows) - len(shown)} more; --limit {len(rows)} shows all")


def _is_figure(text: str) -> bool:
    return text.replace(".", "").isdecimal() or text == "-"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{set_cell_size(text, width - 1).rstrip()}…"
