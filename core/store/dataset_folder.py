"""A folder of results as `datasets` of Hugging Face reads it: every row, in one split, train.

`metadata.jsonl` beside the pictures is all that most folders need. Two things get in its way:

- `load_dataset(FOLDER)` guesses the kind of data by counting files, and results.jsonl is one.
  `.huggingface.yaml` says which files are the data; nothing is guessed then.
- `load_dataset("imagefolder", data_dir=FOLDER)` does not read that file, and takes words in names
  for splits: test_00.png, dev/, gedit/eval_style.csv. It then loads what has such a name, without
  its columns, and nothing else. Names stay as they are, or finished work would not be found
  again. Folders count before files, so `train-links/` with links to all pictures and their rows
  settles words in the names of files. Words in the names of folders give way only to a table of
  shards, so there `data/` gets a ZIP file of all pictures.

What is written here is recognised as such, brought up to date, and removed when it is not needed.
Nobody else's file is replaced.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from loguru import logger

from core.errors import StorageError
from core.paths import on_disk
from core.store.outputs import PARTIAL_PREFIX, make_folder, storage_error, write_atomically

TABLE = "metadata.jsonl"
CARD = ".huggingface.yaml"
LINKS = "train-links"
ARCHIVE = "data/train-00000-of-00001.zip"
MAX_NUMBER = 2**63 - 1  # that a column of whole numbers holds, read from JSON
TYPED_BY = 10 * 1024**2  # bytes of a table
MARK = "Written by multi-gpu-image-generation"
_WORDS = {  # split: as `datasets.data_files` has them
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_EDGE = "[-._ 0-9]"  # what may stand beside such a word
_IN_FOLDER = {
    split: re.compile(f"(?:.*{_EDGE})?(?:{'|'.join(words)})(?:{_EDGE}.*)?", re.DOTALL)
    for split, words in _WORDS.items()
}
_IN_FILE = re.compile(
    f"(?:.*{_EDGE})?(?:{'|'.join(w for ws in _WORDS.values() for w in ws)}){_EDGE}.*", re.DOTALL
)
_UNSEEN = {
    "README.md", "config.json", "dataset_dict.json", "dataset_info.json", "dataset_infos.json",
    "dummy_data.zip",
}  # fmt: skip
# `datasets` keeps what it loads under a hash of this text: it has to change with the table.
_CARD_TEXT = f"""\
# {MARK}, so that load_dataset("this folder") of Hugging Face's datasets
# finds the pictures and their table. Configs in a README.md of yours count instead.
configs:
- config_name: default
  description: table TABLE_HASH
  data_files:
  - split: train
    path:
    - {TABLE}
    - "**/*.[pP][nN][gG]"
    - "**/*.[wW][eE][bB][pP]"
"""


def with_exact_seeds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows whose seeds are JSON numbers; all text if one is too large.

    One that is would make `datasets` round all of them to floats.
    """
    if all(row["seed"] is None or row["seed"] <= MAX_NUMBER for row in rows):
        return rows
    return [{**row, "seed": None if row["seed"] is None else str(row["seed"])} for row in rows]


def in_readable_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in their own order, unless `datasets` would take a column for empty.

    `datasets` tells the types of columns by the beginning of a table, and fails where a value
    follows later. In a long table the first rows with a value in such columns come first.
    """
    first: dict[int, None] = {}
    size = 0
    empty = set(rows[0]) if rows else set()
    for number, row in enumerate(rows):
        size += len(json.dumps(row))
        filled = {name for name in empty if row[name] is not None}
        if filled and size > TYPED_BY // 2:
            first[number] = None
        empty -= filled
        if not empty:
            break
    return [rows[i] for i in first] + [r for i, r in enumerate(rows) if i not in first]


def write_card(folder: Path) -> None:
    """Write `.huggingface.yaml`, unless the user has said something of the kind.

    Raises:
        StorageError: the disk refuses.
    """
    card = folder / CARD
    ours = _read(card)
    if ours is not None and MARK not in ours:
        return
    readme = _read(folder / "README.md") or ""
    header = readme.split("---")[1] if readme.lstrip("\ufeff").startswith("---") else ""
    if re.search(r"^configs\s*:", header, re.MULTILINE):  # this file would count over it
        with suppress(OSError):
            card.unlink(missing_ok=True)
        return
    text = _CARD_TEXT.replace("TABLE_HASH", _hash_of(folder / TABLE)[:16])
    if ours != text:
        write_atomically(card, text)


def _hash_of(table: Path) -> str:
    """The SHA-256 of a table of a run; of nothing where there is none."""
    try:
        with table.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return hashlib.sha256().hexdigest()


def settle(folder: Path, interrupted: bool = False) -> None:
    """Prepare a folder of results as far as the disk allows.

    Args:
        interrupted: the user wants an end: leave what may take a while to the next run.
    """
    try:
        write_card(folder)
        if not interrupted:
            settle_split(folder)
    except StorageError as error:
        logger.warning(f"Not prepared for Hugging Face's datasets: {error}")


def settle_split(folder: Path) -> None:
    """Let `load_dataset("imagefolder", data_dir=folder)` see one split, whatever names say.

    Raises:
        StorageError: the disk refuses.
    """
    in_folders, in_files = _split_words(folder)
    rows = _rows(folder) if in_folders or in_files else []
    try:
        linked = bool(rows) and in_folders <= {"train"} and _link_all(folder, rows)
        if not linked:
            _remove_links(folder)
        if rows and not linked:
            _pack_all(folder, rows)
        else:
            _remove_archive(folder)
    except OSError as error:
        raise storage_error(error, folder) from None


def _split_words(folder: Path) -> tuple[set[str], bool]:
    """The splits that names of folders speak of, and whether one of a file does."""
    in_folders: set[str] = set()
    in_files = False
    for place in _visible(folder):
        for part in place.parent.parts:
            in_folders.update(s for s, words in _IN_FOLDER.items() if words.fullmatch(part))
        in_files = in_files or bool(_IN_FILE.fullmatch(place.name))
    return in_folders, in_files


def _visible(folder: Path) -> Iterator[PurePosixPath]:
    """Files below `folder`, relative to it, that `datasets` sees; none of our own."""
    for file in _files_below(folder, PurePosixPath()):
        if file.name not in _UNSEEN and file != PurePosixPath(ARCHIVE):
            yield file


def _files_below(folder: Path, place: PurePosixPath) -> Iterator[PurePosixPath]:
    """Files of a place and of the folders in it, one by one: there may be millions."""
    with suppress(OSError), os.scandir(folder / place) as found:
        for entry in found:
            if entry.name.startswith("."):
                continue
            if not entry.is_dir():
                yield place / entry.name
            elif not (entry.name.startswith("__") or entry.is_symlink() or entry.name == LINKS):
                yield from _files_below(folder, place / entry.name)


def _rows(folder: Path) -> list[dict[str, Any]]:
    """The table's rows whose pictures are there."""
    text = _read(folder / TABLE) or ""
    rows = (json.loads(line) for line in text.split("\n") if line)
    return [row for row in rows if _file_of(folder, row).is_file()]


