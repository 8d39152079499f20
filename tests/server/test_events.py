"""A job's events: progress as it happens, and what was missed after a break."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from core.messages import Lease, StepsDone
from tests.both_engines import ON_BOTH
from tests.played_workers import PlayedWorkers
from tests.server.conftest import Daemon, finished
from tests.server.in_process import Application
from tests.stub_backend import StubWorker

Event = dict[str, Any]


def stream(client: httpx2.Client, job: str, last: str = "", **query: Any) -> Iterator[Event]:
    """Events as a browser reads them: name, id and data."""
    headers = {"Last-Event-ID": last} if last else {}
    url = f"/v1/jobs/{job}/events"
    with client.stream("GET", url, headers=headers, params=query) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        event: Event = {}
        for line in answer.iter_lines():
            if not line and event:
                yield event
                event = {}
            name, _, value = line.partition(": ")
            if name == "data":
                event["data"] = json.loads(value)
            elif name in ("event", "id"):
                event[name] = value


class Paced:
    """Workers that end a task when the test says so."""

    def __init__(self) -> None:
        self.turns = threading.Semaphore(0)
        self.workers = PlayedWorkers(may=self._may)

    def _may(self, worker: StubWorker, lease: Lease) -> None:
        worker.say(StepsDone(lease.lease_id, 3, 8))
        self.turns.acquire()


@pytest.fixture
def paced(tmp_path: Path) -> Iterator[tuple[Paced, httpx2.Client]]:
    pace = Paced()
    with Application(tmp_path, 1, pace.workers.backend) as application:
        with application.client() as client:
            yield pace, client
        pace.turns.release(1000)


def create(client: httpx2.Client, count: int, **job: Any) -> str:
    tasks = [{"prompt": f"house {n}", "num_inference_steps": 8} for n in range(count)]
    id: str = client.post("/v1/jobs", json={"tasks": tasks, **job}).json()["id"]
    return id


def test_steps_and_results_come_as_they_happen(paced: tuple[Paced, httpx2.Client]) -> None:
    pace, client = paced
    job = create(client, 2)
    seen: list[Event] = []
    for event in stream(client, job):
        seen.append(event)
        if event["event"] == "step":
            assert event["data"]["steps"] == 8, "from the first event on"
        if event["event"] == "step" and event["data"]["step"] == 3:
            pace.turns.release()  # only now it may end
    kinds = [event["event"] for event in seen]
    assert kinds[0] == "job"
    assert kinds[-1] == "end"
    results = [event for event in seen if event["event"] == "task"]
    assert [event["id"] for event in results] == ["1", "2"]
    assert all(event["data"]["url"] for event in results)
    assert seen[-1]["data"]["status"] == "completed"


def test_who_comes_back_gets_what_it_missed_and_nothing_twice(
    paced: tuple[Paced, httpx2.Client],
) -> None:
    pace, client = paced
    job = create(client, 4)
    pace.turns.release(2)
    for event in stream(client, job):
        if event.get("id") == "2":
            break  # the connection is lost
    pace.turns.release(2)
    ids = [event.get("id") for event in stream(client, job, last="2") if event["event"] == "task"]
    assert ids == ["3", "4"]
    again = [event["event"] for event in stream(client, job, after=4)]
    assert again == ["job", "end"]


def test_a_job_that_is_cancelled_ends_its_stream(paced: tuple[Paced, httpx2.Client]) -> None:
    pace, client = paced
    job = create(client, 5)
    seen: list[Event] = []
    for event in stream(client, job):
        if event["event"] == "step" and "step" not in [e["event"] for e in seen]:
            assert client.delete(f"/v1/jobs/{job}").json()["cancelling"]
            pace.turns.release()
        seen.append(event)
    assert seen[-1]["data"]["status"] == "cancelled"
    statuses = [e["data"]["status"] for e in seen if e["event"] == "task"]
    assert sorted(statuses) == ["cancelled"] * 4 + ["done"]


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "9" * 40])
def test_a_number_that_is_none_is_refused(paced: tuple[Paced, httpx2.Client], last: str) -> None:
    _, client = paced
    job = create(client, 1)
    answer = client.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": last})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Last-Event-ID")


def test_the_place_in_the_queue_is_told_as_it_changes(
    paced: tuple[Paced, httpx2.Client],
) -> None:
    pace, client = paced
    first, second = create(client, 2), create(client, 1)
    assert client.get(f"/v1/jobs/{second}").json()["queue_position"] == 2
    places = []
    for event in stream(client, second):
        if event["event"] == "job" and event["data"]["status"] == "queued":
            places.append(event["data"]["queue_position"])
            pace.turns.release()
        elif event["event"] == "step":
            pace.turns.release()
    assert places[0] == 2
    assert places == sorted(places, reverse=True)
    assert finished(client, first)["status"] == "completed"


@ON_BOTH
def test_a_stream_goes_on_after_the_daemon_was_killed(daemon: Daemon) -> None:
    daemon.settings = {"simulated": {"seconds_per_megapixel_step": 20.0}}
    daemon.start()
    tasks = [{"prompt": f"{n}", "width": 128, "height": 128} for n in range(90)]
    seen: list[str] = []
    with daemon.client() as client:
        job = client.post("/v1/jobs", json={"tasks": tasks}).json()["id"]
        for event in stream(client, job):
            if event["event"] == "task":
                seen.append(event["id"])
            if len(seen) == 2:
                break
    daemon.kill()
    daemon.start("--drain-timeout", "0")
    with daemon.client() as client:
        for event in stream(client, job, last=seen[-1]):
            if event["event"] == "task":
                seen.append(event["id"])
            if event["event"] == "task" and event["id"] == "4":
                break
        listener = stream(client, job, last=seen[-1])
        assert next(listener)["event"] == "job"
        assert daemon.stop() == 0  # a stream that is open holds nobody up
        assert all(event["event"] != "end" for event in listener)
    daemon.settings = {}  # what is left of it now in no time
    daemon.start()
    with daemon.client() as client:
        events = list(stream(client, job, last=seen[-1]))
        seen += [event["id"] for event in events if event["event"] == "task"]
        assert events[-1]["data"]["counts"]["succeeded"] == len(tasks)
    assert seen == [str(n + 1) for n in range(len(tasks))]
