"""Coverage-guided fuzzing of one reader: `python -m tests.hostile.fuzz TARGET [SECONDS]`.

Needs `pip install atheris`, which the suite does not. Stops at the first exception that is
not one of ours, and prints it with the input.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["core", "apps", "yaml", "json", "PIL"]):
    from tests.hostile.targets import TARGETS, survives

from tests.hostile.seeds import seeds


def main() -> None:
    target, seconds = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "60"
    if target not in TARGETS:
        sys.exit(f"TARGET is one of {', '.join(TARGETS)}")
    with tempfile.TemporaryDirectory() as name:
        folder, corpus = Path(name) / "target", Path(name) / "corpus"
        folder.mkdir()
        corpus.mkdir()
        for number, seed in enumerate(seeds(target)):
            (corpus / str(number)).write_bytes(seed)
        options = [
            f"-max_total_time={seconds}",
            "-max_len=8192",
            "-timeout=20",
            "-rss_limit_mb=4096",
        ]
        atheris.Setup([sys.argv[0], *options, str(corpus)], lambda d: _once(target, d, folder))
        atheris.Fuzz()


def _once(target: str, data: bytes, folder: Path) -> None:
    survives(target, data, folder)


if __name__ == "__main__":
    main()
