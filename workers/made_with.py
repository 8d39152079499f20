"""What a picture was drawn on and by, beside its model: with another one, its bits may differ."""

from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

import torch

LIBRARIES = ("torch", "diffusers", "transformers")


def made_with(device: torch.device, name: str) -> dict[str, str]:
    """Device and versions of the libraries that draw, as pictures say them.

    Args:
        name: of the device.
    """
    if device.type == "cpu":  # which of its kernels torch takes decides the last bits
        name = f"{name} {torch.backends.cpu.get_cpu_capability()}"
    return {"device": name, "libraries": ", ".join(_versions())}


@lru_cache(maxsize=1)
def _versions() -> list[str]:
    found = [f"torch {torch.__version__}"]
    for library in LIBRARIES[1:]:
        try:
            found.append(f"{library} {version(library)}")
        except PackageNotFoundError:  # a copy that nobody installed
            continue
    return found
