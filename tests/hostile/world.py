"""A finished run to damage: pictures, tables and a ledger, and what the same command would do."""

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.store.ledger import FILE_NAME
from tests.conftest import simulated

FULL = os.environ.get("CHAOS") == "full"  # every byte and many more seeds
PICTURES = 30
WAL_NAME = f"{FILE_NAME}-wal"
INPUTS: list[dict[str, Any]] = [
    {"prompt": "!crash"},  # ends in quarantine
    {"prompt": "!nan"},  # fails
    *({"prompt": f"picture {i} {'and more ' * (i % 7) * 20}"} for i in range(PICTURES)),
]
SETTINGS = simulated(supervision={"crashes_before_quarantine": 1})


@dataclass(frozen=True)
class FinishedRun:
    """A run's folder, its ledger's bytes, and the files of a ledger that was in use."""

    folder: Path
    ledger: bytes
    in_use: dict[str, bytes]

    def restore(self, files: dict[str, bytes]) -> None:
        """The folder with these ledger files and no others."""
        for old in self.folder.glob("ledger*sqlite*"):
            old.unlink()
        for name, content in files.items():
            (self.folder / name).write_bytes(content)

    def asides(self) -> list[bytes]:
        return [f.read_bytes() for f in sorted(self.folder.glob("ledger.damaged-*.sqlite"))]


def finish_run(folder: Path) -> FinishedRun:
    """Draw INPUTS on simulated devices."""
    generator = MultiGPUImageGenerator(2, config=SETTINGS, output_dir=folder)
    with generator:
        generator.generate_batch(INPUTS)
        in_use = {name: (folder / name).read_bytes() for name in (FILE_NAME, WAL_NAME)}
    return FinishedRun(folder, (folder / FILE_NAME).read_bytes(), in_use)


def replan(folder: Path) -> Counter[str]:
    """What the same command finds there: counts by status, `to do` for what it would run."""
    generator = MultiGPUImageGenerator(2, config=SETTINGS, output_dir=folder)
    try:
        plan = generator.prepare(INPUTS, [])
        return Counter(["to do"] * len(plan.tasks) + [r.status for r in plan.settled])
    finally:
        generator.stop()


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """A folder on a file system where a sync costs nothing, if there is one."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)
