"""What a run shows on a terminal: a bar for all of it, and a line per worker."""

from loguru import logger
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from apps.log_lines import line_of, log_to
from core.byte_sizes import shown_bytes
from core.events import (
    Event,
    ModelFetching,
    TaskEnded,
    TaskProgress,
    TaskSpared,
    TaskStarted,
    WorkerState,
)


class _TimeRemaining(TimeRemainingColumn):
    """Time remaining of the batch and of downloads; a worker's share has no end of its own."""

    def render(self, task: Task) -> Text:
        has_end = task.id == 0 or task.fields.get("is_download")
        return super().render(task) if has_end else Text("")


class _Count(MofNCompleteColumn):
    """Count of pictures, or of a download's bytes."""

    def render(self, task: Task) -> Text:
        if not task.fields.get("is_download"):
            return super().render(task)
        return Text(f"{shown_bytes(task.completed)}/{shown_bytes(task.total or 0)}")


class TerminalView:
    """One bar for the batch and one line per worker; log lines scroll above them."""

    def __init__(self, total: int, workers: list[str], log_level: str) -> None:
        self._total = total
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            _Count(),
            _TimeRemaining(),
            TextColumn("{task.fields[state]}"),
            console=self._console,
        )
        self._batch = self._progress.add_task("pictures", total=total, state="")
        # A worker's bar is its share of the batch.
        self._lines = {w: self._progress.add_task(f"  {w}", total=total, state="") for w in workers}
        # By worker: the task that it was given last, and the one whose steps its line shows.
        self._newest: dict[str, str] = {}
        self._stepping: dict[str, str] = {}
        self._downloads: dict[str, TaskID] = {}  # by model
        self._failed = 0
        log_to(self._write, log_level, colorize=True)

    def _write(self, line: str) -> None:
        self._console.print(Text.from_ansi(line.rstrip("\n")))

    def __enter__(self) -> "TerminalView":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        for line in (*self._lines.values(), *self._downloads.values()):
            self._progress.update(line, visible=False)
        self._progress.stop()

    def show(self, event: Event) -> None:
        match event:
            case TaskStarted(task_id, worker):
                self._newest[worker] = task_id
                if worker not in self._stepping:  # else it is given ahead of that one's end
                    self._progress.update(self._lines[worker], state=escape(task_id))
            case TaskProgress(task_id, worker):
                self._stepping[worker] = task_id
                self._progress.update(self._lines[worker], state=_steps(event))
            case TaskEnded(result):
                self._failed += not result.success
                failed = f"[red]{self._failed} failed[/red]" if self._failed else ""
                self._progress.update(self._batch, advance=1, state=failed)
                if result.worker in self._lines:
                    self._progress.update(self._lines[result.worker], advance=1)
                self._end_steps(result.task_id)
                if not result.success:
                    logger.log(*line_of(event, ""))
            case TaskSpared():
                self._total -= 1
                self._progress.update(self._batch, total=self._total)
            case WorkerState(worker, state):
                self._stepping.pop(worker, None)
                self._progress.update(self._lines[worker], state=state)
            case ModelFetching(model, done, total):
                if model not in self._downloads:
                    self._downloads[model] = self._progress.add_task(
                        escape(model), total=total, state="", is_download=True
                    )
                line = self._downloads[model]
                self._progress.update(line, completed=done, total=total, visible=done < total)

    def _end_steps(self, task_id: str) -> None:
        """A task is over: its worker's line shows what that one was given last."""
        for worker in [w for w, task in self._stepping.items() if task == task_id]:
            del self._stepping[worker]
            self._progress.update(self._lines[worker], state=escape(self._newest.get(worker, "")))


def _steps(event: TaskProgress) -> str:
    more = f" and {event.together - 1} more" if event.together > 1 else ""
    return f"{event.done}/{event.total} steps  {escape(event.task_id)}{more}"
