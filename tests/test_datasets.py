"""Folders of results as `datasets` of Hugging Face loads them, in both of its forms."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from core.store.dataset_folder import in_readable_order, settle, with_exact_seeds
from tests.conftest import Project, simulated
from tests.edit_world import Bench, pair

Load = Callable[[Path], list[dict[str, Any]]]
COLUMNS = {"image", "task_id", "prompt", "seed", "lora", "width", "metadata", "fingerprint"}


def load_dataset(path: str, **options: Any) -> Any:
    import datasets  # half a second, and threads: for no other test process

    datasets.disable_progress_bars()
    return datasets.load_dataset(path, **options)


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """All rows of a folder, which is one split; by the builder's name, and by the folder alone."""
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    cache = str(tmp_path / "cache")

    def rows(folder: Path) -> list[dict[str, Any]]:
        by_builder = load_dataset("imagefolder", data_dir=str(folder), cache_dir=cache)
        by_folder = load_dataset(str(folder), cache_dir=cache)
        assert list(by_builder) == list(by_folder) == ["train"]
        found = [dict(row) for row in by_folder["train"]]
        for row, other in zip(found, by_builder["train"], strict=True):
            assert row["image"].tobytes() == other["image"].tobytes()
            assert {**row, "image": None} == {**other, "image": None}
        return found

    return rows


def drawn(project: Project, tweets: Any, name: str = "tweets", exit_code: int = 0) -> Path:
    """The folder of a run on simulated devices."""
    run = project.run([project.write_tweets(tweets, f"{name}.json")])
    assert run.process.returncode == exit_code, run.errors
    return project.folder / "out" / name


def small(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"p{i}", "width": 16, "height": 16, **fields} for i in range(count)]


def made(folder: Path, *names: str) -> Path:
    """A folder with pictures and their table, as a run leaves it."""
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (i, 0, 0)).save(folder / name, lossless=True)
    rows = [{"file_name": name, "seed": i} for i, name in enumerate(names)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    (folder / "results.jsonl").write_text('{"success": true}\n' * 5, "utf-8")
    return folder


@pytest.mark.parametrize("count", [2, 60])
def test_all_pictures_of_a_run_are_rows_with_columns(
    project: Project, load: Load, count: int
) -> None:
    tweets = small(count)
    folder = drawn(project, [*tweets, {"prompt": "!nan"}, *small(1)], exit_code=1)
    rows = load(folder)
    assert [row["prompt"] for row in rows] == [t["prompt"] for t in [*tweets, *small(1)]]
    assert set(rows[0]) >= COLUMNS


@pytest.mark.parametrize("name", ["test", "my dev set", "latest"])
def test_words_for_splits_in_the_name_of_a_run_hide_nothing(
    project: Project, load: Load, name: str
) -> None:
    file = project.write_tweets({"persona": {"name": name}, "tweets": small(3)}, f"{name}.json")
    assert project.run([file]).process.returncode == 0
    (folder,) = (project.folder / "out").iterdir()
    rows = load(folder)
    assert len(rows) == 3 and set(rows[0]) >= COLUMNS
    assert (folder / "train-links").exists() == (name != "latest")  # where there is no need


WORDS = [
    ("house.png", "test_tubes.png", "tree.png"),
    ("a.png", "dev/b.png", "train/c.png"),
    ("train/a.png", "train/b.png"),
    ("training 1/a.png", "b.webp"),
    ("x/my-eval/y.z/a.png", "valid.png"),
    ("evaluation.webp", "data/a::b [1]?#.png", "validation/星 %20.png"),
    ("test_कि.png", "Test/a.png"),
]


@pytest.mark.parametrize("names", WORDS)
def test_words_for_splits_in_paths_hide_nothing(
    tmp_path: Path, load: Load, names: tuple[str, ...]
) -> None:
    folder = made(tmp_path / "test" / "a dev run", *names)
    settle(folder)
    rows = load(folder)
    assert [row["seed"] for row in rows] == list(range(len(names)))
    assert [row["image"].getpixel((0, 0))[0] for row in rows] == list(range(len(names)))
    assert all((folder / name).is_file() and not (folder / name).is_symlink() for name in names)


def test_a_picture_from_before_1980_is_loaded(tmp_path: Path, load: Load) -> None:
    folder = made(tmp_path / "out", "test/a.png", "b.png")
    os.utime(folder / "b.png", (0, 0))
    settle(folder)
    assert len(load(folder)) == 2


@pytest.mark.parametrize("names", WORDS[:2])
def test_words_for_splits_in_the_output_paths_of_a_run_hide_nothing(
    project: Project, load: Load, names: tuple[str, ...]
) -> None:
    tweets = [{**t, "output_path": n} for t, n in zip(small(3), names, strict=True)]
    rows = load(drawn(project, tweets))
    assert [row["prompt"] for row in rows] == ["p0", "p1", "p2"] and set(rows[0]) >= COLUMNS


def test_words_in_webp_names_hide_nothing(project: Project, load: Load) -> None:
    file = project.write_tweets(small(2), "test.json")
    project.run([file], simulated(workers={"picture_format": "webp"}))
    assert len(load(project.folder / "out" / "test")) == 2


def test_a_run_that_grows_and_changes_is_loaded_as_it_is(project: Project, load: Load) -> None:
    for places in (["test/a.png", "b.png"], ["test/a.png", "b.png", "dev_c.png"]):
        tweets = [{**t, "output_path": n} for t, n in zip(small(3), places, strict=False)]
        folder = drawn(project, tweets)
    assert [row["prompt"] for row in load(folder)] == ["p0", "p1", "p2"]
    tweets[1]["prompt"] = "else"
    drawn(project, tweets)
    assert [row["prompt"] for row in load(folder)] == ["p0", "else", "p2"]


def test_the_same_command_again_still_draws_nothing(project: Project) -> None:
    tweets = [{**t, "output_path": n} for t, n in zip(small(3), WORDS[1], strict=True)]
    folder = drawn(project, tweets)
    kept = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.suffix in (".png", ".zip")}
    (folder / "ledger.sqlite").unlink()
    run = project.run([project.folder / "tweets.json"])
    assert run.output.splitlines()[0] == "3 tweets: 3 skipped", run.errors
    assert {p: p.stat().st_mtime_ns for p in kept} == kept


