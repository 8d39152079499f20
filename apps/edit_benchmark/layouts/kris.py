"""KRIS-Bench: `<category>/<image id>.jpg`, as its metrics_*.py read it."""

from pathlib import PurePosixPath

from apps.edit_benchmark.layout import LAYOUTS, OfficialLayout, key_of
from apps.edit_benchmark.pair import Pair


@LAYOUTS.add_one("kris")
class KrisLayout(OfficialLayout):
    """JPEG files in a folder for each category."""

    suffixes = (".jpg",)

    def place(self, pair: Pair) -> PurePosixPath:
        return PurePosixPath(pair.category, key_of(pair))

    def home(self, model: str) -> PurePosixPath:
        return PurePosixPath("results", model)

    def command(self, folder: str, model: str) -> str:
        return (
            f"python metrics_common.py --models {model} (and the others, beside {folder}/results)"
        )
