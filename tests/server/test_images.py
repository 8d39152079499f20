"""Pictures from prompts through the official client, against the real process."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI
from PIL import Image

from core.store.provenance import read_provenance
from tests.conftest import HELD, PATIENCE, found_below, going_on, standing_still, wait_until
from tests.server.conftest import Daemon
from tests.server.image_clients import SMALL, asked, made_by, openai_client, picture

RATE = 60.0  # device seconds for a megapixel and step: 0.06 s for 32 x 32
SLOW: dict[str, Any] = {"size": "128x128"}  # a second
GENERATIONS = "/v1/images/generations"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One for all tests: they disturb each other no more than its users do."""
    daemon = Daemon(
        tmp_path_factory.mktemp("images"),
        editor={"model": "simulated"},
        simulated={"seconds_per_megapixel_step": RATE},
        server={"images": {"quality": {"generations": {"low": 2}}}},
    )
    yield daemon.start()
    daemon.end()


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[OpenAI]:
    with openai_client(daemon) as client:
        yield client


# -- models ----------------------------------------------------------------------


def test_served_models_are_listed_and_read(client: OpenAI) -> None:
    models = {model.id: model for model in client.models.list()}
    assert "simulated" in models
    model = client.models.retrieve("simulated")
    assert (model.object, model.owned_by) == ("model", "local")
    assert model.to_dict()["kinds"] == ["generate", "edit"]
    assert 0 < model.created <= time.time()


# -- pictures from prompts ---------------------------------------------------------


def test_a_prompt_becomes_a_picture(client: OpenAI) -> None:
    before = int(time.time())
    answer = client.images.generate(prompt="a red house", size="64x48")
    assert answer.data is not None and len(answer.data) == 1
    image = picture(answer.data[0])
    assert (image.format, image.size) == ("PNG", (64, 48))
    assert (answer.size, answer.output_format, answer.background) == ("64x48", "png", "opaque")
    assert answer.quality is None
    assert before <= answer.created <= time.time()
    assert answer.usage is not None and answer.usage.total_tokens == 0
    task = made_by(answer.data[0])
    assert task["prompt"] == "a red house"
    assert task["seed"] == answer.data[0].to_dict()["seed"]


def test_several_pictures_get_one_seed_after_the_other(client: OpenAI) -> None:
    answer = client.images.generate(prompt="a house", n=3, **SMALL, extra_body={"seed": 2**64 - 2})
    assert answer.data is not None
    assert [i.to_dict()["seed"] for i in answer.data] == [2**64 - 2, 2**64 - 1, 0]
    made = [made_by(item) for item in answer.data]
    assert [task["seed"] for task in made] == [2**64 - 2, 2**64 - 1, 0]


def test_without_a_seed_each_request_draws_another_picture(client: OpenAI) -> None:
    for seed in ({}, {"seed": -1}):
        answers = [
            client.images.generate(prompt="a house", **SMALL, extra_body=seed) for _ in range(2)
        ]
        assert len({str(a.data[0].to_dict()["seed"]) for a in answers if a.data}) == 2


def test_what_diffusers_calls_its_settings_reaches_the_task(client: OpenAI) -> None:
    settings = {"negative_prompt": "rain", "num_inference_steps": 3, "guidance_scale": 1.5}
    answer = client.images.generate(prompt="a house", **SMALL, extra_body=settings)
    assert answer.data is not None
    task = made_by(answer.data[0])
    assert {name: task[name] for name in settings} == settings
    answer = client.images.generate(prompt="a house", **SMALL, extra_body={"true_cfg_scale": 2.5})
    assert answer.data is not None
    task = made_by(answer.data[0])
    assert (task["cfg"], task["guidance_scale"]) == (2.5, None)


def test_a_quality_that_the_settings_name_is_its_number_of_steps(client: OpenAI) -> None:
    answer = client.images.generate(prompt="a house", quality="low", **SMALL)
    assert answer.data is not None and answer.quality == "low"
    task = made_by(answer.data[0])
    assert task["num_inference_steps"] == 2


def test_what_asks_for_nothing_is_taken(client: OpenAI) -> None:
    answer = client.images.generate(
        prompt="a house",
        model="auto",
        background="auto",
        moderation="low",
        quality="auto",
        output_compression=100,
        stream=False,
        partial_images=0,
        style=None,
        user="somebody",
        safety_identifier="c0ffee",
        **SMALL,
    )
    assert answer.safety_identifier == "c0ffee"


