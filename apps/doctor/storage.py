"""Disks: where results go, where models are kept, and where temporary files lie."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from apps.doctor.finding import Finding
from core.byte_sizes import shown_bytes
from core.checkpoints.hub_state import cache_folder
from core.checkpoints.known_models import known_checkpoint
from core.paths import as_text

LITTLE = 2_000_000_000  # bytes
MOST_MODELS = 20


def nearest(folder: Path) -> Path:
    """The folder, or the next one above it that is there."""
    places = (folder, *folder.absolute().parents)
    return next((place for place in places if place.is_dir()), Path("/"))


def results(folder: Path) -> Iterator[Finding]:
    """The disk on which results lie."""
    yield _disk(
        "results", folder, "Give another --output-dir, or output_dir in the settings.", True
    )


def temporary() -> Iterator[Finding]:
    """Where temporary files lie."""
    try:
        place = Path(tempfile.gettempdir())
    except OSError:
        yield Finding(
            "problem",
            "temporary files",
            "There is no folder for them that can be written.",
            "Have TMPDIR name one.",
        )
        return
    yield _disk("temporary files", place, "Have TMPDIR name another folder.", True)


def models() -> Iterator[Finding]:
    """The cache of the model hub, and the models in it that are known here."""
    cache = cache_folder()
    yield _disk(
        "models' cache",
        cache,
        "Have HF_HOME name a folder with room that can be written.",
        False,
    )
    found = dict(_in_cache(cache))
    if found:
        shown = ", ".join(f"{n} ({shown_bytes(size)})" for n, size in found.items())
        yield Finding("ok", "models there", f"{shown}.", facts={"models": found})
    else:
        yield Finding("note", "models there", "None: a run that needs one downloads it first.")


def _in_cache(cache: Path) -> Iterator[tuple[str, int]]:
    """Names of models in the cache, with the bytes that are there of each."""
    try:
        names = sorted(entry.name for entry in os.scandir(cache))
    except OSError:
        return
    models = [name for name in names if name.startswith("models--")]
    known = {m for m in models if known_checkpoint(_name_of(m)) is not None}
    # Those that are known here come first; others may be of other programs.
    for name in sorted(models, key=lambda name: name not in known)[:MOST_MODELS]:
        try:
            size = sum(entry.stat().st_size for entry in os.scandir(cache / name / "blobs"))
        except OSError:
            size = 0
        yield _name_of(name), size


def _name_of(folder: str) -> str:
    return folder.removeprefix("models--").replace("--", "/")


def _disk(name: str, folder: Path, advice: str, needed: bool) -> Finding:
    place = nearest(folder)
    shown = as_text(folder.absolute())
    level = "problem" if needed else "note"
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        return Finding(level, name, f"{shown}: {error.strerror}.", advice)  # type: ignore[arg-type]
    facts = {"folder": shown, "free": free}
    text = f"{shown}, {shown_bytes(free)} free."
    if not os.access(place, os.W_OK | os.X_OK):
        text = f"{shown} cannot be written by this user."
        return Finding(level, name, text, advice, facts)  # type: ignore[arg-type]
    if free < LITTLE:
        return Finding("note", name, text, "That is little: " + advice, facts)
    return Finding("ok", name, text, facts=facts)
