"""The drift of all edits of a run, measured once for each picture."""

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from loguru import logger
from PIL import Image

from apps.edit_benchmark.drift import drift
from apps.edit_benchmark.records import Record
from core.errors import InputError, StorageError
from core.paths import on_disk
from core.pictures.source_images import read_image
from core.store.outputs import write_atomically

FILE_NAME = ".drift.json"  # what was measured, so that a run that goes on measures what is new
VERSION = 1  # raise it when figures come to be others
THREADS = min(8, os.cpu_count() or 1)
MANY = 200  # edits whose measuring takes long enough to be told: about 50 ms each at a megapixel
Measured = dict[str, Any]
"""The `drift` of an edit, None where too little is left to tell, and of which `files` it is."""


def with_drifts(
    records: Sequence[Record], folder: Path, during: Mapping[str, Measured] | None = None
) -> list[Record]:
    """The records, each with the drift of its edit, as far as it can be measured.

    Args:
        folder: the results' folder.
        during: what was measured while the run went on, by the edit.
    """
    before = drifts_in(folder)
    known = {**before, **(during or {})}
    new = sum(r.edited_image is not None and r.edited_image not in known for r in records)
    if new >= MANY:
        logger.info(f"Measuring how far {new} edits lie beside their sources.")
    with ThreadPoolExecutor(THREADS) as threads:
        found = list(threads.map(lambda record: _of_record(record, folder, known), records))
    kept = {str(r.edited_image): one for r, one in zip(records, found, strict=True) if one}
    if kept != before:
        with suppress(StorageError):  # it is measured again then
            write_atomically(folder / FILE_NAME, json.dumps([VERSION, kept]) + "\n")
    return [
        replace(record, drift=None if one is None else one["drift"])
        for record, one in zip(records, found, strict=True)
    ]


def _of_record(record: Record, folder: Path, known: Mapping[str, Measured]) -> Measured | None:
    """The drift of a record's edit; None where there is nothing to measure."""
    if record.edited_image is None or not record.source_images:
        return None
    edited, source = folder / on_disk(record.edited_image), Path(on_disk(record.source_images[0]))
    return measured(edited, source, known.get(record.edited_image))


def measured(edited: Path, source: Path, known: Measured | None = None) -> Measured | None:
    """The drift of an edit; None where one of the two is gone, or was never readable.

    Args:
        known: of an earlier time, which holds if it is of the very same files.
    """
    try:
        files = [[stat.st_size, stat.st_mtime_ns] for stat in (edited.stat(), source.stat())]
        if known is not None and known.get("files") == files:
            return known
        found = drift(_source(source, *files[1]), read_image(edited))
    except (OSError, InputError):
        return None
    rounded = {k: round(v, 3) for k, v in asdict(found).items()} if found is not None else None
    return {"files": files, "drift": rounded}


@lru_cache(maxsize=THREADS + 1)
def _source(file: Path, size: int, changed: int) -> Image.Image:
    """A source, which edits in several languages share; they follow each other."""
    return read_image(file)


def drifts_in(folder: Path) -> dict[str, Measured]:
    """What earlier runs have measured, by the edit."""
    try:
        version, kept = json.loads((folder / FILE_NAME).read_text("utf-8"))
    except (OSError, ValueError, TypeError):
        return {}
    return dict(kept) if version == VERSION and isinstance(kept, dict) else {}
