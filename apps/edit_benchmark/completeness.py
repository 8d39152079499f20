"""Whether a data set is there as a whole: before it is read, and before its pictures are used.

What was not fetched, or is still on its way, would otherwise be missing in silence, or be told as a
thousand damaged pictures.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from apps.edit_benchmark.embedded import Embedded
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.table_rows import SUFFIXES
from core.errors import InputError
from core.lfs_pointers import HOW_TO_GET, is_pointer
from core.names import counted

_DEPTH = 2  # folders below the data set's own in which its tables may lie
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".zst")
_UNFINISHED = (".incomplete", ".part", ".partial", ".crdownload", ".aria2")
_HUB_DOWNLOADS = Path(".cache", "huggingface", "download")  # in a folder that the hub filled
# `datasets` once added a hash of each part's content to its name.
_SHARD = re.compile(
    r"^(?P<split>.+)-(?P<number>\d{5})-of-(?P<all>\d{5})(?:-[0-9a-f]{16})?(?P<rest>\.\w+)$"
)


def check_complete(path: Path) -> None:
    """
    Raises:
        InputError: tables at a path are pointers, are still being downloaded, or some are missing.
    """
    files = [path] if path.is_file() else list(_below(path, _DEPTH))
    names = (*SUFFIXES, *_ARCHIVES)
    for file in files:
        if file.name.lower().endswith(names) and is_pointer(file):
            raise InputError(f"data: {file} is a Git LFS pointer and not the file: {HOW_TO_GET}.")
    if path.is_file():
        return
    unfinished = [file for file in files if file.name.lower().endswith(_UNFINISHED)]
    for file in [*unfinished, *_hub_downloads(path)]:
        raise InputError(
            f"data: {path} is still being downloaded, or its download was interrupted: {file} is "
            "not complete. Let it end, or start the same download again; remove the file if it is "
            "left over from another one."
        )
    _check_shards(files)


def check_pictures(pairs: Sequence[Pair]) -> None:
    """
    Raises:
        InputError: pictures of the pairs are pointers.
    """
    files = {file for pair in pairs for file in _pictures(pair)}
    pointers = sorted(file for file in files if is_pointer(Path(file)))
    if pointers:
        raise InputError(
            f"data: {len(pointers)} of {counted(len(files), 'picture')} are Git LFS pointers and "
            f"not the pictures, such as {pointers[0]}: {HOW_TO_GET}."
        )


def _pictures(pair: Pair) -> Iterator[str]:
    every = (
        *pair.source_images,
        *pair.target_images,
        *pair.reference_images,
        pair.mask,
        pair.edited_image,
    )
    return (each for each in every if each and not isinstance(each, Embedded))


def _check_shards(files: Sequence[Path]) -> None:
    """Tables in numbered parts, `train-00000-of-00004.parquet`: all of them have to be there."""
    there: dict[tuple[Path, str, int, str], set[int]] = defaultdict(set)
    for file in files:
        if file.name.lower().endswith(SUFFIXES) and (name := _SHARD.match(file.name)):
            key = file.parent, name["split"], int(name["all"]), name["rest"]
            there[key].add(int(name["number"]))
    for (folder, split, number, rest), found in there.items():
        missing = sorted(set(range(number)) - found)
        if missing:
            first = f"{split}-{missing[0]:05d}-of-{number:05d}{rest}"
            raise InputError(
                f"data: {folder} has {len(found)} of the {number} parts of {split}; {first} is "
                "missing. Let the download end, or give --data one of the files to read it alone."
            )


def _below(folder: Path, depth: int) -> Iterator[Path]:
    """Files that may be tables or unfinished downloads, without looking at each."""
    names = (*SUFFIXES, *_ARCHIVES, *_UNFINISHED)
    folders: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.name.lower().endswith(names):
                    yield folder / entry.name
                elif depth and entry.is_dir():
                    folders.append(folder / entry.name)
    except OSError:
        return
    for each in sorted(folders):
        yield from _below(each, depth - 1)


def _hub_downloads(path: Path) -> list[Path]:
    """What the hub's client has begun to fetch, for the folder itself or for its cache."""
    found = sorted((path / _HUB_DOWNLOADS).rglob("*.incomplete"))
    if path.parent.name == "snapshots":
        found += sorted((path.parent.parent / "blobs").glob("*.incomplete"))
    return found
