"""What is read from the environment as a module is imported, read again in a fork.

So that a fork of a process that has imported it asks the hub, uses the cache, loads files side by
side, and breaks at the point that its own environment names.
"""

import importlib
import os
import sys
from typing import Any

from core.fault_points import FAULT_POINT, FAULT_TICKETS

FAULTS = {FAULT_POINT, FAULT_TICKETS}
HUB = "HF_"  # how the hub's variables begin
LIBRARIES = ("huggingface_hub", "diffusers", "transformers", "peft", "accelerate", "workers")
OURS = ("core", "apps", "workers")


def read_again() -> None:
    """Read what this process's environment says of the hub, and of faults."""
    if any(name.startswith(HUB) for name in os.environ):
        _read("huggingface_hub.constants", LIBRARIES)
        _read("diffusers.utils.constants", LIBRARIES)
        hub: Any = sys.modules.get("huggingface_hub.hf_api")
        if hub is not None:
            hub.api.endpoint = hub.constants.ENDPOINT
    if FAULT_POINT in os.environ:
        _read("core.fault_points", OURS)


def forget_ours() -> None:
    """Have what is the project's imported again: from a copy of it, where that is found first."""
    for name in [n for n in sys.modules if n.partition(".")[0] in OURS]:
        del sys.modules[name]


def _read(name: str, users: tuple[str, ...]) -> None:
    """Import a module again, and give what changed in it to whoever has it by name."""
    module = sys.modules.get(name)
    if module is None:
        return
    before = dict(vars(module))
    importlib.reload(module)
    changed = {
        key: value
        for key, value in vars(module).items()
        if not key.startswith("__") and before.get(key) is not value
    }
    for user in [m for n, m in sys.modules.items() if n.partition(".")[0] in users]:
        known = vars(user)
        for key, value in changed.items():
            if key in known and key in before and known[key] is before[key]:
                known[key] = value
