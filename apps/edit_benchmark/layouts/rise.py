"""RISEBench: `images/<category>/<index>.png`, as its gpt_eval.py reads it."""

from pathlib import PurePosixPath

from apps.edit_benchmark.layout import LAYOUTS, key_of
from apps.edit_benchmark.pair import Pair


@LAYOUTS.add_one("rise")
class RiseLayout:
    """PNG or JPEG files in a folder for each category, below a folder `images`."""

    suffixes = (".png", ".jpg", ".jpeg")
    is_official = True

    def place(self, pair: Pair) -> PurePosixPath:
        return PurePosixPath("images", pair.category, key_of(pair))
