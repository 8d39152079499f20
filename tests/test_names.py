"""Names of files made from what people write: in every script, and no two on one name."""

import json
import unicodedata
from pathlib import Path

import pytest
import regex

from apps.edit_benchmark.categories import category_folder
from apps.edit_benchmark.pairs import read_pairs
from apps.edit_benchmark.settings import load_benchmark_settings
from apps.tweets.tweets_file import read_tweets
from core.errors import InputError
from core.judge import load_judge
from tests.conftest import Project
from tests.edit_world import Bench, pair

LONGEST = 255  # bytes of a name


def run_folder(folder: Path, name: str) -> str:
    file = folder / f"{name}.json"
    file.write_text('[{"prompt": "a"}]')
    return read_tweets(file).name_of_run


def picture_of(folder: Path, persona: str) -> str:
    file = folder / "tweets.json"
    file.write_text(
        json.dumps({"persona": {"name": persona}, "tweets": [{"prompt": "a"}]}), "utf-8"
    )
    (task,) = read_tweets(file).inputs
    assert isinstance(task, dict)
    return str(task["output_path"])


def pair_ids(folder: Path, *ids: str) -> list[str]:
    lines = [
        json.dumps({"input_file_name": "a.png", "instruction": "x", "pair_id": i}) for i in ids
    ]
    (folder / "metadata.jsonl").write_text("\n".join(lines), "utf-8")
    return [pair.pair_id for pair in read_pairs(folder, folder / "work").pairs]


def test_names_that_differ_in_a_mark_have_folders_of_their_own(project: Project) -> None:
    for name in ("कि", "का"):
        file = project.write_tweets([{"prompt": name}], f"{name}.json")
        run = project.run([file])
        assert run.process.returncode == 0, run.errors
    assert {p.name for p in (project.folder / "out").iterdir()} == {"कि", "का"}
    assert (project.folder / "out" / "कि" / "कि_00.png").is_file()


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("प्रिया", "प्रिया"),
        ("ศรีสุดา", "ศรีสุดา"),
        ("שָׁלוֹם", "שָׁלוֹם"),
        ("e\u0301te\u0301", "été"),  # as macOS spells it
        ("\u1112\u1161\u11ab", "한"),
        ("\u0301abc", "abc"),  # a mark on nothing
    ],
)
def test_marks_stay_and_letters_are_composed(tmp_path: Path, written: str, name: str) -> None:
    name = unicodedata.normalize("NFC", name)
    assert run_folder(tmp_path, written) == name
    assert picture_of(tmp_path, written) == f"{name}_00.png"
    assert pair_ids(tmp_path, written) == [name]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Mira", "Mira"),
        ("Mira K. (2)", "Mira_K_2"),
        ("颜色", "颜色"),
        ("Zoë 星", "Zoë_星"),
        ("mira🌸", "mira"),
        ("می\u200cخواهم", "می_خواهم"),
        ("-rf", "-rf"),
        ("con", "con"),
        ("字" * 60, "字" * 60),
    ],
)
def test_a_name_that_was_fit_keeps_what_was_made_of_it(
    tmp_path: Path, written: str, name: str
) -> None:
    assert run_folder(tmp_path, written) == name
    assert picture_of(tmp_path, written) == f"{name}_00.png"


@pytest.mark.parametrize("letter", ["字", "𠮷", "क्षि", "é", "x"])
def test_a_long_name_is_cut_between_characters(tmp_path: Path, letter: str) -> None:
    name = letter * 120
    files = [picture_of(tmp_path, name).removesuffix("_00.png"), *pair_ids(tmp_path, name)]
    assert all(len(f"{file}_99999.webp".encode()) <= LONGEST for file in files)
    folders = [run_folder(tmp_path, name[:60]), category_folder(name)]
    assert all(len(folder.encode()) <= LONGEST for folder in folders)
    for made in [*files, *(folder.rpartition("-")[0] or folder for folder in folders)]:
        assert set(regex.findall(r"\X", made)) == set(regex.findall(r"\X", letter))


def test_a_persona_with_a_long_name_in_any_script_is_drawn(project: Project) -> None:
    content = {"persona": {"name": "字" * 100}, "tweets": [{"prompt": "a"}, {"prompt": "b"}]}
    run = project.run([project.write_tweets(content)])
    assert run.process.returncode == 0, run.errors
    assert len(list(project.pictures.glob("字*.png"))) == 2


def test_long_names_that_begin_alike_are_told_apart(tmp_path: Path) -> None:
    start = "x" * 150
    folders = [run_folder(tmp_path, f"{start}{end}") for end in ("a", "b")]
    assert len(set(folders)) == 2 and all(f.startswith("x" * 90) for f in folders)
    start = "字" * 100
    assert len({category_folder(f"{start}{end}") for end in "ab"}) == 2
    assert len(set(pair_ids(tmp_path, f"{start}a", f"{start}b", f"{start}c"))) == 3


def test_names_without_a_letter_are_told_apart(tmp_path: Path) -> None:
    written = ["🌸", "🎉", "...", "!!!", "👩\u200d👧"]
    assert len({run_folder(tmp_path, name) for name in written}) == len(written)
    assert len({category_folder(name) for name in written}) == len(written)
    assert len(set(pair_ids(tmp_path, *written))) == len(written)


def test_categories_that_differ_in_spelling_only_are_told_apart() -> None:
    spelt = ["é", "e\u0301", "a b", "a_b", "a:b", "a_b ", "कि", "का", "."]
    assert len({category_folder(category) for category in spelt}) == len(spelt)


def test_many_pairs_on_one_long_name_end_in_as_many_names(tmp_path: Path) -> None:
    ids = [f"{'字' * 90}{i}" for i in range(30)]
    made = pair_ids(tmp_path, *ids)
    assert len(set(made)) == 30 and max(len(f"{m}.json".encode()) for m in made) <= LONGEST


def test_an_id_given_twice_is_still_no_pair(tmp_path: Path) -> None:
    pair_ids(tmp_path, "कि", "का", "कि")
    pairs = read_pairs(tmp_path, tmp_path / "work").pairs
    assert [isinstance(p.problem, InputError) for p in pairs] == [False, False, True]


def test_a_long_data_name_and_category_still_give_every_table(project: Project) -> None:
    bench = Bench(project)
    bench.write_pairs([pair(0, category="字" * 90), pair(1, category="字" * 91)])
    bench.data = bench.data.rename(bench.data.with_name("颜" * 80))
    bench.results = bench.results.with_name(bench.data.name)
    run = bench.run()
    assert run.process.returncode == 0, run.errors
    assert len(list((bench.results / "gedit").glob("*_gpt_score.csv"))) == 2


def test_a_judge_with_a_long_name_has_a_folder_of_its_own() -> None:
    settings = load_benchmark_settings({"judge": {"type": "clip", "prompts": None}}).judge
    judge = load_judge(settings)
    assert judge.name("org/Qwen3-VL-8B@main") == "clip-similarity-Qwen3-VL-8B"
    assert judge.name("/models/my judge#12ab") == "clip-similarity-my-judge"
    assert len({judge.name(f"models/{'x' * 80}{end}") for end in "ab"}) == 2
    assert len(judge.name("models/" + "字" * 100).encode()) <= LONGEST
