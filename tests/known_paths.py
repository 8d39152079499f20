"""Python's own folders, looked up once: loguru asks for 36 of them whenever a log is set up."""

import sysconfig
from functools import cache
from typing import Any


def look_up_once() -> None:
    """Have `sysconfig.get_path` remember its answers; they do not change in a process."""
    module: Any = sysconfig
    if not hasattr(module.get_path, "cache_info"):
        module.get_path = cache(module.get_path)
