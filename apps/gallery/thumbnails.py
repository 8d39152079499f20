"""Small copies of large pictures, for the gallery's grid, and copies of what was edited.

They are JPEG files, which take a third of the time of WebP; a page that misses one shows the
picture itself. They are made where no device waits: by `python gallery.py`, by the process that
follows a run, or at the end of a run that was too short to be followed; never by a worker.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import uuid4

from PIL import Image

from apps.gallery.data import needs_thumbnail
from apps.gallery.items import FINAL_STATES, Item
from apps.gallery.places import HIDDEN, SOURCES, THUMBNAILS, source_copy, thumbnail
from core.errors import InputError
from core.paths import on_disk
from core.pictures.source_images import read_image
from core.store.outputs import PARTIAL_PREFIX, discard, make_folder, storage_error

SIDE = 384  # pixels of the longer side
SOURCE_SIDE = 1024  # of what was edited, which is compared with its edit in full size
QUALITY = 82
PATIENCE = 3.0  # seconds for small copies that are missing when a run has ended


def make_thumbnails(
    folder: Path, items: Sequence[Item], goes_on: Callable[[], bool] = lambda: True
) -> int:
    """Make what is missing, the newest first; returns how many were made.

    A picture that cannot be read has none.

    Args:
        goes_on: asked before each; False ends it.

    Raises:
        StorageError: the disk refuses.
    """
    made = 0
    for item in reversed(items):
        wanted: list[tuple[Path, Path, int]] = []
        if needs_thumbnail(item):
            assert item.file is not None and item.sha256 is not None
            picture = folder / on_disk(item.file)
            wanted.append((picture, folder / thumbnail(item.sha256), SIDE))
        if item.state in FINAL_STATES:
            for path in item.outside:
                copy = folder / source_copy(path)
                wanted.append((folder / on_disk(path), copy, SOURCE_SIDE))
        for picture, copy, side in wanted:
            if not goes_on():
                return made
            if not copy.exists():
                made += _make(picture, copy, side)
    return made


def make_last_thumbnails(folder: Path, items: Sequence[Item]) -> int:
    """Make what is missing when a run has ended, for at most PATIENCE; see `make_thumbnails`."""
    end = time.monotonic() + PATIENCE
    return make_thumbnails(folder, items, lambda: time.monotonic() < end)


def _make(picture: Path, copy: Path, side: int) -> bool:
    try:
        small = read_image(picture)
    except (InputError, OSError):
        return False
    small.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    partial = copy.with_name(f"{PARTIAL_PREFIX}{uuid4().hex}")
    try:
        make_folder(copy.parent)
        small.convert("RGB").save(partial, "JPEG", quality=QUALITY)
        os.replace(partial, copy)
    except OSError as error:
        raise storage_error(error, copy) from None
    finally:
        discard(partial)
    return True


def unused(folder: Path, items: Sequence[Item]) -> list[Path]:
    """Copies that nothing in the folder needs any more."""
    needed = {thumbnail(item.sha256) for item in items if item.sha256 and needs_thumbnail(item)}
    needed |= {source_copy(path) for item in items for path in item.outside}
    copies = (f for n in (THUMBNAILS, SOURCES) for f in (folder / HIDDEN / n).rglob("*.jpg"))
    return sorted(file for file in copies if file.relative_to(folder).as_posix() not in needed)
