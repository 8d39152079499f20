"""Edits within masks by a daemon with a pipeline of diffusers, small and with random weights."""

import base64
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai import OpenAI
from PIL import Image

from tests import tiny_pipelines
from tests.conftest import run_script, simulated
from tests.server.conftest import Daemon
from tests.server.image_clients import mask, openai_client, picture

pytestmark = pytest.mark.slow

SIDE = 64
STEPS = 4
ELSEWHERE = """
    from core import MultiGPUImageGenerator

    if __name__ == "__main__":
        with MultiGPUImageGenerator(1, config={config!r}, output_dir="out") as generator:
            print([result.error for result in generator.generate_batch({tasks!r})])
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("editor") / "kontext"
    tiny_pipelines.build_flux_kontext().save_pretrained(folder)
    areas = {"working_area": SIDE * SIDE, "num_inference_steps": STEPS}
    return {"device": "cpu", "editor": {"model": str(folder), "defaults": areas}}


@pytest.fixture(scope="module")
def client(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    daemon = Daemon(tmp_path_factory.mktemp("daemon"), **settings)
    daemon.start("--cpu-workers", "1")
    with openai_client(daemon) as client:
        yield client
    daemon.end()


@pytest.fixture(scope="module")
def source() -> bytes:
    stream = BytesIO()
    Image.effect_noise((SIDE, SIDE), 80).convert("RGB").save(stream, "PNG")
    return stream.getvalue()


def pixels(image: Image.Image) -> Any:
    return np.asarray(image.convert("RGB"))


def test_what_is_transparent_in_a_mask_is_what_is_white_in_one_elsewhere(
    client: OpenAI, settings: dict[str, Any], source: bytes, tmp_path: Path
) -> None:
    half = mask(SIDE // 2, (SIDE, SIDE))
    given: dict[str, Any] = {"image": source, "prompt": "make it night", "extra_body": {"seed": 5}}
    within, whole = client.images.edit(mask=half, **given), client.images.edit(**given)
    stream = client.images.edit(mask=half, stream=True, partial_images=2, **given)
    *partial, last = stream
    assert within.data and whole.data
    served = pixels(picture(within.data[0]))
    assert not np.array_equal(served, pixels(picture(whole.data[0])))
    assert np.array_equal(served, pixels(picture(last)))
    shown = [Image.open(BytesIO(base64.b64decode(event.b64_json))).size for event in partial]
    assert shown == [(SIDE, SIDE)] * 2

    (tmp_path / "source.png").write_bytes(source)
    white = Image.new("L", (SIDE, SIDE), 0)
    white.paste(255, (0, 0, SIDE // 2, SIDE))
    white.save(tmp_path / "left.png")
    white.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "right.png")
    tasks = [
        {
            "instruction": "make it night",
            "source_images": [str(tmp_path / "source.png")],
            "mask": str(tmp_path / f"{side}.png"),
            "seed": 5,
            "output_path": f"{side}.png",
        }
        for side in ("left", "right")
    ]
    config = simulated(**settings, use_server="never")
    done = run_script(ELSEWHERE.format(config=config, tasks=tasks), tmp_path, "models")
    assert done.stdout == "[None, None]\n", done.stderr
    left, right = (
        pixels(Image.open(tmp_path / "out" / f"{side}.png")) for side in ("left", "right")
    )
    assert np.array_equal(served, left) and not np.array_equal(served, right)
