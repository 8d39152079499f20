"""One clear line for the script that forgot `if __name__ == "__main__":`.

A spawned worker imports its parent's main script. Without the guard that import would
start workers of its own, and each of those again.
"""

import multiprocessing
import os

MISSING_GUARD_EXIT = 86  # how a worker says that its parent's script lacks the guard
MISSING_GUARD_LINE = (
    "This script starts workers while it is being imported: put its code under "
    '`if __name__ == "__main__":`.'
)


def leave_if_importing_main() -> None:
    """End this process if it is a worker that is only importing its parent's script."""
    # The attribute that multiprocessing.spawn itself checks before it refuses to start.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(MISSING_GUARD_EXIT)
