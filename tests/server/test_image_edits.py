"""Edits through the official client, and the asynchronous client, against the real process."""

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from PIL import Image

from tests.conftest import write_safetensors
from tests.server.batch_files import ended, lines_of, request, send
from tests.server.conftest import Daemon
from tests.server.image_clients import (
    SMALL,
    data_url,
    made_by,
    mask,
    openai_client,
    picture,
    png,
)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One with two LoRAs, for all tests."""
    folder = tmp_path_factory.mktemp("edits")
    loras = folder / "loras"
    loras.mkdir()
    write_safetensors(loras / "snow.safetensors", "transformer.snow.lora_A.weight")
    write_safetensors(loras / "neon.safetensors", "transformer.neon.lora_A.weight")
    daemon = Daemon(
        folder,
        lora_dir=str(loras),
        editor={"model": "simulated"},
        server={"images": {"quality": {"edits": {"high": 3}}}},
    )
    yield daemon.start()
    daemon.end()


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[OpenAI]:
    with openai_client(daemon) as client:
        yield client


def test_a_picture_is_edited_as_the_prompt_says(client: OpenAI) -> None:
    answer = client.images.edit(
        image=png(), prompt="make it blue", n=2, quality="high", **SMALL, extra_body={"seed": 3}
    )
    assert answer.data is not None and [i.to_dict()["seed"] for i in answer.data] == [3, 4]
    task = made_by(answer.data[1])
    assert (task["kind"], task["instruction"]) == ("EditTask", "make it blue")
    assert (task["seed"], task["num_inference_steps"]) == (4, 3)
    assert len(task["source_images"]) == 1


def test_sixteen_pictures_are_taken_in_their_order(client: OpenAI, daemon: Daemon) -> None:
    pictures = [png((10 * i, 0, 0)) for i in range(16)]
    extra = {"true_cfg_scale": 2.0, "guidance_scale": 1.0, "negative_prompt": " "}
    answer = client.images.edit(image=pictures, prompt="join them", **SMALL, extra_body=extra)
    assert answer.data is not None
    task = made_by(answer.data[0])
    colours = [
        Image.open(daemon.output / path).convert("RGB").getpixel((0, 0))
        for path in task["source_images"]
    ]
    assert colours == [(10 * i, 0, 0) for i in range(16)]
    assert (task["true_cfg_scale"], task["guidance_scale"]) == (2.0, 1.0)


def test_pictures_may_come_in_json(daemon: Daemon) -> None:
    data = f"data:image/png;base64,{base64.b64encode(png()[1]).decode()}"
    body = {"prompt": "make it blue", "images": [{"image_url": data}], **SMALL}
    with daemon.client() as client:
        answer = client.post("/v1/images/edits", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["data"][0]["b64_json"]


def test_a_mask_comes_beside_the_pictures_as_they_do(client: OpenAI, daemon: Daemon) -> None:
    edit, extra = client.images.edit, {"seed": 3}
    sent = edit(image=[png(), png((0, 0, 0))], mask=mask(), prompt="x", **SMALL, extra_body=extra)
    kept = client.files.create(file=mask(), purpose="vision").id
    body = {"prompt": "x", "images": [data_url(png()), data_url(png((0, 0, 0)))], **SMALL, **extra}
    with daemon.client() as plain:
        ways = [{"image_url": data_url(mask())}, {"file_id": kept}, data_url(mask())]
        answers = [plain.post("/v1/images/edits", json={**body, "mask": way}) for way in ways]
        job = plain.get("/v1/jobs").json()["data"][0]["id"]
        found = plain.get("/v1/results", params={"limit": 1}).json()["data"][0]["task"]
        assert found["mask"] == f"{job}/0/sources/2"
        seen = plain.get(f"/v1/jobs/{job}/results/0/sources/2")
        assert seen.status_code == 200, "whoever looks at the edit sees its mask"
        again = plain.post("/v1/images/edits", json={**body, "mask": found["mask"]})
    assert sent.data is not None
    items = [answer.raise_for_status().json()["data"][0] for answer in [*answers, again]]
    drawn = [sent.data[0], *(SimpleNamespace(b64_json=item["b64_json"]) for item in items)]
    for one in drawn:
        task = made_by(one)
        assert (daemon.output / task["mask"]).read_bytes() == mask()[1]
        assert len(task["source_images"]) == 2
        assert picture(one).tobytes() == picture(drawn[0]).tobytes()


def test_an_edit_within_a_mask_is_shown_on_its_way(client: OpenAI) -> None:
    events = client.images.edit(
        image=png(), mask=mask(), prompt="make it blue", size="64x32", stream=True,
        partial_images=2, extra_body={"num_inference_steps": 8, "seed": 1},
    )  # fmt: skip
    *partial, last = events
    assert [event.type for event in partial] == ["image_edit.partial_image"] * 2
    assert made_by(last)["mask"]


def test_each_picture_of_a_stream_has_its_event(client: OpenAI) -> None:
    stream = client.images.edit(
        image=png(), prompt="make it blue", n=2, stream=True, output_format="webp", **SMALL,
        extra_body={"seed": 8},
    )  # fmt: skip
    events = [event.to_dict() for event in stream]
    assert {event["type"] for event in events} == {"image_edit.completed"}
    assert {(event["image_index"], event["seed"]) for event in events} == {(0, 8), (1, 9)}


def test_an_edit_on_its_way_is_shown(client: OpenAI) -> None:
    stream = client.images.edit(
        image=png(),
        prompt="make it blue",
        size="64x32",
        stream=True,
        partial_images=3,
        extra_body={"num_inference_steps": 8, "seed": 1},
    )
    *partial, last = stream
    assert [event.type for event in partial] == ["image_edit.partial_image"] * 3
    assert last.type == "image_edit.completed"


def test_the_asynchronous_client_draws_edits_and_streams(daemon: Daemon) -> None:
    async def everything() -> tuple[Any, ...]:
        async with AsyncOpenAI(
            base_url=f"{daemon.url}/v1",
            api_key="none",
            max_retries=0,
            http_client=httpx2.AsyncClient(trust_env=False),
            _strict_response_validation=True,
        ) as client:
            drawn, edited, models = await asyncio.gather(
                client.images.generate(prompt="a house", **SMALL),
                client.images.edit(image=[png(), png()], prompt="join them", **SMALL),
                client.models.list(),
            )
            stream = await client.images.generate(prompt="a house", stream=True, **SMALL)
            return drawn, edited, models, [event.type async for event in stream]

    drawn, edited, models, events = asyncio.run(everything())
    assert picture(drawn.data[0]).size == picture(edited.data[0]).size == (32, 32)
    assert models.data[0].id == "simulated"
    assert events == ["image_generation.completed"]


def test_files_and_own_pictures_are_edited_by_their_names(client: OpenAI, daemon: Daemon) -> None:
    file = client.files.create(file=png((250, 0, 0)), purpose="vision")
    with daemon.client() as plain:
        drawn = plain.post("/v1/images/generations", json={"prompt": "a house", **SMALL})
        assert drawn.status_code == 200
        job = plain.get("/v1/jobs").json()["data"][0]["id"]
        images = [{"file_id": file.id}, f"{job}/0"]
        body = {"prompt": "join them", "images": images, **SMALL}
        answer = plain.post("/v1/images/edits", json=body)
        assert answer.status_code == 200, answer.text
        [content] = [item["b64_json"] for item in answer.json()["data"]]
    sources = made_by(SimpleNamespace(b64_json=content))["source_images"]
    sizes = [Image.open(daemon.output / path).size for path in sources]
    assert sizes == [(48, 32), (32, 32)]


# -- LoRAs -----------------------------------------------------------------------------


def used(answer: Any) -> list[tuple[str, float]]:
    """LoRAs of the first picture of an answer, by the names of their files."""
    task = made_by(answer.data[0])
    stack = task.get("loras") or [{"path": task["lora_path"], "strength": task["lora_strength"]}]
    return [(Path(str(lora["path"])).stem, lora["strength"]) for lora in stack]


def test_loras_come_by_name_with_their_strengths(client: OpenAI) -> None:
    both = [{"name": "snow", "strength": 0.5}, {"name": "neon"}]
    in_json = client.images.generate(prompt="a house", **SMALL, extra_body={"loras": both})
    assert used(in_json) == [("snow", 0.5), ("neon", 1.0)]
    alone = client.images.generate(prompt="a house", **SMALL, extra_body={"loras": ["neon"]})
    assert used(alone) == [("neon", 1.0)]
    ways: list[Any] = [
        [{"name": "snow", "strength": 0.5}, {"name": "neon", "strength": 1}],
        '[{"name": "snow", "strength": 0.5}, "neon"]',
    ]
    for loras in ways:
        edited = client.images.edit(
            image=png(), prompt="make it blue", **SMALL, extra_body={"loras": loras}
        )
        assert used(edited) == [("snow", 0.5), ("neon", 1.0)]


def test_a_picture_names_its_loras_as_its_caller_did_and_no_path(
    client: OpenAI, daemon: Daemon
) -> None:
    """By whatever route and in whatever format; the text is whole otherwise."""
    stack = [{"name": "snow", "strength": 0.5}, {"name": "neon"}]
    generate = client.images.generate
    given: dict[str, bytes] = {}
    for kind in ("png", "webp", "jpeg"):
        answer = generate(
            prompt="a house", output_format=kind, **SMALL, extra_body={"loras": stack}
        )
        assert answer.data is not None
        given[kind] = base64.b64decode(answer.data[0].b64_json or "")
    [event] = generate(prompt="a house", stream=True, **SMALL, extra_body={"loras": stack})
    given["stream"] = base64.b64decode(getattr(event, "b64_json", ""))
    linked = generate(prompt="a house", response_format="url", **SMALL, extra_body={"loras": stack})
    assert linked.data is not None
    with daemon.client() as plain:
        given["url"] = plain.get(str(linked.data[0].url)).content
        job = plain.get("/v1/jobs").json()["data"][0]["id"]
        given["job"] = plain.get(f"/v1/jobs/{job}/results/0/content").content
    line = request("one", loras=stack)
    batch = ended(client, send(client, [line]))
    [answered] = lines_of(client, batch.output_file_id)
    given["batch"] = base64.b64decode(answered["response"]["body"]["data"][0]["b64_json"])

    for route, content in given.items():
        assert b"snow" in content, route
        assert str(daemon.folder).encode() not in content, route
        if content.startswith(b"\x89PNG"):
            item = SimpleNamespace(b64_json=base64.b64encode(content).decode())
            told = [(lora["path"], lora["strength"]) for lora in made_by(item)["loras"]]
            assert told == [("snow", 0.5), ("neon", 1.0)], route
            assert "<lora:snow:0.5>" in picture(item).info["parameters"], route


def test_a_lora_that_is_not_there_is_the_clients_error(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="rain") as caught:
        client.images.generate(prompt="a house", **SMALL, extra_body={"loras": ["rain"]})
    assert caught.value.param == "loras[0].name"
