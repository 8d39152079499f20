"""What is imported once for all tests: else every process, or every command, imports all of it."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests import rewritten_tests, warm_server, warm_tests
from tests.conftest import COMMAND, WARM, Project
from tests.warm_commands import WarmCommand


@pytest.mark.parametrize("name", sorted({*warm_tests.IMPORTED, *warm_server.COMMANDS}))
def test_it_is_there(name: str) -> None:
    assert find_spec(name) is not None


def test_a_command_is_a_fork_of_what_has_imported_it(project: Project) -> None:
    run = project.execute(COMMAND, ["--help"])
    assert isinstance(run.process, WarmCommand), WARM.changed()
    assert run.finish() == 0 and "usage: " in run.output


def test_assertions_are_rewritten_before_any_process_imports_them_and_nothing_is_run(
    tmp_path: Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    file = tmp_path / "test_a.py"
    file.write_text("raise ValueError\nassert False\n")
    rewritten_tests.write_bytecode(pytestconfig, [file])
    [written] = (tmp_path / "__pycache__").glob("test_a.*-pytest-*.pyc")
    made = written.stat().st_mtime_ns
    rewritten_tests.write_bytecode(pytestconfig, [file])
    assert written.stat().st_mtime_ns == made, "what is there is read"
