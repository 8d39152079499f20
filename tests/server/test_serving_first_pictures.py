"""What docs/SERVER.md shows, as it stands there, with the demo models."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import PROJECT, wait_until, worker_processes, write_safetensors
from tests.guides import Guide
from tests.server.conftest import Daemon

ADDRESS = "http://127.0.0.1:8000"
SECTION = re.compile(r"^## First pictures\n(.*?)^## ", re.DOTALL | re.MULTILINE)
PATIENCE = 300.0  # seconds: two models are loaded


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("readme")
    loras = folder / "loras"
    loras.mkdir()
    write_safetensors(loras / "unfit.safetensors", "transformer.nowhere.lora_A.weight")
    for name in ("snow", "neon"):
        shutil.copy(PROJECT / "demo_model" / "loras" / f"{name}.safetensors", loras)
    daemon = Daemon(folder, model="auto", device="cpu", lora_dir=str(loras))
    yield daemon.start("--cpu-workers", "2")
    daemon.end()


def example(language: str, daemon: Daemon) -> str:
    """The code of the section, for the daemon's own address."""
    section = SECTION.search((PROJECT / "docs" / "SERVER.md").read_text("utf-8"))
    assert section is not None
    [code] = re.findall(rf"^```{language}\n(.*?)^```", section[1], re.DOTALL | re.MULTILINE)
    assert ADDRESS in code
    return str(code).replace(ADDRESS, daemon.url)


def colour(file: Path, place: tuple[int, int]) -> tuple[int, int, int]:
    """A colour of a picture of the demo model."""
    with Image.open(file) as image:
        assert image.size == (128, 128)
        found = image.convert("RGB").getpixel(place)
    assert isinstance(found, tuple)
    return found[0], found[1], found[2]


SKY = (64, 40)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl_draws_a_picture(daemon: Daemon, tmp_path: Path) -> None:
    line = example("", daemon)
    subprocess.run(["sh", "-c", line], cwd=tmp_path, check=True, timeout=PATIENCE)
    assert max(colour(tmp_path / "house.png", SKY)) < 128, "it is not night"


@pytest.mark.slow
def test_the_official_client_draws_and_edits(daemon: Daemon, tmp_path: Path) -> None:
    code = example("python", daemon)
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=PATIENCE)
    assert max(colour(tmp_path / "house.png", SKY)) < 128, "it is not night"
    assert max(colour(tmp_path / "noon.png", SKY)) > 160, "it is still night"


def test_a_batch_is_sent_and_waited_for(daemon: Daemon, tmp_path: Path) -> None:
    [code] = [text for _, text in Guide("SERVER.md").blocks if "batches.create" in text]
    line = next(s for s in Guide("SERVER.md").spans if '"custom_id": "a"' in s)
    (tmp_path / "batch.jsonl").write_text(f"{line}\n", "utf-8")
    before = f"""
import time
from openai import OpenAI
sleep, time.sleep = time.sleep, lambda seconds: sleep(0.1)
client = OpenAI(base_url="{daemon.url}/v1", api_key="none")
"""
    script = f"{before}{code}print(*lines)"
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=PATIENCE, text=True,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert json.loads(ran.stdout)["response"]["status_code"] == 200


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_other_requests_are_taken(daemon: Daemon, tmp_path: Path) -> None:
    pin, job = [text for language, text in Guide("SERVER.md").blocks if language == "bash"]
    said = []
    for command in (pin, job):
        line = command.replace("localhost:8000", daemon.url)
        ran = subprocess.run(
            ["sh", "-c", line], stdout=subprocess.PIPE, check=True, timeout=PATIENCE
        )
        said.append(json.loads(ran.stdout))
    assert said[0]["pinned_for"] == ["generate"]
    assert said[1]["counts"]["total"] == 2 and said[1]["kinds"] == {"generate": 1, "edit": 1}
    with daemon.client() as client:
        client.delete(f"/v1/jobs/{said[1]['id']}").raise_for_status()
    ask(daemon, "snow", "unload")


def test_a_lora_that_does_not_fit_the_model_is_the_clients_error(daemon: Daemon) -> None:
    with daemon.client() as client:
        answer = client.post(
            "/v1/images/generations",
            json={"prompt": "a house", "loras": ["unfit"]},
            timeout=PATIENCE,
        )
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == ("loras", "invalid_lora")
    assert str(daemon.folder) not in error["message"]


def lora(daemon: Daemon, name: str) -> dict[str, Any]:
    with daemon.client() as client:
        view: dict[str, Any] = client.get(f"/v1/loras/{name}").raise_for_status().json()
        return view


def ask(daemon: Daemon, name: str, action: str) -> None:
    with daemon.client() as client:
        client.post("/v1/loras", json={"name": name, "action": action}).raise_for_status()


def lora_loads(daemon: Daemon) -> float:
    with daemon.client() as client:
        text = client.get("/metrics").text
    found = re.search(r'^imagegen_lora_loads_total\{kind="generate"\} (\S+)$', text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def holds(daemon: Daemon, name: str) -> bool:
    """Whether every worker that draws has a LoRA; one may have the model that edits."""
    with daemon.client() as client:
        workers = client.get("/v1/workers").json()["data"]
    drawing = [w["id"] for w in workers if (w["kind"], w["status"]) == ("generate", "ready")]
    return bool(drawing) and drawing == lora(daemon, name)["loaded_on"]


@pytest.mark.slow
def test_a_pinned_lora_waits_for_its_tasks_also_after_the_workers_death(daemon: Daemon) -> None:
    ask(daemon, "snow", "pin")
    wait_until(lambda: holds(daemon, "snow"), "the LoRA")
    assert daemon.process is not None
    for worker in worker_processes(daemon.process.pid):
        os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: not holds(daemon, "snow"), "the workers' death")
    wait_until(lambda: holds(daemon, "snow"), "the LoRA on a worker that came instead")
    loads = lora_loads(daemon)
    body = {"prompt": "a house", "loras": ["snow"], "seed": 1}
    with daemon.client() as client:
        client.post("/v1/images/generations", json=body, timeout=PATIENCE).raise_for_status()
    assert lora_loads(daemon) == loads
    ask(daemon, "snow", "unload")
    wait_until(lambda: not lora(daemon, "snow")["loaded_on"], "its end")
    assert lora(daemon, "snow")["pinned_for"] == []


def test_a_lora_that_cannot_be_pinned_says_why_and_costs_no_worker(daemon: Daemon) -> None:
    ask(daemon, "unfit", "pin")
    errors = wait_until(lambda: lora(daemon, "unfit")["load_errors"], "an answer")
    assert "unfit.safetensors does not fit ZImagePipeline" in errors[0]["message"]
    assert str(daemon.folder) not in errors[0]["message"]
    assert lora(daemon, "unfit")["pinned_for"] == lora(daemon, "unfit")["loaded_on"] == []
    ask(daemon, "neon", "load")
    wait_until(lambda: holds(daemon, "neon"), "another LoRA")
    with daemon.client() as client:
        workers = client.get("/v1/workers").json()["data"]
    assert all(w["status"] == "ready" for w in workers if w["kind"] == "generate")
