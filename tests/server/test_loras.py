"""`/v1/loras`: operators have workers load, pin and unload LoRAs, and see what becomes of it."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from loguru import logger

from apps.server.lora_models import LoraModels
from apps.server.loras import Loras
from apps.server.pinned_loras import PinnedLoras
from core import MultiGPUImageGenerator
from tests.conftest import PATIENCE, wait_until
from tests.server.in_process import Application
from tests.server.test_lora_names import write
from tests.server.test_operations import done, metrics


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loras")
    for name in ("ink", "snow", "neon", "rain", "fog", "mist"):
        write(folder / f"{name}.safetensors", said=name)
    write(folder / "paper" / "adapter_model.safetensors", said="paper")
    write(folder / "whole.safetensors", {"a.weight": [2, 2]})
    return folder


@pytest.fixture
def client(folder: Path, tmp_path: Path) -> Iterator[httpx2.Client]:
    """Of a daemon with two workers, each with room for four LoRAs."""
    with Application(tmp_path, lora_dir=str(folder)) as application, application.client() as client:
        wait_until(lambda: len(ready(client)) == 2, "the workers")
        yield client


def ready(client: httpx2.Client) -> list[str]:
    workers = client.get("/v1/workers").json()["data"]
    return [worker["id"] for worker in workers if worker["status"] == "ready"]


def asked(client: httpx2.Client, name: str, action: str, **more: str) -> httpx2.Response:
    return client.post("/v1/loras", json={"name": name, "action": action, **more})


def lora(client: httpx2.Client, name: str) -> dict[str, Any]:
    view: dict[str, Any] = client.get(f"/v1/loras/{name}").raise_for_status().json()
    return view


def held_by(client: httpx2.Client, name: str, *workers: str) -> None:
    wait_until(lambda: lora(client, name)["loaded_on"] == list(workers), f"{name} on {workers}")


def test_a_lora_that_was_loaded_is_there_for_its_first_task(client: httpx2.Client) -> None:
    answer = asked(client, "ink", "load")
    assert (answer.status_code, answer.json()["id"]) == (202, "ink")
    held_by(client, "ink", "cpu0", "cpu1")
    assert metrics(client)["imagegen_lora_loads_total"][("generate",)] == 2
    assert client.get("/v1/workers").json()["data"][0]["loras"] == ["ink"]
    done(client, {"prompt": "x", "lora_path": "ink"})
    assert metrics(client)["imagegen_lora_loads_total"][("generate",)] == 2
    assert lora(client, "ink")["pinned_for"] == lora(client, "ink")["load_errors"] == []


def test_a_pinned_lora_stays_and_an_unloaded_one_goes(client: httpx2.Client) -> None:
    assert asked(client, "paper", "pin").json()["pinned_for"] == ["generate"]
    held_by(client, "paper", "cpu0", "cpu1")
    for name in ("ink", "snow", "neon", "rain", "fog"):
        done(client, *({"prompt": f"{n}", "lora_path": name} for n in range(4)))
    held_by(client, "paper", "cpu0", "cpu1")
    listed = {one["id"]: one for one in client.get("/v1/loras").json()["data"]}
    assert listed["paper"] == lora(client, "paper")
    assert asked(client, "paper", "unload").json()["pinned_for"] == []
    held_by(client, "paper")
    asked(client, "paper", "unload").raise_for_status()


def test_pins_of_both_kinds_are_told_apart(client: httpx2.Client) -> None:
    asked(client, "ink", "pin", kind="edit").raise_for_status()
    asked(client, "ink.safetensors", "pin").raise_for_status()
    assert lora(client, "ink")["pinned_for"] == ["edit", "generate"]
    asked(client, "ink", "unload", kind="edit").raise_for_status()
    assert lora(client, "ink")["pinned_for"] == ["generate"]


def test_pins_are_there_again_after_the_daemons_restart(folder: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    write(folder / "dew.safetensors", said="dew")
    with Application(tmp_path, lora_dir=str(folder)) as first, first.client() as client:
        for name, kind in (("ink", "generate"), ("snow", "edit"), ("dew", "generate")):
            asked(client, name, "pin", kind=kind).raise_for_status()
        for name in ("rain", "snow"):
            asked(client, name, "pin").raise_for_status()
            asked(client, name, "unload").raise_for_status()
        asked(client, "fog", "load").raise_for_status()
    (folder / "dew.safetensors").unlink()
    sink = logger.add(lines.append, format="{message}", level="WARNING")
    with Application(tmp_path, lora_dir=str(folder)) as second, second.client() as client:
        held_by(client, "ink", "cpu0", "cpu1")
        wait_until(lambda: lora(client, "snow")["pinned_for"] == ["edit"], "the other kind's")
        pinned = [one["id"] for one in client.get("/v1/loras").json()["data"] if one["pinned_for"]]
        assert pinned == ["ink", "snow"]
    logger.remove(sink)
    [line] = [line for line in lines if "is not pinned again" in line]
    assert "LoRA dew" in line and "there is no LoRA 'dew'" in line


def test_what_is_unloaded_before_it_is_pinned_again_stays_unloaded(
    folder: Path, tmp_path: Path
) -> None:
    before = PinnedLoras(tmp_path)
    for name in ("ink", "snow", "rain"):
        before.note("generate", name, True)
    told: list[str] = []
    begun, goes_on = threading.Event(), threading.Event()

    class Slow:
        """Tells workers of a LoRA when the test lets it."""

        def load_loras(self, path: str, pin: bool, role: str) -> None:
            begun.set()
            assert goes_on.wait(PATIENCE)
            told.append(Path(path).stem)

    async def unload_meanwhile() -> None:
        pins = PinnedLoras(tmp_path)
        restored = pins.restore(cast(MultiGPUImageGenerator, Slow()), Loras(folder))
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        unloading = (
            asyncio.create_task(unload(pins, "ink")),
            asyncio.create_task(unload(pins, "snow")),
        )
        await asyncio.sleep(0)
        goes_on.set()
        await asyncio.gather(restored, *unloading)

    async def unload(pins: PinnedLoras, name: str) -> None:
        async with pins.changing:
            pins.note("generate", name, False)
            told.append(f"{name} goes")

    asyncio.run(unload_meanwhile())
    assert told.index("ink") < told.index("ink goes")
    assert "snow" not in told[told.index("snow goes") :]
    assert "rain" in told


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        ({"name": "sun", "action": "load"}, 400, "lora_not_found", "there is no LoRA 'sun' here"),
        ({"name": "../ink", "action": "pin"}, 400, "lora_not_found", "there is no LoRA"),
        ({"name": "sun", "action": "unload"}, 400, "lora_not_found", "there is no LoRA"),
        ({"name": "whole", "action": "load"}, 400, "invalid_lora", "holds no LoRA tensors"),
        ({"name": "ink", "action": "drop"}, 400, "invalid_value", "'load', 'pin' or 'unload'"),
        ({"name": "ink"}, 400, "missing_required_parameter", "action"),
        ({"action": "pin"}, 400, "missing_required_parameter", "name"),
        ({"name": "ink", "action": "pin", "kind": "score"}, 400, "invalid_value", "kind"),
        ({"name": "ink", "action": "pin", "strength": 1}, 400, "unknown_parameter", "strength"),
        (
            {"name": "ink", "action": "load", "kind": "edit"},
            409,
            "lora_not_loaded",
            "No worker has the model to edit with",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_refused(
    client: httpx2.Client, folder: Path, body: dict[str, Any], status: int, code: str, says: str
) -> None:
    answer = client.post("/v1/loras", json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == code and says in error["message"]
    assert str(folder) not in answer.text


def test_more_pins_than_the_cache_has_places_are_refused(client: httpx2.Client) -> None:
    for name in ("ink", "snow", "neon", "rain"):
        asked(client, name, "pin").raise_for_status()
    for action in ("pin", "load"):
        answer = asked(client, "fog", action)
        assert answer.status_code == 409
        message = answer.json()["error"]["message"]
        assert "keeps 4 LoRAs" in message and "max_resident_loras" in message
    asked(client, "ink", "unload").raise_for_status()
    asked(client, "fog", "pin").raise_for_status()
    held_by(client, "fog", "cpu0", "cpu1")


def test_the_daemon_serves_before_it_has_compared_its_loras(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = threading.Event()

    def left_out(*_: object) -> None:
        """The models are not known before the jobs of before are planned."""
        assert served.wait(PATIENCE), "nobody was served meanwhile"

    monkeypatch.setattr(LoraModels, "left_out", left_out)
    with Application(tmp_path, lora_dir=str(folder)) as daemon, daemon.client() as client:
        assert client.get("/healthz").status_code == 200
        served.set()
        assert lora(client, "ink")["usable"]


def test_a_kind_whose_model_cannot_be_used_is_refused(folder: Path, tmp_path: Path) -> None:
    editor = {"model": str(tmp_path / "nowhere")}
    application = Application(tmp_path, lora_dir=str(folder), editor=editor)
    with application, application.client() as client:
        answer = asked(client, "ink", "pin", kind="edit")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "model_not_usable")


def test_a_held_lora_whose_file_is_gone_is_listed_and_can_be_unloaded(
    client: httpx2.Client, folder: Path
) -> None:
    asked(client, "mist", "pin").raise_for_status()
    held_by(client, "mist", "cpu0", "cpu1")
    (folder / "mist.safetensors").rename(folder / "mist.txt")
    try:
        wait_until(lambda: not lora(client, "mist")["usable"], "the folder's reading")
        gone = lora(client, "mist")
        assert gone["problem"] == "is not in the folder any more."
        assert gone["loaded_on"] == ["cpu0", "cpu1"] and gone["pinned_for"] == ["generate"]
        asked(client, "mist", "unload")
        wait_until(lambda: client.get("/v1/loras/mist").status_code == 404, "its end")
    finally:
        (folder / "mist.txt").rename(folder / "mist.safetensors")


def test_another_file_of_the_same_name_is_another_lora(client: httpx2.Client, folder: Path) -> None:
    asked(client, "neon", "load").raise_for_status()
    held_by(client, "neon", "cpu0", "cpu1")
    write(folder / "neon.safetensors", said="something else")
    held_by(client, "neon")
    asked(client, "neon", "load").raise_for_status()
    held_by(client, "neon", "cpu0", "cpu1")
    asked(client, "neon", "unload").raise_for_status()
    wait_until(lambda: not client.get("/v1/workers").json()["data"][0]["loras"], "both to go")
