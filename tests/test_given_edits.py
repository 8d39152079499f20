"""Edits that exist are scored as they are: no editor is loaded, and what is missing is counted."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from PIL import Image

from apps.edit_benchmark.command import main
from apps.edit_benchmark.given_edits import find_edits
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.pairs import PairSet
from apps.edit_benchmark.runner import EditBenchmark
from apps.edit_benchmark.settings import load_benchmark_settings
from core.errors import InputError
from tests.edit_world import made_pair, settings
from tests.inline_backend import InlineBackend

PAIRS = [
    Pair(f"en_{key}", "color_alter", "make it night", given_id=key, metadata={"key": key})
    for key in ("k1", "k2", "k3")
]


def put(file: Path, colour: str = "navy") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 24), colour).save(file)
    return file


@pytest.mark.parametrize(
    ("layout", "place"),
    [
        ("gedit", "fullset/color_alter/en/{}.png"),
        ("imgedit", "{}.png"),
        ("kris", "color_alter/{}.jpg"),
        ("rise", "images/color_alter/{}.jpeg"),
        ("omnicontext", "fullset/color_alter/{}.png"),
        ("rededit", "color_alter/color_alter-{}.png"),
        ("ours", "edits/color_alter/en_{}.webp"),
    ],
)
@pytest.mark.parametrize("given", ["model", "", "inside"])
def test_edits_are_found_by_the_names_of_each_benchmark(
    tmp_path: Path, layout: str, place: str, given: str
) -> None:
    """The user names the folder of a model, of models, or of the pictures themselves."""
    files = [put(tmp_path / "model" / place.format(key)) for key in ("k1", "k3")]
    below = "model/" + place.partition("/")[0] if "/" in place and layout != "kris" else "model"
    pairs = [replace(pair, data_set=layout) for pair in PAIRS]
    found = find_edits(tmp_path / {"inside": below}.get(given, given), pairs)
    assert found.name == layout
    assert [found.find(pair) for pair in (PAIRS[0], PAIRS[2])] == files
    missing = found.find(PAIRS[1])
    assert isinstance(missing, InputError) and f"is missing in {tmp_path / 'model'}" in str(missing)


def test_a_folder_without_such_edits_says_what_it_looked_for(tmp_path: Path) -> None:
    put(tmp_path / "other.png")
    own = [replace(pair, data_set="gedit") for pair in PAIRS]
    with pytest.raises(InputError, match=r"none of these edits: fullset/color_alter/en/k1\.png"):
        find_edits(tmp_path, own)
    with pytest.raises(InputError, match="is not a folder"):
        find_edits(tmp_path / "nothing", PAIRS)


def test_edits_of_two_models_are_not_mixed(tmp_path: Path) -> None:
    for model in ("a", "b"):
        put(tmp_path / model / "fullset/color_alter/en/k1.png")
    with pytest.raises(InputError, match=r"several folders \(a, b\); name one"):
        find_edits(tmp_path, PAIRS)


def test_edits_in_a_folder_are_scored_without_an_editor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, made = tmp_path / "pairs", tmp_path / "made"
    rows = []
    for name in ("a", "b", "c"):
        put(data / f"{name}.png", "white")
        rows.append({"input_file_name": f"{name}.png", "instruction": "x", "category": "sky"})
    (data / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    edits = [put(made / f"images/sky/{name}.png") for name in ("a", "c")]
    config = tmp_path / "bench.yaml"
    nowhere = {"model": str(tmp_path / "there is no such model")}
    config.write_text(yaml.safe_dump(settings(data=str(data), device="cpu", editor=nowhere)))
    command = ["--config", str(config), "--output-dir", str(tmp_path / "out"), "--no-gallery"]
    command += ["--score-only", str(made)]
    main([*command, "--dry-run"], InlineBackend())
    assert "Plan for scores: 2 new" in capsys.readouterr().out and not (tmp_path / "out").exists()
    for expected in (2, 0):  # verdicts, then none: what is scored is not scored again
        backend = InlineBackend()
        assert main(command, backend) == 1
        results = tmp_path / "out" / "pairs-made"
        records = [json.loads(line) for line in (results / "results.jsonl").open()]
        assert [r["outcome"] for r in records] == ["scored", "edit_failed", "scored"]
        assert [r["edited_image"] for r in records] == [str(edits[0]), None, str(edits[1])]
        assert "images/sky/b.png is missing" in records[1]["error"]
        printed = capsys.readouterr()
        assert f"editor: edits in {made} (rise)" in printed.out
        assert ("Plan for scores: 2 new" in printed.err) == (expected == 2)
    assert not (results / "edits").exists()
    summary = json.loads((results / "summary.json").read_text())
    assert summary["overall"]["failed"] == 1 and summary["overall"]["scored"] == 2


def test_edits_that_the_data_brings_are_scored_as_they_are(tmp_path: Path) -> None:
    given = put(tmp_path / "given.jpg")
    pairs = [made_pair(tmp_path / f"{i}.png", i) for i in range(3)]
    brings = [
        Pair(**{**vars(pair), "edited_image": str(file)})
        for pair, file in zip(pairs, [given, tmp_path / "gone.png", ""], strict=True)
    ]
    values = load_benchmark_settings(settings(device="cpu"))
    with EditBenchmark(values, tmp_path / "out", backend=InlineBackend()) as run:
        run.prepare(PairSet("brought", brings))
        first, second, third = run.run()
    assert first.edit.output_path == str(given) and first.score is not None
    assert second.edit.error == f"edited_image: '{tmp_path / 'gone.png'}' is missing."
    assert third.edit.status == "done" and third.score is not None
