"""Details of a run, said at DEBUG for whoever looks for a fault; silent until they are asked for.

A program that uses this library has loguru's own sink, which prints everything. So what is said
from here is disabled, as loguru advises libraries, while warnings and news stay: commands ask for
it, and programs with `logger.enable("core.details")` once the library is imported.
"""

from loguru import logger

logger.disable(__name__)


def show_details() -> None:
    """Let the log have details, as far as its level does."""
    logger.enable(__name__)


def detail(text: str) -> None:
    """Log a detail."""
    logger.debug(text)


def log_line(level: str, text: str) -> None:
    """Log what another process says, or what is a detail at times only."""
    if level == "DEBUG":
        detail(text)
    else:
        logger.opt(depth=1).log(level, text)  # as from the caller: this module may be disabled
