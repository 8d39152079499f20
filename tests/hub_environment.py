"""What huggingface_hub reads from the environment as it is imported, read again.

So that a fork of a process that has imported it asks the hub, and uses the cache, that its own
environment names.
"""

import importlib
import os
import sys
from typing import Any

LIBRARIES = ("huggingface_hub.", "diffusers.", "transformers.", "peft.", "accelerate.", "workers.")


def read_again() -> None:
    """Read the environment's HF_ variables again, where the library is imported."""
    if not any(name.startswith("HF_") for name in os.environ):
        return
    constants: Any = sys.modules.get("huggingface_hub.constants")
    if constants is None:
        return
    before = {name: value for name, value in vars(constants).items() if name.isupper()}
    importlib.reload(constants)
    changed = {
        name: value
        for name, value in vars(constants).items()
        if name.isupper() and before.get(name) != value
    }
    for module in [m for name, m in sys.modules.items() if name.startswith(LIBRARIES)]:
        known = vars(module)
        for name, value in changed.items():
            if name in known and known[name] == before.get(name):
                known[name] = value
    hub: Any = sys.modules.get("huggingface_hub.hf_api")
    if hub is not None:
        hub.api.endpoint = constants.ENDPOINT
