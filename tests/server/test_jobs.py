"""Jobs by HTTP: what is accepted, what is refused, and what comes of it."""

import json
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import httpx2
import pytest
from PIL import Image

from tests.server.conftest import finished
from tests.server.in_process import Application, data_url


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    with Application(tmp_path_factory.mktemp("served")) as application:
        yield application


@pytest.fixture
def client(served: Application) -> Iterator[httpx2.Client]:
    with served.client() as client:
        yield client


def done(client: httpx2.Client, *tasks: Any, **job: Any) -> tuple[dict[str, Any], list[Any]]:
    """A job at its end, and its results."""
    answer = client.post("/v1/jobs", json={"tasks": tasks, **job})
    assert answer.status_code == 202, answer.text
    ended = finished(client, answer.json()["id"])
    return ended, client.get(ended["results_url"]).json()["data"]


def test_a_job_may_draw_edit_and_score(client: httpx2.Client) -> None:
    edit = {"instruction": "make it blue", "source_images": [data_url()]}
    score = {**edit, "edited_image": data_url("blue"), "kind": "score"}
    job, results = done(client, {"prompt": "a house", "width": 64, "height": 32}, edit, score)
    assert job["status"] == "completed"
    assert [r["kind"] for r in results] == ["generate", "edit", "score"]
    picture = client.get(results[0]["url"])
    assert picture.headers["content-type"] == "image/png"
    assert Image.open(BytesIO(picture.content)).size == (64, 32)
    assert client.get(results[1]["url"]).headers["content-type"] == "image/png"
    verdict = client.get(results[2]["url"]).json()
    assert set(verdict["used"]["scores"]) == {"SC", "PQ", "O"}


def test_a_bad_task_fails_alone_with_its_reason(client: httpx2.Client) -> None:
    job, results = done(
        client,
        {"prompt": "one"},
        {"promt": "two"},
        "three",
        {"prompt": "four", "width": 65},
        {"prompt": "five", "kind": "sing"},
        {"prompt": "six"},
    )
    assert job["status"] == "completed"
    assert job["counts"] == {"total": 6, "succeeded": 2, "failed": 4}
    assert [r["success"] for r in results] == [True, False, False, False, False, True]
    assert "prompt" in results[1]["error"]
    assert "width" in results[3]["error"]
    assert "'sing'" in results[4]["error"]
    assert results[1]["url"] is None


def test_a_job_of_which_no_task_can_be_used_has_failed_at_once(client: httpx2.Client) -> None:
    answer = client.post("/v1/jobs", json={"tasks": [{"prompt": ""}, 7]})
    assert (answer.status_code, answer.json()["status"]) == (202, "failed")


@pytest.mark.parametrize(
    "task",
    [
        {"prompt": "x", "output_path": "mine.png"},
        {"prompt": "x", "output_path": "/etc/cron.d/x.png"},
        {"prompt": "x", "lora_path": "/etc/passwd"},
        {"prompt": "x", "loras": [{"path": "../../x.safetensors"}]},
        {"prompt": "x", "loras": "/etc/passwd"},
        {"instruction": "x", "source_images": ["/etc/passwd"]},
        {"instruction": "x", "source_images": "/etc/passwd"},
        {"instruction": "x", "source_images": [data_url()], "edited_image": "/etc/passwd"},
    ],
)
def test_no_path_of_the_machine_is_taken_from_a_caller(client: httpx2.Client, task: Any) -> None:
    _, [result] = done(client, task)
    assert not result["success"]
    assert any(word in result["error"] for word in ("output_path", "lora", "image"))


def test_no_path_of_the_machine_is_told_to_a_caller(
    client: httpx2.Client, served: Application
) -> None:
    edit = {"instruction": "x", "source_images": [data_url()]}
    score = {**edit, "edited_image": data_url("blue")}
    job, results = done(client, {"prompt": "x"}, {"prompt": "!nan x"}, edit, score)
    told = json.dumps([job, results, client.get("/v1/workers").json()]).encode()
    told += b"".join(client.get(r["url"]).content for r in results if r["success"])
    assert str(served.folder).encode() not in told


