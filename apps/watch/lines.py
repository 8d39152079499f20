"""A look at a run as lines of a terminal. Pure."""

import sys

from rich.text import Text

from apps.cells import clean, cut
from apps.status_lines import Bar, status_lines
from apps.watch.look import Look
from core.status.words import sentence

MOST_FAILURES = 5


def look_lines(look: Look, width: int, most: int, bar: Bar, whole: bool = False) -> list[Text]:
    """What a watcher's terminal shows: the place, the run, and the newest failures below it.

    Args:
        whole: place and failures are not cut at the width, and the terminal breaks their lines.
    """
    room = sys.maxsize if whole else width
    head = [Text(cut(clean(look.place), room), "bold")]
    if look.title:
        head.append(Text(clean(look.title), "yellow"))
    if look.status is None:
        return head
    failures = [
        Text(cut(clean(f"{f.task_id}: {f.error or f.status}"), room), "red")
        for f in look.status.failures[-MOST_FAILURES:]
    ]
    return [
        *head,
        *status_lines(look.status, width, most - len(head) - len(failures), bar),
        *failures,
    ]


def look_sentence(look: Look) -> str:
    """The same in one line, for a log."""
    told = [] if look.status is None else [sentence(look.status)]
    if look.seen == "killed":
        told.insert(0, "killed")
    return clean(f"{look.place}: {'; '.join([*told, *([look.title] if look.title else [])])}")
