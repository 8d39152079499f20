"""Paths as users write them: homes that are there or not, names of any kind, narrow locales."""

import json
import pwd
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from apps.edit_benchmark.pairs import find_data
from apps.edit_benchmark.settings import load_benchmark_settings
from apps.tweets.command import main
from apps.tweets.tweets_file import read_tweets
from core.checkpoints.lora_files import find_lora
from core.devices.device import choose_devices
from core.devices.model_choice import choose_model
from core.errors import MultiGPUError
from core.judge import load_judge
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.pictures.source_images import inspect_image
from core.settings import load_settings
from tests.conftest import PROJECT, Project, simulated, write_safetensors
from tests.edit_world import Bench, pair
from tests.inline_backend import InlineBackend
from tests.warm_commands import WarmCommand

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def use_prompts(path: str) -> object:
    judge = load_benchmark_settings().judge
    return load_judge(judge.model_copy(update={"prompts": path}), Path.cwd())


def use_output_folder(path: str) -> object:
    generator = MultiGPUImageGenerator(1, config=simulated(), output_dir=path)
    generator.prepare([], [])
    generator.stop()
    return generator.output_folder


USES: dict[str, Callable[[str], object]] = {
    "config": load_settings,
    "data": find_data,
    "lora_path": lambda path: find_lora(path, [Path.cwd()]),
    "model": lambda path: choose_model(path, None, "auto", choose_devices()).path_or_id,
    "output_dir": use_output_folder,
    "judge.prompts": use_prompts,
    "source_images": inspect_image,
    "TWEETS": lambda path: read_tweets(Path(path)),
}


def make(kind: str, place: Path) -> None:
    """Something at `place` that can be used as that kind of path."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if kind == "config":
        place.write_text("seed: 5\n")
    elif kind == "lora_path":
        write_safetensors(place)
    elif kind == "judge.prompts":
        shutil.copy(PROJECT / "config" / "judges" / "viescore.yaml", place)
    elif kind == "source_images":
        Image.new("RGB", (8, 8)).save(place, "PNG")
    elif kind == "TWEETS":
        place.write_text('[{"prompt": "a"}]')
    else:
        place.mkdir()
        (place / "model_index.json").write_text("{}")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder; the home folder is another one."""
    folder = tmp_path / "here"
    (tmp_path / "home").mkdir()
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return folder


