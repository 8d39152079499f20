"""Parts of `benchmarks.gpu` that say whether the engine works there at all."""

import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version

import psutil
from loguru import logger

from apps.doctor.gpus import driver as examined_driver
from benchmarks.gpu_command import Command
from benchmarks.gpu_parts import Place
from benchmarks.gpu_rows import Row, add
from benchmarks.gpu_threads import stages, threads_of
from core.details import show_details
from core.devices.device import choose_devices
from core.devices.model_choice import DEMO_MODEL
from core.events import Event, TaskEnded
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.settings import PROJECT_DIR
from workers.boot import open_gpus

TABLE = "Does it work"
SUMMARY = 20  # seconds in which pytest, interrupted, says what it has found
MODEL_TESTS = (
    "native_image_generator", "other_pipelines", "drawing_editors", "editors", "recipes", "metrics",
    "lora_stacks", "model_loras", "micro_batches", "denoising_previews", "step_cache", "guidance",
    "attention", "long_prompts", "single_files", "judge_models", "editscore", "published_judges",
    "reward_judge",
)  # fmt: skip
PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate", "numpy", "pillow")


def machine(place: Place) -> None:
    """What this machine is."""
    from core.devices.nvml import list_gpus

    for gpu in list_gpus():
        memory = f"{gpu.memory / 1024**3:.0f} GiB"
        add(place.out, Row("Machine", gpu.name, {"value": memory, "fault": gpu.fault}))
    for package in PACKAGES:
        add(place.out, Row("Machine", package, {"value": version(package)}))
    keeps = "yes" if not sys.dont_write_bytecode else "no"
    add(place.out, Row("Machine", "Python keeps bytecode", {"value": keeps}))
    driver = examined_driver()
    add(place.out, Row("Machine", "driver", {"value": driver.get("driver", "none")}))
    add(place.out, Row("Machine", "cores", {"value": len(os.sched_getaffinity(0))}))


def fork_server(place: Place) -> None:
    """Workers are forks of the server, and neither it nor main has a GPU open."""
    lines = stages()
    shown = next((x for x in lines if x.startswith("fit to be forked: ")), "it said nothing")
    verdict = {"value": shown.removeprefix("fit to be forked: ")}
    add(place.out, Row(TABLE, "a fork server's judgement of itself", verdict))
    before = 1
    for line in (x for x in lines if x.startswith("threads after ")):
        stage, _, found = line.removeprefix("threads after ").partition(": ")
        if len(found.split("; ")) != before:  # the log has all stages
            before = len(found.split("; "))
            add(place.out, Row(TABLE, f"threads after {stage}", {"value": before, "why": found}))
    logger.remove()
    logger.add(sys.stdout, level="DEBUG", format="{message}")
    show_details()
    ends: list[float] = []

    def listener(event: Event) -> None:
        if isinstance(event, TaskEnded):
            ends.append(time.monotonic() - started)

    started = time.monotonic()
    with MultiGPUImageGenerator(
        1,
        config={"model": str(DEMO_MODEL), "device": place.device},
        output_dir=place.work / "fork-server",
        overwrite=True,
        listener=listener,
    ) as generator:
        tasks = [{"prompt": "a red house on the left on grass at day", "seed": n} for n in range(8)]
        results = generator.generate_batch(tasks)
        servers = [p for p in psutil.Process().children() if _is_fork_server(p)]
        forks = [fork for server in servers for fork in server.children()]
        open_devices = {
            "main": open_gpus(),
            **{f"server {s.pid}": open_gpus(s.pid) for s in servers},
        }
        for process in (*servers, *forks):
            print(f"threads of {process.pid}: {'; '.join(threads_of(process.pid))}", flush=True)
    done = sum(r.success for r in results)
    errors = "; ".join(dict.fromkeys(str(r.error) for r in results if not r.success))
    add(place.out, Row(TABLE, "demo pictures done", {"value": f"{done} of 8", "why": errors}))
    forked = f"{len(servers)} server, {len(forks)} forks"
    add(place.out, Row(TABLE, "workers are forks", {"value": forked}))
    for name, devices in open_devices.items():
        shown = ", ".join(devices) or "none"
        add(place.out, Row(TABLE, f"GPU devices open in {name.split()[0]}", {"value": shown}))
    add(place.out, Row(TABLE, "first picture, s", {"value": ends[0] if ends else None}))
    add(place.out, Row(TABLE, "all 8 pictures, s", {"value": ends[-1] if ends else None}))
    assert done == 8, errors
    assert forks, "the workers were spawned"
    assert not any(open_devices.values()), open_devices


