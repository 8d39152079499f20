"""Requests for pictures that come twice under one Idempotency-Key, against the real process."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI

from tests.conftest import HELD, going_on, standing_still, wait_until
from tests.server.batch_files import data_url
from tests.server.conftest import Daemon
from tests.server.image_clients import SMALL, asked, openai_client, png

RATE = 60.0  # device seconds for a megapixel and step: 0.06 s for 32 x 32
SLOW: dict[str, Any] = {"size": "128x128"}  # a second
GENERATIONS = "/v1/images/generations"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One for all tests; each has prompts and keys of its own."""
    daemon = Daemon(
        tmp_path_factory.mktemp("repeated"),
        editor={"model": "simulated"},
        simulated={"seconds_per_megapixel_step": RATE},
    )
    yield daemon.start()
    daemon.end()


@pytest.fixture
def client(daemon: Daemon) -> Iterator[OpenAI]:
    with openai_client(daemon) as client:
        yield client


def key(name: str) -> dict[str, str]:
    return {"Idempotency-Key": name}


def ask(client: httpx2.Client, name: str, **body: Any) -> httpx2.Response:
    return client.post(GENERATIONS, json={**SMALL, **body}, headers=key(name))


def drawn(daemon: Daemon, prompt: str) -> int:
    """How many pictures there are of a prompt."""
    with daemon.client() as client:
        found = client.get("/v1/results", params={"words": prompt, "outcome": "done"})
        return len(found.raise_for_status().json()["data"])


def completed(answer: httpx2.Response) -> list[dict[str, Any]]:
    """The pictures of a stream, without the moments at which its events were sent."""
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines()]
    events = [json.loads(line) for line in lines if line.startswith("{")]
    finals = [event for event in events if event["type"].endswith(".completed")]
    return [{k: v for k, v in event.items() if k != "created_at"} for event in finals]


def test_the_same_request_gets_the_same_answer_and_nothing_is_drawn(daemon: Daemon) -> None:
    with daemon.client() as client:
        first = ask(client, "same", prompt="a mill", n=2)
        again = ask(client, "same", prompt="a mill", n=2)
        other_key = ask(client, "other", prompt="a mill", n=2)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json()
    assert other_key.json()["data"] != first.json()["data"]
    assert drawn(daemon, "a mill") == 4


def test_a_key_belongs_to_one_request_of_whatever_kind(client: OpenAI) -> None:
    generate, edit = client.images.generate, client.images.edit
    generate(prompt="a barn", **SMALL, extra_headers=key("one"))
    edit(prompt="a barn", image=png(), **SMALL, extra_headers=key("two"))
    others: list[Any] = [
        lambda: generate(prompt="a boat", **SMALL, extra_headers=key("one")),
        lambda: generate(prompt="a barn", n=2, **SMALL, extra_headers=key("one")),
        lambda: generate(prompt="a barn", stream=True, **SMALL, extra_headers=key("one")),
        lambda: edit(prompt="a barn", image=png(), **SMALL, extra_headers=key("one")),
        lambda: edit(prompt="a barn", image=png((1, 2, 3)), **SMALL, extra_headers=key("two")),
        lambda: client.post(
            "/jobs",
            body={"tasks": [{"prompt": "a barn"}]},
            cast_to=object,
            options={"headers": key("one")},
        ),
    ]
    for other in others:
        with pytest.raises(openai.ConflictError, match="used before") as refused:
            other()
        assert refused.value.code == "idempotency_key_reused"
        assert refused.value.response.headers["x-should-retry"] == "false"


def test_an_edit_is_known_by_its_pictures_and_not_by_the_form_around_them(
    client: OpenAI, daemon: Daemon
) -> None:
    def edited(**how: Any) -> Any:
        answer = client.images.edit(
            prompt="a quiet lake", **SMALL, extra_headers=key("edit"), **how
        )
        assert answer.data is not None
        return answer.data[0].b64_json

    assert edited(image=png()) == edited(image=png())  # each form has a border of its own
    assert drawn(daemon, "a quiet lake") == 1
    body = {"prompt": "a loud lake", "images": [data_url()], **SMALL}
    with daemon.client() as plain:
        answers = [
            plain.post("/v1/images/edits", json=body, headers=key("in-JSON")) for _ in range(2)
        ]
    assert answers[0].status_code == 200 and answers[0].json() == answers[1].json()
    assert drawn(daemon, "a loud lake") == 1


