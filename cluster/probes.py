"""Files by which a bridge and a node find out whether they see one folder."""

from contextlib import suppress
from pathlib import Path

from core.store.outputs import PARTIAL_PREFIX, discard

PREFIX = f"{PARTIAL_PREFIX}probe-"


def probe_in(folder: str, word: str) -> Path:
    """The file that the bridge writes, where the node is to read it."""
    return Path(folder, f"{PREFIX}{word}")


def answer_to(probe: str | Path) -> Path:
    """The file that a node writes which has read it."""
    return Path(f"{probe}-seen")


def remove_probes(folder: str) -> None:
    """Remove what is left where a bridge or a node was lost while they looked."""
    with suppress(OSError):
        for file in Path(folder).glob(f"{PREFIX}*"):
            discard(file)
