"""ImgEdit-Bench: `<key>.png` in one folder, as its basic_bench.py and UGE_bench.py read it."""

from pathlib import PurePosixPath

from apps.edit_benchmark.layout import LAYOUTS, key_of
from apps.edit_benchmark.pair import Pair


@LAYOUTS.add_one("imgedit")
class ImgEditLayout:
    """PNG files, all in one folder."""

    suffixes = (".png",)
    is_official = True

    def place(self, pair: Pair) -> PurePosixPath:
        return PurePosixPath(key_of(pair))