def test_two_at_once_wait_for_the_same_picture(daemon: Daemon) -> None:
    start = threading.Barrier(3)

    def one(number: int) -> Any:
        with daemon.client() as client:
            start.wait()
            return ask(client, "at-once", prompt="a twin", **SLOW).raise_for_status().json()

    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(one, range(3)))
    assert answers[0] == answers[1] == answers[2]
    assert drawn(daemon, "a twin") == 1


def test_a_stream_comes_again_with_its_pictures(daemon: Daemon) -> None:
    def streamed() -> httpx2.Response:
        with daemon.client() as client:
            return ask(client, "stream", prompt="a river", n=2, stream=True, partial_images=1)

    first, again = streamed(), streamed()
    assert again.headers["idempotent-replayed"] == "true"
    pictures = completed(first)
    assert len(pictures) == 2 and completed(again) == pictures
    assert drawn(daemon, "a river") == 2


def test_a_client_that_was_cut_off_comes_back_for_its_picture(daemon: Daemon) -> None:
    """What it asked for is drawn although nobody waits for it."""
    body = {"prompt": f"{HELD} a tower", "n": 2, **SMALL}
    with asked(daemon, GENERATIONS, body, **key("cut")):
        wait_until(lambda: standing_still(daemon.workers()), "a picture that is under way")
    wait_until(lambda: "generations 499" in daemon.log, "the end of the connection")
    with going_on(daemon.workers), daemon.client() as client:
        answer = ask(client, "cut", **body)
    assert answer.status_code == 200 and len(answer.json()["data"]) == 2
    assert drawn(daemon, "a tower") == 2


def test_a_request_that_failed_fails_again_in_the_same_way(daemon: Daemon) -> None:
    for more in ({}, {"stream": True}):
        with daemon.client() as client:
            name = f"failure {len(more)}".replace(" ", "-")
            answers = [ask(client, name, prompt="!nan", n=3, **more) for _ in range(2)]
            said = [answer.text.partition('"error"')[2] for answer in answers]
        assert said[0] == said[1] and "a simulated failure" in said[0]
        assert answers[0].status_code == answers[1].status_code == (200 if more else 400)
        assert answers[1].headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize("name", ["", "a b", "a" * 256])
def test_what_is_no_key_is_refused(daemon: Daemon, name: str) -> None:
    with daemon.client() as client:
        answer = ask(client, name, prompt="a house")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "Idempotency-Key"


def test_a_killed_daemon_draws_what_was_asked_for_once(daemon: Daemon) -> None:
    """Before its end, and after the next start: one answer, one set of pictures."""
    with daemon.client() as client:
        before = ask(client, "before", prompt="an old oak").raise_for_status().json()
    body = {"prompt": f"{HELD} a young oak", "n": 2, **SMALL}
    with asked(daemon, GENERATIONS, body, **key("across")):
        wait_until(lambda: standing_still(daemon.workers()), "a picture that is under way")
        daemon.kill()
    daemon.start()
    with going_on(daemon.workers), daemon.client() as client:
        assert ask(client, "before", prompt="an old oak").json() == before
        other = ask(client, "before", prompt="a new oak")
        assert other.status_code == 409
        across = ask(client, "across", **body)
        assert across.headers["idempotent-replayed"] == "true"
        assert len(across.raise_for_status().json()["data"]) == 2
        stream = ask(client, "across", stream=True, **body)
        assert stream.status_code == 409
    assert drawn(daemon, "a young oak") == 2 and drawn(daemon, "an old oak") == 1


def test_pictures_that_were_removed_are_gone(daemon: Daemon) -> None:
    with daemon.client() as client:
        ask(client, "gone", prompt="a ruin").raise_for_status()
        (found,) = client.get("/v1/results", params={"words": "a ruin"}).json()["data"]
        for file in (daemon.output / "jobs" / found["job"]).iterdir():
            file.unlink()
        answer = ask(client, "gone", prompt="a ruin")
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "result_gone")
