"""The command `records.py`: what the record of an output folder tells."""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from loguru import logger

from apps.arguments import command_parser, positive
from apps.gallery.build import build_page
from apps.gallery.items import Item
from apps.gallery.places import INDEX
from apps.gallery.reading import read_folder
from apps.gallery.records import lists
from apps.gallery.records.export import default_name, export
from apps.gallery.records.merge import find_parts, merge
from apps.gallery.records.prune import find_useless
from apps.gallery.records.verify import verify
from apps.log_lines import set_up_logging
from core.byte_sizes import shown_bytes
from core.errors import InputError, MultiGPUError, one_line
from core.names import counted
from core.paths import as_text, user_path
from core.store.ledger_file import LOCK_NAME
from core.store.ledger_reading import FolderRecord, read_record
from core.store.outputs import remove
from core.store.run_lock import RunLock

FINE, PROBLEMS, UNUSABLE, INTERRUPTED = 0, 1, 2, 130
SHOWN = 20  # rows, unless --limit says more

EXAMPLES = """\
what can be asked for:
  summary    how many are done, failed, not done yet, and why (default)
  failed     those that failed, with the reason
  slowest    those that are done, the slowest first
  by-lora, by-worker, by-model
             counts and seconds of each
  export FILE.csv or FILE.parquet
             all records as one table, a row for each
  merge [FOLDER.shard-1-of-2 …]
             make one folder of those that commands with --shard made; without names, of all that
             lie beside FOLDER. Pictures are linked or copied, and the parts stay as they are;
             the folder gets a page (index.html) if a part has one
  verify     read every result and compare it with the record
  prune      list files that serve nothing: unfinished ones of killed runs, results that the record
             does not know, small copies of pictures that are gone; --delete removes them

examples:
  python records.py outputs/persona_tweets
  python records.py outputs/persona_tweets slowest --limit 5
  python records.py outputs/persona_tweets export all.parquet
  python records.py outputs/persona_tweets merge
exit codes: 0 fine, 1 verify found a problem, 2 unusable input, 130 interrupted
"""


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = command_parser(
        "records.py",
        "Say what the record of an output folder tells; a run may be going on in it.",
        EXAMPLES,
    )
    add = parser.add_argument
    add("folder", metavar="FOLDER", type=Path, help="the output folder of a run")
    add(
        "what",
        metavar="WHAT",
        nargs="?",
        choices=ACTIONS,
        default="summary",
        help=f"one of {', '.join(ACTIONS)}; see below (default: summary)",
    )
    add(
        "files",
        metavar="FILE",
        nargs="*",
        type=Path,
        help="of export: FOLDER/records.csv if left out; of merge: folders of parts",
    )
    add(
        "--limit",
        type=positive,
        metavar="N",
        default=SHOWN,
        help=f"show at most N rows (default: {SHOWN})",
    )
    add("--delete", action="store_true", help="of prune: remove what it lists")
    add(
        "--replaced",
        action="store_true",
        help="of prune: list what .replaced keeps, too, of results that were made anew",
    )
    options = parser.parse_args(argv)
    if options.files and options.what not in ("export", "merge"):
        parser.error(f"{options.what} takes no FILE")
    if len(options.files) > 1 and options.what == "export":
        parser.error("export takes one FILE")
    if (options.delete or options.replaced) and options.what != "prune":
        parser.error("--delete and --replaced belong to prune")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = parse_arguments(sys.argv[1:] if argv is None else argv)
    set_up_logging("INFO")
    try:
        folder = Path(os.path.abspath(user_path(options.folder, "FOLDER")))
        return ACTIONS[options.what](folder, options)
    except MultiGPUError as error:
        logger.error(str(error))
        return UNUSABLE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `records.py … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE


def _summary(folder: Path, options: argparse.Namespace) -> int:
    lists.print_summary(read_folder(folder).items)
    return FINE


def _failed(folder: Path, options: argparse.Namespace) -> int:
    rows = lists.failed(read_folder(folder).items)
    if rows:
        lists.print_rows(["task", "cause", "reason", "prompt"], rows, options.limit)
    else:
        print("none failed")
    return FINE


def _slowest(folder: Path, options: argparse.Namespace) -> int:
    columns = ["task", "seconds", "worker", "LoRA", "prompt"]
    lists.print_rows(columns, lists.slowest(read_folder(folder).items), options.limit)
    return FINE


def _by(name: str, of: Callable[[Item], str]) -> Callable[[Path, argparse.Namespace], int]:
    def listed(folder: Path, options: argparse.Namespace) -> int:
        rows = lists.by(read_folder(folder).items, of)
        columns = [name, "done", "failed", "median s", "most s", "all s"]
        lists.print_rows(columns, rows, options.limit)
        return FINE

    return listed


def _export(folder: Path, options: argparse.Namespace) -> int:
    file = user_path(options.files[0], "FILE") if options.files else default_name(folder)
    count = export(read_folder(folder).items, file)
    print(one_line(f"{counted(count, 'record')}: {as_text(file)}"))
    return FINE


def _merge(folder: Path, options: argparse.Namespace) -> int:
    parts = find_parts(folder)
    if options.files:
        named = {Path(os.path.abspath(user_path(file, "FILE"))) for file in options.files}
        strange = sorted(named - {part.folder for part in parts})
        if strange:
            raise InputError(f"{as_text(strange[0])}: no part of {as_text(folder)}.")
        parts = [part for part in parts if part.folder in named]
    counts = merge(folder, parts)
    states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    print(one_line(f"{len(parts)} parts, {counts.total()} records: {states}: {as_text(folder)}"))
    if any((part.folder / INDEX).is_file() for part in parts):
        try:
            build_page(folder)
            print(one_line(f"all at a glance: {as_text(folder / INDEX)}"))
        except InputError as error:  # somebody else's page; all pictures are there
            logger.warning(str(error))
    return FINE


def _verify(folder: Path, options: argparse.Namespace) -> int:
    counts: Counter[str] = Counter()
    for checked in verify(folder, _record(folder).tasks):
        counts[checked.finding] += 1
        if checked.finding != "whole":
            print(one_line(f"{checked.finding}: {checked.entry.output_path} ({checked.reason})"))
    parts = ", ".join(f"{count} {finding}" for finding, count in sorted(counts.items()))
    print(f"{counted(counts.total(), 'result')}: {parts or 'none'}")
    bad = counts.total() - counts["whole"]
    if bad:
        print("The command that made them makes what is missing or changed again.")
    return PROBLEMS if bad else FINE


def _prune(folder: Path, options: argparse.Namespace) -> int:
    if not options.delete:
        return _pruned(folder, options)
    _record(folder)  # before a lock is made in a folder of somebody else
    lock = RunLock(folder / LOCK_NAME)  # what is unfinished may be a running one's
    try:
        return _pruned(folder, options)
    finally:
        lock.release()


def _pruned(folder: Path, options: argparse.Namespace) -> int:
    found = find_useless(folder, _record(folder), read_folder(folder).items, options.replaced)
    for number, one in enumerate(found):
        if options.delete:
            remove(one.file)
        if number < options.limit:
            print(one_line(f"{one.what}: {as_text(one.file.relative_to(folder))}"))
    if len(found) > options.limit:
        print(f"and {len(found) - options.limit} more")
    size = shown_bytes(sum(one.size for one in found))
    if not found:
        print("nothing lies in the way")
    elif options.delete:
        print(f"{counted(len(found), 'file')} removed, {size}")
    else:
        print(f"{counted(len(found), 'file')}, {size}; --delete removes them")
    return FINE


def _record(folder: Path) -> FolderRecord:
    record = read_record(folder)
    if record is None:
        raise InputError(
            f"{as_text(folder)}: no output folder of a run, as it has no ledger.sqlite."
        )
    return record


ACTIONS: dict[str, Callable[[Path, argparse.Namespace], int]] = {
    "summary": _summary,
    "failed": _failed,
    "slowest": _slowest,
    "by-lora": _by("LoRA", lambda item: lists.loras_of(item) or lists.NO_LORA),
    "by-worker": _by("worker", lambda item: item.worker or lists.NOBODY),
    "by-model": _by("model", lambda item: str(item.used.get("model") or lists.NOBODY)),
    "export": _export,
    "merge": _merge,
    "verify": _verify,
    "prune": _prune,
}
