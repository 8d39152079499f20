"""The lines of a portion, written behind those of the portions before."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from apps.openai_images.answer import Wanted
from apps.openai_images.batch_lines import BatchLines, BatchRow
from apps.server.batches.record import Batch
from apps.server.batches.store import ERRORS, OUTPUT, BatchStore
from apps.server.images.links import Links
from apps.server.images.places import picture_file, position_of
from apps.server.public_results import public_result
from core.store.outputs import storage_error

MISSING: Mapping[str, Any] = {"success": False, "status": "failed", "error": "It was removed."}


@dataclass(frozen=True)
class LineFiles:
    """Writes lines of batches. Its methods read pictures and wait for the disk.

    Args:
        folder: of the daemon.
        link_seconds: for which addresses of pictures answer.
        hidden: what callers read in place of folders of this machine.
    """

    store: BatchStore
    folder: Path
    links: Links
    link_seconds: float
    hidden: Callable[[], Mapping[str, str]]

    def add(
        self,
        batch: Batch,
        rows: Sequence[BatchRow],
        job: str | None,
        results: Mapping[int, Mapping[str, Any]],
        created: int,
    ) -> Batch:
        """Write the lines of rows; what was cut off by a crash is overwritten.

        Args:
            job: in which their pictures were drawn.
            results: of the pictures, by position in the job.
            created: Unix time of the answers.

        Returns:
            The batch as it is then; until it is saved the lines do not count.

        Raises:
            StorageError: the disk refuses.
        """

        def url(file: Path, wanted: Wanted, result: Mapping[str, Any]) -> str:
            del file
            ends = time.time() + self.link_seconds
            position = position_of(str(result["task_id"]))
            kind, compression = wanted.output_format, wanted.output_compression
            return batch.address + self.links.path(str(job), position, kind, compression, ends)

        def file_of(result: Mapping[str, Any]) -> Path:
            return picture_file(self.folder, str(job), position_of(str(result["task_id"])))

        try:
            with ExitStack() as stack:
                output = self._open(stack, batch, OUTPUT, batch.output_bytes)
                errors = self._open(stack, batch, ERRORS, batch.error_bytes)
                lines = BatchLines(output, errors, batch.id, self.hidden(), read=public_result)
                for row in rows:
                    places = range(row.first, row.first + row.pictures)
                    own = [results.get(place, MISSING) for place in places]
                    lines.write(row, created, own, file_of, url)
                sizes = []
                for stream in (output, errors):
                    stream.flush()
                    os.fsync(stream.fileno())
                    sizes.append(stream.tell())
        except OSError as error:
            raise storage_error(error, self.store.place(batch, OUTPUT)) from None
        return replace(
            batch,
            completed=batch.completed + lines.completed,
            failed=batch.failed + lines.failed,
            output_bytes=sizes[0],
            error_bytes=sizes[1],
        )

    def _open(self, stack: ExitStack, batch: Batch, name: str, size: int) -> BinaryIO:
        place = self.store.place(batch, name)
        place.touch()
        stream = stack.enter_context(place.open("r+b"))
        stream.truncate(size)
        stream.seek(size)
        return stream
