"""Jobs that ask for previews, and what a job is called: what whoever watches them is told."""

import io
import json
from typing import Any

import httpx2
import pytest
from PIL import Image

from tests.server.conftest import finished
from tests.server.in_process import Application, data_url
from tests.server.sketching import STEPS, Sketching
from tests.server.test_events import stream


def create(client: httpx2.Client, *tasks: dict[str, Any], **job: Any) -> str:
    answer = client.post("/v1/jobs", json={"tasks": tasks, **job}).raise_for_status()
    return str(answer.json()["id"])


def test_a_job_shows_what_its_pictures_have_come_to_until_they_are_done(
    sketching: tuple[Sketching, Application, httpx2.Client],
) -> None:
    played, application, client = sketching
    job = create(client, {"prompt": "first"}, {"prompt": "second"}, previews=2)
    shown: list[tuple[int, int, int]] = []
    for event in stream(client, job):
        if event["event"] != "preview":
            continue
        data = event["data"]
        shown.append((data["position"], data["step"], data["steps"]))
        answer = client.get(data["url"]).raise_for_status()
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["cache-control"] == "no-store"
        if data["step"] == 4:
            with Image.open(io.BytesIO(answer.content)) as image:
                assert abs(image.getpixel((8, 8))[2] - 160) < 4  # type: ignore[index]
            seen = client.get(f"/v1/jobs/{job}").json()["running"]
            [running] = [one for one in seen if one["position"] == data["position"]]
            assert running["preview_url"] == data["url"]
            assert (running["title"], running["kind"]) == (
                ("first", "second")[data["position"]],
                "generate",
            )
            application.be_called_by("somebody else")
            assert client.get(data["url"]).status_code == 404
            application.be_called_by("local")
            played.turns.release()
    assert shown == [(0, 2, STEPS), (0, 4, STEPS), (1, 2, STEPS), (1, 4, STEPS)]
    gone = client.get(data["url"])
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "preview_not_found")


def test_whoever_watches_all_jobs_hears_of_previews_where_they_are_asked_for(
    sketching: tuple[Sketching, Application, httpx2.Client],
) -> None:
    played, _, client = sketching
    told: list[tuple[str, str]] = []
    with client.stream("GET", "/v1/events") as answer:
        lines = answer.iter_lines()
        next(line for line in lines if line == "event: open")
        quiet = create(client, {"prompt": "nobody looks"})
        played.turns.release()
        finished(client, quiet)
        shown = create(client, {"prompt": "somebody looks"}, previews=3)
        name = ""
        for line in lines:
            head, _, value = line.partition(": ")
            if head == "event":
                name = value
            elif head == "data" and name in ("preview", "task"):
                data = json.loads(value)
                told.append((name, data["job"]))
                if name == "preview" and data["step"] == 6:
                    played.turns.release()
                if told[-1] == ("task", shown):
                    break
    assert told[0] == ("task", quiet)
    assert set(told[1:-1]) == {("preview", shown)}


@pytest.mark.parametrize("previews", [-1, 4, "2", True, 1.5])
def test_a_number_of_previews_that_is_none_is_refused(
    previews: Any, sketching: tuple[Sketching, Application, httpx2.Client]
) -> None:
    _, _, client = sketching
    answer = client.post("/v1/jobs", json={"tasks": [{"prompt": "a"}], "previews": previews})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "previews")


def test_a_job_says_in_a_few_words_what_it_is_about(
    sketching: tuple[Sketching, Application, httpx2.Client],
) -> None:
    played, _, client = sketching
    long = create(client, {"prompt": f"  a house\n {'of bricks ' * 100}"}, {"prompt": "another"})
    edit = create(client, {"instruction": "make it snow", "source_images": [data_url()]})
    refused = create(client, {"prompt": 7, "width": "x"})
    played.turns.release(3)
    for job in (long, edit):
        finished(client, job)
    jobs = {job["id"]: job for job in client.get("/v1/jobs").json()["data"]}
    assert (
        jobs[long]["title"].startswith("a house of bricks of") and len(jobs[long]["title"]) == 160
    )
    assert jobs[long]["kinds"] == {"generate": 2}
    assert (jobs[edit]["title"], jobs[edit]["kinds"]) == ("make it snow", {"edit": 1})
    assert (jobs[refused]["title"], jobs[refused]["kinds"]) == ("", {"generate": 1})
