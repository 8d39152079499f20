"""Commands, code and settings of pages of docs/ without tests of their own; none is left out."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

import core
from apps.edit_benchmark.command import main as benchmark
from apps.edit_benchmark.settings import load_benchmark_settings
from apps.gallery.command import main as gallery
from apps.gallery.records.command import main as records
from apps.tweets.options import check_source, parse_arguments
from apps.watch import command as watch
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.settings import load_settings
from tests.conftest import PROJECT, write_safetensors
from tests.gallery.conftest import run_edits
from tests.guides import Guide
from tests.inline_backend import InlineBackend
from tests.server.in_process import Application
from tests.test_prompt_command import Command, command

__all__ = ["command"]
SHOWN = "text"  # the language of what is no command
HERE = Path(__file__).name
RUN_BY = {  # pages, and which tests run what they show
    "BEFORE_A_RUN.md": "test_before_a_run.py",
    "BENCHMARKS.md": HERE,
    "CLUSTER.md": HERE,
    "DATASETS.md": HERE,
    "EDITING.md": "test_edit_guide.py",
    "EDIT_BENCHMARK.md": "test_agreement.py",
    "EXTENDING.md": "test_extending.py",
    "JUDGES.md": "test_judge_seam.py",
    "LORAS.md": HERE,
    "PYTHON.md": "test_documentation.py",
    "RECIPES.md": HERE,
    "RESULTS.md": HERE,
    "SCALING.md": HERE,
    "SERVER.md": "server/test_serving_first_pictures.py",
    "SPEED.md": HERE,
    "TWEETS.md": "test_prompt_guide.py",
    "WATCHING.md": HERE,
}


def test_no_page_shows_what_no_test_runs() -> None:
    showing = {
        page.name
        for page in (PROJECT / "docs").glob("*.md")
        if any(language != SHOWN for language, _ in Guide(page.name).blocks)
    }
    assert showing == RUN_BY.keys()
    for page, test in RUN_BY.items():
        assert page in (PROJECT / "tests" / test).read_text("utf-8"), page


def arguments_of(line: str, script: str) -> list[str]:
    """What a command line gives a script."""
    words = shlex.split(line, comments=True)
    assert words[:2] == ["python", script], line
    return words[2:]


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Code that makes a generator gets a simulated device in this process."""

    def make(**options: Any) -> MultiGPUImageGenerator:
        config = {"model": "simulated", "editor": {"model": "simulated"}, "device": "cpu"}
        return MultiGPUImageGenerator(config=config, backend=InlineBackend(), **options)

    monkeypatch.setattr(core, "MultiGPUImageGenerator", make)
    monkeypatch.chdir(tmp_path)


# -- looking at results ---------------------------------------------------------------------------


def test_the_page_of_an_older_folder_is_written_and_two_runs_are_compared(
    command: Command,
) -> None:
    page, both = Guide("RESULTS.md").lines
    assert command.run("--prompt", "a boat", "--name", "persona_tweets", "--no-gallery")[0] == 0
    assert gallery(arguments_of(page, "gallery.py")) == 0
    assert (command.folder / "outputs/persona_tweets/index.html").is_file()

    rows = [{"input_file_name": "1.png", "instruction": "make it night", "category": "sky"}]
    for name in ("run_a", "run_b"):
        run_edits(command.folder, name, rows).rename(command.folder / "outputs" / name)
    assert benchmark(arguments_of(both, "run_edit_benchmark.py")) == 0
    assert "make it night" in (command.folder / "both.html").read_text("utf-8")


def test_a_gallery_follows_a_generator_of_ones_own(
    inline: None, capfd: pytest.CaptureFixture[str]
) -> None:
    exec(Guide("RESULTS.md").shown("python"), {"__name__": "example"})
    page = Path(capfd.readouterr().out.strip())
    assert page.name == "index.html" and "a red house" in page.read_text("utf-8")


def test_results_are_a_data_set(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(command.folder / "cache"))
    datasets.disable_progress_bars()
    assert command.run("--prompt", "a boat", "--name", "persona_tweets", "1")[0] == 0
    names: dict[str, Any] = {}
    code = Guide("DATASETS.md").shown("python")
    first, _, second = code.rstrip().rpartition("\n")
    exec(first, names)
    seen = [names["pictures"]["prompt"]]
    exec(second, names)
    assert [*seen, names["pictures"]["prompt"]] == [["a boat"]] * 2


