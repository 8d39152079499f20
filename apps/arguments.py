"""Arguments that the commands share."""

import argparse
import csv
import re
import textwrap
import unicodedata
from difflib import get_close_matches
from typing import NoReturn

from core.engine_choice import S, with_engine
from core.errors import InputError, one_line
from core.paths import MAX_NAME_BYTES, as_text
from core.seeds import read_seed

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class _Help(argparse.RawDescriptionHelpFormatter):
    """Examples as they are laid out; names of options and files are not broken at their hyphens."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        words = " ".join(text.split())
        return textwrap.wrap(words, width, break_long_words=False, break_on_hyphens=False)


class _ArgumentParser(argparse.ArgumentParser):
    """Says what is wrong in one line, which a page of usage would push out of sight."""

    def error(self, message: str) -> NoReturn:
        known = [name for name in self._option_string_actions if name.startswith("--")]
        unknown = re.match(r"unrecognized arguments: (--[\w-]+)", message)
        near = get_close_matches(unknown[1], known, 1) if unknown else []
        hint = f"did you mean {near[0]}?" if near else f"{self.prog} --help lists all options."
        said = one_line(f"{self.prog}: error: {message.removesuffix('.')}; {hint}")
        self.exit(2, f"{said}\n")


def command_parser(program: str, description: str, examples: str = "") -> argparse.ArgumentParser:
    """A parser of a command's arguments that shows examples as they are laid out.

    Options are never abbreviated: a shortened one would change its meaning with the next option.
    """
    return _ArgumentParser(
        prog=program,
        description=description,
        epilog=examples,
        formatter_class=_Help,
        allow_abbrev=False,
    )


def gpu_ids(text: str) -> list[int]:
    """Read ids of GPUs, such as 0,2,4."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected ids like 0,2,4, found {text!r}") from None


def positive(text: str) -> int:
    """A number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of 1 or more, found {text!r}")
    return int(text)


def percent(text: str) -> int:
    """A number from 1 to 100."""
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 100, found {text!r}")
    return int(text)


def seed(text: str) -> int:
    """A seed as `core.seeds` takes it."""
    try:
        return read_seed(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, found {text!r}") from None


def fixed_seed(text: str) -> int:
    """A seed that is a number, and not one at random."""
    try:
        return read_seed(text, random_allowed=False)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, found {text!r}") from None


def categories(text: str) -> list[str]:
    """Read categories, such as sky,ground or sky,"mist, fog"."""
    try:
        fields = next(csv.reader([as_text(text)], skipinitialspace=True), [])
    except csv.Error:
        fields = []
    names = [field.strip() for field in fields if field.strip()]
    if not names:
        raise argparse.ArgumentTypeError(f"expected categories like sky,ground, found {text!r}")
    return names


def folder_name(text: str) -> str:
    """The name of one folder: no path, nothing hidden, nothing that cannot be shown."""
    name = unicodedata.normalize("NFC", as_text(text))
    usable = name.strip() == name and name.isprintable() and not {"/", "\\"} & set(name)
    if not name or not usable or name.startswith("."):
        raise argparse.ArgumentTypeError(
            f"expected one folder's name without slashes, like trial_2, found {text!r}"
        )
    if len(name.encode()) > MAX_NAME_BYTES:
        raise argparse.ArgumentTypeError(f"longer than {MAX_NAME_BYTES} bytes: {name[:40]!r}…")
    return name


def add_output_options(parser: argparse._ActionsContainer) -> None:
    """`--log-level`, and how a run is shown: `--plain`, `--quiet` or `--json`."""
    group = parser.add_mutually_exclusive_group()
    for flags, mode, text in (
        (("--plain",), "plain", "a line for each result, also on a terminal"),
        (("-q", "--quiet"), "quiet", "say nothing but warnings, what failed, and the result"),
        (("--json",), "json", "write events to standard output, a line of JSON each"),
    ):
        group.add_argument(
            *flags, dest="progress", action="store_const", const=mode, default="auto", help=text
        )
    parser.add_argument(
        "--log-level",
        choices=LOG_LEVELS,
        default="INFO",
        type=str.upper,
        help="how much is said: WARNING only what needs a look, DEBUG everything (default: INFO)",
    )


def log_level(options: argparse.Namespace) -> str:
    """The level that the options ask for: with `--quiet`, of warnings at least."""
    level: str = options.log_level
    quiet = options.progress == "quiet" and level in ("DEBUG", "INFO")
    return "WARNING" if quiet else level


def add_record_options(
    parser: argparse._ActionsContainer, things: str, called: str, examples: str
) -> None:
    """`--only`, `--only-failed` and `--where`, which choose by what a folder has on record.

    Args:
        things: what is chosen, in the plural.
        called: who else calls them by their ids.
        examples: of conditions.
    """
    add = parser.add_argument
    add(
        "--only",
        nargs="+",
        action="extend",
        metavar="ID",
        help=f"only the {things} with these ids, as {called} call them",
    )
    add("--only-failed", action="store_true", help="only what failed in an earlier run")
    add(
        "--where",
        action="append",
        metavar="FIELD=VALUE",
        help=f"only {things} whose record says so, such as {examples}; all conditions have to hold",
    )


def add_gallery_option(parser: argparse._ActionsContainer) -> None:
    """`--no-gallery`, over the setting `gallery`."""
    parser.add_argument(
        "--no-gallery",
        dest="gallery",
        action="store_false",
        default=None,
        help="write no index.html, the page that shows all pictures of the output folder",
    )


def add_engine_options(parser: argparse._ActionsContainer) -> None:
    """`--engine` and `--address`, over the settings `engine` and `ray.address`."""
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        help="whose devices do the work: this machine's (local, the default), or those of all "
        "nodes of a Ray cluster (docs/CLUSTER.md)",
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="the head of the Ray cluster, auto for one that this machine belongs to, or local to "
        "start one; means --engine ray (default: RAY_ADDRESS, else auto, else local)",
    )


def with_engine_options(options: argparse.Namespace, settings: S) -> S:
    """These options over settings.

    Raises:
        InputError: an address of a cluster is given, and another engine.
    """
    if options.address is None:
        return settings if options.engine is None else with_engine(settings, options.engine)
    if options.engine == "local":
        raise InputError("--address: is of a Ray cluster; leave it out, or give --engine ray.")
    return with_engine(settings, "ray", as_text(options.address))


def add_server_options(parser: argparse._ActionsContainer) -> None:
    """`--server URL` and `--no-server`, over the setting `use_server`."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--server",
        dest="use_server",
        metavar="URL",
        help="have a serve.py do the work that has the models loaded (default: one of yours on "
        "this machine, if it runs and has what the settings ask for)",
    )
    group.add_argument(
        "--no-server",
        dest="use_server",
        action="store_const",
        const="never",
        help="load the models here, whatever runs",
    )
