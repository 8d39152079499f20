"""One GPU, models of full size: `python -m benchmarks.gpu --work FOLDER [--only z-image,…]`.

Checkpoints with random weights are made once in the work folder (20 GB for Z-Image, 58 for
Qwen-Image-Edit, 18 for Qwen3-VL) and then loaded as any other. Every contender takes turns
with the plain diffusers loop in one process, and its ratio is taken round by round. `--tiny`
tries the benchmark itself on a CPU.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from diffusers import ZImagePipeline
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import full_size
from benchmarks.editing import edit_table
from benchmarks.gpu_contenders import PROMPTS, STEPS, Draw, Place, plain_loop, worker
from benchmarks.judging import score_table
from benchmarks.ratios import times_faster
from core.settings import PROJECT_DIR

# Dense bfloat16 operations per second, from the makers' data sheets.
PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}


def ladder(place: Place, pictures: int, rounds: int) -> None:
    """One table: each step of the worker against the plain loop."""
    plain = plain_loop(place)
    with FlopCounterMode(display=False) as counter:
        plain(1)
    flops = float(counter.get_total_flops())
    contenders: dict[str, Callable[[], Draw]] = {
        "worker": lambda: worker(place),
        "worker, cuDNN attention": lambda: worker(place, attention_backend="_native_cudnn"),
        "worker, compiled": lambda: worker(place, compile="always"),
        "worker, 2 LoRAs resident": lambda: worker(place, loras=True),
        "worker, compiled, 2 LoRAs": lambda: worker(place, loras=True, compile="always"),
    }
    for n in (2, 4, 8):
        contenders[f"worker, {n} at once"] = lambda n=n: worker(place, batch=n)  # type: ignore[misc]
    print(f"\n{place.side}x{place.side}, {STEPS} steps, {flops / 1e12:.2f} TFLOP a picture\n")
    print("| contender | s a picture | pictures/s | times faster than the plain loop | MFU |")
    print("| --- | --- | --- | --- | --- |")
    for name, make in contenders.items():
        try:
            draw = make()
            draw(pictures)  # warm: compilation, tuning, LoRAs
        except Exception as error:
            print(f"| {name} | left out: {' '.join(str(error).split())[:150]} | | | |", flush=True)
            continue
        turns = [(_timed(plain, pictures), _timed(draw, pictures)) for _ in range(rounds)]
        base, values = [t[0] for t in turns], [t[1] for t in turns]
        if name == "worker":
            _row("plain loop", base, base, pictures, flops)
        _row(name, base, values, pictures, flops)
        del draw
        if place.device == "cuda":
            torch.cuda.empty_cache()


def _row(name: str, base: list[float], values: list[float], pictures: int, flops: float) -> None:
    each = median(values) / pictures
    ratio, mfu = times_faster(base, values), _mfu(flops / each)
    print(f"| {name} | {each:.3f} | {1 / each:.2f} | {ratio} | {mfu} |", flush=True)


def _timed(draw: Draw, pictures: int) -> float:
    started = time.perf_counter()
    draw(pictures)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _mfu(flops_per_second: float) -> str:
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    peak = next((p for known, p in PEAK.items() if known in name), None)
    return f"{flops_per_second / peak:.0%}" if peak else "-"


def whole_command(place: Place, pictures: int) -> None:
    """From the tasks file to PNGs, in processes of their own, start and loading included."""
    tasks = [
        {
            "prompt": f"{PROMPTS[n % len(PROMPTS)]} {n}",
            "width": place.side,
            "height": place.side,
            "num_inference_steps": STEPS,
            "guidance_scale": 0.0,
        }
        for n in range(pictures)
    ]
    file = place.out / f"tasks-{place.side}.json"
    file.write_text(json.dumps(tasks))
    line = [sys.executable, "generate_images_from_tweets.py", str(file), "1", "--overwrite"]
    line += ["--model", str(place.model), "--output-dir", str(place.out / "command")]
    started = time.perf_counter()
    subprocess.run(line, cwd=PROJECT_DIR, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    print(
        f"\nWhole command, {pictures} pictures of {place.side}x{place.side}, with start and "
        f"loading: {seconds:.1f} s",
        flush=True,
    )


def pictures_tables(options: argparse.Namespace, device: str) -> None:
    build = full_size.tiny_z_image if options.tiny else full_size.z_image
    model = full_size.make(options.work / f"z-image-{device}", build, device)
    transformer = ZImagePipeline.from_pretrained(model, dtype=torch.bfloat16).transformer
    loras = [
        full_size.lora(transformer, options.work / f"lora-{device}-{n}.safetensors", n)
        for n in range(2)
    ]
    del transformer
    for side in map(int, options.sides.split(",")):
        place = Place(model, side, device, loras, options.work)
        ladder(place, options.pictures, options.rounds)
        whole_command(place, 8 * options.pictures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--only", default="z-image,qwen3-vl,qwen-image-edit")
    parser.add_argument("--sides", default="1024,512", help="of the pictures, in pixels")
    parser.add_argument("--pictures", type=int, default=8, help="per contender and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="random models of tiny size, on a CPU")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    options.work.mkdir(parents=True, exist_ok=True)
    device = "cpu" if options.tiny else "cuda"
    machine = "a CPU, tiny models" if options.tiny else torch.cuda.get_device_name()
    print(f"{machine}, torch {torch.__version__}", flush=True)
    only = options.only.split(",")
    if "z-image" in only:
        pictures_tables(options, device)
    side = 128 if options.tiny else 1024
    if "qwen3-vl" in only:
        build = full_size.tiny_judge if options.tiny else full_size.qwen3_vl
        model = full_size.make(options.work / f"qwen3-vl-{device}", build, device)
        score_table(model, options.work, device, side, options.rounds)
    if "qwen-image-edit" in only:
        build = full_size.tiny_editor if options.tiny else full_size.qwen_image_edit
        model = full_size.make(options.work / f"qwen-image-edit-{device}", build, device)
        edit_table(model, options.work, device, side, options.rounds)


if __name__ == "__main__":
    main()