def take_home_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number which no user has."""

    def unknown(_: object) -> object:
        raise KeyError("no such user")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.parametrize("kind", USES)
def test_a_path_below_the_home_folder_is_found(here: Path, kind: str) -> None:
    make(kind, here.parent / "home" / "of mine" / "thing")
    found = USES[kind]("~/of mine/thing")
    assert not isinstance(found, Path | str) or str(found) == str(
        here.parent / "home/of mine/thing"
    )


@pytest.mark.parametrize("kind", USES)
@pytest.mark.parametrize("name", ["~thing", "~/thing", "~root/thing"])
def test_a_name_that_only_looks_like_a_home_is_found(
    here: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    take_home_away(monkeypatch)
    make(kind, here / name)
    found = USES[kind](name)
    assert not isinstance(found, Path | str) or str(found) == str(here / name)


@pytest.mark.parametrize("kind", [kind for kind in USES if kind != "output_dir"])
@pytest.mark.parametrize("name", ["~thing", "~/thing"])
def test_a_home_that_does_not_exist_is_one_clear_error(
    here: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    take_home_away(monkeypatch)
    with pytest.raises(MultiGPUError, match=name):
        USES[kind](name)


@pytest.mark.parametrize("kind", USES)
@pytest.mark.parametrize(
    "name", ["a\0b", "~a\0b", "x" * 300, "~" + "x" * 300, "y/" * 2500, "\ud800"]
)
def test_a_path_that_no_file_can_have_is_one_clear_error(here: Path, kind: str, name: str) -> None:
    with pytest.raises(MultiGPUError, match=kind) as refusal:
        USES[kind](name)
    assert len(str(refusal.value)) < 600


def test_a_lora_without_its_home_fails_alone(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take_home_away(monkeypatch)
    write_safetensors(here / "~near.safetensors")
    loras = ["~snow.safetensors", "~/snow.safetensors", "~near.safetensors", None]
    tweets = [{"prompt": "a", "lora_path": lora} for lora in loras]
    (here / "tweets.json").write_text(json.dumps(tweets))
    (here / "settings.yaml").write_text("model: simulated\noutput_dir: ~/out\n")
    line = ["tweets.json", "1", "--config", "settings.yaml"]
    assert main(line, backend=InlineBackend()) == 1
    lines = (here / "~" / "out" / "tweets" / "results.jsonl").read_text().splitlines()
    statuses = [json.loads(line)["status"] for line in lines]
    assert statuses == ["failed", "failed", "done", "done"]


@pytest.fixture(scope="session")
def made_latin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str] | None:
    """A locale of the last century, made where its sources are."""
    folder = tmp_path_factory.mktemp("locales")
    line = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(folder / "en_US.ISO-8859-1")]
    if shutil.which(line[0]) is None or subprocess.run(line, capture_output=True).returncode:
        return None
    return {"LOCPATH": str(folder), "LC_ALL": "en_US.ISO-8859-1"}


@pytest.fixture
def latin(made_latin: dict[str, str] | None) -> dict[str, str]:
    if made_latin is None:
        pytest.skip("NOT TESTED: localedef or its sources are missing (package `locales`)")
    return made_latin


@pytest.fixture(params=["latin", "ascii"])
def narrow(request: pytest.FixtureRequest) -> dict[str, str]:
    """Variables for a locale that has no letters for most names."""
    found: dict[str, str] = request.getfixturevalue("latin") if request.param == "latin" else ASCII
    return found


def test_names_that_the_locale_cannot_encode_are_drawn_and_found_again(
    project: Project, narrow: dict[str, str]
) -> None:
    write_safetensors(project.folder / "雪.safetensors")
    names = ["ミラ.png", "星/ü.png", "ok.png"]
    tweets: list[dict[str, Any]] = [{"prompt": "ö 🦋", "output_path": name} for name in names]
    tweets.append({"prompt": "a", "lora_path": "雪.safetensors", "task_id": "最後"})
    file = project.write_tweets(tweets, "只今.json")
    project.environment = narrow
    run = project.run([file, 2])
    assert run.process.returncode == 0 and "Traceback" not in run.errors, run.errors
    assert project.run([file, 2]).output.splitlines()[0] == "4 tweets: 4 skipped"
    pictures = project.folder / "out" / "只今"
    (pictures / "ledger.sqlite").unlink()
    assert project.run([file, 2]).output.splitlines()[0] == "4 tweets: 4 skipped"
    rows = [
        json.loads(line) for line in (pictures / "metadata.jsonl").read_text("utf-8").splitlines()
    ]
    assert [row["file_name"] for row in rows] == [*names, "只今_03.png"]
    assert rows[3]["lora"] == "雪.safetensors" and rows[3]["task_id"] == "最後"
    project.environment = {}
    again = project.run([file, 2]).output.splitlines()[0]
    # The disk's bytes of `ü` are the locale's, where it has that letter.
    assert again == f"4 tweets: {'1 done, 3' if narrow != ASCII else '4'} skipped"


def test_a_stack_of_such_names_reaches_its_worker(project: Project) -> None:
    for name in ("雪", "花"):
        write_safetensors(project.folder / f"{name}.safetensors", f"{name}.lora_A")
    stack = [{"path": "雪.safetensors", "strength": 0.5}, "花.safetensors"]
    project.environment = ASCII
    run = project.run([project.write_tweets([{"prompt": "a", "loras": stack}]), 1])
    assert run.process.returncode == 0, run.errors
    assert "1 done; 2 LoRA loads" in run.output


def test_names_on_the_command_line_are_text_under_every_locale(
    project: Project, narrow: dict[str, str]
) -> None:
    file = project.write_tweets([{"prompt": "a", "output_path": "test 雪/ü.png"}])
    project.environment = narrow
    run = project.run([file, 1, "--name", "प्रिया 雪"])
    assert run.process.returncode == 0, run.errors
    pictures = project.folder / "out" / "प्रिया 雪"
    # For Hugging Face's datasets, as "test" in a name is a split for them.
    with zipfile.ZipFile(pictures / "data" / "train-00000-of-00001.zip") as pack:
        assert pack.namelist() == ["metadata.jsonl", "000000.png"]
    other = project.write_tweets([{"prompt": "b"}], "夜.json")
    run = project.run([other, 1, "--name", "प्रिया 雪"])
    assert run.process.returncode == 2
    assert r"_\u591c', or another" in run.errors, "the name that it proposes is text, too"


def test_an_edit_benchmark_knows_its_categories_and_verdicts_under_a_narrow_locale(
    project: Project, latin: dict[str, str]
) -> None:
    bench = Bench(project)
    bench.write_pairs([pair(0, category="Kat 雪"), pair(1, category="Land")])
    project.environment = latin
    run = bench.run("--categories", "Kat 雪")
    assert run.process.returncode == 0, run.errors
    assert bench.outcomes() == ["scored"]
    run = bench.run("--categories", "Kat 雪", seed=7)
    assert "Plan for scores: 1 changed (edited picture: 1)" in run.errors


def test_a_model_whose_path_the_locale_cannot_encode_is_loaded(
    project: Project, tiny_model: Path, made_latin: dict[str, str] | None
) -> None:
    """The libraries that load it take a path for UTF-8.

    From the first import on, as no other test of this command with a real model.
    """
    model = project.folder / "模型" / "é"
    model.parent.mkdir()
    shutil.copytree(tiny_model, model)
    size = {"width": 64, "height": 64, "num_inference_steps": 1}
    file = project.write_tweets([{"prompt": "a red house", "output_path": "家.png", **size}])
    project.environment = made_latin or ASCII
    run = project.run([file, 1], {"model": "模型/é"})
    assert not isinstance(run.process, WarmCommand)
    assert run.process.returncode == 0, run.errors
    assert (project.pictures / "家.png").is_file()
