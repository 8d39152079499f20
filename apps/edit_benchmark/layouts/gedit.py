"""GEdit-Bench: `fullset/<task type>/<language>/<key>.png`, as its test_gedit_score.py reads it."""

from pathlib import PurePosixPath

from apps.edit_benchmark.layout import LAYOUTS, key_of
from apps.edit_benchmark.pair import Pair


@LAYOUTS.add_one("gedit")
class GEditLayout:
    """PNG files; beside each one its source lies as `<key>_SRCIMG.png`."""

    suffixes = (".png",)
    is_official = True

    def place(self, pair: Pair) -> PurePosixPath:
        return PurePosixPath("fullset", pair.category, pair.language or "en", key_of(pair))
