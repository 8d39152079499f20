"""The command `watch.py`: what is watched, how often, and how it is shown."""

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from loguru import logger

from apps.arguments import command_parser
from apps.log_lines import set_up_logging
from apps.watch.daemon import WatchedDaemon
from apps.watch.folder import WatchedFolder
from apps.watch.lines import look_lines, look_sentence
from apps.watch.look import Look
from core.errors import InputError, MultiGPUError
from core.paths import user_path
from core.remote.socket_place import answers, is_own_socket, socket_place

GOOD, NOT_GOOD, UNUSABLE_INPUT, INTERRUPTED = 0, 1, 2, 130
EVERY = 1.0  # seconds between two looks
LINE_EVERY = 10.0  # between two lines, where there is no terminal

EXAMPLES = """\
examples:
  python watch.py outputs/tweets
      the run of that folder, until it ends: its own workers' or a daemon's
  python watch.py outputs
      the newest run of the folders in it
  python watch.py http://127.0.0.1:8000
      a daemon: its workers and your jobs, until Ctrl-C (without PLACE: the one of yours that runs)
  python watch.py outputs/tweets --once --json
      one look, as JSON for another program

Nothing is written and nothing is locked: a run does not know that it is watched. What is read is
FOLDER/status.json; docs/WATCHING.md has its fields.
exit codes: 0 the run goes on or is complete, 1 it failed, was interrupted or killed, or a server
does not answer, 2 there is nothing that can be watched, 130 Ctrl-C
"""


class Watched(Protocol):
    """What is watched."""

    def look(self) -> Look: ...


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = command_parser(
        "watch.py", "Show how a run stands, from outside and without touching it.", EXAMPLES
    )
    parser.add_argument(
        "place",
        metavar="PLACE",
        nargs="?",
        help="the output folder of a run, or a server's URL or socket",
    )
    parser.add_argument("--once", action="store_true", help="look once, and end")
    parser.add_argument(
        "--json", action="store_true", help="a line of JSON for each look that shows something new"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = parse_arguments(sys.argv[1:] if argv is None else argv)
    set_up_logging("INFO")
    ends = (signal.SIGINT, signal.SIGTERM)  # after which a hidden cursor has to come back
    before = {number: signal.signal(number, signal.default_int_handler) for number in ends}
    try:
        watched = _watched(options.place)
        if options.once:
            return _once(watched, options.json)
        if options.json or not sys.stdout.isatty():
            return _follow(watched, options.json)
        return _follow_on_terminal(watched)
    except MultiGPUError as error:
        logger.error(str(error))
        return UNUSABLE_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watched(place: str | None) -> Watched:
    if place is None:
        own = socket_place()
        if not (is_own_socket(own) and answers(own)):
            raise InputError("No server of yours runs here: give the output folder of a run.")
        return WatchedDaemon(own)
    if place.startswith(("http://", "https://")):
        return WatchedDaemon(place)
    path = user_path(place, "PLACE")
    return WatchedDaemon(path) if path.is_socket() else WatchedFolder(Path(path))


def _once(watched: Watched, as_json: bool) -> int:
    look = watched.look()
    if as_json:
        print(json.dumps(look.as_json(), ensure_ascii=False))
    else:
        from rich.console import Console

        from apps.terminal_view import bar_of

        console = Console()
        for line in look_lines(look, console.width, sys.maxsize, bar_of(console), whole=True):
            console.print(line, soft_wrap=True)
    return _code(look)


def _follow(watched: Watched, as_json: bool) -> int:
    """Say what is new until the end, to another program or a file."""
    told, told_at = "", 0.0
    while True:
        look = _patient(watched.look())
        now = time.monotonic()
        document = look.as_json()
        text = json.dumps(document, ensure_ascii=False) if as_json else look_sentence(look)
        news = json.dumps({**document, "seconds_left": None}) if as_json else text
        if news != told and (as_json or look.is_over or now - told_at >= LINE_EVERY):
            told, told_at = news, now
            print(text, flush=True)
        if look.is_over:
            return _code(look)
        time.sleep(EVERY)


def _follow_on_terminal(watched: Watched) -> int:
    from rich.console import Console
    from rich.text import Text

    from apps.cells import clean
    from apps.terminal_view import bar_of, live_lines

    console = Console()
    look, bar = _patient(watched.look()), bar_of(console)
    with live_lines(console, lambda width, most: look_lines(look, width, most, bar)):
        while not look.is_over:
            time.sleep(EVERY)
            look = _patient(watched.look())
        last, look = look, replace(look, title="")
    if last.title:  # it may hold a command, which is there to be copied
        console.print(Text(clean(last.title), "yellow"), soft_wrap=True)
    return _code(last)


def _patient(look: Look) -> Look:
    """A look of whoever looks again: a misspelt folder should not be waited for unnoticed."""
    if look.seen != "waiting":
        return look
    return replace(look, title=f"{look.title} It is waited for; Ctrl-C ends that.")


def _code(look: Look) -> int:
    return GOOD if look.is_good else NOT_GOOD