def _file_of(folder: Path, row: dict[str, Any]) -> Path:
    return folder / on_disk(str(row["file_name"]))


def _link_all(folder: Path, rows: Sequence[dict[str, Any]]) -> bool:
    """Make `train-links/` with all pictures and their rows. False where links cannot be made."""
    links = folder / LINKS
    wanted = {_file_of(links, row) for row in rows}
    if links.is_symlink() or (links.exists() and not _only_links(links)):
        return False
    for link in _links_in(links):
        if link not in wanted:
            link.unlink()
    for link in wanted:
        if not link.is_symlink():
            make_folder(link.parent)
            try:
                link.symlink_to(_target(links, link))
            except OSError:  # a file system without them
                return False
    text = _lines(rows)
    if _read(links / TABLE) != text:
        write_atomically(links / TABLE, text)
    return True


def _links_in(links: Path) -> Iterator[Path]:
    for where, _, names in os.walk(links):
        yield from (file for name in names if (file := Path(where, name)).is_symlink())


def _only_links(links: Path) -> bool:
    """Whether the folder holds nothing but our links and our table."""
    return all(
        _is_made_here(Path(where, name), links)
        for where, folders, names in os.walk(links)
        for name in [*folders, *names]
    )


def _is_made_here(file: Path, links: Path) -> bool:
    if file.is_symlink():
        return os.readlink(file) == _target(links, file)
    return file.is_dir() or file.name == TABLE or file.name.startswith(PARTIAL_PREFIX)


def _target(links: Path, link: Path) -> str:
    """The target of a link of ours: the file of its name in the folder above `links`."""
    return os.path.relpath(links.parent / link.relative_to(links), link.parent)


def _remove_links(folder: Path) -> None:
    links = folder / LINKS
    if links.is_dir() and not links.is_symlink() and _only_links(links):
        shutil.rmtree(links)


def _pack_all(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Make `data/train-00000-of-00001.zip` of all pictures and their rows."""
    archive = folder / ARCHIVE
    if archive.exists() and not _is_ours(archive):
        return
    files = [_file_of(folder, row) for row in rows]
    # Names of our own: `datasets` takes a path in a ZIP file for a part of a URL.
    names = [f"{i:06d}{file.suffix}" for i, file in enumerate(files)]
    table = _lines([{**r, "file_name": name} for r, name in zip(rows, names, strict=True)])
    stats = [(s.st_ino, s.st_size, s.st_mtime_ns) for s in (file.stat() for file in files)]
    comment = f"{MARK} {hashlib.sha256(f'{table}{stats}'.encode()).hexdigest()}".encode()
    if _comment_of(archive) == comment:
        return
    size = sum(size for _, size, _ in stats)
    if shutil.disk_usage(folder).free < 2 * size:  # others need room, too
        _remove_archive(folder)  # of what was there before
        raise OSError(errno.ENOSPC, f"too little room for a copy of {size / 1e9:.1f} GB")
    make_folder(archive.parent)
    partial = archive.with_name(f"{PARTIAL_PREFIX}{archive.name}")
    try:
        # Pictures are compressed already; and ZIP knows no times before 1980.
        with zipfile.ZipFile(partial, "w", strict_timestamps=False) as pack:
            pack.comment = comment
            pack.writestr(TABLE, table)
            for file, name in zip(files, names, strict=True):
                pack.write(file, name)
        os.replace(partial, archive)
    finally:
        partial.unlink(missing_ok=True)


def _is_ours(archive: Path) -> bool:
    return _comment_of(archive).startswith(MARK.encode())


def _comment_of(archive: Path) -> bytes:
    try:
        with zipfile.ZipFile(archive) as pack:
            return pack.comment
    except (OSError, zipfile.BadZipFile):
        return b""


def _remove_archive(folder: Path) -> None:
    if not _is_ours(folder / ARCHIVE):
        return
    (folder / ARCHIVE).unlink()
    with suppress(OSError):  # there is something else in it
        (folder / ARCHIVE).parent.rmdir()


def _read(file: Path) -> str | None:
    try:
        return file.read_text("utf-8", errors="replace")
    except OSError:
        return None


def _lines(rows: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
