"""How edits are named in a folder; each way has a file in `layouts` that registers it."""

from abc import ABC, abstractmethod
from pathlib import PurePosixPath
from typing import Protocol

from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.rows import file_name
from core.registry import Registry


class Layout(Protocol):
    """One way to name the edits of one model.

    Attributes:
        suffixes: of the files; the first one is the usual.
    """

    suffixes: tuple[str, ...]

    def place(self, pair: Pair) -> PurePosixPath:
        """Where the edit of a pair lies below the folder of one model's edits, without suffix."""


class OfficialLayout(ABC):
    """A layout that the scripts of a benchmark read, so that edits can be written in it.

    Attributes:
        suffixes: that the scripts read; the first one is written where an edit has none of them.
    """

    suffixes: tuple[str, ...]

    @abstractmethod
    def place(self, pair: Pair) -> PurePosixPath:
        """As in `Layout`."""

    @abstractmethod
    def home(self, model: str) -> PurePosixPath:
        """The folder of a model's edits, below the folder that the scripts are given."""

    def source_place(self, pair: Pair) -> PurePosixPath | None:
        """Where the scripts want the source of a pair, as a PNG beside the edits, if they do."""
        del pair
        return None

    @abstractmethod
    def command(self, folder: str, model: str) -> str:
        """How the benchmark's scorer is called for a folder with a model's edits."""


LAYOUTS: Registry[Layout] = Registry("layout", "apps.edit_benchmark.layouts")
"""One file per way to name edits; each registers itself with `layout.LAYOUTS`."""


def official_layout(name: str) -> OfficialLayout:
    """A layout in which edits can be written.

    Raises:
        InputError: there is none of that name.
    """
    layout = LAYOUTS[name]
    assert isinstance(layout, OfficialLayout)
    return layout


def official_names() -> list[str]:
    """The layouts in which edits can be written."""
    return [name for name in LAYOUTS if isinstance(LAYOUTS[name], OfficialLayout)]


def key_of(pair: Pair) -> str:
    """The name that the data gives a pair, as one part of a path."""
    key = str(pair.metadata.get("key") or pair.given_id or pair.pair_id)
    return key if "/" not in key and key.strip(".") else file_name(key)
