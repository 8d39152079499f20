"""The command `serve.py`: arguments, settings, exit code."""

import argparse
import sys
from collections.abc import Sequence

from loguru import logger
from pydantic import ValidationError

from apps.arguments import (
    LOG_LEVELS,
    add_engine_options,
    command_parser,
    gpu_ids,
    with_engine_options,
)
from apps.interrupts import stopped_by_signals
from apps.log_lines import set_up_logging
from apps.server.daemon import SIGNALS, serve
from apps.server.settings import ServerSettings, load_server_settings
from core.engine.backend import WorkerBackend
from core.errors import InputError, MultiGPUError
from core.settings_file import laid_over
from core.validation import describe

STOPPED, UNUSABLE_INPUT = 0, 2
PROGRAM = "serve.py"

EXAMPLES = """\
examples:
  python serve.py
      serve on http://127.0.0.1:8000 with the settings of config/server.yaml
  python serve.py --config my.yaml --port 9000 --output-dir /data/pictures
  python serve.py keys add alice
      make an API key; without one, other machines cannot be served (see serve.py keys --help)

SIGTERM or Ctrl-C once: accept nothing more, work on for --drain-timeout seconds, then stop;
twice: stop at once. What is accepted and not done is carried on at the next start.
exit codes: 0 stopped as asked, 2 unusable settings, folder or address
"""


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = command_parser(
        PROGRAM,
        "Keep models loaded and serve them over HTTP, with a queue that survives.",
        EXAMPLES,
    )
    add = parser.add_argument
    add("--config", metavar="FILE", help="YAML settings over config/server.yaml")
    add("--host", metavar="ADDRESS", help="where to listen (default: 127.0.0.1)")
    add("--port", type=int, metavar="N", help="the port (default: 8000; 0: any that is free)")
    add("--output-dir", metavar="DIR", help="queue, pictures and their record")
    add("--lora-dir", metavar="DIR", help="the folder of LoRAs that requests may name")
    add("--gpu-ids", type=gpu_ids, metavar="0,2,4", help="which of the visible GPUs")
    add("--cpu-workers", type=int, metavar="N", help="without a GPU: workers (default: 1)")
    add_engine_options(parser)
    add("--drain-timeout", type=float, metavar="S", help="seconds to work on after SIGTERM")
    add("--log-level", choices=LOG_LEVELS, default="INFO", type=str.upper, help="default: INFO")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, backend: WorkerBackend | None = None) -> int:
    """Run the daemon until it is told to stop; returns its exit code.

    Args:
        backend: runs the workers; by default processes of this machine.
    """
    options = parse_arguments(sys.argv[1:] if argv is None else argv)
    set_up_logging(options.log_level)
    try:
        with stopped_by_signals(*SIGNALS):  # until the event loop takes them
            serve(_settings(options), options, backend)
        return STOPPED
    except MultiGPUError as error:
        logger.error(str(error))
        return UNUSABLE_INPUT
    except KeyboardInterrupt:
        logger.info("Stopped before anything was served.")
        return STOPPED


def _settings(options: argparse.Namespace) -> ServerSettings:
    settings = load_server_settings(options.config)
    if options.lora_dir is not None:
        settings = laid_over(settings, {"lora_dir": options.lora_dir}, load_server_settings)
    given = {
        name: value
        for name in ("host", "port", "output_dir", "drain_timeout")
        if (value := getattr(options, name)) is not None
    }
    try:
        section = settings.server.model_validate({**settings.server.model_dump(), **given})
    except ValidationError as error:
        raise InputError(describe(error)) from None
    return with_engine_options(options, settings.model_copy(update={"server": section}))
