"""Optional packages, kept out of sight of a worker that needs none of them.

transformers imports torchao, and PEFT bitsandbytes, wherever they are installed. Both ask CUDA for
its devices as they are imported: a fork server that did could not be forked any more.
"""

import sys
from collections.abc import Collection
from typing import Any

from core.memory_modes import PACKAGES


def hide_unneeded(needed: Collection[str]) -> None:
    """Hide packages that are not needed from libraries that are imported from now on."""
    modules: dict[str, Any] = sys.modules
    for package in PACKAGES:
        if package not in needed:
            modules.setdefault(package, None)  # as Python marks what may not be imported
