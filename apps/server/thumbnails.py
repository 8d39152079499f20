"""Small copies of pictures, made when somebody asks for one and kept beside the results.

They lie in `thumbnails/JOB/` of the daemon's folder, are removed with their job, and are made again
where they are missing.
"""

import asyncio
import os
from pathlib import Path
from uuid import uuid4

from apps.server.old_jobs import THUMBNAILS
from apps.server.service import Service
from core.errors import InputError
from core.pictures.source_images import read_image
from core.store.outputs import PARTIAL_PREFIX, discard, make_folder, storage_error

SIDE = 384  # pixels of the longer side
SOURCE_SIDE = 1024  # of pictures that tasks read, of which there is no larger view
QUALITY = 82
AT_ONCE = 2  # made side by side; the rest of the machine belongs to the workers
MEDIA_TYPE = "image/webp"


class Thumbnails:
    """Makes and keeps small copies."""

    def __init__(self, service: Service) -> None:
        self._folder = service.folder / THUMBNAILS
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def of(self, job: str, name: str, picture: Path, side: int = SIDE) -> Path:
        """The small copy of a picture.

        Args:
            name: of the copy among those of the job.
            side: pixels of its longer side, at most.

        Raises:
            FileNotFoundError: the picture is gone, or damaged.
            StorageError: the copy cannot be written.
        """
        file = self._folder / job / f"{name}.webp"
        if await asyncio.to_thread(file.is_file):
            return file
        async with self._turns:
            await asyncio.to_thread(_make, picture, file, side)
        return file


def _make(picture: Path, file: Path, side: int) -> None:
    try:
        small = read_image(picture)
    except InputError:
        raise FileNotFoundError(picture) from None
    small.thumbnail((side, side), reducing_gap=2.0)
    partial = file.with_name(f"{PARTIAL_PREFIX}{uuid4().hex}")
    try:
        make_folder(file.parent)
        small.save(partial, "WEBP", quality=QUALITY, method=2)
        os.replace(partial, file)
    except OSError as error:
        raise storage_error(error, file) from None
    finally:
        discard(partial)
    if not picture.exists():  # its job was removed meanwhile
        discard(file)
        raise FileNotFoundError(picture)
