"""GEdit-Bench: `fullset/<task type>/<language>/<key>.png`, as its test_gedit_score.py reads it."""

from pathlib import PurePosixPath

from apps.edit_benchmark.layout import LAYOUTS, OfficialLayout, key_of
from apps.edit_benchmark.pair import Pair


@LAYOUTS.add_one("gedit")
class GEditLayout(OfficialLayout):
    """PNG files; beside each one its source lies as `<key>_SRCIMG.png`."""

    suffixes = (".png",)

    def place(self, pair: Pair) -> PurePosixPath:
        return PurePosixPath("fullset", pair.category, pair.language or "en", key_of(pair))

    def source_place(self, pair: Pair) -> PurePosixPath | None:
        place = self.place(pair)
        return place.with_name(f"{place.name}_SRCIMG.png")

    def command(self, folder: str, model: str) -> str:
        return f"python test_gedit_score.py --save_path {folder} --model_name {model}"
