"""Z-Image at full size in `benchmarks.gpu`: a script's loop, the worker's model, the engine."""

import gc
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers import ZImagePipeline
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import full_size
from benchmarks.gpu_parts import Place
from benchmarks.gpu_rows import Row, add, read
from benchmarks.turns import peak_gib
from core.checkpoints.lora_files import LoraInspector
from core.devices.device import choose_devices
from core.devices.model_choice import choose_model
from core.devices.worker_specs import spec_for
from core.events import Event, TaskEnded
from core.memory_modes import FACTS, Mode, installed
from core.messages import Lease
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.settings import load_settings
from core.tasks import GenerateTask
from workers.models.native_image_generator import NativeImageGenerator

STEPS = 8
PROMPTS = [f"a {c} house on the {p}" for c in ("red", "blue", "green") for p in ("left", "right")]
# Dense bfloat16 operations per second, from the makers' data sheets.
PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}
# Seconds of a picture of 1024 x 1024 with 8 steps that no kernel on an H100 can go below.
FLOOR = {"bfloat16": 0.45, "float8": 0.26}
PLAIN = "plain diffusers loop"
SLOW = 6.0  # seconds of a picture of which one is measured
Draw = Callable[[int], float]
"""Draws a picture (or so many at once) and returns the seconds that it took."""


def _sides(place: Place) -> tuple[int, ...]:
    return (128, 64) if place.tiny else (1024, 512)


def _pictures(place: Place, side: int) -> int:
    return 2 if place.tiny else {1024: 5, 512: 12}[side]


def _loras(place: Place) -> list[Path]:
    return [place.work / "checkpoints" / f"lora-{n}.safetensors" for n in range(2)]


def make(place: Place) -> None:
    """Write the checkpoint and two LoRAs that the other parts load."""
    torch.set_grad_enabled(False)
    started = time.monotonic()
    pipeline = full_size.tiny_z_image() if place.tiny else full_size.z_image(place.device)
    place.z_image.parent.mkdir(parents=True, exist_ok=True)
    made = time.monotonic()
    full_size.save(pipeline, place.z_image)
    for number, file in enumerate(_loras(place)):
        full_size.lora(pipeline.transformer, file, number)
    size = sum(f.stat().st_size for f in place.z_image.rglob("*") if f.is_file())
    values = {"made, s": made - started, "written, s": time.monotonic() - made, "GB": size / 1e9}
    add(place.out, Row("Z-Image checkpoint with random weights", str(place.work), values))


def plain(place: Place) -> None:
    """What a script does."""
    torch.set_grad_enabled(False)
    started = time.monotonic()
    pipeline = ZImagePipeline.from_pretrained(
        place.z_image, dtype=torch.bfloat16, device_map=place.device
    )
    pipeline.set_progress_bar_config(disable=True)
    loaded = time.monotonic() - started
    file = place.work / "plain.png"

    def draw(number: int, side: int) -> None:
        image = pipeline(
            prompt=PROMPTS[number % len(PROMPTS)],
            width=side,
            height=side,
            num_inference_steps=STEPS,
            guidance_scale=0.0,
            generator=torch.Generator("cpu").manual_seed(number),
        ).images[0]
        image.save(file)

    for side in _sides(place):
        with FlopCounterMode(display=False) as counter:
            draw(0, side)
        flops = float(counter.get_total_flops())
        _flops_file(place, side).write_text(json.dumps(flops))
        _measure(place, PLAIN, side, _timed(lambda n, side=side: draw(n, side)), 1, loaded)  # type: ignore[misc]


def worker(place: Place) -> None:
    """The worker's model: alone, with LoRAs, and several pictures at once."""
    family, loaded = _family(place, batch=8)
    for side in _sides(place):
        _measure(place, "worker", side, _timed(_drawer(place, family, side)), 1, loaded)
    side = _sides(place)[0]
    with_loras = _drawer(place, family, side, loras=True)
    _measure(place, "worker, 2 LoRAs in turn", side, _timed(with_loras), 1, loaded)
    for at_once in (2, 4, 8):
        draw = _timed(_drawer(place, family, _sides(place)[1], at_once))
        _measure(place, f"worker, {at_once} at once", _sides(place)[1], draw, at_once, loaded)


