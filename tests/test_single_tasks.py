"""What is given to a generator in place of a list of tasks."""

from pathlib import Path
from typing import Any

import pytest

from core import GenerateTask, MultiGPUImageGenerator
from core.errors import InputError
from tests.conftest import simulated
from tests.inline_backend import InlineBackend


@pytest.mark.parametrize(
    ("tasks", "reason"),
    [
        ("a house", "tasks: expected a list, found a text; write [{'prompt': 'a house'}]."),
        ({"prompt": "a"}, "tasks: expected a list, found one task; put it into a list: [task]."),
        (GenerateTask("a"), "tasks: expected a list, found one task"),
        (({"prompt": p} for p in "ab"), "of a generator make one: list(tasks)."),
        (None, "tasks: expected a list, found None"),
    ],
)
def test_what_is_no_list_of_tasks_is_refused_in_one_line(
    tmp_path: Path, tasks: Any, reason: str
) -> None:
    with MultiGPUImageGenerator(
        1, config=simulated(), output_dir=tmp_path, backend=InlineBackend()
    ) as generator:
        for ask in (generator.generate_batch, generator.submit):
            with pytest.raises(InputError) as caught:
                ask(tasks)
            assert reason in str(caught.value) and "\n" not in str(caught.value)
