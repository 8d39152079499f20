"""Too much, too long, too full: quotas, disks that refuse, results whose time is up."""

import json
import resource
import signal
import threading
from pathlib import Path
from typing import Any

import psutil

from apps.server.context import LOCAL
from apps.server.errors import ApiError
from apps.server.records import NewJob
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.store.ledger import Ledger
from tests.both_engines import ON_BOTH
from tests.conftest import found_below, simulated, wait_until
from tests.played_workers import PlayedWorkers
from tests.server.batch_files import request, text_of
from tests.server.conftest import Daemon, finished
from tests.server.in_process import Application

SMALL = {"width": 64, "height": 64, "num_inference_steps": 1}


def tasks(count: int) -> dict[str, Any]:
    return {"tasks": [{"prompt": f"house {n}", **SMALL} for n in range(count)]}


def test_who_has_too_much_waiting_is_told_when_to_come_again(tmp_path: Path) -> None:
    turns = threading.Semaphore(0)
    played = PlayedWorkers(may=lambda worker, lease: turns.acquire())
    rules = {"max_waiting_per_key": 5, "max_waiting": 8}
    with (
        Application(tmp_path, 1, played.backend, server=rules) as application,
        application.client() as client,
    ):
        assert client.post("/v1/jobs", json=tasks(6)).status_code == 400  # never any room
        key = {"Idempotency-Key": "k"}
        first = client.post("/v1/jobs", json=tasks(4), headers=key)
        refused = client.post("/v1/jobs", json=tasks(2))
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert int(refused.headers["retry-after"]) >= 1
        # What was accepted is found again, however much waits.
        assert (
            client.post("/v1/jobs", json=tasks(4), headers=key).json()["id"] == first.json()["id"]
        )
        application.be_called_by("another")
        assert client.post("/v1/jobs", json=tasks(4)).status_code == 202
        application.be_called_by("third")
        assert client.post("/v1/jobs", json=tasks(1)).status_code == 429
        turns.release(100)
        wait_until(lambda: application.service.waiting() == 0, "an empty queue")
        assert client.post("/v1/jobs", json=tasks(5)).status_code == 202


def test_each_command_has_room_of_its_own_in_the_queue(tmp_path: Path) -> None:
    """As it has its own share of the devices: what others of its user wait for is not counted."""
    turns = threading.Semaphore(0)
    played = PlayedWorkers(may=lambda worker, lease: turns.acquire())
    rules = {"max_waiting_per_key": 5, "max_waiting": 13}

    def hand_in(command: str, count: int) -> int:
        """The status with which tasks of a command are taken or refused."""
        made = tuple(
            {"prompt": "house", "seed": n, "output_path": f"{command}-{count}-{n}.png", **SMALL}
            for n in range(count)
        )
        job = NewJob(LOCAL, made, metadata={"owner": command})
        try:
            application.call(application.service.submit(job))
        except ApiError as refused:
            assert refused.code == "rate_limit_exceeded"
            return refused.status
        return 202

    with (
        Application(tmp_path, 1, played.backend, server=rules) as application,
        application.client() as client,
    ):
        assert client.post("/v1/jobs", json=tasks(5)).status_code == 202
        assert hand_in("first", 5) == 202
        assert hand_in("first", 1) == 429
        assert client.post("/v1/jobs", json=tasks(1)).status_code == 429
        assert hand_in("second", 3) == 202
        assert hand_in("third", 1) == 429  # no room for anybody
        turns.release(100)
        wait_until(lambda: application.service.waiting() == 0, "an empty queue")
        assert hand_in("first", 5) == 202


def test_nobody_sees_or_ends_the_jobs_of_another_caller(tmp_path: Path) -> None:
    with Application(tmp_path) as application, application.client() as client:
        job = client.post("/v1/jobs", json=tasks(1)).json()["id"]
        finished(client, job)
        application.be_called_by("another")
        for place in ("", "/results", "/results/0", "/results/0/content", "/events"):
            assert client.get(f"/v1/jobs/{job}{place}").status_code == 404
        assert client.delete(f"/v1/jobs/{job}").status_code == 404
        assert client.get("/v1/jobs").json()["data"] == []