def test_formats_keep_the_picture_and_what_it_says(client: OpenAI) -> None:
    def drawn(**asked: Any) -> Image.Image:
        answer = client.images.generate(prompt="a house", **SMALL, extra_body={"seed": 5}, **asked)
        assert answer.data is not None and answer.output_format == asked["output_format"]
        return picture(answer.data[0])

    original = drawn(output_format="png")
    lossless = drawn(output_format="webp")
    assert (lossless.format, lossless.tobytes()) == ("WEBP", original.tobytes())
    lossy = drawn(output_format="webp", output_compression=30)
    jpeg = drawn(output_format="jpeg", output_compression=0)
    assert (lossy.format, jpeg.format) == ("WEBP", "JPEG")
    for other in (lossless, lossy, jpeg):
        exif = other.getexif()
        assert json.loads(exif[0x010E])["task"]["seed"] == 5  # image description
        comment = exif.get_ifd(0x8769)[0x9286]
        assert b"a house" in comment.replace(b"\0", b"")


# -- addresses -----------------------------------------------------------------------


def test_addresses_answer_without_a_key_with_the_right_type(client: OpenAI, daemon: Daemon) -> None:
    answer = client.images.generate(
        prompt="a house", n=2, response_format="url", output_format="jpeg", **SMALL
    )
    assert answer.data is not None
    urls = [str(item.url) for item in answer.data]
    assert len(set(urls)) == 2
    with httpx2.Client(trust_env=False) as anybody:
        for url in urls:
            assert url.startswith(daemon.url)
            found = anybody.get(url)
            assert (found.status_code, found.headers["content-type"]) == (200, "image/jpeg")
            assert Image.open(BytesIO(found.content)).format == "JPEG"
        other = urls[0].replace(".jpeg", ".png")
        changed = urls[0][:-10] + ("A" if urls[0][-10] != "A" else "B") + urls[0][-9:]
        assert anybody.get(other).status_code == anybody.get(changed).status_code == 404


def test_an_address_outlives_the_daemon_but_not_its_time(tmp_path: Path) -> None:
    def address(daemon: Daemon) -> str:
        body = {"prompt": "a house", "response_format": "url", **SMALL}
        with daemon.client() as client:
            url = client.post("/v1/images/generations", json=body).json()["data"][0]["url"]
        return str(url).removeprefix(daemon.url)

    daemon = Daemon(tmp_path, server={"images": {"url_lifetime": 60}}).start()
    try:
        lasting = address(daemon)
        assert daemon.stop() == 0, daemon.log
        assert (daemon.output / "picture_urls.key").stat().st_mode & 0o777 == 0o600
        daemon.settings["server"]["images"]["url_lifetime"] = 1 / 30  # two seconds
        daemon.start()
        with daemon.client() as client:

            def short_lived() -> str | None:
                found = address(daemon)
                return found if client.get(found).status_code == 200 else None

            short = wait_until(short_lived, "an address within its time")
            assert client.get(lasting).status_code == 200
            wait_until(lambda: client.get(short).status_code == 410, "the end of the address")
            assert client.get(lasting).status_code == 200
    finally:
        daemon.end()


# -- streams ---------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["png", "webp", "jpeg"])
def test_a_stream_shows_a_picture_on_its_way_before_it_ends_with_it(
    format: Any, client: OpenAI
) -> None:
    events = list(
        client.images.generate(
            prompt="a house",
            size="64x32",
            stream=True,
            partial_images=2,
            output_format=format,
            extra_body={"num_inference_steps": 6},
        )
    )
    *partial, last = events
    assert [event.type for event in partial] == ["image_generation.partial_image"] * 2
    assert [event.to_dict()["partial_image_index"] for event in partial] == [0, 1]
    assert [picture(event).format for event in events] == [format.upper()] * 3
    assert [event.size for event in events] == ["64x32"] * 3
    assert last.type == "image_generation.completed"


def test_a_stream_without_previews_has_the_picture_alone(client: OpenAI) -> None:
    [last] = client.images.generate(prompt="a house", stream=True, **SMALL)
    assert last.type == "image_generation.completed"
    assert picture(last).size == (32, 32)
    assert (last.size, last.output_format, last.quality) == ("32x32", "png", "auto")
    assert last.usage.total_tokens == 0


def test_an_error_in_a_stream_is_raised_by_the_client(client: OpenAI) -> None:
    stream = client.images.generate(prompt="!nan this fails", stream=True, **SMALL)
    with pytest.raises(openai.APIError, match="a simulated failure") as caught:
        list(stream)
    assert caught.value.code == "invalid_input"


# -- failures ----------------------------------------------------------------------