def _is_fork_server(process: psutil.Process) -> bool:
    try:
        return "forkserver" in " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return False


def cuda_tests(place: Place) -> None:
    """The tests that only a GPU can run: side by side, then those that want all of its memory."""
    environment = {"CUDA_TESTS_ON_CPU": "1"} if place.tiny else {}
    many = ["-n", "2" if place.tiny else "6"]
    codes = [
        _tested(place, f"tests marked {mark}", ["-m", mark, *more, "tests/cuda"], environment, most)
        for mark, more, most in (("cuda and not alone", many, 150), ("cuda and alone", [], 100))
    ]
    assert not any(codes), codes


def models(place: Place) -> None:
    """The suite's tests of models, LoRAs and judges, there in place of on a CPU."""
    files = [f"tests/test_{name}.py" for name in MODEL_TESTS]
    environment = {} if place.tiny else {"TEST_DEVICE": "cuda"}
    line = ["-n", "2" if place.tiny else "10", "-m", "not cuda and not ray", *files]
    assert not _tested(place, "tests of models", line, environment, 100)


def _tested(
    place: Place, name: str, line: list[str], environment: dict[str, str], most: float
) -> int:
    """pytest's exit code; after `most` seconds it is interrupted, and says what it has found."""
    pytest = [sys.executable, "-m", "pytest", "-o", "addopts=", "-p", "no:cacheprovider"]
    said = place.out / f"{name.replace(' ', '-')}.txt"
    with said.open("w") as log:
        process = subprocess.Popen(
            [*pytest, "-v", "--tb=short", "--durations=30", *line],
            cwd=PROJECT_DIR,
            env={**os.environ, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            code = process.wait(most)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            code = process.wait(SUMMARY)
    lines = said.read_text("utf-8", "replace").strip().splitlines() or ["no output"]
    for failed in (text for text in lines if text.startswith(("FAILED", "ERROR"))):
        add(place.out, Row(TABLE, name, {"value": failed[:300]}))
    add(place.out, Row(TABLE, name, {"value": lines[-1].strip("= ")}))
    return code


def multi_gpu(place: Place) -> None:
    """The check that a user runs first."""
    count = ["1"] if place.tiny else [str(len(choose_devices()))]
    command = Command([sys.executable, "test_multi_gpu.py", *count])
    for line in command.lines():
        if line.startswith(("ok", "FAILED")):
            verdict, _, text = line.partition(" ")
            add(place.out, Row(TABLE, "test_multi_gpu.py", {"value": verdict, "why": text.strip()}))
    assert command.code == 0


def edit_demo(place: Place) -> None:
    """Edits and scores by the demo models."""
    settings = place.work / "edit-demo.yaml"
    folder = PROJECT_DIR / "demo_model"
    settings.write_text(
        f"editor: {{model: {folder / 'editor'}}}\njudge: {{model: {folder / 'judge'}}}\n"
        f"device: {place.device}\n"
    )
    started = time.monotonic()
    line = [sys.executable, "run_edit_benchmark.py", "--config", str(settings), "--limit", "10"]
    command = Command([*line, "--output-dir", str(place.work / "edit-demo"), "--overwrite"])
    overall = next((x for x in list(command.lines()) if x.startswith("overall")), "-")
    took = time.monotonic() - started
    add(place.out, Row(TABLE, "10 demo edits, scored", {"value": took, "why": overall}))
    # 1: a pair without a score; the fourth word tells pairs that failed.
    assert command.code in (0, 1) and overall.split()[3:4] == ["0"], overall
