"""Python, torch, and the packages that requirements.txt and requirements-extra.txt name."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from apps.doctor.finding import Finding
from core.settings import PROJECT_DIR

OLDEST_PYTHON = (3, 11)
PATIENCE = 120.0  # seconds for torch to be imported and to ask for its devices
_PIN = re.compile(r"([\w.-]+)==(\S+)\s*(?:#\s*(.*))?")
# In a process of its own: CUDA's context would take memory of a GPU here.
_ASK_TORCH = """
import json, torch
cuda = torch.version.cuda or torch.version.hip
there = torch.cuda.is_available()
print(json.dumps({"version": torch.__version__, "cuda": cuda, "available": there,
                  "devices": torch.cuda.device_count() if there else 0}))
"""


def ask_torch() -> dict[str, Any]:
    """What torch says of itself: version, cuda, available, devices.

    Where it says nothing there is `error` alone.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK_TORCH], capture_output=True, text=True, timeout=PATIENCE
        )
        return dict(json.loads(done.stdout.strip().splitlines()[-1]))
    except subprocess.TimeoutExpired:
        return {"error": f"it did not answer within {PATIENCE:g} s"}
    except (OSError, ValueError, IndexError):
        lines = done.stderr.strip().splitlines()
        return {"error": lines[-1] if lines else "it says nothing"}


def python() -> Iterator[Finding]:
    """This interpreter."""
    shown = ".".join(map(str, sys.version_info[:3]))
    facts = {"version": shown, "executable": sys.executable}
    if sys.version_info < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        yield Finding(
            "problem",
            "Python",
            f"{shown} is too old; {wanted} or newer is needed.",
            f"Make an environment with it: python{wanted} -m venv .venv",
            facts,
        )
    else:
        yield Finding("ok", "Python", f"{shown} ({sys.executable})", facts=facts)


def torch(gpus: int, ask: Callable[[], dict[str, Any]] = ask_torch) -> Iterator[Finding]:
    """The build of torch, and whether it sees the GPUs.

    Args:
        gpus: that the driver lists, or that device files show.
    """
    said = ask()
    if "error" in said:
        yield Finding(
            "problem",
            "torch",
            f"It cannot be imported: {said['error']}",
            "pip install -r requirements.txt",
            said,
        )
        return
    build = f"CUDA {said['cuda']}" if said["cuda"] else "CPUs alone"
    text = f"{said['version']}, built for {build}"
    if not gpus:
        yield Finding("ok", "torch", f"{text}.", facts=said)
    elif not said["cuda"]:
        yield Finding(
            "note",
            "torch",
            f"{text}, so the GPUs of this machine are not used.",
            "Install a build with CUDA, as https://pytorch.org/get-started/locally/ shows, or set "
            "device: cpu.",
            said,
        )
    elif not said["available"]:
        yield Finding(
            "problem",
            "torch",
            f"{text}, and cannot use the GPUs that the driver lists.",
            "Mostly the driver is older than this build needs: update it, or install a build for "
            "an older CUDA (https://pytorch.org/get-started/locally/).",
            said,
        )
    else:
        yield Finding("ok", "torch", f"{text}; it sees {_gpus(said['devices'])}.", facts=said)


def _gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"


def packages(folder: Path = PROJECT_DIR) -> Iterator[Finding]:
    """Packages that runs need, and those that some settings need."""
    pins = list(_pins(folder / "requirements.txt"))
    missing = [name for name, _, _ in pins if _installed(name) is None]
    others = {
        name: (found, wanted)
        for name, wanted, _ in pins
        if (found := _installed(name)) is not None and found.partition("+")[0] != wanted
    }
    if missing:
        yield Finding(
            "problem",
            "packages",
            f"Missing: {', '.join(missing)}.",
            "pip install -r requirements.txt",
            {"missing": missing},
        )
    if others:
        shown = ", ".join(f"{n} {found} for {wanted}" for n, (found, wanted) in others.items())
        yield Finding(
            "note",
            "packages",
            f"Of other versions than requirements.txt has, so that pictures may differ: {shown}.",
            "pip install -r requirements.txt",
            {"others": others},
        )
    if not missing and not others:
        yield Finding("ok", "packages", f"All {len(pins)} of requirements.txt are installed.")
    for name, wanted, purpose in _pins(folder / "requirements-extra.txt"):
        found = _installed(name)
        facts = {"installed": found, "wanted": wanted}
        if found is None:
            text = f"Not installed; only for {purpose}."
            yield Finding("note", name, text, f"pip install {name}=={wanted}", facts)
        else:
            yield Finding("ok", name, f"{found}, for {purpose}.", facts=facts)


def _pins(file: Path) -> Iterator[tuple[str, str, str]]:
    """Name, version and purpose of each package that a requirements file pins."""
    try:
        lines = file.read_text("utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        if found := _PIN.match(line):
            yield found[1], found[2], found[3] or ""


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
