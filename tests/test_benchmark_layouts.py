"""Each benchmark from its published form to the files of its official scorer, and back again."""

import json
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pytest
import yaml
from PIL import Image

from apps.edit_benchmark.command import main
from apps.edit_benchmark.layout_folder import LayoutFolder, tell_layout
from apps.edit_benchmark.pair import Pair
from apps.log_lines import set_up_logging
from core.settings import PROJECT_DIR
from tests import published_sets
from tests.edit_world import settings
from tests.inline_backend import InlineBackend

SCENES = sorted((PROJECT_DIR / "examples" / "edit_pairs").glob("*.png"))


def with_scenes(folder: Path) -> Path:
    """Put rendered scenes in the place of the pictures of a data set on the disk."""
    files = (f for f in sorted(folder.rglob("*")) if f.suffix.lower() in (".png", ".jpg"))
    for file, scene in zip(files, cycle(SCENES), strict=False):
        Image.open(scene).convert("RGB").resize((64, 48)).save(file)
    return folder


@pytest.mark.parametrize(
    ("layout", "make", "folder"),
    [
        ("gedit", published_sets.gedit_script, "pairs/fullset/{}/{}/{}.png"),
        ("imgedit", published_sets.imgedit, "pairs/{}.png"),
        ("kris", published_sets.kris, "results/pairs/{}/{}.jpg"),
        ("rise", published_sets.rise, "outputs/pairs/images/{}/{}.png"),
        ("omnicontext", published_sets.omnicontext, "pairs/fullset/{}/{}.png"),
        ("rededit", published_sets.rededit, "pairs/{}/{}.png"),
        ("complex_edit", published_sets.complex_table, "pairs/real/C2/{}.png"),
        ("magicbrush", published_sets.magicbrush_disk, "pairs/{}/{}.png"),
    ],
)
def test_a_benchmark_is_edited_written_for_its_scorer_and_scored_from_there(
    tmp_path: Path, layout: str, make: Callable[[Path], Path], folder: str
) -> None:
    data = with_scenes(make(tmp_path / "pairs"))
    config = tmp_path / "bench.yaml"
    config.write_text(yaml.safe_dump(settings(device="cpu")))
    command = ["--config", str(config), "--data", str(data), "--no-gallery", "--output-dir"]
    command += [str(tmp_path / "out"), "--name", "pairs"]
    assert main([*command, "--layout", layout], InlineBackend()) == 0
    results, written = tmp_path / "out" / "pairs", tmp_path / "out" / f"pairs.{layout}"
    records = [json.loads(line) for line in (results / "results.jsonl").open()]
    wanted = written.glob(folder.replace("{}", "*"))
    edits = [f for f in wanted if not f.stem.endswith("_SRCIMG")]
    assert len(edits) == len(records) > 1
    for edit in edits:
        assert Image.open(edit).format == ("JPEG" if layout == "kris" else "PNG")
    official = json.loads((results / "summary.json").read_text())["official"]
    assert ("not_computed" in official) is (layout == "magicbrush") and official["script"]
    files = [f for f in (written / "scores_of_this_run").rglob("*") if f.is_file()]
    names = {f.name for f in files}
    if layout == "gedit":
        full = official["en"]["full"]
        assert full["groups_scored"] == len(full["groups"]) > 0
        assert len(names) == 11 and "pairs_color_alter_gpt_score.csv" in names
    elif layout == "imgedit":
        assert official["scored"] == len(records) and names == {"result.json"}
    elif layout == "kris":
        assert official["overall"] is not None and names == {"metrics.json"}
    elif layout == "omnicontext":
        assert official["en"]["types_scored"] == 2 and names == {"score.jsonl"}
    elif layout == "rededit":
        assert official["en"]["final_score"] >= 1 and not names
    elif layout == "complex_edit":
        assert official["real"]["C2"]["scored"] == 2 and names == {"0000.json", "0001.json"}
    elif layout == "magicbrush":
        assert "clip-i" in official["not_computed"] and not names
        assert {edit.stem for edit in edits} >= {"100_1", "100_inde_2", "200_1"}
    else:
        assert official["scores"]["Overall"]["score"] >= 1 and names == {"pairs.pkl"}
    again = [*command[:-1], "again", "--score-only", str(written)]
    assert main(again, InlineBackend()) == 0
    rescored = [json.loads(line) for line in (tmp_path / "out/again/results.jsonl").open()]
    assert sorted(r["edited_image"] for r in rescored) == sorted(map(str, edits))
    assert [r["scores"] for r in rescored] == [r["scores"] for r in records]


def test_a_scorer_is_not_recommended_for_data_of_another_benchmark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_logging("INFO")
    folder = LayoutFolder(tmp_path / "pairs", "imgedit")
    own, other = (Pair("1", "add", "add a cat", data_set=n) for n in ("imgedit", "gedit"))
    folder.check([own])
    assert not capsys.readouterr().err
    [_, scorer] = tell_layout(folder, 1, [own])
    assert "--edit_json Benchmark/singleturn/singleturn.json" in scorer and "..." not in scorer
    folder.check([other])
    assert "the data is not of that benchmark (it was read as gedit)" in capsys.readouterr().err
    assert len(list(tell_layout(folder, 1, [other]))) == 1