def test_results_whose_time_is_up_leave_nothing_behind(tmp_path: Path) -> None:
    with Application(tmp_path) as application, application.client() as client:
        old = client.post("/v1/jobs", json=tasks(3)).json()["id"]
        ended = finished(client, old)["ended_at"]
        assert len(list((tmp_path / "jobs" / old).iterdir())) == 3
        application.call(application.service.forget_ended(ended + 2))
        assert client.get(f"/v1/jobs/{old}").status_code == 404
        assert not (tmp_path / "jobs" / old).exists()
    ledger = Ledger.open(tmp_path)
    try:
        assert ledger.entries() == {}
    finally:
        ledger.close()


def test_results_are_kept_until_those_who_wait_for_them_have_them(tmp_path: Path) -> None:
    """However short their time is, and however late they are read: here it is 4 ms."""
    rules = {"keep_results": 1e-6}
    asked = {"prompt": "a house", "size": "256x256", "n": 10, "output_format": "webp"}
    with Application(tmp_path / "out", server=rules) as application, application.client() as client:
        images = "/v1/images/generations"
        answer = client.post(images, json=asked)
        assert (answer.status_code, len(answer.json().get("data", []))) == (200, 10)
        streamed = client.post(images, json={**asked, "stream": True}).text
        assert streamed.count("event: image_generation.completed") == 10, streamed[-300:]

        lines = text_of(request(f"{n}", size="256x256") for n in range(40)).encode()
        sent = client.post("/v1/files", data={"purpose": "batch"}, files={"file": lines}).json()
        batch = {"input_file_id": sent["id"], "endpoint": images, "completion_window": "24h"}
        client.post("/v1/batches", json=batch).raise_for_status()
        written = "/v1/files?purpose=batch_output"
        [file] = wait_until(lambda: client.get(written).json()["data"], "the batch's results")
        results = client.get(f"/v1/files/{file['id']}/content").text.splitlines()
        assert [json.loads(line)["error"] for line in results] == [None] * 40

        config = simulated(use_server=application.url)
        with MultiGPUImageGenerator(config=config, output_dir=tmp_path / "mine") as generator:
            mine = generator.generate_batch(tasks(40)["tasks"])
        assert [result.error for result in mine] == [None] * 40
        # Nobody waits for any of it now.
        wait_until(lambda: not client.get("/v1/jobs").json()["data"], "the end of their time")


@ON_BOTH
def test_a_full_disk_loses_nothing_and_work_goes_on_when_there_is_room(daemon: Daemon) -> None:
    """Limits on the size of files stand for a disk that takes nothing."""
    daemon.settings = {"simulated": {"seconds_per_megapixel_step": 25.0}}
    daemon.start()
    with daemon.client() as client:
        job = client.post("/v1/jobs", json=tasks(12)).json()["id"]
        wait_until(lambda: found_below(daemon.output, "*.png"), "a picture")
        assert daemon.process is not None
        processes = [
            psutil.Process(daemon.process.pid),
            *daemon.workplace.workers(daemon.process.pid),
        ]
        for process in processes:
            process.rlimit(psutil.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        refused = wait_until(
            lambda: (a := client.post("/v1/jobs", json=tasks(1))).status_code == 507 and a, "507"
        )
        assert refused.json()["error"]["code"] == "insufficient_storage"
        assert client.get("/readyz").status_code == 503
        for process in [processes[0], *daemon.workplace.workers(daemon.process.pid)]:
            process.rlimit(psutil.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        ended = finished(client, job)
        assert ended["counts"] == {"total": 12, "succeeded": 12, "failed": 0}
        wait_until(lambda: client.get("/readyz").status_code == 200, "readiness")


@ON_BOTH
def test_a_stop_leaves_a_cancelled_job_cancelled(daemon: Daemon) -> None:
    daemon.settings = {"simulated": {"seconds_per_megapixel_step": 1e6}}  # an hour each
    daemon.start()
    with daemon.client() as client:
        job = client.post("/v1/jobs", json=tasks(5)).json()["id"]
        assert client.delete(f"/v1/jobs/{job}").json()["cancelling"]
    daemon.kill()
    daemon.settings = {}
    daemon.start()
    with daemon.client() as client:
        ended = finished(client, job)
        assert ended["status"] == "cancelled"
        assert ended["counts"]["total"] == ended["counts"]["succeeded"] + ended["counts"]["failed"]
    assert daemon.stop(signal.SIGTERM) == 0