def test_replaced_pictures_in_a_hidden_folder_are_passed_over(tmp_path: Path, load: Load) -> None:
    folder = made(tmp_path / "out", "a.png", "b.png")
    made(folder / ".replaced" / "2026-01-01", "a.png", "test_c.png")
    settle(folder)
    assert [row["seed"] for row in load(folder)] == [0, 1]


def test_links_and_copies_go_when_they_are_not_needed(tmp_path: Path, load: Load) -> None:
    folder = made(tmp_path / "out", "a.png", "test/b.png", "dev_c.png")
    settle(folder)
    assert (folder / "data").is_dir() and len(load(folder)) == 3
    (folder / "test" / "b.png").unlink()
    (folder / "test").rmdir()
    settle(made(folder, "a.png", "dev_c.png"))
    assert (folder / "train-links").is_dir() and not (folder / "data").exists()
    assert len(load(folder)) == 2
    (folder / "dev_c.png").unlink()
    settle(made(folder, "a.png"))
    kept = [".huggingface.yaml", "a.png", "metadata.jsonl", "results.jsonl"]
    assert sorted(p.name for p in folder.iterdir()) == kept


def test_what_a_user_keeps_in_the_folder_stays(tmp_path: Path) -> None:
    folder = made(tmp_path / "out", "test/a.png", "b.png")
    for name in ("README.md", ".huggingface.yaml", "data/train-00000-of-00001.zip"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    (folder / "train-links").mkdir()
    (folder / "train-links" / "mine.txt").write_text("mine")
    settle(folder)
    for name in ("README.md", ".huggingface.yaml", "data/train-00000-of-00001.zip"):
        assert (folder / name).read_text() == "mine"
    assert [p.name for p in (folder / "train-links").iterdir()] == ["mine.txt"]


def test_links_of_a_users_own_stay(tmp_path: Path) -> None:
    folder = made(tmp_path / "out", "a.png", "b.png")
    links = folder / "train-links"
    links.mkdir()
    (links / "mine.png").symlink_to("../a.png")
    settle(folder)
    assert (links / "mine.png").is_symlink()


def test_a_copy_of_the_pictures_is_made_only_where_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(tmp_path / "out", "test/a.png", "b.png")
    archive = folder / "data" / "train-00000-of-00001.zip"
    settle(folder)
    assert archive.exists()
    made(folder, "test/a.png", "b.png", "c.png")
    room = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr("shutil.disk_usage", lambda path: room)
    settle(folder)
    assert not archive.exists(), "what is there no longer tells the truth"


def test_configs_of_a_users_own_count(tmp_path: Path) -> None:
    folder = made(tmp_path / "out", "a.png", "b.png", "c.png")
    settle(folder)
    files = [{"split": "test", "path": ["metadata.jsonl", "*.png"]}]
    configs = {"configs": [{"config_name": "default", "data_files": files}]}
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(configs)}---\n# Mine\n")
    settle(folder)
    loaded = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["test"] and len(loaded["test"]) == 3


