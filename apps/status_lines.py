"""A run as lines of a terminal: a bar for each kind of task, a line for each worker. Pure.

Figures are never cut. Where a line is too short, names give way, and then the bar; a model's
name that all workers share is left out before the others become illegible.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from apps.cells import clean, cut, shares
from core.byte_sizes import shown_bytes
from core.names import counted
from core.status import words
from core.status.run_status import Download, KindStatus, RunStatus, WorkerStatus

GAP = "  "
LEAST_NAME = 10  # columns that a name needs to say anything
LEAST_BAR = 5
MOST_BAR = 60
READY = "ready"


@dataclass(frozen=True)
class Bar:
    """The letters that bars are made of.

    Attributes:
        half: ends the full part where half a letter more is full.
    """

    full: str = "━"
    half: str = "╸"
    rest: str = "─"

    def draw(self, part: float, room: int, style: str) -> Text:
        """A bar of which a part, from 0 to 1, is full."""
        halves = int(max(0.0, min(1.0, part)) * room * 2)
        full = self.full * (halves // 2)
        half = self.half if halves % 2 and self.half else ""
        rest = self.rest * (room - len(full) - len(half))
        return Text.assemble((full + half, style), (rest, "bright_black"))


ASCII_BAR = Bar("#", "", "-")


def status_lines(
    status: RunStatus, width: int, most: int | None = None, bar: Bar | None = None
) -> list[Text]:
    """What stands on the terminal while a run goes on; after its end only its bars.

    Args:
        width: columns of the terminal.
        most: lines that there is room for; the workers that do not fit are counted.
    """
    bar = bar or Bar()
    lines = _kind_lines(status, width, bar)
    if status.state != "running":
        return lines
    if status.waiting_for is not None:
        lines += _wrapped(status.waiting_for, width)
    lines += [_download_line(download, width, bar) for download in status.downloads]
    workers = status.workers
    room = None if most is None else max(0, most - len(lines))
    if room is not None and len(workers) > room:
        workers = workers[: max(0, room - 1)]
    lines += _worker_lines(workers, width)
    hidden = len(status.workers) - len(workers)
    if hidden and (room is None or room):
        lines.append(Text(f"and {counted(hidden, 'worker')} more"))
    return lines


# -- bars ----------------------------------------------------------------------------


def _kind_lines(status: RunStatus, width: int, bar: Bar) -> list[Text]:
    if not status.kinds:
        return [Text(status.phase if status.state == "running" else words.sentence(status))]
    several = len(status.kinds) > 1
    rows = [_figures(status, kind) for kind in status.kinds]
    columns = [max(cell_len(row[i]) for row in rows) for i in range(len(rows[0]))]
    labels = [_label(status, kind, several) for kind in status.kinds]
    fixed = sum(len(GAP) + column for column in columns if column)
    wanted = max(map(cell_len, labels))
    room = max(0, width - fixed - 1)
    name = min(wanted, room)
    space = min(MOST_BAR, room - name - len(GAP) + 1)
    space = space if space >= LEAST_BAR else 0
    return [
        _kind_line(kind, cut(label, name), name, space, row, columns, bar, status)
        for kind, label, row in zip(status.kinds, labels, rows, strict=True)
    ]


def _label(status: RunStatus, kind: KindStatus, several: bool) -> str:
    """What the bar of a kind is called."""
    if status.state != "running":
        end = "interrupted" if status.state == "interrupted" else "done"
        return f"{words.phase_of(kind)} ({end})" if several else end
    return words.phase_of(kind) if several else status.phase


def _figures(status: RunStatus, kind: KindStatus) -> list[str]:
    """Count, speed, time and failures of a kind."""
    left = status.seconds_left if len(status.kinds) == 1 else kind.seconds_left
    running = status.state == "running"
    time = f"{words.duration(left)} left" if running and left else ""
    if not running and status.ended is not None and kind is status.kinds[-1]:
        time = f"in {words.duration(status.ended - status.started)}"
    speed = words.rate(kind.per_minute) if kind.per_minute and running else ""
    return [words.count(kind), speed, time, words.failures(kind.failed)]


def _kind_line(
    kind: KindStatus,
    label: str,
    name: int,
    space: int,
    figures: Sequence[str],
    columns: Sequence[int],
    bar: Bar,
    status: RunStatus,
) -> Text:
    line = Text(_padded(label, name))
    if space:
        style = "yellow" if status.state == "interrupted" else "green"
        part = kind.ended / kind.total if kind.total else 0.0
        line.append(" ").append_text(bar.draw(part, space, style))
    styles = ["", "cyan", "", "red"]
    for figure, column, style in zip(figures, columns, styles, strict=True):
        if column:
            line.append(GAP + " " * (column - cell_len(figure))).append(figure, style)
    line.rstrip()
    return line


def _wrapped(sentence: str, width: int) -> list[Text]:
    """A sentence in as many lines as it needs: what it says to do stands at its end."""
    lines = textwrap.wrap(clean(sentence), max(1, width), break_on_hyphens=False)
    return [Text(line, "yellow") for line in lines]


def _download_line(download: Download, width: int, bar: Bar) -> Text:
    percent = 100 * download.done // max(1, download.total)
    figures = f"{shown_bytes(download.done)}/{shown_bytes(download.total)}{GAP}{percent:3} %"
    room = max(0, width - len(figures) - 2 * len(GAP))
    name = min(cell_len(clean(download.model)), max(room // 2, LEAST_NAME), room)
    space = min(MOST_BAR, room - name)
    line = Text(_padded(cut(clean(download.model), name), name))
    if space >= LEAST_BAR:
        part = download.done / max(1, download.total)
        line.append(GAP).append_text(bar.draw(part, space, "blue"))
    return line.append(GAP + figures)


# -- workers -------------------------------------------------------------------------


def _worker_lines(workers: Sequence[WorkerStatus], width: int) -> list[Text]:
    if not workers:
        return []
    labels = [clean(worker.name) for worker in workers]
    figures = [[_steps(worker), _memory(worker)] for worker in workers]
    names = [[_model(w), clean("+".join(w.loras)), _doing(w)] for w in workers]
    counts = [f" +{w.together - 1}" if w.task and w.together > 1 else "" for w in workers]
    label = max(map(cell_len, labels))
    figured = [max(cell_len(row[i]) for row in figures) for i in range(2)]
    wanted = [max(cell_len(row[i]) for row in names) for i in range(3)]
    extra = max(map(len, counts))
    room = width - label - sum(len(GAP) + column for column in figured if column)
    got = _name_columns(wanted, extra, room, len({row[0] for row in names}) > 1)
    lines = []
    for worker, (model, loras, doing), row, more, own in zip(
        workers, names, figures, counts, labels, strict=True
    ):
        line = Text(_padded(own, label))
        for text, column, style in ((model, got[0], "bright_black"), (loras, got[1], "magenta")):
            if column:
                line.append(GAP).append(_padded(cut(text, column), column), style)
        if got[2] + extra:
            shown = cut(doing, got[2]) + more
            style = "" if worker.task else "yellow"
            line.append(GAP).append(_padded(shown, got[2] + extra), style)
        for figure, column in zip(row, figured, strict=True):
            if column:
                line.append(GAP + " " * (column - cell_len(figure)) + figure)
        line.rstrip()
        lines.append(line)
    return lines


def _name_columns(wanted: Sequence[int], extra: int, room: int, models_differ: bool) -> list[int]:
    """Columns for the names of model, LoRAs and task.

    Args:
        extra: columns of a figure that follows the task.
    """
    tries = [(0, 1, 2), (1, 2), (2,)] if not models_differ else [(0, 1, 2), (0, 2), (2,)]
    got = [0, 0, 0]
    for places in tries:
        places = tuple(place for place in places if wanted[place])
        left = room - extra - len(GAP) * len(places)
        given = shares([wanted[place] for place in places], max(0, left))
        legible = all(g >= min(LEAST_NAME, wanted[p]) for g, p in zip(given, places, strict=True))
        if legible or places == (2,) or not places:
            for place, columns in zip(places, given, strict=True):
                got[place] = columns
            return got
    return got


def _model(worker: WorkerStatus) -> str:
    """The short name of a worker's model: of a hub's, without its owner."""
    return clean((worker.model or "").rpartition("/")[2])


def _doing(worker: WorkerStatus) -> str:
    """The task, or what else there is to say of a worker."""
    if worker.task is not None:
        return clean(worker.task)
    return "" if worker.state == READY else clean(worker.state)


def _steps(worker: WorkerStatus) -> str:
    return f"{worker.step}/{worker.steps}" if worker.steps else ""


def _memory(worker: WorkerStatus) -> str:
    """Memory in use and there, in GB, as far as it is known."""
    if worker.memory_total is None:
        return ""
    total = worker.memory_total / 1e9
    digits = 0 if total >= 10 else 1
    if worker.memory_used is None:
        return f"{total:.{digits}f} GB"
    return f"{worker.memory_used / 1e9:.{digits}f}/{total:.{digits}f} GB"


def _padded(text: str, columns: int) -> str:
    return text + " " * (columns - cell_len(text))
