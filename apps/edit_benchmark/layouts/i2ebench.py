"""I2EBench: `EditResult_ori/<task>/<model>/<image>`, as its low_level_eval.py and others read it.

Edits of the diverse wordings lie in `EditResult` in place of `EditResult_ori`, and those of later
rounds in `EditResult_ori_2nd`, `EditResult_2nd` and so on. An edit has the name of its source.
"""

from pathlib import PurePosixPath

from apps.edit_benchmark.data_sets.i2ebench import folder_of
from apps.edit_benchmark.layout import LAYOUTS, MODEL, OfficialLayout, picture_name
from apps.edit_benchmark.pair import Pair

IMAGE = "image"  # the field with the source's name


@LAYOUTS.add_one("i2ebench")
class I2EBenchLayout(OfficialLayout):
    """Files in the formats of their sources, a folder for each task and in it for each model."""

    suffixes = (".png",)

    def place(self, pair: Pair) -> PurePosixPath:
        folder = folder_of(pair, "EditResult")
        return PurePosixPath(folder, pair.category, MODEL, picture_name(pair, IMAGE).stem)

    def suffixes_of(self, pair: Pair) -> tuple[str, ...]:
        return (picture_name(pair, IMAGE).suffix,)

    def home(self, model: str) -> PurePosixPath:
        del model
        return PurePosixPath()

    def command(self, folder: str, model: str) -> str:
        """The scripts take no arguments: what they work on is written in each of them."""
        return (
            f"put EditData into {folder}, write it as PROJECT_ROOT and {model!r} into EDIT_MODELS "
            "of I2EBench's scripts, then python low_level_eval.py, high_level_eval_stage1.py, "
            "high_level_eval_stage2_final_judge.py and summary.py; of later rounds those with _2nd "
            "to _5nd in their names, and summary_round2345.py"
        )
