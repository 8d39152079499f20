"""The shipped protocols of benchmarks give what the benchmarks' own scripts compute.

Each test computes the published statistic in its own way, from answers at random.
"""

import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from apps.edit_benchmark.data_set import DATA_SETS
from apps.edit_benchmark.settings import load_benchmark_settings
from core.devices.edit_models import judge_settings
from core.devices.model_choice import ModelChoice
from core.judge import load_judge
from core.judge_protocol import JudgePrompts, PictureSize
from core.judge_rows import Row, fields_named
from core.messages import Lease
from core.tasks import ScoreTask
from tests.published_sets import written
from workers.judges.pictures import pictures_of, sized

SETTINGS = load_benchmark_settings()
REFERENCE = {"reference": "stars", "target": "target"}


def protocol(file: str) -> JudgePrompts:
    return load_judge(SETTINGS.judge.model_copy(update={"prompts": file})).prompts


def scored(prompts: JudgePrompts, row: Row, said: Mapping[str, Any]) -> dict[str, float]:
    """Scores of a pair whose judge says, for each call, one number per part."""
    answers = []
    for call in prompts.asked({"instruction": "do", **row}):
        reading = call.read(json.dumps({"score": said[call.name], "reasoning": "-"}))
        assert reading.parts is not None, reading.problem
        answers.append({"parts": reading.parts, "value": call.value_of(reading.parts)})
    scores = prompts.scores_of({"instruction": "do", **row}, answers)
    assert scores is not None
    return scores


def test_geditbench_is_the_root_of_the_two_least_scores() -> None:
    prompts, draw = protocol("gedit.yaml"), random.Random(0)
    for _ in range(50):
        said = {name: [draw.randint(0, 10), draw.randint(0, 10)] for name in ("SC", "PQ")}
        sc, pq = min(said["SC"]), min(said["PQ"])
        found = scored(prompts, {}, said)
        assert (found["SC"], found["PQ"]) == (sc, pq)
        assert found["O"] == math.sqrt(sc * pq)


def test_geditbench_shows_the_source_as_it_is_and_the_edit_in_its_size(tmp_path: Path) -> None:
    """As its test_gedit_score.py: whatever the size of both, with Pillow's usual filter."""
    prompts, colours = protocol("gedit.yaml"), random.Random(5)
    for size, drawn in (((300, 200), (512, 512)), ((1500, 1100), (1024, 768)), ((64, 640), (9, 9))):
        files = [tmp_path / f"{name}{size[0]}.png" for name in ("source", "edit")]
        for file, each in zip(files, (size, drawn), strict=True):
            small = Image.frombytes("RGB", (8, 8), colours.randbytes(192))
            small.resize(each).save(file)
        source, edit = map(str, files)
        task = ScoreTask(
            edited_image=edit, source_images=(source,), instruction="a", at_source_size=True
        )
        shown = pictures_of(Lease("1", 1, task, None, "", "", {}), prompts, None)
        with Image.open(source) as image, Image.open(edit) as edited:
            assert shown["source"][0].tobytes() == image.tobytes()
            assert shown["edited"][0].tobytes() == edited.resize(image.size).tobytes()


def test_pictures_can_be_shown_in_one_area_whatever_their_size() -> None:
    size = PictureSize(area=512 * 512, exactly=True)
    for width, height in ((300, 300), (1024, 768), (977, 1311), (64, 640)):
        ratio = width / height
        wide = math.sqrt(512 * 512 * ratio)
        shown = sized(Image.new("RGB", (width, height)), size).size
        assert shown == (int(wide), int(wide / ratio))


def test_risebench_shows_pictures_of_768_pixels_at_most() -> None:
    size = protocol("rise.yaml").pictures
    assert sized(Image.new("RGB", (1536, 1000)), size).size == (768, 500)
    assert sized(Image.new("RGB", (300, 200)), size).size == (300, 200)
    assert sized(Image.new("RGB", (30, 20)), PictureSize(longest_side=60, exactly=True)).size == (
        60,
        40,
    )


@pytest.mark.parametrize("category", ["add", "style", "compose", "hybrid", "something new"])
def test_imgedit_is_the_rounded_mean_of_three_scores(category: str) -> None:
    prompts, draw = protocol("imgedit.yaml"), random.Random(1)
    for _ in range(20):
        three = [draw.randint(1, 5) for _ in range(3)]
        found = scored(prompts, {"category": category}, {"O": three})
        assert found == {"O": round(sum(three) / 3, 2)}
    assert scored(prompts, {"category": "uge"}, {"O": 3}) == {"O": 3}


