"""How long tasks took and how large results were on this machine, by earlier runs' ledgers."""

import os
import socket
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from core.dry_run.span import Span
from core.errors import InputError, MultiGPUError
from core.intake.made import Made
from core.intake.task_kinds import KINDS
from core.model_identity import BACKEND, Identity
from core.store.ledger import Entry, Ledger
from core.store.ledger_copy import copy_of_ledger, host_of_last_run
from core.store.ledger_file import FILE_NAME
from core.tasks import task_from_json
from core.worker_spec import Role

MOST_FOLDERS = 6  # beside the run's own
MOST_BYTES = 64_000_000  # of a ledger of another folder
ENOUGH = 8  # results: before, other folders are asked, too
MOST_RESULTS = 2000  # of a folder, the newest


@dataclass(frozen=True)
class Maker:
    """What a result has to be made by to say something about those that are to come.

    Attributes:
        identity: of the model, with all that decides results.
        memory: the memory mode.
        device: the kind of its workers' devices.
    """

    role: Role
    identity: str
    memory: str
    device: str

    def made(self, entry: Entry) -> bool:
        if entry.state != "done" or entry.elapsed <= 0 or entry.worker is None:
            return False
        if entry.worker.startswith("cpu") != (self.device == "cpu"):
            return False
        wanted, used = Identity.read(self.identity), entry.used
        told = Made({}, used, None, [], "").model
        return (
            told == wanted.model
            and used.get("memory", "full") == self.memory
            and used.get("step_cache") == wanted.others.get("step_cache")
            and used.get(BACKEND) == wanted.backend
        )


@dataclass
class Measured:
    """What earlier results say.

    Attributes:
        rates: seconds for a unit of expected work.
        sizes: bytes: for each pixel of a picture, or of a whole verdict.
        seconds: of whole tasks.
        here: results of the run's own folder among them.
    """

    rates: list[float] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    here: int = 0

    @property
    def rate(self) -> Span | None:
        """Seconds for a unit of work; None where too little was measured to say."""
        return Span.of(self.rates) if self.rates else None

    @property
    def size(self) -> Span | None:
        return Span.of(self.sizes) if self.sizes else None

    def take(self, entries: Iterable[Entry], maker: Maker) -> None:
        """Note what the results of a maker say."""
        for entry in entries:
            if not maker.made(entry):
                continue
            with suppress(InputError, KeyError, TypeError, ValueError):
                task = task_from_json(entry.task)
                if task.role != maker.role:
                    continue
                work = KINDS[type(task).__name__]().work(task)
                self.rates.append(entry.elapsed / max(work, 1e-9))
                self.seconds.append(entry.elapsed)
                if entry.size:
                    self.sizes.append(entry.size / _pixels(entry))


def measure(maker: Maker, ledger: Ledger, folder: Path | None) -> Measured:
    """Ask the ledger of the run's folder, and those of folders beside it.

    Args:
        folder: of the run, if it lasts.
    """
    found = Measured()
    if folder is None:
        return found
    if _is_of_here(folder):
        found.take(_newest(ledger), maker)
    found.here = len(found.rates)
    for other in _beside(folder):
        if len(found.rates) >= ENOUGH:
            break
        with suppress(MultiGPUError, OSError):
            copy = copy_of_ledger(other)
            with closing(copy.db):
                entries = _newest(Ledger(copy.db, None))
            found.take(entries, maker)
    return found


def _newest(ledger: Ledger) -> Sequence[Entry]:
    return deque(ledger.finished(), maxlen=MOST_RESULTS)


def _beside(folder: Path) -> Iterator[Path]:
    """Folders of other runs of this machine beside a folder, those that were used last first."""
    ledgers = []
    with suppress(OSError):
        for entry in os.scandir(folder.parent):
            with suppress(OSError):
                found = os.stat(os.path.join(entry.path, FILE_NAME))
                if found.st_size <= MOST_BYTES and Path(entry.path) != folder:
                    ledgers.append((found.st_mtime, entry.path))
    for _, path in sorted(ledgers, reverse=True)[:MOST_FOLDERS]:
        if _is_of_here(Path(path)):
            yield Path(path)


def _is_of_here(folder: Path) -> bool:
    return host_of_last_run(folder) == socket.gethostname()


def _pixels(entry: Entry) -> float:
    """Pixels of a picture; 1 for a verdict, which is counted as a whole."""
    if entry.task["kind"] == "ScoreTask":
        return 1.0
    return max(1.0, float(entry.used["width"] * entry.used["height"]))
