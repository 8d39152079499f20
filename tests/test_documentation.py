"""README, its Chinese twin and docs/PYTHON.md: commands and code run, links lead somewhere."""

import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import core
from apps.doctor import command as doctor
from apps.edit_benchmark import command as benchmark
from apps.edit_images.command import main as edit
from apps.watch import command as watch
from core.events import TaskPreview, TaskProgress
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from tests.conftest import PROJECT
from tests.guides import SHELLS
from tests.inline_backend import InlineBackend
from tests.test_before_a_run import TORCH
from tests.test_prompt_command import Command, command

__all__ = ["command"]
INSTALLED = "/opt/imagegen/"  # where deploy/README.md has a checkout
READMES = ["README.md", "README.zh-CN.md"]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
PAGES = [
    *(PROJECT / name for name in [*READMES, "CHANGELOG.md"]),
    *sorted((PROJECT / "docs").glob("*.md")),
    *(PROJECT / folder / "README.md" for folder in ("deploy", "demo_model")),
    PROJECT / "benchmarks" / "RESULTS.md",
]


def blocks(page: str, language: str) -> list[str]:
    """The code of a page, without its comments, which a translation translates."""
    text = (PROJECT / page).read_text("utf-8")
    return [
        re.sub(r"\s+# .*", "", code) for found, code in BLOCK.findall(text) if found == language
    ]


def commands(page: str) -> list[str]:
    return [line for block in blocks(page, "") for line in block.splitlines()]