@pytest.mark.parametrize(
    ("body", "param", "code", "said"),
    [
        ({}, "tasks", "missing_required_parameter", "Missing required parameter: 'tasks'."),
        ({"tasks": []}, "tasks", "array_below_min_length", "at least 1 items"),
        ({"tasks": {}}, "tasks", "invalid_type", "expected an array, but got an object"),
        ({"tasks": [{}], "priority": 11}, "priority", "integer_above_max_value", "<= 10"),
        ({"tasks": [{}], "priority": "high"}, "priority", "invalid_type", "an integer"),
        ({"tasks": [{}], "prority": 1}, "prority", "unknown_parameter", "Unknown parameter"),
        ({"tasks": [{"prompt": "x"}] * 10_001}, "tasks", None, "10000"),
    ],
)
def test_a_request_that_is_wrong_as_a_whole_is_refused(
    client: httpx2.Client, body: Any, param: str, code: str | None, said: str
) -> None:
    answer = client.post("/v1/jobs", json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param and said in error["message"], error
    assert code in (None, error["code"])


def test_a_number_in_an_address_is_told_as_one(client: httpx2.Client) -> None:
    for limit, code in (("0", "integer_below_min_value"), ("many", "invalid_type")):
        error = client.get("/v1/jobs", params={"limit": limit}).json()["error"]
        assert (error["param"], error["code"]) == ("limit", code), error


def test_each_task_has_a_seed_that_stays(client: httpx2.Client) -> None:
    _, results = done(
        client, {"prompt": "a"}, {"prompt": "b", "seed": 7}, {"prompt": "c", "seed": -1}
    )
    assert results[1]["seed"] == 7
    assert all(isinstance(r["seed"], int) and r["seed"] >= 0 for r in results)


def test_names_of_tasks_are_kept_and_each_is_one_task(client: httpx2.Client) -> None:
    _, results = done(
        client,
        {"prompt": "a", "task_id": "1"},
        {"prompt": "b"},
        {"prompt": "c", "task_id": "1"},
    )
    assert results[0]["task_id"] == "1"
    assert results[1]["task_id"] != "1"
    assert results[1]["success"]
    assert "task_id" in results[2]["error"]


def test_the_same_key_is_the_same_job(client: httpx2.Client) -> None:
    key = {"Idempotency-Key": "order-1"}
    body = {"tasks": [{"prompt": "once", "seed": -1}]}
    first = client.post("/v1/jobs", json=body, headers=key)
    again = client.post("/v1/jobs", json=body, headers=key)
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["idempotent-replayed"] == "true"
    other = client.post("/v1/jobs", json={"tasks": [{"prompt": "twice"}]}, headers=key)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
    assert client.post("/v1/jobs", json=body, headers={"Idempotency-Key": ""}).status_code == 400


def test_jobs_are_listed_in_pages_the_newest_first(client: httpx2.Client) -> None:
    ids = [done(client, {"prompt": f"page {n}"})[0]["id"] for n in range(5)]
    seen: list[str] = []
    after: dict[str, str] = {}
    while len(seen) < 5:
        page = client.get("/v1/jobs", params={"limit": 2, **after}).json()
        seen += [job["id"] for job in page["data"]]
        assert page["has_more"]
        after = {"after": page["last_id"]}
    assert seen[:5] == ids[::-1]
    failed = client.get("/v1/jobs", params={"status": "failed"}).json()["data"]
    assert all(job["status"] == "failed" for job in failed)
    assert client.get("/v1/jobs", params={"after": "job_none"}).status_code == 404
    assert client.get("/v1/jobs", params={"limit": 0}).status_code == 400


def test_results_are_paged_in_the_order_of_the_tasks(client: httpx2.Client) -> None:
    tasks = [{"prompt": f"{n}"} if n % 3 else {"prompt": ""} for n in range(10)]
    job, _ = done(client, *tasks)
    seen: list[int] = []
    after = -1
    while True:
        page = client.get(job["results_url"], params={"limit": 4, "after": after}).json()
        seen += [result["position"] for result in page["data"]]
        if not page["has_more"]:
            break
        after = page["last_position"]
    assert seen == list(range(10))
    failed = client.get(job["results_url"], params={"success": False}).json()["data"]
    assert [result["position"] for result in failed] == [0, 3, 6, 9]


@pytest.mark.parametrize("place", ["", "/results", "/results/0", "/results/0/content", "/events"])
def test_what_is_not_there_is_said_to_be_so(client: httpx2.Client, place: str) -> None:
    answer = client.get(f"/v1/jobs/job_none{place}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "job_not_found")


def test_a_result_that_is_not_there_is_not_found(client: httpx2.Client) -> None:
    job, _ = done(client, {"prompt": "x"}, {"prompt": ""})
    for place in ("results/2", "results/-1", "results/1/content"):
        answer = client.get(f"/v1/jobs/{job['id']}/{place}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "result_not_found")
    assert client.get(f"/v1/jobs/{job['id']}/results/x").status_code == 400