def test_omnicontext_is_the_root_of_two_scores_and_asks_of_the_scene_where_there_is_one() -> None:
    prompts, draw = protocol("omnicontext.yaml"), random.Random(3)
    for _ in range(20):
        said = {"prompt_following": draw.randint(0, 10), "subject_consistency": draw.randint(0, 10)}
        found = scored(prompts, {"category": "multi_object"}, said)
        assert found["O"] == pytest.approx(math.sqrt(math.prod(said.values())), abs=1e-12)
    kinds = ("character", "object", "character_object")
    rows = [
        {"instruction": "do", "category": f"{many}_{k}"}
        for many in ("multi", "scene")
        for k in kinds
    ]
    following, consistency = zip(
        *([c.text for c in prompts.asked(row)] for row in rows), strict=True
    )
    assert len(set(following)) == 1, "its script asks alike, whether there is a scene or not"
    assert len(set(consistency[:3])) == len(set(consistency[3:])) == 1
    assert consistency[0] != consistency[3]


def test_omnicontext_shows_sources_in_steps_and_the_edit_as_it_is(tmp_path: Path) -> None:
    """As test_omnicontext_score.py: at most 1024 x 1024, then rounded down, and never enlarged."""
    prompts = protocol("omnicontext.yaml")
    sizes = [(1500, 1100), (1024, 1024), (300, 207), (2000, 90), (640, 480)]
    files = [str(tmp_path / f"{i}.png") for i in range(len(sizes) + 1)]
    for file, size in zip(files, [*sizes, (1000, 700)], strict=True):
        Image.new("RGB", size).save(file)
    task = ScoreTask(edited_image=files[-1], source_images=tuple(files[:-1]), instruction="a")
    shown = pictures_of(Lease("1", 1, task, None, "", "", {}), prompts, None)
    wanted = []
    for width, height in sizes:
        if width * height > 1024 * 1024:
            ratio = math.sqrt(1024 * 1024 / (width * height))
            width, height = int(width * ratio), int(height * ratio)
        wanted.append((width // 16 * 16, height // 16 * 16))
    assert [picture.size for picture in shown["source"]] == wanted
    assert [picture.size for picture in shown["edited"]] == [(1000, 700)]
    call = prompts.asked({"instruction": "do", "category": "single_object"})[0]
    pieces = call.pieces({"instruction": "do"}, {"source": 5, "edited": 1})
    assert [piece[0] for piece in pieces] == ["text", *["picture"] * 6]
    assert [piece[1] for piece in pieces[1:]] == [*["source"] * 5, "edited"]


def test_complex_edit_is_the_mean_of_three_scores_each_asked_20_times() -> None:
    prompts = protocol("complex_edit.yaml")
    found = scored(prompts, {}, {"alignment": [7, 10], "perceptual_quality": 4})
    assert found == {
        "instruction_following": 7, "identity_preservation": 10, "perceptual_quality": 4, "O": 7,
    }  # fmt: skip
    assert (prompts.sampling.temperature, prompts.sampling.num_pass) == (1, 20)
    _, quality = prompts.asked({"instruction": "do"})
    assert quality.sees == ["edited"] and "{instruction}" not in quality.text


TASKS = (
    *("add", "adjust", "background", "beauty", "color", "compose", "extract", "lowlevel"),
    *("motion", "portrait", "remove", "replace", "stylize", "text", "viewpoint"),
)


@pytest.mark.parametrize("task", TASKS)
def test_rededit_is_the_rounded_mean_of_three_scores(task: str) -> None:
    prompts, draw = protocol("rededit.yaml"), random.Random(4)
    for _ in range(10):
        three = [draw.randint(1, 5) for _ in range(3)]
        assert scored(prompts, {"category": task}, {"O": three}) == {"O": round(sum(three) / 3, 2)}
    assert (prompts.sampling.temperature, prompts.sampling.top_p) == (0.1, 0.95)
    own = prompts.asked({"instruction": "do", "category": task})[0].text
    assert own != prompts.asked({"instruction": "do", "category": "?"})[0].text


def test_imgedit_asks_each_type_of_edit_another_question() -> None:
    prompts = protocol("imgedit.yaml")
    types = ["add", "adjust", "extract", "replace", "remove", "background", "style", "action"]
    row = {"instruction": "do"}
    texts = {prompts.asked({**row, "category": c})[0].text for c in (*types, "compose", "uge", "?")}
    assert len(texts) == 11


def test_kris_is_the_mean_of_what_a_category_asks_for_out_of_a_hundred() -> None:
    prompts, draw = protocol("kris.yaml"), random.Random(2)
    for category in ("color_change", "multi-element_composition", "temporal_prediction"):
        three = {n: draw.randint(1, 5) for n in ("consistency", "instruction", "quality")}
        found = scored(prompts, {"category": category}, three)
        assert found == {**three, "O": pytest.approx(25 * (sum(three.values()) / 3 - 1))}
    said = {"consistency": 5, "instruction": [2, 4], "quality": 3}
    found = scored(prompts, {"category": "biology", "explain_en": "-"}, said)
    assert (found["instruction"], found["knowledge"]) == (2, 4)
    assert found["O"] == pytest.approx(25 * ((5 + 2 + 4 + 3) / 4 - 1))


def test_kris_shows_the_right_result_where_there_is_one() -> None:
    asked = protocol("kris.yaml").asked(
        {"instruction": "do", "category": "viewpoint_change", "target": "target"}
    )
    assert [call.sees[-1] for call in asked] == ["edited", "target", "edited"]


def kriss_own_order(names: Sequence[str]) -> list[tuple[int, str]]:
    """As metrics_temporal_prediction.py sends frames: by their numbers, the predicted one, too."""
    given = [int(name.partition("-")[2].partition(".")[0]) for name in names]
    missing = {1, 2, 3, 4} - {*given}
    predicted = missing.pop() if len(missing) == 1 else max(given) + 1
    frames = [(number, "source") for number in given]
    return sorted([*frames, (predicted, "edited")])


@pytest.mark.parametrize("predicted", [1, 2, 3, 4])
def test_kris_shows_the_predicted_frame_at_its_place(predicted: int, tmp_path: Path) -> None:
    names = [f"7-{number}.jpg" for number in (1, 2, 3, 4) if number != predicted]
    row = {"ori_img": names, "gt_img": f"7-{predicted}.jpg", "ins_en": "predict it"}
    written(tmp_path / "temporal_prediction" / "annotation.json", {"7": row})
    [pair] = DATA_SETS["kris"].read(tmp_path, tmp_path)
    prompts = protocol("kris.yaml")
    told = {"instruction": "predict it", "category": pair.category}
    asked = prompts.asked({**told, **fields_named(pair.metadata, prompts.row_fields)})
    for call in asked[:2]:
        row_of_pair = {**told, **fields_named(pair.metadata, prompts.row_fields)}
        pieces = call.pieces(row_of_pair, {"source": 3, "edited": 1})
        pictures = [piece[1] for piece in pieces if piece[0] == "picture"]
        order = kriss_own_order(names)
        assert pictures == [kind for _, kind in order]
        captions = [piece[1].split()[1] for piece in pieces[:-1] if piece[0] == "text"]
        assert captions == [str(number) for number, _ in order]
        assert f"Frame {predicted} was made" in str(pieces[-1][1]).replace("frame", "Frame")


def published_rise(category: str, free: bool, said: Mapping[str, int]) -> tuple[float, float]:
    """RISEBench's score from 1 to 5, and whether all is right."""
    reasoning, consistency = float(said["reasoning"]), float(said["consistency"])
    if category == "logical_reasoning":
        reasoning, consistency = 4 * min(reasoning, 1) + 1, 4 * min(consistency, 1) + 1
        score = 0.3 * consistency + 0.7 * reasoning
        complete = consistency == 5 and reasoning == 5
    else:
        quality = float(said["quality"])
        score = 0.3 * consistency + 0.5 * reasoning + 0.2 * quality
        if free:
            score = 0.2 * quality + 0.8 * reasoning
        complete = consistency == reasoning == quality == 5 and not free
    if reasoning == 1:
        score = max(1, score * 0.5)
    return score, float(complete)


@pytest.mark.parametrize(
    ("category", "free"),
    [
        ("temporal_reasoning", False),
        ("causal_reasoning", True),
        ("spatial_reasoning", False),
        ("spatial_reasoning", True),
        ("logical_reasoning", False),
    ],
)
def test_rise_is_weighted_and_halved_as_published(category: str, free: bool) -> None:
    prompts, draw = protocol("rise.yaml"), random.Random(3)
    logical = category == "logical_reasoning"
    row = {**REFERENCE, "category": category, **({"consistency_free": "true"} if free else {})}
    seen = set()
    for _ in range(200):
        low, high = (0, 1) if logical else (1, 5)
        said = {n: draw.randint(low, high) for n in ("consistency", "reasoning", "quality")}
        score, complete = published_rise(category, free, said)
        found = scored(prompts, row, said)
        assert found["O"] == pytest.approx(25 * (score - 1))
        assert found["accuracy"] == 100 * complete
        seen.add(complete)
    assert ("quality" in found) is not logical and ("consistency" in found) is not free
    assert seen == ({0.0} if free else {0.0, 1.0})


@pytest.mark.parametrize(
    ("row", "pictures"),
    [
        ({"category": "temporal_reasoning"}, [["source", "edited"], ["edited"], ["edited"]]),
        (
            {"category": "causal_reasoning", "reasoning_img": "x.png"},
            [["source", "edited"], ["source", "edited"], ["edited"]],
        ),
        (
            {"category": "spatial_reasoning", "target": "target"},
            [["target", "edited"], ["target", "edited"], ["edited"]],
        ),
        (
            {"category": "logical_reasoning", "reference_txt": "2"},
            [["source", "edited"], ["edited"]],
        ),
        (
            {"category": "logical_reasoning", "target": "target"},
            [["target", "edited"], ["target", "edited"]],
        ),
    ],
)
def test_rise_shows_the_pictures_that_its_script_shows(
    row: dict[str, str], pictures: list[list[str]]
) -> None:
    asked = protocol("rise.yaml").asked({"instruction": "do", "reference": "r", **row})
    assert [call.sees for call in asked] == pictures


def test_each_data_set_has_its_own_protocol_unless_settings_or_model_name_one() -> None:
    def chosen(data_set: str, model: str = "a/judge", **judge: Any) -> str:
        settings = load_benchmark_settings({"judge": judge}).for_data_set(data_set)
        prompts = judge_settings(settings, ModelChoice(model, model, "")).prompts
        assert prompts is not None
        return Path(prompts).name

    assert chosen("rise") == "rise.yaml" and chosen("imagefolder") == "viescore.yaml"
    assert chosen("rise", prompts="kris.yaml") == "kris.yaml"
    assert chosen("rise", type="vlm_logits") == "viescore_logits.yaml"
    assert chosen("rise", "x/demo_model/judge") == "demo.yaml"
    assert set(SETTINGS.judge_protocols) <= {*DATA_SETS, "default"}


def test_a_config_that_is_called_as_a_protocol_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "kris.yaml").write_text("editor: {model: simulated}\n")
    settings = load_benchmark_settings({}).for_data_set("kris")
    judge = judge_settings(settings, ModelChoice("a/judge", "a/judge", ""))
    assert load_judge(judge, tmp_path).prompts.name == "kris"


def test_a_form_of_data_is_told_before_it_is_read(tmp_path: Path) -> None:
    from apps.edit_benchmark.data_set import form_of

    (tmp_path / "metadata.jsonl").write_text("{}\n")
    assert form_of(tmp_path) in ("imagefolder", "gedit")


def test_pairs_that_cannot_be_judged_are_told_before_anything_is_edited(tmp_path: Path) -> None:
    from apps.edit_benchmark.pair import Pair
    from apps.edit_benchmark.pairs import PairSet
    from apps.edit_benchmark.runner import EditBenchmark

    (tmp_path / "data").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    source = (str(tmp_path / "a.png"),)
    pairs = [
        Pair("1", "temporal_reasoning", "age it", source, metadata={"reference": "old"}),
        Pair("2", "temporal_reasoning", "age it", source, index=1),
    ]
    simulated = {"editor": {"model": "simulated"}, "judge": {"model": "simulated"}}
    simulated["judge"]["prompts"] = "rise.yaml"
    settings = load_benchmark_settings({**simulated, "use_server": "never", "device": "cpu"})
    with EditBenchmark(settings, tmp_path / "out", dry_run=True) as run:
        plan = run.plan(PairSet("data", pairs))
    [problem] = plan.problems
    assert problem.startswith("1 of 2 pairs cannot be judged; the first, temporal_reasoning/2: ")
    assert "needs the field 'reference'" in problem and not (tmp_path / "out").exists()
