"""REDEdit-Bench: `<task>/<task>-<id>.png`, as its redbench_eval.py reads it."""

from pathlib import PurePosixPath

from apps.edit_benchmark.layout import LAYOUTS, OfficialLayout, key_of
from apps.edit_benchmark.pair import Pair


@LAYOUTS.add_one("rededit")
class RedEditLayout(OfficialLayout):
    """PNG files, a folder for each task; edits of the second language in one of their own."""

    suffixes = (".png",)

    def place(self, pair: Pair) -> PurePosixPath:
        key = key_of(pair)
        name = PurePosixPath(pair.category, f"{pair.category}-{key.removesuffix('_cn')}")
        return PurePosixPath("cn", name) if key.endswith("_cn") else name

    def command(self, folder: str, model: str) -> str:
        """Its prompts and rows as in its own folder; it takes Chinese instructions if not told."""
        return (
            f"python redbench_eval.py --result_img_folder {folder}/{model} --edit_jsonl "
            "redbench.jsonl --prompts_json prompts.json --lang eng (of Chinese instructions: "
            f"{folder}/{model}/cn and --lang cn)"
        )
