"""Options of every script of the project: taken as they are written, or refused."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import BENCHMARK, COMMAND, PROJECT, Project

# In the project's own folders: an environment may lie beside them.
SCRIPTS = [*PROJECT.glob("*.py"), *PROJECT.glob("[a-z]*/**/*.py")]


MAKERS = ("ArgumentParser", "_ArgumentParser", "add_parser")


def parsers(file: Path) -> Iterator[ast.Call]:
    """Where a file makes an argument parser, one of a subcommand included."""
    text = file.read_text("utf-8")
    if not any(maker in text for maker in MAKERS):
        return  # most files: to parse them all takes three seconds
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in MAKERS:
                yield node


def takes_abbreviations(parser: ast.Call) -> bool:
    given = {k.arg: k.value for k in parser.keywords}.get("allow_abbrev")
    return not (isinstance(given, ast.Constant) and given.value is False)


def test_no_parser_takes_abbreviations() -> None:
    found = {file: list(parsers(file)) for file in SCRIPTS}
    assert {PROJECT / "apps" / "arguments.py", PROJECT / "test_multi_gpu.py"} <= {
        file for file, calls in found.items() if calls
    }
    lax = [
        f"{file.relative_to(PROJECT)}:{call.lineno}"
        for file, calls in found.items()
        for call in calls
        if takes_abbreviations(call)
    ]
    assert lax == []


@pytest.mark.parametrize(
    ("script", "arguments", "refused"),
    [
        (COMMAND, ["tweets.json", "--gpu", "2"], "--gpu"),
        (COMMAND, ["tweets.json", "--promp", "x"], "--promp"),
        (BENCHMARK, ["--out", "here"], "--out"),
        (BENCHMARK, ["compare", "a", "b", "--sample", "9"], "--sample"),
        (PROJECT / "test_multi_gpu.py", ["--hel"], "--hel"),
    ],
)
def test_the_beginning_of_an_option_is_not_that_option(
    project: Project, script: Path, arguments: list[str], refused: str
) -> None:
    run = project.execute(script, arguments)
    assert run.finish() == 2
    assert f"unrecognized arguments: {refused}" in run.errors
