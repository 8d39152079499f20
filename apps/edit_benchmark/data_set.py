"""What a form of input is to the benchmark; each has a file in `data_sets` that registers it."""

from pathlib import Path
from typing import Protocol

from apps.edit_benchmark.pair import Pair
from core.registry import Registry


class DataSet(Protocol):
    """One form in which pictures with instructions lie on the disk."""

    takes_any: bool
    """It takes every file or folder that no other form takes."""

    def fits(self, path: Path) -> bool:
        """Whether what lies at `path`, which exists, has this form; a quick look."""

    def read(self, path: Path, work_folder: Path) -> list[Pair]:
        """All pairs, in the order of the input.

        Args:
            work_folder: where pictures that come inside other files may be written.

        Raises:
            InputError: the input cannot be read at all. A pair that cannot be used has a `problem`.
            StorageError: `work_folder` cannot be written.
        """


MAPPED = "fields"  # in place of a form's name: the settings say what the columns mean
DATA_SETS: Registry[DataSet] = Registry("data set", "apps.edit_benchmark.data_sets")


def form_of(path: Path) -> str:
    """The name of the form that what lies at `path` has; some form takes every file and folder."""
    # What takes any file or folder is asked after those that know theirs by a mark.
    known = sorted(DATA_SETS, key=lambda name: DATA_SETS[name].takes_any)
    return next(name for name in known if DATA_SETS[name].fits(path))
