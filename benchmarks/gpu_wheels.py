"""Gathers wheels for a machine without a network: `python -m benchmarks.gpu_wheels FOLDER NAME …`.

For CPython 3.12 on x86-64, in the versions of requirements.txt where it names them. Their own
requirements are not followed: torch, transformers and numpy are expected to be there.
"""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from core.settings import PROJECT_DIR

PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
MOST_BYTES = 20 * 10**6


def pinned() -> dict[str, str]:
    """Versions of the requirement files, by name in lower case."""
    names = ("requirements.txt", "requirements-extra.txt", "requirements-dev.txt")
    text = "".join((PROJECT_DIR / name).read_text() for name in names)
    return {name.lower(): version for name, version in re.findall(r"^([\w-]+)==(\S+)", text, re.M)}


def gather(folder: Path, names: Sequence[str]) -> int:
    """Download; returns the bytes that they take."""
    versions = {**_needed_by_pydantic(), **pinned()}
    wanted = [f"{n}=={versions[n.lower()]}" if n.lower() in versions else n for n in names]
    line = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    line += ["--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp"]
    for platform in PLATFORMS:
        line += ["--platform", platform]
    subprocess.run([*line, "--dest", str(folder), *wanted], check=True)
    return sum(file.stat().st_size for file in folder.glob("*.whl"))


def _needed_by_pydantic() -> dict[str, str]:
    """pydantic goes with one version of pydantic-core alone."""
    from importlib.metadata import version

    return {"pydantic-core": version("pydantic-core")}


def main() -> int:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    size = gather(folder, names)
    print(f"{len(names)} wheels, {size / 1e6:.1f} MB, in {folder}")
    if size > MOST_BYTES:
        print(f"That is more than {MOST_BYTES / 1e6:.0f} MB.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
