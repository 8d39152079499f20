"""docs/EDITING.md: every command runs, every file that it shows is read, every field counts."""

import io
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

import core
from apps.edit_images import read_edits
from core.intake.edit_fields import NAMES, REFERENCES, read_edit
from core.intake.kinds.edit import EditKind
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.tasks import EditTask
from tests.conftest import write_safetensors
from tests.guides import Guide
from tests.inline_backend import InlineBackend
from tests.test_edit_images import Command, command

__all__ = ["command"]
GUIDE = Guide("EDITING.md")
SCRIPT = "python edit_images.py "


@pytest.fixture
def folder(command: Command) -> Path:
    for name in ("house.png", "photos/p1.png", "photos/p2.png", "hat.png", "mask.png",
                 "masks/p1.png", "masks/p2.png"):  # fmt: skip
        command.picture(name)
    write_safetensors(command.folder / "snow.safetensors", "snow.lora_A")
    (command.folder / "edits.csv").write_text(GUIDE.shown("csv"))
    return command.folder


def test_every_command_of_the_guide_does_as_it_is_there(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(GUIDE.lines) > 18 and all(SCRIPT in line for line in GUIDE.lines)
    for number, line in enumerate(GUIDE.lines):
        before, _, arguments = line.partition(SCRIPT)
        assert before in ("", "ls photos/*.png | "), line
        piped = io.TextIOWrapper(io.BytesIO(b"photos/p1.png\nphotos/p2.png\n"))
        monkeypatch.setattr(sys, "stdin", piped)
        is_later = any(option in line for option in ("--from-png", "--only", "--where", "--name"))
        name = [] if is_later or "winter" in line else ["--name", f"run_{number}"]
        code, said = command.run(*shlex.split(arguments), *name)
        assert code == 0, (line, said)
        assert "Nothing is edited" not in said or "--only-failed" in line, line
    assert len(command.made("photos_edited_again")) > 2, "the last command had what to do"


@pytest.mark.parametrize("language", ["csv", "yaml", "json"])
def test_the_lists_that_it_shows_are_read(folder: Path, language: str) -> None:
    (folder / f"e.{language}").write_text(GUIDE.shown(language))
    house, photo = read_edits(folder / f"e.{language}").inputs
    assert isinstance(house, dict) and isinstance(photo, dict)
    assert house["source_images"] == [str(folder / "house.png")]
    assert house["instruction"] == "change the sky to night"
    assert photo["instruction"] == "make it winter"


def table() -> dict[str, list[str]]:
    section = GUIDE.text.partition("## Fields\n")[2].partition('\n"The model')[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines()]
    return {row[0].strip("`"): row[1:] for row in rows if row[0].startswith("`")}


def test_the_table_has_every_field_with_an_example_that_is_taken(tmp_path: Path) -> None:
    fields = set(EditTask.__dataclass_fields__) - {"loras"}
    assert table().keys() == fields | {"size", REFERENCES}
    for name, (_, _, example) in table().items():
        row = {"picture": "a.png", "instruction": "x", "output": "a.jpg"}
        own = {"source_images": "picture", "instruction": "instruction", "output_path": "output"}
        row[own.get(name, name)] = example.strip("`")
        cells = ['"' + cell.replace('"', '""') + '"' for cell in row.values()]
        file = tmp_path / "t.csv"
        file.write_text(f"{','.join(row)}\n{','.join(cells)}\n")
        [task] = read_edits(file).inputs
        assert isinstance(task, dict), (name, task)
        EditKind().parse(task)


def test_the_limits_of_the_table_are_those_of_the_fields() -> None:
    properties, compared = TypeAdapter(EditTask).json_schema()["properties"], 0
    for name, (text, _, _) in table().items():
        schema = json.dumps(properties.get(name, {}))
        for bound in re.findall(r'"(?:minimum|maximum)": (-?\d+)(?:\.0)?[,}]', schema):
            if name != "seed":
                assert re.search(rf"(?<!\d){re.escape(bound)}(?!\d)", text), (name, bound)
                compared += 1
    assert compared > 10


def test_the_table_of_names_is_the_one_that_counts() -> None:
    section = GUIDE.text.partition("Further names:\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines()]
    shown_names = {
        row[0].strip("`"): re.findall(r"`(\w+)`", row[1]) for row in rows if len(row) > 1
    }
    assert {k: tuple(v) for k, v in shown_names.items() if k in NAMES} == dict(NAMES)


def test_its_python_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def make(**options: Any) -> MultiGPUImageGenerator:
        config = {"model": "simulated", "editor": {"model": "simulated"}, "device": "cpu"}
        return MultiGPUImageGenerator(config=config, backend=InlineBackend(), **options)

    monkeypatch.setattr(core, "MultiGPUImageGenerator", make)
    exec(GUIDE.shown("python"), {"__name__": "example"})
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 2 and all(line.endswith(".png None") for line in lines)


def test_python_takes_the_names_of_other_programs() -> None:
    given = {"kind": "edit", "image": "a.png", "prompt": "x", "cfg_scale": "2", "size": "32x48",
             "reference": "hat.png", "lora": "ink.safetensors:0"}  # fmt: skip
    task = EditKind().parse({k: v for k, v in given.items() if k != "kind"})
    assert task.source_images == ("a.png", "hat.png") and task.instruction == "x"
    assert (task.true_cfg_scale, task.width, task.height) == (2.0, 32, 48)
    with pytest.raises(core.InputError, match="image and picture are one field, the picture"):
        EditKind().parse({"instruction": "x", "image": "a.png", "picture": "b.png"})
    with pytest.raises(core.InputError, match="'instruktion': unknown key; did you mean 'instr"):
        EditKind().parse({"instruktion": "x", "instruction": "y", "source_images": "a.png"})


@pytest.mark.parametrize("given", [{"image": "a.png"}, {"source_images": "a.png", "loras": []}])
def test_a_negative_prompt_of_blanks_is_kept_beside_other_names(given: dict[str, Any]) -> None:
    """It says nothing, and still switches guidance on."""
    edit = {"instruction": "make it night", "negative_prompt": " ", **given}
    assert read_edit(edit)["negative_prompt"] == " "