def test_a_read_me_beside_the_pictures_changes_nothing(tmp_path: Path, load: Load) -> None:
    folder = made(tmp_path / "out", "a.png")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    settle(folder)
    assert len(load(folder)) == 1


@pytest.mark.parametrize("largest", [2**63 - 1, 2**64 - 1])
def test_large_seeds_are_loaded_to_the_last_digit(tmp_path: Path, load: Load, largest: int) -> None:
    folder = made(tmp_path / "out", "a.png", "b.png", "c.png")
    seeds = zip("abc", [42, None, largest], strict=True)
    rows = with_exact_seeds([{"file_name": f"{name}.png", "seed": seed} for name, seed in seeds])
    (folder / "metadata.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    settle(folder)
    found = [row["seed"] for row in load(folder)]
    assert [None if seed is None else int(seed) for seed in found] == [42, None, largest]


def test_a_column_that_begins_empty_is_loaded_however_long_the_table(
    tmp_path: Path, load: Load
) -> None:
    folder = made(tmp_path / "out", "a.png")
    row = {"file_name": "a.png", "prompt": "x" * 20_000, "lora": None, "seed": 1}
    rows = [dict(row) for _ in range(600)]
    rows[590]["lora"] = "ink.safetensors"
    text = "".join(json.dumps(r) + "\n" for r in in_readable_order(rows))
    (folder / "metadata.jsonl").write_text(text)
    settle(folder)
    loaded = load(folder)
    assert len(loaded) == 600 and loaded[0]["lora"] == "ink.safetensors"
    assert in_readable_order(rows[580:]) == rows[580:]  # a short one stays as it is


@pytest.mark.parametrize("categories", [("sky", "颜色"), ("test", "dev station")])
def test_all_edits_of_a_benchmark_are_rows_with_columns(
    project: Project, load: Load, categories: tuple[str, str]
) -> None:
    bench = Bench(project)
    bench.write_pairs([pair(i, category=categories[i % 2]) for i in range(3)])
    bench.data = bench.data.rename(bench.data.with_name("my-test"))
    assert bench.run().process.returncode == 0
    rows = load(bench.results.with_name("my-test"))
    assert [row["category"] for row in rows] == [categories[i % 2] for i in range(3)]
    assert set(rows[0]) == {"image", "pair_id", "category", "instruction", "seed", "scores"}


def test_replaced_edits_are_loaded_though_verdicts_lie_beside_them(
    project: Project, tmp_path: Path
) -> None:
    bench = Bench(project)
    bench.write_pairs([pair(i) for i in range(3)])
    for steps in (2, 4):
        run = bench.run(editor={"defaults": {"num_inference_steps": steps}})
        assert run.process.returncode == 0, run.errors
    (kept,) = (bench.results / ".replaced").iterdir()
    cache = str(tmp_path / "cache")
    rows = load_dataset(str(kept), split="train", cache_dir=cache)
    assert [row["num_inference_steps"] for row in rows] == [2, 2, 2]
    assert all(row["image"].size == (64, 64) for row in rows)
