"""What operators see and do: health, readiness, metrics, workers, drains, the access log."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from loguru import logger
from prometheus_client.parser import text_string_to_metric_families

from core.multi_gpu_image_generator import MultiGPUImageGenerator
from tests.conftest import simulated, wait_until
from tests.played_workers import PlayedWorkers
from tests.server.conftest import finished
from tests.server.in_process import Application, data_url

SMALL = {"width": 32, "height": 32, "num_inference_steps": 1}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    with Application(tmp_path_factory.mktemp("served")) as application:
        yield application


@pytest.fixture
def client(served: Application) -> Iterator[httpx2.Client]:
    with served.client() as client:
        yield client


def done(client: httpx2.Client, *tasks: Any) -> dict[str, Any]:
    return finished(client, client.post("/v1/jobs", json={"tasks": tasks}).json()["id"])


def worker(client: httpx2.Client, name: str) -> dict[str, Any]:
    found = client.get("/v1/workers").json()["data"]
    view: dict[str, Any] = next(one for one in found if one["id"] == name)
    return view


def metrics(client: httpx2.Client) -> dict[str, dict[tuple[str, ...], float]]:
    """Samples by name and labels."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            labels = tuple(v for k, v in sorted(sample.labels.items()) if k != "le")
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def test_a_daemon_with_a_loaded_model_is_ready(client: httpx2.Client) -> None:
    assert client.get("/healthz").status_code == 200
    wait_until(lambda: client.get("/readyz").status_code == 200, "readiness")


def test_a_daemon_whose_model_cannot_be_loaded_says_so_everywhere(tmp_path: Path) -> None:
    played = PlayedWorkers(loads=lambda worker: False)
    with Application(tmp_path, 1, played.backend) as application, application.client() as client:
        job = done(client, {"prompt": "x"})
        assert job["status"] == "failed"
        [result] = client.get(job["results_url"]).json()["data"]
        assert "no such" in result["error"]
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert "no such" in ready.json()["reason"]
        assert client.get("/healthz").status_code == 200
        assert done(client, {"prompt": "later"})["status"] == "failed"


def test_metrics_count_tasks_by_kind_and_outcome(client: httpx2.Client) -> None:
    before = metrics(client).get("imagegen_tasks_total", {})
    edit = {"instruction": "blue", "source_images": data_url()}
    done(client, {"prompt": "a"}, {"prompt": "b"}, {"prompt": "!nan c"}, edit, {"prompt": ""})
    now = metrics(client)
    counted = {
        key: value - before.get(key, 0.0)
        for key, value in now["imagegen_tasks_total"].items()
        if value != before.get(key, 0.0)
    }
    assert counted == {
        ("generate", "done"): 2.0,
        ("generate", "failed"): 2.0,
        ("edit", "done"): 1.0,
    }
    assert now["imagegen_task_seconds_count"][("edit",)] >= 1
    assert now["imagegen_task_wait_seconds_count"][("generate",)] >= 3
    assert sum(now["imagegen_queue_depth"].values()) == 0
    assert now["imagegen_jobs"][()] == 0
    assert now["imagegen_model_loads_total"][("generate",)] >= 1
    assert now["imagegen_host_memory_bytes"][()] > now["imagegen_process_memory_bytes"][()] > 0
    assert {name for _, name in now["imagegen_worker_state"]} == {"cpu0", "cpu1"}
    assert now["imagegen_pictures_per_second"][()] > 0


def test_a_drained_worker_finishes_its_task_and_gets_nothing_more(tmp_path: Path) -> None:
    turns = threading.Semaphore(0)
    played = PlayedWorkers(may=lambda worker, lease: turns.acquire())
    with Application(tmp_path, 2, played.backend) as application, application.client() as client:
        wait_until(lambda: client.get("/readyz").status_code == 200, "readiness")
        body = {"tasks": [{"prompt": f"{n}"} for n in range(6)]}
        job = client.post("/v1/jobs", json=body).json()["id"]
        wait_until(lambda: len(worker(client, "cpu0")["tasks"]) == 1, "a task of cpu0")
        wait_until(lambda: len(worker(client, "cpu1")["tasks"]) == 1, "a task of cpu1")
        assert client.post("/v1/workers/cpu0/drain").json()["drained"]
        assert worker(client, "cpu0")["tasks"][0]["job"] == job  # it may finish that
        turns.release(6)
        assert finished(client, job)["counts"]["succeeded"] == 6
        wait_until(lambda: worker(client, "cpu0")["status"] == "drained", "the drain")
        assert [name for name, _ in played.given].count("cpu0") == 1
        client.post("/v1/workers/cpu0/undrain")
        wait_until(lambda: worker(client, "cpu0")["status"] == "ready", "its return")
        assert client.post("/v1/workers/gpu7/drain").status_code == 404
        turns.release(100)


