"""What failed, as callers and the page read it: equal failures of a job are one line."""

from collections.abc import Iterator

import httpx2
import pytest

from tests.server.conftest import finished
from tests.server.in_process import Application

SMALL = {"width": 32, "height": 32, "num_inference_steps": 1}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    folder = tmp_path_factory.mktemp("failing")
    with Application(folder) as application, application.client() as client:
        yield client


def test_equal_failures_of_a_job_are_counted_together(client: httpx2.Client) -> None:
    refused = [{"prompt": f"narrow {n}", "width": 17} for n in range(300)]
    drawn = [{"prompt": "a house", **SMALL}, {"prompt": "!nan a house", **SMALL}]
    job = client.post("/v1/jobs", json={"tasks": [*drawn, *refused]}).json()["id"]
    finished(client, job)
    other = client.post("/v1/jobs", json={"tasks": refused[:1]}).json()["id"]
    finished(client, other)

    answer = client.get("/v1/failures").json()
    assert not answer["has_more"]
    groups = [(group["job"], group["count"]) for group in answer["data"]]
    assert groups[0] == (other, 1) and sorted(groups[1:]) == [(job, 1), (job, 300)]
    [many] = [group for group in answer["data"] if group["count"] == 300]
    assert many["positions"] == list(range(2, 302))
    assert many["first"]["id"] == f"{job}/2" and "width" in many["first"]["error"]
    assert many["first"]["task"]["prompt"] == "narrow 0"
    assert client.get("/v1/failures?limit=1").json()["has_more"]
