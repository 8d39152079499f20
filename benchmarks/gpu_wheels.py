"""Gathers wheels for a machine without a network: `python -m benchmarks.gpu_wheels FOLDER …`.

For CPython 3.12 on x86-64: whatever requirements.txt leads to, and what else is named, in the
versions that are installed here; but nothing that a machine with torch usually has (`--has`).
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Collection, Iterable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from core.settings import PROJECT_DIR

PLATFORMS = (
    "manylinux_2_28_x86_64",
    "manylinux_2_24_x86_64",
    "manylinux_2_17_x86_64",
    "manylinux2014_x86_64",
    "manylinux1_x86_64",
)
THERE = {"python_version": "3.12", "python_full_version": "3.12.0"}
MOST_BYTES = 32 * 10**6


def required() -> list[str]:
    """Names in requirements.txt."""
    text = (PROJECT_DIR / "requirements.txt").read_text()
    return re.findall(r"^([\w-]+)==", text, re.M)


def led_to_by(names: Iterable[str], known: Collection[str] = ()) -> dict[str, str | None]:
    """These packages and all that they require, but `known` ones; None: no version is installed."""
    found: dict[str, str | None] = {}
    waiting = [(_normal(name), frozenset[str]()) for name in names]
    looked_at = set(waiting)
    while waiting:
        name, extras = waiting.pop()
        if name in known:
            continue
        try:
            found[name] = version(name)
            lines = requires(name) or []
        except PackageNotFoundError:
            found[name], lines = None, []
        for requirement in map(Requirement, lines):
            if _wanted(requirement, extras):
                further = (_normal(requirement.name), frozenset(requirement.extras))
                if further not in looked_at:
                    looked_at.add(further)
                    waiting.append(further)
    return found


def _wanted(requirement: Requirement, extras: Iterable[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({**THERE, "extra": e}) for e in ("", *extras))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def gather(folder: Path, packages: dict[str, str | None]) -> int:
    """Download; returns the bytes that they take."""
    wanted = [f"{name}=={found}" if found else name for name, found in sorted(packages.items())]
    line = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    line += ["--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp"]
    for platform in PLATFORMS:
        line += ["--platform", platform]
    subprocess.run([*line, "--dest", str(folder), *wanted], check=True)
    return sum(file.stat().st_size for file in folder.glob("*.whl"))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--has", nargs="*", default=[], metavar="NAME", help="left out")
    parser.add_argument("--also", nargs="*", default=[], metavar="NAME", help="beside these")
    options = parser.parse_args()
    known = set(led_to_by(["torch"])) | {_normal(name) for name in options.has}
    packages = led_to_by([*required(), *options.also], known)
    size = gather(options.folder, packages)
    print(f"{len(packages)} wheels, {size / 1e6:.1f} MB, in {options.folder}")
    if size > MOST_BYTES:
        print(f"That is more than {MOST_BYTES / 1e6:.0f} MB.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
