"""OmniContext: `fullset/<task type>/<key>.png`, as its test_omnicontext_score.py reads it."""

from pathlib import PurePosixPath

from apps.edit_benchmark.layout import LAYOUTS, OfficialLayout, key_of
from apps.edit_benchmark.pair import Pair


@LAYOUTS.add_one("omnicontext")
class OmniContextLayout(OfficialLayout):
    """PNG files, a folder for each type of task."""

    suffixes = (".png",)

    def place(self, pair: Pair) -> PurePosixPath:
        return PurePosixPath("fullset", pair.category, key_of(pair))

    def command(self, folder: str, model: str) -> str:
        return (
            "python -m omnicontext.test_omnicontext_score --test_data OmniGen2/OmniContext "
            f"--result_dir {folder} --model_name {model} --openai_key KEY"
        )
