"""Whether estimates of GPU memory hold on a real GPU; in processes of their own, as CUDA stays."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.checkpoints.known_models import known_checkpoint
from core.devices.device import choose_devices, memory_in_use
from core.devices.memory_needs import CONTEXT
from core.devices.working_memory import Demand, working_bytes
from tests.conftest import run_script
from tests.cuda.test_real_gpu import DEVICE, ON_CPU
from tests.cuda.test_real_gpu import pytestmark as real_gpu

pytestmark = [*real_gpu, pytest.mark.alone]
SIDE = 64 if ON_CPU else 1024  # pixels

MEASURE = """
import json, torch
from diffusers import ZImageTransformer2DModel
from benchmarks import published_models

device, side = torch.device("{device}"), {side}
on_gpu = device.type == "cuda"

def zeros(*shape):
    return torch.zeros(*shape, dtype=torch.bfloat16, device=device)

def peak(build, run):
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = build()
    torch.set_default_dtype(torch.float32)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    run(model)
    return torch.cuda.max_memory_allocated() - before if on_gpu else 0

with torch.no_grad():
    found = {{
        "vae": peak(
            lambda: published_models.vae(16),
            lambda vae: vae.decode(zeros(1, 16, side // 8, side // 8)),
        ),
        "transformer": peak(
            lambda: ZImageTransformer2DModel(n_layers=1, n_refiner_layers=1),
            lambda model: model(
                [zeros(16, 1, side // 8, side // 8)], zeros(1), [zeros(512, 2560)]
            ),
        ),
    }}
if on_gpu:
    from core.devices.device import choose_devices, memory_in_use

    found["beside tensors"] = memory_in_use(choose_devices(1)) - torch.cuda.memory_reserved()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: Path = tmp_path_factory.mktemp("measured")
    # The driver keeps some of a GPU that nobody uses.
    before = memory_in_use(choose_devices(1, None, DEVICE))  # type: ignore[arg-type]
    done = run_script(MEASURE.format(device=DEVICE, side=SIDE), folder)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if before is not None:
        found["context"] = found["beside tensors"] - before
    print(found)
    return found


@pytest.mark.parametrize("component", ["vae", "transformer"])
def test_what_is_worked_with_stays_below_the_estimate(
    measured: dict[str, Any], component: str
) -> None:
    checkpoint = known_checkpoint("Tongyi-MAI/Z-Image-Turbo")
    assert checkpoint is not None
    [part] = [c for c in checkpoint.components if c.name == component]
    estimate = working_bytes(part, checkpoint, Demand(SIDE, SIDE, guided=False), 2)
    assert measured[component] <= estimate


def test_a_context_takes_no_more_than_is_set_aside(measured: dict[str, Any]) -> None:
    """On a GPU that nobody else uses."""
    assert measured.get("context", 0) <= 1.5 * CONTEXT
