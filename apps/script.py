"""Runs a command as the whole program; imports nothing that takes time before it says how."""

import gc
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from typing import NoReturn


def run_script(module: str) -> NoReturn:
    """Run `main` of a module as the whole program and leave with its exit code.

    The module is imported here: a Ctrl-C meanwhile ends the program without words.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from apps import interrupts
    from core.streams import protect_standard_streams

    interrupts.nothing_comes_after()
    protect_standard_streams()
    gc.disable()  # imports leave no garbage; looking for it took a seventh of their time
    main: Callable[[], int] = import_module(module).main
    gc.freeze()  # what is there now stays, and need not be looked through again
    gc.enable()
    code = main()
    for number in interrupts.SIGNALS:  # nothing is left to interrupt but the interpreter's own end
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)
