"""Builds the page of an output folder that no run works in, with its small copies."""

import os
from pathlib import Path

from apps.gallery.thumbnails import make_thumbnails, unused
from apps.gallery.writer import GalleryWriter
from core.store.outputs import remove


def build_page(folder: Path, thumbnails: bool = True) -> tuple[int, int]:
    """Write the page; returns how many results it shows and how many small copies were made.

    Args:
        thumbnails: make the small copies that are missing, and remove those of what is gone.

    Raises:
        InputError: no output folder, or its index.html is somebody else's.
        LedgerError, StorageError: the record cannot be read, or the disk refuses.
    """
    items = GalleryWriter(folder).write().items
    made = 0
    if thumbnails:
        folder = Path(os.path.abspath(folder))
        made = make_thumbnails(folder, items)
        for file in unused(folder, items):
            remove(file)
    return len(items), made
