"""Names of folders that a run makes of the name of its input."""

from pathlib import Path

from core.errors import InputError
from core.names import cleaned, cut, distinct
from core.paths import user_path
from core.store.folder_input import FolderInput, NoFile
from core.store.ledger_file import FILE_NAME as LEDGER

MAX_NAME = 100  # characters of a persona's or a file's name in file names
MAX_RUN_BYTES = 200  # of a run's folder: `datasets` makes longer names of it for its cache


def file_name(name: object) -> str:
    """`name` as part of a file name: letters, marks and digits of any script, the rest as `_`."""
    return cut(cleaned(name, "-").strip("_"), MAX_NAME) if isinstance(name, str) else ""


def name_of_run(stem: str) -> str:
    """The folder of a file's pictures. One that is cut, or has nothing to show, tells by a hash."""
    name = cleaned(stem, "-").strip("_")
    short = cut(name, MAX_NAME, MAX_RUN_BYTES)
    return name if name and short == name else distinct(stem, short or "run", MAX_RUN_BYTES)


def name_without_file(output_dir: Path, source: NoFile, name: str, before: str) -> str:
    """The folder of what is read from no file.

    Args:
        before: what it was called by earlier versions; one that they made is gone on with, unless
            it is a file's by now.
    """
    folder = user_path(output_dir, "output_dir") / before
    try:
        is_ours = FolderInput(folder, source).check()
    except InputError:
        return name
    return before if is_ours or (folder / LEDGER).is_file() else name