def test_bad_input_is_the_clients_error_and_a_broken_worker_the_servers(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="a simulated failure") as bad:
        client.images.generate(prompt="!nan this fails in the same way again", **SMALL)
    assert (bad.value.code, bad.value.type) == ("invalid_input", "invalid_request_error")
    with pytest.raises(openai.InternalServerError, match="a simulated defect") as defect:
        client.images.generate(prompt="!bug of the program, in the same way each time", **SMALL)
    assert (defect.value.code, defect.value.type) == ("exception", "server_error")
    assert defect.value.response.headers["x-should-retry"] == "false"
    with pytest.raises(openai.InternalServerError, match="Out of memory") as broken:
        client.images.generate(prompt="!oom there is not enough memory", **SMALL)
    assert (broken.value.code, broken.value.type) == ("out_of_memory", "server_error")
    assert broken.value.response.headers["x-should-retry"] == "false"


def test_one_failure_fails_the_request_and_tells_no_folder(client: OpenAI, daemon: Daemon) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(prompt="\N{BUG}" * 20_000)
    assert "32768" in caught.value.message
    assert str(daemon.folder) not in caught.value.message


def test_every_answer_has_the_id_of_its_request(client: OpenAI) -> None:
    first, second = (client.images.generate(prompt="a house", **SMALL) for _ in range(2))
    assert str(first._request_id).startswith("req_") and first._request_id != second._request_id
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(prompt="a house", size="7x7")
    assert str(caught.value.request_id).startswith("req_")


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist") as caught:
        client.images.generate(prompt="a house", model="gpt-image-2")
    assert caught.value.code == "model_not_found"


# -- clients that leave ----------------------------------------------------------------


def jobs_of(daemon: Daemon, prompt: str) -> list[str]:
    """Pictures that were drawn from a prompt."""
    found = []
    for file in daemon.output.rglob("*.png"):
        if "inbox" not in file.parts and prompt in json.dumps(read_provenance(file)["task"]):
            found.append(file.parent.name)
    return found


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_client_that_left_was_waiting_for_is_not_drawn(
    stream: bool, client: OpenAI, daemon: Daemon
) -> None:
    prompt = f"{HELD} nobody waits for it, {'stream' if stream else 'answer'}"
    with asked(daemon, GENERATIONS, {"prompt": prompt, "n": 10, **SMALL, "stream": stream}):
        wait_until(lambda: standing_still(daemon.workers()), "a picture that is under way")
    with daemon.client() as other:

        def is_cancelled() -> bool:
            jobs = other.get("/v1/jobs").raise_for_status().json()["data"]
            return all(job["ended_at"] or job.get("cancelling") for job in jobs)

        wait_until(is_cancelled, "the end of the request")
    with going_on(daemon.workers):
        wait_until(lambda: jobs_of(daemon, prompt), "the picture that was under way")
        client.images.generate(prompt="the next one", **SMALL)  # comes after all that still waited
    assert len(jobs_of(daemon, prompt)) < 10


def test_a_client_that_leaves_in_the_middle_of_its_request_is_no_defect(daemon: Daemon) -> None:
    host, port = daemon.url.removeprefix("http://").split(":")
    begin = b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na house'
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /v1/images/edits HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + begin
        )
    wait_until(lambda: "POST /v1/images/edits 499" in daemon.log, "the line of the request")
    assert "defect" not in daemon.log


def test_small_answers_are_sent_at_once(daemon: Daemon) -> None:
    """Where headers and body wait for each other it is never less than 40 ms."""
    with daemon.client() as client:

        def at_once() -> bool:
            started = time.perf_counter()
            client.get("/v1/models/simulated")
            return time.perf_counter() - started < 0.03

        wait_until(at_once, "an answer at once")


def test_a_daemon_that_stops_does_not_wait_for_those_who_wait(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, simulated={"seconds_per_megapixel_step": 600.0}).start(
        "--drain-timeout", "0"
    )
    statuses: list[int] = []

    def ask() -> None:
        with daemon.client() as client:
            body = {"prompt": "a house", "n": 4, **SLOW}
            statuses.append(client.post("/v1/images/generations", json=body).status_code)

    thread = threading.Thread(target=ask)
    try:
        thread.start()
        wait_until(lambda: found_below(daemon.output, ".partial*") or _leased(daemon), "a task")
        assert daemon.stop() == 0, daemon.log
        thread.join(PATIENCE)
        assert statuses == [503]
    finally:
        daemon.end()


def _leased(daemon: Daemon) -> bool:
    return (daemon.output / "jobs").exists()
