"""Emu Edit: `emu_test/<model>/<idx>.png` or `emu_val/…`, as AnySD's emu_gen_eval.py has it.

Emu Edit's authors publish edits as a table alone. The split is a part of the way, as each split
counts from 0.
"""

from pathlib import PurePosixPath

from apps.edit_benchmark.layout import LAYOUTS, MODEL, OfficialLayout, key_of
from apps.edit_benchmark.pair import Pair

VALIDATION = "validation"


@LAYOUTS.add_one("emu_edit")
class EmuEditLayout(OfficialLayout):
    """PNG files, a folder for each split and in it for each model."""

    suffixes = (".png",)

    def place(self, pair: Pair) -> PurePosixPath:
        named = pair.metadata.get("idx")
        number = str(named) if isinstance(named, int) else key_of(pair)
        split = "emu_val" if VALIDATION in pair.subsets else "emu_test"
        return PurePosixPath(split, MODEL, number)

    def home(self, model: str) -> PurePosixPath:
        del model
        return PurePosixPath()

    def command(self, folder: str, model: str) -> str:
        """The script takes no arguments: what it measures is written in it."""
        return (
            f"have {folder} as anybench/results, write {model!r} as model_name and the split as "
            "bench_name into emu_gen_eval.py and leave its editing out, then PYTHONPATH=./ python "
            "anybench/eval/emu_gen_eval.py"
        )
