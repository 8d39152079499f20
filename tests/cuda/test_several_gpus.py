"""What only several real GPUs show of a worker that has two, and of two workers that share one."""

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from core.devices.model_choice import DEMO_MODEL
from core.devices.nvml import list_gpus
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from tests.conftest import PROJECT
from tests.cuda.test_real_gpu import DEVICE, DTYPE, HOUSE, NEON, ON_CPU, SNOW, pixels

GPUS = 2 if ON_CPU else len([gpu for gpu in list_gpus() if gpu.fault is None])
pytestmark = pytest.mark.cuda
needs_two = pytest.mark.skipif(GPUS < 2, reason="needs two GPUs")
needs_one = pytest.mark.skipif(GPUS < 1, reason="needs a GPU")
TASKS: list[dict[str, Any]] = [
    HOUSE,
    {**HOUSE, "lora_path": SNOW},
    {**HOUSE, "lora_path": NEON},
    {**HOUSE, "seed": 2},
]


def drawn(folder: Path, gpus: int, **settings: Any) -> dict[str, bytes]:
    """Pixels by output, and who drew them."""
    config = {"model": str(DEMO_MODEL), "device": DEVICE, "dtype": DTYPE, **settings}
    tasks = [{**task, "output_path": f"{n}.png"} for n, task in enumerate(TASKS)]
    with MultiGPUImageGenerator(gpus, config=config, output_dir=folder) as generator:
        results = generator.generate_batch(tasks)
    return {f"{n}.png": pixels(result) for n, result in enumerate(results)}


@needs_two
def test_a_worker_with_two_gpus_draws_the_pictures_of_one(tmp_path: Path) -> None:
    one = drawn(tmp_path / "one", 1)
    assert one == drawn(tmp_path / "two", 2, gpus_per_worker=2)


@needs_one
def test_two_workers_on_one_gpu_draw_the_pictures_of_one(tmp_path: Path) -> None:
    one = drawn(tmp_path / "one", 1)
    assert one == drawn(tmp_path / "shared", 1, workers_per_gpu=2)


SPLIT = """
    import sys
    import numpy as np, torch
    from dataclasses import replace
    from core.devices.model_choice import DEMO_MODEL
    from tests.test_native_image_generator import drawn, spec_for
    from workers.models import loading
    from workers.models.native_image_generator import NativeImageGenerator
    from workers.spread import ROOM_TO_DECODE, ROOM_TO_WORK, Gpus, load_spread_pipeline
    from pathlib import Path

    snow = Path(sys.argv[1])
    devices = [torch.device("cuda", i) for i in range(2)]

    def family(kib):
        free = [number * 1024 + ROOM_TO_WORK for number in kib]
        free[0] += ROOM_TO_DECODE
        gpus = Gpus(devices, free)
        loading.load_spread_pipeline = lambda *a: load_spread_pipeline(*a, gpus)
        spec = spec_for(str(DEMO_MODEL))
        spec = replace(spec, device="cuda", device_count=2, dtype="float32")
        made = NativeImageGenerator(spec, lambda level, text: print(text))
        made.load()
        return made

    whole, split = family([10**6, 0]), family([8500, 8000])
    assert len({str(p.device) for p in split.pipeline.transformer.parameters()}) == 2
    for lora in (None, snow, None):
        assert np.array_equal(drawn(whole, lora), drawn(split, lora)), lora
    print("the same")
"""


@needs_two
@pytest.mark.skipif(ON_CPU, reason="tests/test_spread.py plays it on a CPU")
def test_a_split_transformer_draws_the_same_with_and_without_a_lora(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SPLIT), SNOW],
        cwd=PROJECT,
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert done.stdout.endswith("the same\n"), done.stderr
