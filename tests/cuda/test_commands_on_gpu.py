"""The commands on a real GPU; `CUDA_TESTS_ON_CPU=1` tries the tests themselves on a CPU."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from base64 import b64decode
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from core.devices.device import choose_devices, memory_in_use
from core.devices.model_choice import DEMO_MODEL
from core.events import Event, TaskStarted
from tests import tiny_pipelines
from tests.conftest import PATIENCE, PROJECT, wait_until, worker_processes
from tests.cuda.test_real_gpu import DEVICE, HOUSE, ON_CPU, generator, pixels, wait_until_free
from tests.cuda.test_real_gpu import pytestmark as pytestmark
from tests.terminal import Terminal

# Seconds until a command has drawn: several start at once here, and each imports all of torch.
START = 3 * PATIENCE


def run(script: str, *arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, PROJECT / script, *arguments],
        cwd=folder,
        text=True,
        capture_output=True,
        timeout=START,
    )


@pytest.fixture
def settings(tmp_path: Path) -> str:
    (tmp_path / "settings.yaml").write_text(f"device: {DEVICE}\nmodel: {DEMO_MODEL}\n")
    return "settings.yaml"


def tweets(folder: Path, count: int, **fields: Any) -> str:
    rows = [{**HOUSE, "seed": n, **fields} for n in range(count)]
    (folder / "tweets.json").write_text(json.dumps(rows))
    return "tweets.json"


def test_doctor_says_what_the_gpu_is_and_that_it_works(tmp_path: Path, settings: str) -> None:
    # The demo model's: a machine without a network has no other one, and that is a problem there.
    done = run("doctor.py", "--config", settings, folder=tmp_path)
    print(done.stdout)
    # A machine may have packages of its own.
    assert not re.findall(r"problem +(?!packages)\w.*", done.stdout), done.stdout + done.stderr
    if not ON_CPU:
        assert re.search(r"GPU 0\W.*\d+\.\d of \d+\.\d GiB free", done.stdout)
        assert re.search(r"torch\W.*built for CUDA .*it sees \d GPUs?\.", done.stdout)


def test_a_dry_run_tells_placement_and_leaves_nothing(tmp_path: Path, settings: str) -> None:
    line = (tweets(tmp_path, 4), "1", "--config", settings, "--output-dir", "out", "--dry-run")
    done = run("generate_images_from_tweets.py", *line, folder=tmp_path)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("gpu0" if not ON_CPU else "cpu0") in done.stdout
    assert not (tmp_path / "out").exists()


def test_the_terminal_shows_the_memory_of_the_gpu(tmp_path: Path, settings: str) -> None:
    line = [sys.executable, str(PROJECT / "generate_images_from_tweets.py")]
    line += [tweets(tmp_path, 60, num_inference_steps=12), "1", "--config", settings]
    terminal = Terminal(columns=120)
    done = subprocess.run(
        [*line, "--output-dir", "out"],
        cwd=tmp_path,
        stdout=terminal.theirs,
        stderr=terminal.theirs,
        stdin=subprocess.DEVNULL,
        timeout=START,
    )
    terminal.close()
    print(terminal.text[-3000:])
    assert done.returncode == 0
    status = json.loads((tmp_path / "out" / "tweets" / "status.json").read_text())
    print(status["workers"])
    if not ON_CPU:
        assert re.search(r"gpu0.* \d+(\.\d+)?/\d+ GB", terminal.text)
        [worker] = status["workers"]
        assert worker["memory_total"] > 4e9


@pytest.mark.alone
def test_a_killed_worker_costs_no_picture_and_no_memory(tmp_path: Path) -> None:
    devices = choose_devices(1, None, DEVICE)  # type: ignore[arg-type]
    before = memory_in_use(devices)
    begun = threading.Event()

    def listener(event: Event) -> None:
        if isinstance(event, TaskStarted):
            begun.set()

    tasks = [{**HOUSE, "seed": n, "num_inference_steps": 30} for n in range(12)]
    with generator(tmp_path / "out") as generated:
        job = generated.submit(tasks, listener=listener)
        for _ in range(3):
            begun.clear()
            assert begun.wait(PATIENCE)
            [worker] = worker_processes(os.getpid())
            os.kill(worker.pid, signal.SIGKILL)
            psutil.wait_procs([worker], timeout=PATIENCE)
        results = job.results()
    assert all(r.success for r in results), [r.error for r in results]
    assert len({pixels(r) for r in results}) == 12
    wait_until_free(devices, before)


@pytest.mark.alone
def test_main_killed_leaves_the_gpu_empty(tmp_path: Path, settings: str) -> None:
    devices = choose_devices(1, None, DEVICE)  # type: ignore[arg-type]
    before = memory_in_use(devices)
    line = [sys.executable, str(PROJECT / "generate_images_from_tweets.py")]
    line += [tweets(tmp_path, 40), "1", "--config", settings]
    main = psutil.Popen(
        [*line, "--output-dir", "out", "--plain"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: len(list((tmp_path / "out").rglob("*.png"))) > 2, "three pictures")
    family = main.children(recursive=True)
    assert family
    main.kill()
    main.wait()
    assert not psutil.wait_procs(family, timeout=PATIENCE)[1]
    wait_until_free(devices, before)
    again = run("generate_images_from_tweets.py", *line[2:], "--output-dir", "out", folder=tmp_path)
    assert again.returncode == 0, again.stdout[-2000:]
    assert "40 " in again.stdout + again.stderr


def test_an_edit_keeps_what_its_mask_says(tmp_path: Path) -> None:
    tiny_pipelines.build_flux_kontext().save_pretrained(tmp_path / "kontext")
    Image.effect_noise((64, 64), 80).convert("RGB").save(tmp_path / "picture.png")
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    (tmp_path / "settings.yaml").write_text(
        f"device: {DEVICE}\neditor:\n  model: {tmp_path / 'kontext'}\n"
        "  defaults: {working_area: 4096, num_inference_steps: 4}\n"
    )
    line = ("picture.png", "--instruction", "make it night", "--config", "settings.yaml")
    both = [
        run("edit_images.py", *line, *more, "--output-dir", name, folder=tmp_path)
        for name, more in (("masked", ("--mask", "mask.png")), ("whole", ()))
    ]
    assert [done.returncode for done in both] == [0, 0], [d.stdout + d.stderr for d in both]
    masked, whole = (
        next((tmp_path / name).rglob("*night.png")).read_bytes() for name in ("masked", "whole")
    )
    assert masked != whole


def test_the_daemon_draws_on_the_gpu(tmp_path: Path, settings: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    line = [sys.executable, str(PROJECT / "serve.py"), "--config", settings, "--port", port]
    with (tmp_path / "log").open("w") as log:
        daemon = subprocess.Popen(
            [*line, "--output-dir", "served"], cwd=tmp_path, stdout=log, stderr=log
        )
    try:
        address = f"http://127.0.0.1:{port}/v1/images/generations"
        asked = {"prompt": HOUSE["prompt"], "size": "128x128", "response_format": "b64_json"}

        def ask() -> bytes:
            request = urllib.request.Request(
                address, json.dumps(asked).encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=START) as answer:
                [picture] = json.load(answer)["data"]
            return b64decode(picture["b64_json"])

        def ready() -> bool:
            assert daemon.poll() is None, (tmp_path / "log").read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5).close()
            except OSError:
                return False
            return True

        wait_until(ready, "the daemon")
        with Image.open(BytesIO(ask())) as image:
            assert image.size == (128, 128)
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(PATIENCE) == 0
    finally:
        daemon.kill()
        print((tmp_path / "log").read_text()[-3000:])