def cudnn(place: Place) -> None:
    """cuDNN's attention."""
    _variant(place, "worker, cuDNN attention", attention_backend="_native_cudnn")


def flash(place: Place) -> None:
    """torch's own FlashAttention kernel."""
    _variant(place, "worker, flash attention", attention_backend="_native_flash")


def compiled(place: Place) -> None:
    """Compiled blocks, without and with LoRAs that are exchanged in place."""
    family = _variant(place, "worker, compiled", compile="always")
    side = _sides(place)[0]
    draw = _timed(_drawer(place, family, side, loras=True))
    _measure(place, "worker, compiled, 2 LoRAs in turn", side, draw, 1, None)


def fp8(place: Place) -> None:
    """Weights and activations in float8, as the memory mode fp8 has them."""
    family, loaded = _family(place, memory="fp8")
    side = _sides(place)[0]
    draw = _timed(_drawer(place, family, side))
    _measure(place, "worker, float8", side, draw, 1, loaded, floor="float8")
    family.pipeline.transformer.compile_repeated_blocks(fullgraph=True)
    _measure(place, "worker, float8, compiled", side, draw, 1, loaded, floor="float8")


def memory_modes(place: Place) -> None:
    """Every other mode that this machine can have, with two LoRAs in turn."""
    side = _sides(place)[0]
    for mode, facts in FACTS.items():
        able = installed(facts.package) if facts.package else True
        if mode in ("full", "fp8") or not able or (place.tiny and not facts.on_cpu):
            continue
        family, loaded = _family(place, memory=mode)
        draw = _timed(_drawer(place, family, side, loras=True))
        _measure(place, f"worker, memory: {mode}, 2 LoRAs in turn", side, draw, 1, loaded)
        del family, draw
        gc.collect()  # closures are cycles
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def engine(place: Place) -> None:
    """From tasks to PNGs: the engine with all GPUs of this machine, after its first pictures."""
    for side, batch in zip(_sides(place), (1, "auto"), strict=True):
        count = 6 if place.tiny else {1024: 12, 512: 48}[side]
        ends: list[float] = []
        started = time.monotonic()

        def listener(event: Event, ends: list[float] = ends) -> None:
            if isinstance(event, TaskEnded) and event.result.success:
                ends.append(time.monotonic())

        settings = {
            "model": str(place.z_image),
            "device": place.device,
            "dtype": "bfloat16",
            "workers": {"max_batch": batch},
        }
        folder = place.work / f"engine-{side}"
        with MultiGPUImageGenerator(
            config=settings, output_dir=folder, overwrite=True, listener=listener
        ) as generator:
            results = generator.generate_batch([_task(n, side) for n in range(count)])
            waits = generator.device_waits
        failed = [str(r.error) for r in results if not r.success]
        skipped = max(1, count // 4)  # the first ones warm up
        steady = (ends[-1] - ends[skipped - 1]) / (len(ends) - skipped) if len(ends) > 8 else None
        values = {
            "s a picture": steady,
            "first picture, s": ends[0] - started if ends else None,
            "all, s": ends[-1] - started if ends else None,
            "GPU waits, ms": 1000 * median(waits) if waits else None,
            "done": f"{len(ends)} of {count}",
            "times plain": _times_plain(place, side, steady),
            "why": failed[0][:200] if failed else None,
        }
        name = f"{side} x {side}, max_batch {batch}, {len(generator.devices)} devices"
        add(place.out, Row("Engine, from tasks to PNGs", name, values))


def _variant(place: Place, name: str, **workers: Any) -> NativeImageGenerator:
    family, loaded = _family(place, **workers)
    side = _sides(place)[0]
    _measure(place, name, side, _timed(_drawer(place, family, side)), 1, loaded)
    return family


def _family(
    place: Place, batch: int = 1, memory: Mode = "full", **workers: Any
) -> tuple[NativeImageGenerator, float]:
    """The worker's model without its process, and the seconds of its load."""
    torch.set_grad_enabled(False)
    settings = load_settings(
        {"workers": {"max_batch": batch, **workers}, "dtype": "bfloat16", "device": place.device}
    )
    [device] = choose_devices(1, None, settings.device)
    model = choose_model(str(place.z_image), None, "bfloat16", [device])
    if place.tiny and not FACTS[memory].on_cpu:
        memory = "fp8_cast"  # to try the benchmark itself
    model = replace(model, memory=memory)
    spec = spec_for(device, "generate", model, settings, threads=os.cpu_count() or 1)

    def log(level: str, text: str) -> None:
        print(f"{level} {text}", flush=True)
        if level == "WARNING":  # such as that nothing could be compiled
            add(place.out, Row("Warnings of workers", text[:300]))

    family = NativeImageGenerator(spec, log)
    started = time.monotonic()
    family.load()
    return family, time.monotonic() - started


def _drawer(
    place: Place, family: NativeImageGenerator, side: int, at_once: int = 1, loras: bool = False
) -> Callable[[int], None]:
    inspector = LoraInspector()
    hashes = [inspector.sha256(file) for file in _loras(place)] if loras else []

    def draw(number: int) -> None:
        leases = []
        for n in range(number * at_once, (number + 1) * at_once):
            which = n % len(hashes) if hashes else 0
            lora = str(_loras(place)[which]) if hashes else None
            task = GenerateTask(**{**_task(n, side), "lora_path": lora})
            sha256 = hashes[which] if hashes else None
            leases.append(Lease(str(n), 1, task, sha256, "-", "-"))
        family.run(leases)

    return draw


def _task(number: int, side: int) -> dict[str, Any]:
    return {
        "prompt": PROMPTS[number % len(PROMPTS)],
        "width": side,
        "height": side,
        "num_inference_steps": STEPS,
        "guidance_scale": 0.0,
        "seed": number,
    }


def _timed(draw: Callable[[int], None]) -> Draw:
    def timed(number: int) -> float:
        started = time.perf_counter()
        draw(number)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - started

    return timed


def _measure(
    place: Place,
    name: str,
    side: int,
    draw: Draw,
    at_once: int,
    loaded: float | None,
    floor: str = "bfloat16",
) -> None:
    """One row; the first two draws warm up: kernels are chosen, blocks compiled, LoRAs loaded."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    first = draw(0)
    second = draw(1)
    count = 1 if second > SLOW else max(2, _pictures(place, side) // at_once)
    each = median(draw(n) for n in range(2, 2 + count)) / at_once
    lowest = FLOOR[floor] if "H100" in _gpu() and side == 1024 else None
    values = {
        "s a picture": each,
        "pictures/s": 1 / each,
        "times plain": _times_plain(place, side, each),
        "MFU": _mfu(place, side, each),
        "times the floor": each / lowest if lowest else None,
        "first, s": first,
        "load, s": loaded,
        "peak GiB": peak_gib(),
    }
    add(place.out, Row(f"Z-Image, {side} x {side}, {STEPS} steps", name, values))


def _times_plain(place: Place, side: int, each: float | None) -> float | None:
    rows = read(place.out)
    table = f"Z-Image, {side} x {side}, {STEPS} steps"
    found = [r.values.get("s a picture") for r in rows if (r.table, r.name) == (table, PLAIN)]
    if each is None or not found or not isinstance(found[-1], float):
        return None
    return found[-1] / each


def _flops_file(place: Place, side: int) -> Path:
    return place.out / f"flops-{side}.json"


def _mfu(place: Place, side: int, each: float) -> str | None:
    peak = next((value for known, value in PEAK.items() if known in _gpu()), None)
    if peak is None or not _flops_file(place, side).exists():
        return None
    flops: Sequence[float] | float = json.loads(_flops_file(place, side).read_text())
    assert isinstance(flops, float)
    return f"{flops / each / peak:.0%}"


def _gpu() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""
