"""RISEBench: `images/<category>/<index>.png`, as its gpt_eval.py reads it."""

from pathlib import PurePosixPath

from apps.edit_benchmark.layout import LAYOUTS, OfficialLayout, key_of
from apps.edit_benchmark.pair import Pair


@LAYOUTS.add_one("rise")
class RiseLayout(OfficialLayout):
    """PNG or JPEG files in a folder for each category, below a folder `images`."""

    suffixes = (".png", ".jpg", ".jpeg")

    def place(self, pair: Pair) -> PurePosixPath:
        return PurePosixPath("images", pair.category, key_of(pair))

    def home(self, model: str) -> PurePosixPath:
        return PurePosixPath("outputs", model)

    def command(self, folder: str, model: str) -> str:
        return f"python gpt_eval.py --data data_total.json --output {folder}/outputs/{model}"
