"""What only a real GPU shows; `CUDA_TESTS_ON_CPU=1` tries the tests themselves on a CPU."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ZImageTransformer2DModel
from PIL import Image

from core.devices.device import Device, choose_devices, memory_in_use
from core.devices.model_choice import DEMO_MODEL
from core.events import Event, TaskPreview
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.store.provenance import read_provenance
from core.tasks import Result
from demo_model import architecture
from tests.conftest import GPU_THERE, run_script, wait_until

ON_CPU = os.environ.get("CUDA_TESTS_ON_CPU") == "1"
# Not torch.cuda.is_available(), which asks CUDA.
HAS_GPU = torch.version.cuda is not None and GPU_THERE
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not (HAS_GPU or ON_CPU), reason="needs a GPU"),
]
DEVICE = "cpu" if ON_CPU else "cuda"
DTYPE = os.environ.get("CUDA_TESTS_DTYPE", "auto")  # bfloat16 on a CPU rounds as a GPU does
SNOW = str(DEMO_MODEL.parent / "loras" / "snow.safetensors")
NEON = str(DEMO_MODEL.parent / "loras" / "neon.safetensors")
HOUSE = {"prompt": "a red house on the left on grass at day", "seed": 1}


def generator(folder: Path, **settings: Any) -> MultiGPUImageGenerator:
    config = {"model": str(DEMO_MODEL), "device": DEVICE, "dtype": DTYPE, **settings}
    return MultiGPUImageGenerator(1, config=config, output_dir=folder)


@pytest.fixture
def warm(tmp_path: Path) -> Iterator[MultiGPUImageGenerator]:
    with generator(tmp_path / "out") as generated:
        yield generated


def wait_until_free(devices: list[Device], before: int | None) -> None:
    """Wait until a GPU has no more in use than before: the driver takes a moment to free it."""
    if before is None:
        assert ON_CPU
        return
    most = before + 50 * 1024**2
    wait_until(lambda: (memory_in_use(devices) or 0) < most, "the GPU's memory to be free")


def pixels(result: Result) -> bytes:
    assert result.success, result.error
    with Image.open(str(result.output_path)) as image:
        return image.tobytes()


# A program of its own: this one imports diffusers, which asks CUDA for its devices.
MAIN = """
import sys
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from workers.boot import open_gpus

with MultiGPUImageGenerator(1, config={config!r}, output_dir="out") as generator:
    [result] = generator.generate_batch([{task!r}])
    print(result.status, open_gpus(), "torch" in sys.modules)
print(open_gpus())
"""


def test_main_opens_no_gpu(tmp_path: Path) -> None:
    config = {"model": str(DEMO_MODEL), "device": DEVICE}
    done = run_script(MAIN.format(config=config, task=HOUSE), tmp_path)
    assert done.stdout == "done [] False\n[]\n", done.stdout + done.stderr


def test_a_picture_is_the_same_in_the_next_process_in_the_type_of_the_device(
    tmp_path: Path,
) -> None:
    drawn = []
    own, other = ("float32", "bfloat16") if ON_CPU else ("bfloat16", "float32")
    for dtype in ("auto", own, other):
        with generator(tmp_path / dtype, dtype=dtype) as generated:
            drawn.append(pixels(generated.generate_batch([HOUSE])[0]))
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) > 16  # and it is a picture


def test_loras_leave_no_trace_and_come_back_the_same(warm: MultiGPUImageGenerator) -> None:
    tasks = [
        HOUSE,
        {**HOUSE, "lora_path": SNOW, "task_id": "snow"},
        {**HOUSE, "lora_path": NEON, "task_id": "neon"},
        {**HOUSE, "lora_path": SNOW, "task_id": "snow again"},
        {**HOUSE, "task_id": "none again"},
    ]
    named = [{**task, "output_path": f"{n}.png"} for n, task in enumerate(tasks)]
    plain, snow, neon, snow_again, plain_again = map(pixels, warm.generate_batch(named))
    assert plain == plain_again
    assert snow == snow_again
    assert len({plain, snow, neon}) == 3


def test_a_stack_is_the_same_in_any_order_and_leaves_no_trace(warm: MultiGPUImageGenerator) -> None:
    stack = [{"path": SNOW, "strength": 0.8}, {"path": NEON, "strength": 0.6}]
    tasks: list[dict[str, Any]] = [
        {"lora_path": NEON}, {"loras": stack}, {"lora_path": NEON}, {"loras": stack[::-1]}, {},
    ]  # fmt: skip
    named = [{**HOUSE, **task, "output_path": f"{n}.png"} for n, task in enumerate([{}, *tasks])]
    plain, neon, both, neon_again, both_again, plain_again = map(pixels, warm.generate_batch(named))
    assert (plain, neon, both) == (plain_again, neon_again, both_again)
    assert len({plain, neon, both}) == 3


def test_a_lora_of_the_model_is_as_the_same_lora_of_the_task(tmp_path: Path) -> None:
    """Fused in the type of the weights; a task's own comes and goes above it."""
    with generator(tmp_path / "tasks") as by_task:
        plain, snow = map(
            pixels,
            by_task.generate_batch([HOUSE, {**HOUSE, "lora_path": SNOW, "task_id": "snow"}]),
        )
    tasks = [HOUSE, {**HOUSE, "lora_path": NEON}, HOUSE]
    named = [{**task, "output_path": f"{n}.png"} for n, task in enumerate(tasks)]
    with generator(tmp_path / "model", model_loras=[SNOW]) as by_model:
        fused, with_neon, fused_again = map(pixels, by_model.generate_batch(named))
    assert fused == fused_again != with_neon
    assert _moved(fused, snow) < _moved(plain, snow) / 4