def anchors(page: Path) -> set[str]:
    """The places of a page that a link may name, as GitHub makes them of its headings."""
    text = BLOCK.sub("", page.read_text("utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_each_table_has_a_head(page: Path) -> None:
    """A row after an empty line is no row of the table before, but text with bars in it."""
    text = BLOCK.sub("", page.read_text("utf-8"))
    for table in re.findall(r"(?:^ *\|.*\n?)+", text, re.MULTILINE):
        head, line = [*table.splitlines(), ""][:2]
        assert re.fullmatch(r" *\|[-:| ]+\|", line), f"{page}: no head above: {head}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(BLOCK.sub("", page.read_text("utf-8"))):
        if "://" in link:
            continue
        name, _, place = link.partition("#")
        target = page if not name else page.parent / name
        assert target.exists(), f"{page}: {link}"
        assert not place or place in anchors(target), f"{page}: {link}"


def test_every_page_of_docs_is_named_in_the_readme() -> None:
    named = set(LINK.findall((PROJECT / "README.md").read_text("utf-8")))
    assert {f"docs/{page.name}" for page in (PROJECT / "docs").glob("*.md")} <= named


def test_both_readmes_show_the_same() -> None:
    assert BLOCK.findall((PROJECT / READMES[0]).read_text("utf-8"))
    for language in ("", "python"):
        assert blocks(READMES[0], language) == blocks(READMES[1], language)
    links = [LINK.findall((PROJECT / page).read_text("utf-8")) for page in READMES]
    assert links[0][1:] == links[1][1:]  # the first is the other one of the two


def rows(page: str) -> list[list[str]]:
    text = (PROJECT / page).read_text("utf-8")
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


@pytest.mark.parametrize("page", READMES)
def test_a_readme_says_of_models_what_the_table_of_gpus_says(page: str) -> None:
    columns: list[str] = []
    known: dict[str, dict[str, str]] = {}
    for row in rows("docs/GPUS.md"):
        columns = columns or (row if row[0] == "GiB" else [])
        if columns and len(row) == len(columns):
            known.setdefault(row[0].partition(",")[0], dict(zip(columns, row, strict=True)))
    table = [row for row in rows(page) if len(row) == 5]
    shown = table[0][1:]
    for row in table[2:]:
        for model in re.split(r", |、", re.split(r" \(|（", row[0])[0]):
            assert [known[model][mode] for mode in shown] == row[1:], model
    assert len(table) == 7


def named_commands(page: Path) -> list[str]:
    """Command lines in blocks and within sentences."""
    text = page.read_text("utf-8")
    shells = [code for found, code in BLOCK.findall(text) if found in SHELLS]
    lines = [line for code in shells for line in code.replace("\\\n", " ").splitlines()]
    spans = re.findall(r"`([^`]+)`", BLOCK.sub("", text))
    return [" ".join(line.split()) for line in [*lines, *spans]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_command_that_a_page_names_is_there_with_its_options(page: Path) -> None:
    """Whether they also run is tested for the pages whose purpose they are."""
    targets = set(re.findall(r"^([\w-]+):", (PROJECT / "Makefile").read_text("utf-8"), re.M))
    for line in named_commands(page):
        if make := re.match(r"make ([\w-]+)", line):
            assert make[1] in targets, line
        if script := re.search(r"\bpython ([\w/]+\.py)\b|^(\w+\.py) ", line):
            file = (script[1] or script[2]).removeprefix(INSTALLED)
        elif module := re.search(r"\bpython -m ([\w.]+)", line):
            place = module[1].replace(".", "/")
            file = f"{place}/__main__.py" if (PROJECT / place).is_dir() else f"{place}.py"
        else:
            continue
        assert (PROJECT / file).is_file(), line
        folder = "apps" if "/" not in file else str(Path(file).parent)
        sources = [(PROJECT / file), *(PROJECT / folder).rglob("*.py")]
        code = "".join(source.read_text("utf-8") for source in sources)
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", line.partition(" # ")[0]):
            assert f'"{option}"' in code, f"{line}: {option}"


def test_the_commands_of_the_readme_run(
    command: Command, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (command.folder / "prompts.txt").write_text("a red house\na blue boat\n")
    (command.folder / "photos").mkdir()
    Image.new("RGB", (16, 16)).save(command.folder / "photos" / "house.png")
    monkeypatch.setattr("core.devices.nvml.list_gpus", list)
    config = str(PROJECT / "config" / "edit_benchmark.yaml")
    scripts: dict[str, Callable[[list[str]], int]] = {
        "generate_images_from_tweets.py": lambda argv: command.run(*argv)[0],
        "doctor.py": lambda argv: doctor.main(argv, ask=lambda: TORCH),
        "run_edit_benchmark.py": lambda argv: benchmark.main([argv[0], config, "--dry-run"]),
        "edit_images.py": lambda argv: edit(argv, backend=InlineBackend()),
        "watch.py": watch.main,
    }
    lines = [line for line in commands("README.md") if line.startswith("python ")]
    assert len(lines) == 7
    for line in lines:
        _, script, *arguments = shlex.split(line)
        assert scripts[script](arguments) == 0, (line, capfd.readouterr())


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Code that makes a generator gets a simulated device in this process."""

    def make(**options: Any) -> MultiGPUImageGenerator:
        config = {"model": "simulated", "device": "cpu"}
        return MultiGPUImageGenerator(config=config, backend=InlineBackend(), **options)

    monkeypatch.setattr(core, "MultiGPUImageGenerator", make)
    monkeypatch.chdir(tmp_path)


def said_by(code: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    exec(code, {"__name__": "example"})
    return capsys.readouterr().out.splitlines()


def test_the_python_of_the_readme_runs(inline: None, capsys: pytest.CaptureFixture[str]) -> None:
    [code] = blocks("README.md", "python")
    [line] = said_by(code, capsys)
    assert line.endswith("image_0000.png None")


def test_the_python_of_its_own_page_runs(inline: None, capsys: pytest.CaptureFixture[str]) -> None:
    """The example that edits and scores is another test's, with models that can."""
    batch, stream, asynchronous, events, _mixed = blocks("docs/PYTHON.md", "python")
    assert said_by(batch, capsys)[0].startswith("True ")
    assert said_by(stream, capsys)[-1] == "3 of 3"
    assert said_by(asynchronous, capsys)[-1] == "[True]"
    assert said_by(events, capsys)[-1].endswith(" done")


def test_its_listener_understands_what_it_is_told(
    inline: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {}
    [code] = [code for code in blocks("docs/PYTHON.md", "python") if "def hear" in code]
    exec(code.partition("\nwith ")[0], names)
    (tmp_path / "small.jpg").write_bytes(b"a preview")
    names["hear"](TaskProgress("house", "gpu0", 4, 8))
    names["hear"](TaskPreview("house", "gpu0", 4, 8, str(tmp_path / "small.jpg")))
    assert capsys.readouterr().out == "house step 4 of 8\n"
    assert (tmp_path / "house_4.jpg").read_bytes() == b"a preview"


# -- the distribution --------------------------------------------------------------


def test_the_distribution_needs_what_the_requirements_say() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))
    assert {"dependencies", "optional-dependencies"} <= set(project["project"]["dynamic"])
    dynamic = project["tool"]["setuptools"]["dynamic"]
    assert dynamic["dependencies"] == {"file": "requirements.txt"}
    assert dynamic["optional-dependencies"]["extra"] == {"file": "requirements-extra.txt"}


def test_a_wheel_is_refused_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("setuptools")
    monkeypatch.syspath_prepend(str(PROJECT / "build_backend"))
    import editable_only  # type: ignore[import-not-found]

    for build in (editable_only.build_wheel, editable_only.build_sdist):
        with pytest.raises(SystemExit, match=r"pip install -e \."):
            build("folder")
