"""What a gallery shows of a folder: one item for each task that has or is to have a picture."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["done", "failed", "running", "waiting"]
"""running: a worker has it, or had it when its run was killed. waiting: the next run does it."""
Kind = Literal["generate", "edit", "score"]
STATES: dict[str, State] = {
    "done": "done",
    "failed": "failed",
    "quarantined": "failed",
    "leased": "running",
    "pending": "waiting",
}
"""By the state on record."""
FINAL_STATES = frozenset({"done", "failed"})


def sources_of(task: Mapping[str, Any]) -> tuple[str, ...]:
    """The pictures that a task reads, as it was recorded."""
    sources = task.get("source_images") or ()
    return (sources,) if isinstance(sources, str) else tuple(map(str, sources))


@dataclass(frozen=True)
class Verdict:
    """What one judge said of an edit.

    Attributes:
        scores: by name; None where its answer gave none.
        calls: its words: `name` of the question, `words`, and `problem` if they could not be read.
        error: why there is no verdict.
    """

    judge: str
    scores: dict[str, float] | None
    calls: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    updated: float = 0.0


@dataclass(frozen=True)
class Item:
    """One task of a folder.

    Attributes:
        id: unique in its folder, and the same whenever it is read.
        file: the picture, relative to the folder; None where there is none.
        given: an edit that the run only scored: its path as recorded, outside of the folder.
        is_missing: the record speaks of a picture that is not there.
        size: bytes of the picture.
        task: as it was recorded.
        used: what the model really took.
        sources: paths of the pictures that were edited, as recorded.
        verdicts: of each judge, the newest last.
        choice: of a pair's several edits: whether it is the one that counts, in words.
    """

    id: str
    batch: int
    position: int
    name: str
    kind: Kind
    state: State
    task: dict[str, Any]
    file: str | None = None
    given: str | None = None
    is_missing: bool = False
    size: int = 0
    sha256: str | None = None
    used: dict[str, Any] = field(default_factory=dict)
    worker: str | None = None
    seconds: float = 0.0
    attempts: int = 0
    updated: float = 0.0
    error: str | None = None
    cause: str | None = None
    sources: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    choice: str | None = None

    @property
    def outside(self) -> tuple[str, ...]:
        """Paths of pictures that the folder does not have itself, so that it keeps small copies."""
        return (*self.sources, *((self.given,) if self.given else ()))

    @property
    def category(self) -> str | None:
        """The benchmark's category, if its data has some."""
        metadata = self.task.get("metadata")
        found = metadata.get("category") if isinstance(metadata, dict) else None
        return found if isinstance(found, str) else None