def test_whoever_waits_for_drained_workers_is_told_so(tmp_path: Path) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}", level="INFO")
    with Application(tmp_path / "daemon", 2) as application, application.client() as client:
        wait_until(lambda: client.get("/readyz").status_code == 200, "readiness")
        for name in ("cpu0", "cpu1"):
            client.post(f"/v1/workers/{name}/drain")
        wait_until(lambda: worker(client, "cpu1")["status"] == "drained", "the drain")
        assert client.get("/readyz").json()["workers"] == {"cpu0": "drained", "cpu1": "drained"}

        config = simulated(use_server=application.url)
        with MultiGPUImageGenerator(config=config, output_dir=tmp_path / "mine") as generator:
            mine = generator.submit([{"prompt": f"{n}", **SMALL} for n in range(20)])
            heard = "The server at http"
            wait_until(lambda: [line for line in lines if heard in line], "the client's line")
            [job] = client.get("/v1/jobs?limit=1").json()["data"]
            assert job["waiting_for"] == (
                "Tasks to generate wait: cpu0 and cpu1 are drained. They go on when one of them "
                "is undrained."
            )
            status = tmp_path / "mine" / "status.json"
            wait_until(lambda: job["waiting_for"] in status.read_text(), "the wait in status.json")
            client.post("/v1/workers/cpu0/undrain")
            assert all(result.success for result in mine.results())
    logger.remove(sink)
    told = [line.strip() for line in lines if line.startswith("The server")]
    assert told == [
        f"The server at {application.url} says: {job['waiting_for']}",
        "The server goes on with the tasks.",
    ]


def test_a_model_is_unloaded_and_comes_back_with_its_next_task(client: httpx2.Client) -> None:
    done(client, {"prompt": "first"})
    client.post("/v1/workers/unload", json={"kind": "generate"})

    def gone() -> bool:
        views = client.get("/v1/workers").json()["data"]
        return all(v["status"] == "stopped" for v in views if v["kind"] == "generate")

    wait_until(gone, "the workers' end")
    assert done(client, {"prompt": "second"})["status"] == "completed"
    assert client.post("/v1/workers/load", json={"kind": "sing"}).status_code == 400


def test_another_caller_sees_that_a_worker_is_busy_and_not_with_what(tmp_path: Path) -> None:
    turns = threading.Semaphore(0)
    played = PlayedWorkers(may=lambda worker, lease: turns.acquire())
    with Application(tmp_path, 1, played.backend) as application, application.client() as client:
        client.post("/v1/jobs", json={"tasks": [{"prompt": "secret", "task_id": "mine"}]})
        wait_until(lambda: worker(client, "cpu0")["tasks"], "a task")
        assert worker(client, "cpu0")["tasks"][0]["task_id"] == "mine"
        application.be_called_by("somebody else")
        assert worker(client, "cpu0")["tasks"] == [{"doing": "running"}]
        turns.release(10)


@pytest.mark.parametrize(
    ("sent", "is_kept"),
    [("order-17.a", True), ("x" * 128, True), ("", False), ("x" * 129, False), ("a b", False)],
)
def test_every_answer_has_a_request_id(client: httpx2.Client, sent: str, is_kept: bool) -> None:
    answer = client.get("/v1/jobs/job_none", headers={"X-Request-ID": sent})
    got = answer.headers.get_list("x-request-id")
    assert len(got) == 1
    assert (got[0] == sent) == is_kept
    assert got[0]


def test_the_access_log_has_a_line_for_each_request_without_its_query(
    client: httpx2.Client,
) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}", level="INFO")
    try:
        client.get("/v1/jobs/job_none?token=secret", headers={"x-request-id": "trace-1"})
        client.get("/pictures/secret.png")
        client.get("/healthz")
        for what in ("trace-1", "/pictures/"):
            wait_until(lambda: [line for line in lines if what in line], "the line")  # noqa: B023
    finally:
        logger.remove(sink)
    [line] = [line for line in lines if "trace-1" in line]
    assert "GET /v1/jobs/job_none 404" in line
    assert "GET /pictures/… 404" in "".join(lines)
    assert "secret" not in "".join(lines)
    assert "healthz" not in "".join(lines)


def test_the_document_of_the_api_can_be_made(client: httpx2.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/jobs", "/v1/jobs/{id}/events", "/v1/workers/{name}/drain", "/metrics"} <= set(
        paths
    )
