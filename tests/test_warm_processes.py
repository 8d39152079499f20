"""What is imported once for all tests is there: else every process would import all of it."""

from importlib.util import find_spec

import pytest

from tests import warm_server, warm_tests


@pytest.mark.parametrize("name", sorted({*warm_tests.IMPORTED, *warm_server.COMMANDS}))
def test_it_is_there(name: str) -> None:
    assert find_spec(name) is not None
