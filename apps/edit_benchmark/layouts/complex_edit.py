"""Complex-Edit: `<split>/<complexity>/<number>.png`, a folder for each call of its eval.py."""

from pathlib import PurePosixPath

from apps.edit_benchmark.layout import LAYOUTS, OfficialLayout
from apps.edit_benchmark.pair import Pair


@LAYOUTS.add_one("complex_edit")
class ComplexEditLayout(OfficialLayout):
    """PNG files, in the order of the data's rows by their names."""

    suffixes = (".png",)

    def place(self, pair: Pair) -> PurePosixPath:
        number, _, level = pair.pair_id.rpartition("_")
        return PurePosixPath(pair.category, level, number or level)

    def command(self, folder: str, model: str) -> str:
        """For real pictures and the highest complexity."""
        return f"python eval.py --image-type real -p {folder}/{model}/real/C8 -c 8"
