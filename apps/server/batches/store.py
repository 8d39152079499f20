"""Batches on the disk: a folder for each, with all that its work needs after a crash.

`batch.json` is the batch, `input.jsonl` its requests, `portion-N.json` what was handed in of them
and has no lines yet; `output.jsonl` and `errors.jsonl` hold the lines so far, of which what comes
after the sizes in `batch.json` does not count.
"""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loguru import logger

from apps.openai_images.batch_lines import BatchRow
from apps.server.batches.record import Batch
from apps.server.file_store import same_file
from core.store.outputs import make_folder, remove, storage_error, sync_folder, write_atomically

FOLDER = "batches"
RECORD, INPUT, OUTPUT, ERRORS = "batch.json", "input.jsonl", "output.jsonl", "errors.jsonl"


@dataclass(frozen=True)
class Portion:
    """Some lines of a batch that are worked on as one job.

    Attributes:
        job: None where no picture is to be drawn for them.
    """

    number: int
    rows: Sequence[BatchRow]
    job: str | None


class BatchStore:
    """The batches of all callers. What writes waits for the disk: call it in threads.

    Args:
        folder: the daemon's; batches lie below it.

    Raises:
        StorageError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute() / FOLDER
        self._batches: dict[str, Batch] = {}
        make_folder(self.folder)
        for place in sorted(self.folder.iterdir()):
            try:
                batch = Batch.from_json(json.loads((place / RECORD).read_bytes()))
                self._batches[batch.id] = batch
            except FileNotFoundError:
                shutil.rmtree(place, ignore_errors=True)  # nobody was told of it
            except (OSError, ValueError, TypeError, KeyError) as error:
                logger.warning(f"{place} is passed over: it is no batch ({error}).")
        self._last = max((batch.number for batch in self._batches.values()), default=0)

    def next_number(self) -> int:
        """The place of a batch that comes now."""
        self._last += 1
        return self._last

    def find(self, id: str, caller: str) -> Batch | None:
        """A batch of a caller."""
        found = self._batches.get(id)
        return found if found is not None and found.caller == caller else None

    def all(self) -> list[Batch]:
        """All batches, in the order in which they came."""
        return sorted(self._batches.values(), key=lambda batch: batch.number)

    def place(self, batch: Batch, name: str) -> Path:
        """A file of a batch."""
        return self.folder / batch.id / name

    def add(self, batch: Batch, requests: Path) -> None:
        """Keep a new batch, and its requests, whatever becomes of their file.

        Raises:
            StorageError: the disk refuses.
        """
        folder = self.folder / batch.id
        make_folder(folder)
        try:
            same_file(requests, folder / INPUT)
            sync_folder(self.folder)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise storage_error(error, folder) from None
        self.save(batch)

    def save(self, batch: Batch) -> None:
        """Remember how a batch stands.

        Raises:
            StorageError: the disk refuses.
        """
        write_atomically(self.place(batch, RECORD), json.dumps(batch.as_json()))
        self._batches[batch.id] = batch

    def save_portion(self, batch: Batch, portion: Portion) -> None:
        """Remember a portion that is about to be handed in."""
        said = {"job": portion.job, "rows": [row.as_json() for row in portion.rows]}
        write_atomically(self._portion(batch, portion.number), json.dumps(said))

    def portion(self, batch: Batch, number: int) -> Portion | None:
        """A portion that was about to be handed in; None if there is none of that number."""
        try:
            said = json.loads(self._portion(batch, number).read_bytes())
        except FileNotFoundError:
            return None
        return Portion(number, [BatchRow.from_json(row) for row in said["rows"]], said["job"])

    def remove_portion(self, batch: Batch, number: int) -> None:
        """Forget a portion: its lines are written, or it was not handed in."""
        remove(self._portion(batch, number))

    def clear(self, batch: Batch) -> None:
        """Remove what the work on a batch needed, but for the batch itself."""
        for name in (INPUT, OUTPUT, ERRORS):
            remove(self.place(batch, name))

    def sweep(self, lifetime: float) -> None:
        """Remove batches that ended more than `lifetime` seconds ago."""
        before = time.time() - lifetime
        for batch in self.all():
            if batch.has_ended and batch.ended < before:
                remove(self.place(batch, RECORD))  # first: what is left over is no batch
                self._batches.pop(batch.id, None)
                shutil.rmtree(self.folder / batch.id, ignore_errors=True)

    def _portion(self, batch: Batch, number: int) -> Path:
        return self.place(batch, f"portion-{number}.json")
