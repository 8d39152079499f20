"""What is imported once for all tests: else every process, or every command, imports all of it."""

from importlib.util import find_spec

import pytest

from tests import warm_server, warm_tests
from tests.conftest import COMMAND, WARM, Project
from tests.warm_commands import WarmCommand


@pytest.mark.parametrize("name", sorted({*warm_tests.IMPORTED, *warm_server.COMMANDS}))
def test_it_is_there(name: str) -> None:
    assert find_spec(name) is not None


def test_a_command_is_a_fork_of_what_has_imported_it(project: Project) -> None:
    run = project.execute(COMMAND, ["--help"])
    assert isinstance(run.process, WarmCommand), WARM.changed()
    assert run.finish() == 0 and "usage: " in run.output
