"""What decides pixels beside settings: this program's version, Python's and those of packages.

A picture is the same on any node of the same hardware only where these are the same, too.
"""

import hashlib
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from core.settings import PROJECT_DIR

PROGRAM, PYTHON = "this program", "Python"
FOLDERS = ("core", "workers", "cluster", "demo_model")  # that run on a node
OTHER = "it has other software, so that its pictures may differ"
PACKAGES = (
    *("torch", "diffusers", "transformers", "tokenizers", "safetensors", "accelerate", "peft"),
    *("numpy", "pillow", "gguf", "torchao", "bitsandbytes"),
)


def software_here(project: Path = PROJECT_DIR) -> dict[str, str]:
    """Versions by name; a package that is not installed is left out."""
    found = {PROGRAM: _hash_of(project), PYTHON: f"{sys.version_info[0]}.{sys.version_info[1]}"}
    for package in PACKAGES:
        try:
            # What follows a plus says for which devices it was built: main's machine may have none.
            found[package] = version(package).partition("+")[0]
        except PackageNotFoundError:
            continue
    return found


def other_software(wanted: Mapping[str, str], found: Mapping[str, str]) -> str | None:
    """What is of another version on a node than here, and what to do; None if nothing is.

    What main's machine does not have, no worker of the run needs.
    """
    others = [
        f"{name} {found[name]} (here {here})" if name in found else f"no {name} (here {here})"
        for name, here in wanted.items()
        if found.get(name) != here
    ]
    if not others:
        return None
    ways = []
    if wanted.get(PROGRAM) != found.get(PROGRAM):
        ways.append("copy this program to the same place there")
    if wanted.get(PYTHON) != found.get(PYTHON):
        ways.append("use the same Python there")
    if any(name not in (PROGRAM, PYTHON) and found.get(name) != wanted[name] for name in wanted):
        ways.append("install requirements.txt of this program there")
    return f"{OTHER}: {', '.join(others)}. {' and '.join(ways).capitalize()}, and it is used."


def changed_here(why: str, wanted: Mapping[str, str], project: Path = PROJECT_DIR) -> str:
    """Why a node is not used, with a word of it if this machine's own software has changed.

    Args:
        why: as the node itself says it.
        wanted: versions here when the run began.
    """
    if not why.startswith(OTHER) or _hash_of(project) == wanted.get(PROGRAM):
        return why
    return (
        f"{why} But this program has changed on this machine as well since the run began: the next "
        "run takes nodes that are as it is now."
    )


def _hash_of(project: Path) -> str:
    """The first digits of a hash of all code that runs on a node."""
    digest = hashlib.sha256()
    for folder in FOLDERS:
        for file in sorted((project / folder).rglob("*.py")):
            code = file.read_bytes()
            digest.update(f"{file.relative_to(project).as_posix()} {len(code)}\n".encode())
            digest.update(code)
    return digest.hexdigest()[:8]
