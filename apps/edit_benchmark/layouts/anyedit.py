"""AnyBench: `<type>-1500/<image>`, as its anybench_gen_eval.py reads it to measure edits.

An edit has the name of its source. Where the same script makes edits, it writes them to folders
without `-1500`, in which it does not find them itself.
"""

from pathlib import PurePosixPath

from apps.edit_benchmark.data_sets.anyedit import IMAGE
from apps.edit_benchmark.layout import LAYOUTS, OfficialLayout, picture_name
from apps.edit_benchmark.pair import Pair


@LAYOUTS.add_one("anyedit")
class AnyBenchLayout(OfficialLayout):
    """Files in the formats of their sources, a folder for each type of edit."""

    suffixes = (".png",)

    def place(self, pair: Pair) -> PurePosixPath:
        return PurePosixPath(f"{pair.category}-1500", picture_name(pair, IMAGE).stem)

    def suffixes_of(self, pair: Pair) -> tuple[str, ...]:
        return (picture_name(pair, IMAGE).suffix,)

    def command(self, folder: str, model: str) -> str:
        """The script takes no arguments: what it measures is written in it."""
        return (
            f"have {folder} as anybench/results, write {model!r} as model_name into "
            "anybench_gen_eval.py, then PYTHONPATH=./ python anybench/eval/anybench_gen_eval.py"
        )