def test_a_run_and_a_daemon_are_watched(
    command: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    *folders, daemon = Guide("WATCHING.md").lines
    assert command.run("--prompt", "a boat", "--name", "tweets", "1")[0] == 0
    for line in folders:
        assert watch.main(arguments_of(line, "watch.py")) == 0, line
    said = capfd.readouterr().out
    assert json.loads(said.splitlines()[-1])["state"] == "completed"
    with Application(tmp_path / "daemon") as application:
        [url] = arguments_of(daemon, "watch.py")
        assert url.startswith("http://127.0.0.1:")
        assert watch.main([application.url, "--once"]) == 0


# -- models, LoRAs and settings -------------------------------------------------------------------


def test_loras_are_held_before_their_first_task(inline: None, tmp_path: Path) -> None:
    for name in ("style", "mira", "ink"):
        write_safetensors(tmp_path / f"{name}.safetensors", f"transformer.{name}.lora_A.weight")
    with core.MultiGPUImageGenerator(output_dir=tmp_path / "out") as generator:
        exec(Guide("LORAS.md").shown("python"), {"generator": generator})
        result = generator.generate_batch([{"prompt": "x", "lora_path": "style.safetensors"}])
    assert result[0].success


@pytest.mark.parametrize("page", ["RECIPES.md", "SPEED.md"])
def test_settings_of_a_page_are_settings(page: str) -> None:
    given = yaml.safe_load(Guide(page).shown("yaml"))
    asked = load_settings({"model": "Qwen/Qwen-Image", **given}).model_dump()
    for section, values in given.items():
        wanted = dict(enumerate(values)) if isinstance(values, list) else values
        kept = dict(enumerate(asked[section])) if isinstance(values, list) else asked[section]
        for name, value in wanted.items():
            assert kept[name] == value or kept[name].items() >= value.items(), name


def test_recipes_are_where_the_commands_say() -> None:
    draw, edit = Guide("RECIPES.md").lines
    options = parse_arguments(arguments_of(draw, "generate_images_from_tweets.py"))
    load_settings(PROJECT / options.config)
    words = arguments_of(edit, "run_edit_benchmark.py")
    load_benchmark_settings(PROJECT / words[words.index("--config") + 1])


JUDGES = [
    *Guide("EDIT_BENCHMARK.md").all_shown("yaml"),
    *Guide("BENCHMARKS.md").all_shown("yaml")[:-1],
]


@pytest.mark.parametrize("text", JUDGES)
def test_what_is_shown_of_judges_is_a_judge(text: str) -> None:
    given = yaml.safe_load(text)
    judge = load_benchmark_settings(given).judge
    shown = {name: str(getattr(judge, name)) for name in given["judge"]}
    assert shown["type"] == given["judge"]["type"]
    assert all(shown[name].endswith(value) for name, value in given["judge"].items())


def test_a_table_with_columns_of_its_own_is_a_benchmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_set").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "my_set" / "one.png")
    row = {"edit": "make it night", "image_file": "one.png", "edit_type": "sky", "key": "a"}
    (tmp_path / "my_set" / "edits.json").write_text(json.dumps([row]), "utf-8")
    table = Guide("BENCHMARKS.md").all_shown("yaml")[-1]
    given = yaml.safe_load(table)
    config = {**given, "editor": {"model": "simulated"}, "judge": {"model": "simulated"}}
    (tmp_path / "bench.yaml").write_text(yaml.safe_dump(config), "utf-8")
    line = ["--config", "bench.yaml", "--output-dir", "out"]
    assert benchmark(line, backend=InlineBackend()) == 0
    [record] = (tmp_path / "out" / "edits" / "results.jsonl").read_text("utf-8").splitlines()
    assert json.loads(record)["category"] == "sky"


# -- many machines --------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["SCALING.md", "CLUSTER.md"])
def test_machines_that_share_a_file_make_one_folder(command: Command, page: str) -> None:
    lines = [line for line in Guide(page).commands if "--shard" in line or " merge" in line]
    draw, merge = lines
    prompts = [json.dumps({"prompt": f"a house, number {n}"}) for n in range(9)]
    (command.folder / "prompts.jsonl").write_text("\n".join(prompts), "utf-8")
    words = arguments_of(draw, "generate_images_from_tweets.py")
    first, _, parts = words[-1].partition("/")
    assert first == "1"
    for part in range(1, int(parts) + 1):
        assert command.run(*words[:-1], f"{part}/{parts}", "1")[0] == 0
    assert records(arguments_of(merge, "records.py")) == 0
    assert len(command.pictures("prompts")) == 9


def test_the_command_on_a_cluster_is_understood() -> None:
    [line] = [line for line in Guide("CLUSTER.md").commands if "--engine ray" in line]
    options = parse_arguments(arguments_of(line, "generate_images_from_tweets.py"))
    check_source(options)
    assert (options.engine, options.address) == ("ray", "HEAD:6379")
