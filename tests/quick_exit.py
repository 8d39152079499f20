"""The end of a fork that has all of torch imported, without taking that apart.

Python's own end unloads every module: 0.35 s of a core where torch and diffusers are imported, in
pages that a fork has to copy first.
"""

import atexit
import os
import sys
import threading
from collections.abc import Callable
from typing import Any


def run_and_exit(run: Callable[[], object]) -> None:
    """Run code as `python SCRIPT` does, and end the process with its exit code.

    Threads are waited for, and exit handlers called, as ever. Whoever ends with an error, or has
    streams that take no more words, ends by Python's own rules: this returns or raises then.
    """
    code: Any = 0
    try:
        run()
    except SystemExit as end:
        code = 0 if end.code is None else end.code
        if not isinstance(code, int):
            raise
    threads: Any = threading
    threads._shutdown()
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
    except (OSError, ValueError):
        sys.exit(code)
    os._exit(code & 0xFF)
