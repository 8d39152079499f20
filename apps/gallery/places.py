"""Where the files of a folder's gallery lie, and how a page refers to files.

`index.html` stands beside the pictures; everything else is in one hidden folder, which Hugging
Face's `datasets` passes over, as it does over all whose names begin with a dot (`data_files.py`).
In there no file ends as a result does, so that none is taken for one.
"""

import hashlib
import os
from pathlib import Path
from urllib.parse import quote

from core.paths import on_disk
from core.store.outputs import GALLERY

INDEX = "index.html"
HIDDEN = GALLERY
THUMBNAILS = "thumbnails"
SOURCES = "sources"
STATES = "workers.jsonl"  # how workers' states changed, while a command looked on
RUN = "run.js"
TIMELINE = "timeline.js"
MARK = "multi-gpu-image-generation"  # the page's `generator`: whose it is


def thumbnail(sha256: str) -> str:
    """Place of a picture's small copy, relative to its folder; pictures of one content share it."""
    return f"{HIDDEN}/{THUMBNAILS}/{sha256[:2]}/{sha256[2:34]}.jpg"


def source_copy(path: str) -> str:
    """Place of the copy of a picture that was edited, relative to the folder."""
    name = hashlib.sha256(os.fsencode(on_disk(path))).hexdigest()
    return f"{HIDDEN}/{SOURCES}/{name[:32]}.jpg"


def chunk(number: int) -> str:
    """Place of a part of the data, relative to the folder."""
    return f"{HIDDEN}/records-{number:04d}.js"


def url(path: str) -> str:
    """A relative path as a page refers to it; also one whose bytes are no text."""
    encoded = quote(os.fsencode(on_disk(path)), safe="/")
    return f"./{encoded}" if ":" in encoded.split("/")[0] else encoded


def url_from(page: Path, file: Path) -> str:
    """A file as a page in the folder `page` refers to it."""
    return url(os.path.relpath(file, page))
