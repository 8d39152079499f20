"""Seeds that were drawn at random before: a rerun of the same task keeps its own."""

from collections.abc import Mapping
from typing import Any

from core.seeds import fixed_seed
from core.store.ledger import Ledger
from core.store.outputs import OutputPath
from core.store.provenance import read_provenance


class KeptSeeds:
    """What an output folder knows of the random seeds of its pictures.

    The ledger knows the seeds of what is done, and of what a killed run had planned. A picture
    that the ledger does not know as done (it may be lost) says its seed itself.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def of(self, output: OutputPath) -> int | None:
        """The seed for `output`; None if none was drawn, or another one was asked for."""
        entry = self._ledger.entries_of([output.key]).get(output.key)
        if entry is not None and entry.state == "done" and _size(output) in (None, entry.size):
            return _drawn(entry.task)
        said = _of_picture(output)
        if said is not None:
            return said
        return None if entry is None else _drawn(entry.task)


def _size(output: OutputPath) -> int | None:
    try:
        return output.file.stat().st_size
    except OSError:
        return None


def _of_picture(output: OutputPath) -> int | None:
    if not output.file.is_file():
        return None
    try:
        task = read_provenance(output.file).get("task")
    except ValueError:
        return None
    return _drawn(task) if isinstance(task, dict) else None


def _drawn(task: Mapping[str, Any]) -> int | None:
    """The seed in a recorded task, where it was drawn at random."""
    if task.get("seed_is_random") is not True:
        return None
    try:
        return fixed_seed(task.get("seed"))
    except ValueError:  # a record that somebody changed
        return None
