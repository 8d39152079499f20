"""docs/TWEETS.md: every command runs, every file that it shows is read, every field counts."""

import io
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from apps.prompts.words import PICTURES
from apps.tweets.tweets_file import read_tweets
from core.intake.kinds.generate import GenerateKind
from core.tasks import GenerateTask
from tests.conftest import write_safetensors
from tests.guides import Guide
from tests.test_prompt_command import Command, command

__all__ = ["command"]
GUIDE = Guide("TWEETS.md")
SCRIPT = "python generate_images_from_tweets.py "


@pytest.fixture
def folder(command: Command, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("snow", "neon"):
        write_safetensors(command.folder / f"{name}.safetensors", f"{name}.lora_A")
    (command.folder / "prompts.csv").write_text(GUIDE.shown("csv"))
    (command.folder / "prompts.txt").write_text("a red house\na blue boat\n")
    stream = io.TextIOWrapper(io.BytesIO(b"a red house\n"))
    monkeypatch.setattr(sys, "stdin", stream)
    assert command.run("prompts.csv", "1")[0] == 0  # which later commands choose from
    return command.folder


@pytest.mark.parametrize("line", GUIDE.lines)
def test_a_command_of_the_guide_does_as_it_is_there(
    command: Command, folder: Path, line: str
) -> None:
    before, _, arguments = line.partition(SCRIPT)
    assert before in ("", "cat prompts.txt | "), line
    name = [] if "prompts.txt" not in line or "--name" in line else ["--name", "text"]
    code, said = command.run(*shlex.split(arguments), *name)
    assert code == 0, said


def test_there_are_commands_to_run() -> None:
    assert len(GUIDE.lines) > 15 and all(SCRIPT in line for line in GUIDE.lines)


def test_the_files_that_it_shows_are_read(tmp_path: Path) -> None:
    for name in ("csv", "yaml"):
        (tmp_path / f"p.{name}").write_text(GUIDE.shown(name))
        porch, boat = (task for task in read_tweets(tmp_path / f"p.{name}").inputs)
        assert isinstance(porch, dict) and isinstance(boat, dict)
        assert (porch["output_path"], boat["output_path"]) == ("porch.png", "boat.png")
        assert porch["prompt"] == "a red house on the left on grass at night"


def test_the_persona_file_that_it_shows_is_read(tmp_path: Path) -> None:
    (tmp_path / "mira.json").write_text(GUIDE.shown("json"))
    [task] = read_tweets(tmp_path / "mira.json").inputs
    assert isinstance(task, dict)
    assert (task["prompt"], task["num_inference_steps"], task["seed"]) == ("a red house", 9, 7), (
        task
    )


def table() -> dict[str, list[str]]:
    section = GUIDE.text.partition("## Fields\n")[2].partition("\n## ")[0]
    rows = [
        line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")
    ]
    return {row[0].strip("`"): row[1:] for row in rows}


def test_the_table_has_every_field_with_an_example_that_is_taken(tmp_path: Path) -> None:
    fields = set(GenerateTask.__dataclass_fields__) - {"loras", "seed_is_random"}
    assert table().keys() == fields | {"size"}
    for name, (_, _, example) in table().items():
        value: Any = example.strip("`")
        row = (
            {"prompt": "a", "file_name": "a.jpg"} if name == "picture_quality" else {"prompt": "a"}
        )
        row = {**row, name: value}
        file = tmp_path / "t.csv"
        cells = ['"' + cell.replace('"', '""') + '"' for cell in row.values()]
        file.write_text(f"{','.join(row)}\n{','.join(cells)}\n")
        [task] = read_tweets(file).inputs
        assert isinstance(task, dict), (name, task)
        GenerateKind().parse(task)
        assert PICTURES.field_of(name) is not None


def test_the_limits_of_the_table_are_those_of_the_fields() -> None:
    import json

    from pydantic import TypeAdapter

    properties, compared = TypeAdapter(GenerateTask).json_schema()["properties"], 0
    for name, (text, _, _) in table().items():
        schema = json.dumps(properties.get(name, {}))
        for bound in re.findall(r'"(?:minimum|maximum)": (-?\d+)(?:\.0)?[,}]', schema):
            if name != "seed":
                assert re.search(rf"(?<!\d){re.escape(bound)}(?!\d)", text), (name, bound)
                compared += 1
    assert compared > 10
