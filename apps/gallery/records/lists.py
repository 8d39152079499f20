"""Lists of an output folder's records: what failed, what was slow, by LoRA and by worker."""

import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from statistics import median

from rich.cells import cell_len

from apps.cells import clean, cut, shares
from apps.gallery.items import Item, State
from core.errors import one_line
from core.lora_paths import name_of
from core.names import counted

PIPED = 160  # columns where there is no terminal
LEAST = 40  # columns of a table
GAP = "  "
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
    name = name_of(str(lora.get("path")))
    strength = lora.get("strength")
    known = isinstance(strength, int | float) and strength != 1
    return one_line(f"{name} {strength:g}" if known else name)


def print_summary(items: Sequence[Item]) -> None:
    """Counts of states, and reasons of failures."""
    counts = Counter(item.state for item in items)
    gone = sum(item.is_missing for item in items)
    parts = [f"{counts[state]} {word}" for state, word in _WORDS.items() if counts[state]]
    if gone:
        parts[0] += f" ({gone} of them without a file any more)"
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
    """A table; where a line is too short texts give way, each its part, and figures never."""
    width = max(shutil.get_terminal_size((PIPED, 24)).columns, LEAST)
    shown = rows if limit is None else rows[:limit]
    figures = [bool(rows) and all(_is_figure(row[n]) for row in rows) for n in range(len(columns))]
    table = [[clean(text) for text in row] for row in [columns, *shown]]
    wanted = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
    fixed = sum(w for w, is_figure in zip(wanted, figures, strict=True) if is_figure)
    texts = [w for w, is_figure in zip(wanted, figures, strict=True) if not is_figure]
    got = iter(shares(texts, width - fixed - len(GAP) * (len(columns) - 1)))
    widths = [w if is_figure else next(got) for w, is_figure in zip(wanted, figures, strict=True)]
    for row in table:
        cells = [_cell(*each) for each in zip(row, widths, figures, strict=True)]
        print(GAP.join(cells).rstrip())
    if len(shown) < len(rows):
        print(f"and {len(rows) - len(shown)} more; --limit {len(rows)} shows all")


def _is_figure(text: str) -> bool:
    return text.replace(".", "").isdecimal() or text == "-"


def _cell(text: str, width: int, is_figure: bool) -> str:
    shown = cut(text, width)
    blank = " " * (width - cell_len(shown))
    return blank + shown if is_figure else shown + blank
