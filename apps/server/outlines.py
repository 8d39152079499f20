"""What tasks and jobs are about, in a few words: for lists in which nobody reads whole prompts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from apps.server.records import kind_of

MOST_CHARACTERS = 160
TITLE, KINDS = "title", "kinds"  # in a job's metadata


class TaskOutline(NamedTuple):
    """A task of a job without its fields, of which the journal has all.

    Attributes:
        position: its place in the job, from 0.
        kind: generate, edit or score.
        title: the beginning of its prompt, or of its instruction.
    """

    position: int
    kind: str
    title: str


def outline_of(position: int, task: Mapping[str, Any]) -> TaskOutline:
    """The outline of a task, checked or refused."""
    words = task.get("prompt") or task.get("instruction") or ""
    return TaskOutline(position, kind_of(task), _beginning(str(words)))


def job_outline(tasks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is kept of a job in its metadata: the title of its first task, and a count by kind."""
    first = next((outline_of(0, task).title for task in tasks), "")
    return {TITLE: first, KINDS: dict(Counter(kind_of(task) for task in tasks))}


def _beginning(words: str) -> str:
    line = " ".join(words[: 2 * MOST_CHARACTERS].split())
    return line if len(line) <= MOST_CHARACTERS else f"{line[: MOST_CHARACTERS - 1]}…"
