"""MagicBrush: `<image>/<image>_1.png`, `_inde_2`, `_iter_2`, as its image_eval.py reads them."""

from pathlib import PurePosixPath

from apps.edit_benchmark.layout import LAYOUTS, OfficialLayout, key_of
from apps.edit_benchmark.pair import Pair

TURN = ("_inde_", "_iter_", "_1")  # what follows the name of the image in that of an edit


@LAYOUTS.add_one("magicbrush")
class MagicBrushLayout(OfficialLayout):
    """PNG files, a folder for each image."""

    suffixes = (".png",)

    def place(self, pair: Pair) -> PurePosixPath:
        key = key_of(pair)
        image = next((key.rpartition(mark)[0] for mark in TURN if mark in key), key)
        return PurePosixPath(image, key)

    def command(self, folder: str, model: str) -> str:
        """The arguments as for the test split, which its own folder `test` has."""
        return (
            f"python image_eval.py --generated_path {folder}/{model} --gt_path test/images "
            "--caption_path test/local_descriptions.json"
        )
