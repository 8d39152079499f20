"""The results' folder of a run of this benchmark: `edits/<category>/<pair>.png`."""

from pathlib import PurePosixPath

from apps.edit_benchmark.layout import LAYOUTS, Layout
from apps.edit_benchmark.pair import Pair
from core.store.outputs import PICTURE_SUFFIXES


@LAYOUTS.add_one("ours")
class OurLayout(Layout):
    """Picture files of any format."""

    suffixes = PICTURE_SUFFIXES

    def place(self, pair: Pair) -> PurePosixPath:
        return PurePosixPath("edits", pair.name)
