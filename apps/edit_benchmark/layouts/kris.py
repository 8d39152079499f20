"""KRIS-Bench: `<category>/<image id>.jpg`, as its metrics_*.py read it."""

from pathlib import PurePosixPath

from apps.edit_benchmark.layout import LAYOUTS, key_of
from apps.edit_benchmark.pair import Pair


@LAYOUTS.add_one("kris")
class KrisLayout:
    """JPEG files in a folder for each category."""

    suffixes = (".jpg",)
    is_official = True

    def place(self, pair: Pair) -> PurePosixPath:
        return PurePosixPath(pair.category, key_of(pair))
