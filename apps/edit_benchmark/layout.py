"""How edits are named in a folder; each way has a file in `layouts` that registers it."""

from pathlib import PurePosixPath
from typing import Protocol

from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.rows import file_name
from core.registry import Registry


class Layout(Protocol):
    """One benchmark's way to name the edits of one model.

    Attributes:
        suffixes: that its scripts read; the first one is written.
        is_official: a benchmark's own scripts read it, so edits can be written in it.
    """

    suffixes: tuple[str, ...]
    is_official: bool

    def place(self, pair: Pair) -> PurePosixPath:
        """Where the edit of a pair lies below the folder of one model's edits, without suffix."""


LAYOUTS: Registry[Layout] = Registry("layout", "apps.edit_benchmark.layouts")
"""One file per way to name edits; each registers itself with `layout.LAYOUTS`."""


def key_of(pair: Pair) -> str:
    """The name that the data gives a pair, as one part of a path."""
    key = str(pair.metadata.get("key") or pair.given_id or pair.pair_id)
    return key if "/" not in key and key.strip(".") else file_name(key)
