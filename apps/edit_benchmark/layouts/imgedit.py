"""ImgEdit-Bench: `<key>.png` in one folder, as its basic_bench.py and UGE_bench.py read it."""

from pathlib import PurePosixPath

from apps.edit_benchmark.layout import LAYOUTS, OfficialLayout, key_of
from apps.edit_benchmark.pair import Pair


@LAYOUTS.add_one("imgedit")
class ImgEditLayout(OfficialLayout):
    """PNG files, all in one folder."""

    suffixes = (".png",)

    def place(self, pair: Pair) -> PurePosixPath:
        return PurePosixPath(key_of(pair))

    def command(self, folder: str, model: str) -> str:
        """The scorer's arguments as for the files in ImgEdit's own folder `Benchmark`."""
        data = "Benchmark/singleturn"
        return (
            f"python basic_bench.py --result_img_folder {folder}/{model} "
            f"--edit_json {data}/singleturn.json --origin_img_root {data} "
            f"--prompts_json {data}/judge_prompt.json --num_processes 4"
        )
