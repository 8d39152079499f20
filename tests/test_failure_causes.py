"""A result says in one word why its task failed, so that programs need not read its error."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core import MultiGPUImageGenerator
from tests.conftest import simulated
from tests.inline_backend import InlineBackend


@pytest.mark.parametrize(
    ("task", "cause"),
    [
        ({"prompt": "a house"}, None),
        ({"prompt": "a house", "width": 17}, "input"),
        ({"prompt": "a house", "lora_path": "missing.safetensors"}, "input"),
        ({"instruction": "make it blue"}, "input"),
        ({"kind": "paint"}, "input"),
        ({"prompt": "!nan a failure that a retry would repeat"}, "input"),
        ({"prompt": "!bug a defect of the program"}, "exception"),
        ({"prompt": "!error an exception"}, "error"),
        ({"prompt": "!oom no memory"}, "out_of_memory"),
    ],
    ids=str,
)
def test_a_failure_has_its_cause(task: dict[str, Any], cause: str | None, tmp_path: Path) -> None:
    with MultiGPUImageGenerator(
        1, config=simulated(), output_dir=tmp_path / "out", backend=InlineBackend()
    ) as generator:
        [result] = generator.generate_batch([task])
    assert (result.success, result.cause) == (cause is None, cause), result.error


def test_a_model_that_cannot_be_used_is_no_fault_of_the_task(tmp_path: Path) -> None:
    source = tmp_path / "source.png"
    Image.new("RGB", (64, 64)).save(source)
    config = simulated(editor={"model": str(tmp_path / "nowhere")})
    with MultiGPUImageGenerator(
        1, config=config, output_dir=tmp_path / "out", backend=InlineBackend()
    ) as generator:
        edit = {"instruction": "make it blue", "source_images": str(source)}
        [result] = generator.generate_batch([edit])
    assert (result.status, result.cause) == ("failed", "model")


def test_an_edit_takes_sixteen_pictures_and_no_more(tmp_path: Path) -> None:
    source = tmp_path / "source.png"
    Image.new("RGB", (64, 64)).save(source)
    config = simulated(editor={"model": "simulated"})
    with MultiGPUImageGenerator(
        1, config=config, output_dir=tmp_path / "out", backend=InlineBackend()
    ) as generator:
        edits = [
            {"instruction": "join them", "source_images": [str(source)] * count}
            for count in (16, 17)
        ]
        done, refused = generator.generate_batch(edits)
    assert done.success
    assert (refused.cause, "at most 16" in str(refused.error)) == ("input", True)