def _moved(one: bytes, other: bytes) -> float:
    return sum(abs(x - y) for x, y in zip(one, other, strict=True)) / len(one)


def test_several_at_once_differ_little_from_one_by_one(tmp_path: Path) -> None:
    tasks = [{**HOUSE, "seed": n} for n in range(4)]
    with generator(tmp_path / "one") as alone:
        one = [pixels(r) for r in alone.generate_batch(tasks)]
    with generator(tmp_path / "four", workers={"max_batch": 4}) as together:
        four = [pixels(r) for r in together.generate_batch(tasks)]
    for a, b in zip(one, four, strict=True):
        moved = sum(abs(x - y) for x, y in zip(a, b, strict=True)) / len(a)
        assert moved < 2  # of 255, in bfloat16


def test_kernels_without_masks_draw_guided_pictures(tmp_path: Path) -> None:
    """A prompt and a negative prompt of different length."""
    task = {**HOUSE, "prompt": f"{HOUSE['prompt']}, " + "a blue tree " * 12, "guidance_scale": 2.0}
    drawn = []
    for backend in ("native", "_native_flash"):
        with generator(tmp_path / backend, workers={"attention_backend": backend}) as generated:
            drawn.append(pixels(generated.generate_batch([{**task, "negative_prompt": "rain"}])[0]))
    moved = sum(abs(x - y) for x, y in zip(*drawn, strict=True)) / len(drawn[0])
    assert moved < 2  # of 255, in bfloat16


def test_compiled_blocks_draw_sizes_guidance_and_loras(tmp_path: Path) -> None:
    long = f"{HOUSE['prompt']}, " + "a blue tree " * 12
    tasks: list[dict[str, Any]] = [
        {**HOUSE, "num_inference_steps": 2, **task}
        for task in (
            {},
            {"width": 96, "prompt": long},
            {"guidance_scale": 2.0, "prompt": long},
            {"guidance_scale": 2.0, "prompt": long, "lora_path": SNOW},
        )
    ]
    drawn = []
    for mode in ("never", "always"):
        with generator(tmp_path / mode, workers={"compile": mode}) as generated:
            drawn.append([pixels(result) for result in generated.generate_batch(tasks)])
    for plain, compiled in zip(*drawn, strict=True):
        moved = sum(abs(x - y) for x, y in zip(plain, compiled, strict=True)) / len(plain)
        assert moved < 3  # of 255, in bfloat16


def test_a_step_cache_takes_nothing_from_the_picture_before(tmp_path: Path) -> None:
    task = {**HOUSE, "num_inference_steps": 16}
    order = [task, {**task, "width": 96, "guidance_scale": 2.0}, {**task, "task_id": "again"}]
    named = [{**one, "output_path": f"{n}.png"} for n, one in enumerate(order)]
    cache = {"step_cache": "first_block", "first_block_cache": {"threshold": 0.2}}
    with generator(tmp_path, workers=cache) as generated:
        first, _, again = map(pixels, generated.generate_batch(named))
    assert first == again


@pytest.mark.alone
def test_a_picture_too_large_for_the_gpu_is_drawn_in_tiles_or_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ON_CPU:
        pytest.skip("a CPU would take the host's memory")
    # As of a model that says nothing of its needs: else such a picture is refused at once.
    monkeypatch.setattr("core.devices.memory_choice.checkpoint_of", lambda *_, **__: None)
    # A step of such a transformer needs little, whatever the size; the decoder needs 100 GiB.
    model = architecture.build_pipeline(dim=64, layers=1, vae_widths=(128, 256, 512, 512))
    config = {**model.transformer.config, "axes_lens": [512, 512, 512]}
    model.transformer = ZImageTransformer2DModel.from_config(config)
    model.save_pretrained(tmp_path / "model")
    small = {**HOUSE, "num_inference_steps": 1, "width": 128, "height": 128}
    huge = {**small, "width": 8192, "height": 8192, "output_path": "huge.png"}
    with generator(tmp_path / "out", model=str(tmp_path / "model")) as generated:
        good, bad, after = generated.generate_batch(
            [small, huge, {**small, "output_path": "after.png"}]
        )
    print(bad.status, bad.error)
    assert pixels(good) == pixels(after)
    if bad.success and choose_devices(1)[0].memory < 90 * 1024**3:
        assert read_provenance(Path(str(bad.output_path)))["used"]["vae_tile"] >= 256


@pytest.mark.alone
def test_a_stopped_worker_gives_its_memory_back(tmp_path: Path) -> None:
    devices = choose_devices(1, None, DEVICE)  # type: ignore[arg-type]
    before = memory_in_use(devices)
    with generator(tmp_path) as generated:
        assert generated.generate_batch([HOUSE])[0].success
        during = memory_in_use(devices)
    if before is None:
        assert ON_CPU
        return
    assert during is not None
    assert during > before + 100 * 1024**2  # a context and a model
    wait_until_free(devices, before)


@pytest.mark.parametrize("memory", ["full", "offload", "sequential_offload", "group_offload"])
def test_previews_change_no_pixel_wherever_the_weights_lie(memory: str, tmp_path: Path) -> None:
    if ON_CPU and memory != "full":
        pytest.skip(f"memory: {memory} needs a GPU")
    shown: list[Image.Image] = []

    def look(event: Event) -> None:
        if isinstance(event, TaskPreview):
            with Image.open(event.path) as picture:
                shown.append(picture.convert("RGB"))

    with generator(tmp_path / "out", memory=memory) as drawing:
        plain, watched = (
            drawing.submit(
                [{**HOUSE, "output_path": f"{previews}.png"}], listener=look, previews=previews
            ).results()[0]
            for previews in (0, 3)
        )
        assert pixels(plain) == pixels(watched)
    assert len(shown) == 3 and len({picture.tobytes() for picture in shown}) == 3
