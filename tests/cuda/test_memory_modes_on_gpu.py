"""Memory modes on a real GPU, with LoRAs; `CUDA_TESTS_ON_CPU=1` tries those that a CPU has."""

from pathlib import Path
from typing import Any

import pytest

from core.memory_modes import FACTS, Mode, changes_pixels, installed
from core.store.provenance import read_provenance
from core.tasks import Result
from tests.cuda.test_real_gpu import HOUSE, NEON, ON_CPU, SNOW, generator, pixels, pytestmark

__all__ = ["pytestmark"]

CHANGE = 12.0  # of 255, on average: nf4 of a small model is coarse, and still the same picture
ORDER: list[dict[str, Any]] = [
    {},
    {"lora_path": SNOW},
    {"lora_path": NEON, "lora_strength": 0.7},
    {},
    {"lora_path": SNOW},
]
TASKS = [{**HOUSE, **lora, "output_path": f"{n}.png"} for n, lora in enumerate(ORDER)]


def drawn(folder: Path, memory: str, **workers: Any) -> list[Result]:
    with generator(folder, memory=memory, workers=workers) as generated:
        return generated.generate_batch(TASKS)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return [pixels(result) for result in drawn(tmp_path_factory.mktemp("full"), "full")]


def change(a: bytes, b: bytes) -> float:
    return sum(abs(x - y) for x, y in zip(a, b, strict=True)) / len(a)


@pytest.mark.parametrize("mode", [mode for mode in FACTS if mode not in ("full", "fp8_cast")])
def test_a_mode_draws_with_loras_and_leaves_nothing_of_them(
    mode: Mode, full: list[bytes], tmp_path: Path
) -> None:
    facts = FACTS[mode]
    if ON_CPU and not facts.on_cpu and mode != "fp8":
        pytest.skip("needs a GPU")
    if facts.package is not None and mode != "fp8" and not installed(facts.package):
        pytest.skip(f"{facts.package} is missing")
    results = drawn(tmp_path, mode)  # fp8 is fp8_cast where the GPU or torchao is missing
    found = [pixels(result) for result in results]
    assert found[0] == found[3] and found[1] == found[4]
    assert len(set(found)) == 3
    for ours, expected in zip(found, full, strict=True):
        if changes_pixels(mode):
            assert 0 < change(ours, expected) < CHANGE
        else:
            # The same arithmetic; kernels may be chosen by where tensors lie.
            assert change(ours, expected) < 0.5
    used = read_provenance(Path(str(results[0].output_path)))["used"]["memory"]
    assert used == mode or (mode == "fp8" and used == "fp8_cast")


def test_compiled_blocks_of_int8_take_exchanged_loras(full: list[bytes], tmp_path: Path) -> None:
    if ON_CPU:
        pytest.skip("a CPU compiles for minutes")
    if not installed("torchao"):
        pytest.skip("torchao is missing")
    found = [pixels(result) for result in drawn(tmp_path, "int8", compile="always")]
    assert found[0] == found[3] and found[1] == found[4] and len(set(found)) == 3
    assert all(change(a, b) < CHANGE for a, b in zip(found, full, strict=True))
