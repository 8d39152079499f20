"""What is known of a file, or of a folder, by its content: the same on every machine."""

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Literal

from core.checkpoints.lora_files import PEFT_SETTINGS, content_hash
from core.file_ends import add_ends
from core.lora_paths import PEFT_FILE

Kind = Literal["picture", "lora", "model"]
EDGE = 1024**2  # bytes at each end of a model's large file; its name and size count, too


def hash_of(kind: Kind, path: str) -> str:
    """A hash of what lies at a path, remembered until the files change.

    Of pictures and LoRAs it is the one that tasks name; of models it is made of the ends of files.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    files = files_of(kind, path)
    stats = tuple((f.stat().st_size, f.stat().st_mtime_ns) for f in files)
    return _hash_of(kind, path, tuple(map(str, files)), stats)


@lru_cache(maxsize=10_000)
def _hash_of(
    kind: Kind, path: str, files: tuple[str, ...], stats: tuple[tuple[int, int], ...]
) -> str:
    if kind == "lora":
        return content_hash(Path(path))
    if kind == "picture":
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    digest = hashlib.sha256()
    for file, (size, _) in zip(files, stats, strict=True):
        digest.update(f"{os.path.relpath(file, os.path.dirname(path))} {size}\n".encode())
        with open(file, "rb") as stream:
            add_ends(digest, stream, size, EDGE)
    return digest.hexdigest()


def files_of(kind: Kind, path: str) -> list[Path]:
    """All files that belong to what lies at a path, in a fixed order."""
    place = Path(path)
    if kind == "model" and place.is_dir():
        return sorted(f for f in place.rglob("*") if f.is_file() and ".git" not in f.parts)
    if kind == "lora" and place.name == PEFT_FILE and place.with_name(PEFT_SETTINGS).is_file():
        return [place, place.with_name(PEFT_SETTINGS)]
    return [place]
