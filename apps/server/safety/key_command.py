"""`serve.py keys`: API keys are made, listed, replaced and ended."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from loguru import logger

from apps.arguments import command_parser
from apps.log_lines import set_up_logging
from apps.server.safety.keys import add_key, limit_key, read_keys, revoke_key, rotate_key
from apps.server.settings import load_server_settings
from core.errors import MultiGPUError
from core.remote.protocol import MOST_PRIORITY

DONE, UNUSABLE_INPUT = 0, 2
PROGRAM = "serve.py keys"
ACTIONS = ("add", "list", "limit", "rotate", "revoke")
EXAMPLES = """\
examples:
  python serve.py keys add alice       print a new key, which is shown this once
  python serve.py keys add root --operator
                                       one that may drain workers and unload models, too
  python serve.py keys add ci --max-priority -5
                                       one whose jobs come after those of others
  python serve.py keys limit alice --max-priority 3
                                       let her jobs ask for priorities up to 3
  python serve.py keys list
  python serve.py keys rotate alice    replace it; her jobs and files stay hers
  python serve.py keys revoke alice    end it; a running daemon knows within seconds
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code.

    Args:
        argv: what comes after `keys`.
    """
    options = parse_arguments(sys.argv[2:] if argv is None else argv)
    set_up_logging("INFO")
    try:
        _do(options)
    except MultiGPUError as error:  # nothing was changed
        logger.error(str(error))
        return UNUSABLE_INPUT
    return DONE


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = command_parser(
        PROGRAM, "API keys, without which only this machine may be served.", EXAMPLES
    )
    parser.add_argument("do", metavar="ACTION", help=", ".join(ACTIONS), choices=ACTIONS)
    parser.add_argument("name", nargs="?", help="whose key it is")
    parser.add_argument("--operator", action="store_true", help="with add: may run the daemon")
    parser.add_argument(
        "--max-priority",
        metavar="N",
        type=int,
        choices=range(-MOST_PRIORITY, MOST_PRIORITY + 1),
        help="with add and limit: the highest priority that jobs of the key may ask for, "
        "-10 to 10; without it what max_priority_per_key of the settings says",
    )
    parser.add_argument("--config", metavar="FILE", help="YAML settings over config/server.yaml")
    parser.add_argument("--output-dir", metavar="DIR", help="of the daemon that the keys are for")
    options = parser.parse_args(argv)
    if (options.name is None) != (options.do == "list"):
        parser.error("list takes no name" if options.do == "list" else "whose key? give a name")
    if options.operator and options.do != "add":
        parser.error("--operator is for add")
    is_limited = options.max_priority is not None
    if is_limited and options.do not in ("add", "limit"):
        parser.error("--max-priority is for add and limit")
    if options.do == "limit" and not is_limited:
        parser.error("limit needs --max-priority N")
    if options.operator and is_limited:
        parser.error("an operator may ask for any priority")
    return options


def _do(options: argparse.Namespace) -> None:
    """Do what is asked for, and print what came of it.

    Raises:
        InputError, StorageError: nothing was changed.
    """
    rules = load_server_settings(options.config).server
    file = rules.keys_place(options.output_dir and Path(options.output_dir))
    if options.do == "list":
        keys = read_keys(file)
        if not keys:
            logger.info(f"There are no keys in {file}.")
        for key in keys:
            day = time.strftime("%Y-%m-%d", time.localtime(key.created))
            most = rules.max_priority_per_key if key.max_priority is None else key.max_priority
            may = "operator, any priority" if key.operator else f"priority up to {most}"
            print(f"{key.name}  {key.id}  since {day}  {may}")
    elif options.do == "revoke":
        revoke_key(file, options.name)
        print(f"{options.name} has no key any more.")
    elif options.do == "add":
        print(add_key(file, options.name, options.operator, options.max_priority))
    elif options.do == "limit":
        limit_key(file, options.name, options.max_priority)
        print(f"Jobs of {options.name} may ask for priorities up to {options.max_priority}.")
    else:
        print(rotate_key(file, options.name))
