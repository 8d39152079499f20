"""Hundreds of hostile requests against one daemon: an answer that says why, and no harm done."""

import asyncio
import json
import os
from collections.abc import Iterator
from typing import Any

import httpx2
import psutil
import pytest

from tests.conftest import PATIENCE, wait_until
from tests.server.batch_files import EDITS, ENDED, GENERATIONS, text_of
from tests.server.conftest import Daemon, finished
from tests.server.hostile_batches import (
    batch_files,
    batch_requests,
    lines_of_drawings,
    lines_of_edits,
    lines_with_strange_names,
)
from tests.server.hostile_requests import Hostile, every

LIMITS = {
    "connections": 60, "header_seconds": 1.0, "body_seconds": 1.0, "json_mib": 2, "upload_mib": 4,
    "picture_mib": 0.4, "picture_megapixels": 1,
}  # fmt: skip
AT_ONCE = 24
# What a busy machine may make of any request is asked for again: it was sent too slowly.
LATE, TRIES = ("status 408", "no answer"), 5
DRIP = 0.1  # seconds between the parts of a request that come slowly
MEMORY = 48 * 1024**2  # bytes that caches may take meanwhile
# Open files that may come meanwhile: as many connections to the queue stay open, each with two
# files, as threads have read by at once, which may be more than at the first count.
FILES = 2 + 2 * min(32, (os.cpu_count() or 1) + 4)
SMALL = {"width": 64, "height": 64, "num_inference_steps": 1}


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One for all tests: what nobody should send does no harm to what comes after it."""
    folder = tmp_path_factory.mktemp("limited")
    daemon = Daemon(folder, editor={"model": "simulated"}, server={"limits": LIMITS})
    yield daemon.start()
    daemon.end()


async def answer_to(hostile: Hostile, port: int) -> bytes:
    """What comes back until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    reading = asyncio.create_task(reader.read())
    slowly = "now and then" in hostile.name
    try:
        for part in hostile.parts:
            if reading.done():
                break
            writer.write(part)
            await asyncio.wait_for(writer.drain(), PATIENCE)
            if slowly:
                await asyncio.wait([reading], timeout=DRIP)
    except ConnectionError:
        pass
    try:
        return await asyncio.wait_for(reading, PATIENCE)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def verdict(hostile: Hostile, answer: bytes, jobs: dict[str, str]) -> str | None:
    """What is wrong with an answer; None if nothing is. An accepted job is noted in `jobs`."""
    while answer.startswith(b"HTTP/1.1 100 "):
        answer = answer.partition(b"\r\n\r\n")[2]
    if not answer:
        return None if hostile.silent else "no answer"
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    if status not in hostile.statuses:
        return f"status {status}: {body[:200]!r}"
    if status == 202:
        jobs[json.loads(body)["id"]] = hostile.name
        return None
    try:
        error: dict[str, Any] = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return f"no envelope: {body[:200]!r}"
    if set(error) != {"message", "type", "param", "code"} or not error["message"]:
        return f"another envelope: {error}"
    if "/tmp/" in error["message"] or "Traceback" in error["message"]:
        return f"tells too much: {error['message'][:200]}"
    return None


async def answers_to(requests: list[Hostile], port: int) -> tuple[dict[str, str], dict[str, str]]:
    """Send all of them; gives what is wrong with answers, and jobs that were accepted."""
    turns = asyncio.Semaphore(AT_ONCE)
    jobs: dict[str, str] = {}

    async def one(hostile: Hostile) -> tuple[str, str | None]:
        async with turns:
            for _ in range(TRIES):
                try:
                    problem = verdict(hostile, await answer_to(hostile, port), jobs)
                except TimeoutError:
                    return hostile.name, "the connection is held"
                if problem is None or not problem.startswith(LATE):
                    break
            return hostile.name, problem

    found = await asyncio.gather(*map(one, requests))
    return {name: problem for name, problem in found if problem is not None}, jobs


def accepted_in_error(client: httpx2.Client, jobs: dict[str, str]) -> dict[str, str]:
    """What is wrong with jobs of hostile tasks: each task should have failed, and say why."""
    problems = {}
    for id, name in jobs.items():
        status = finished(client, id)["status"]
        errors = [one["error"] for one in client.get(f"/v1/jobs/{id}/results").json()["data"]]
        told = [error for error in errors if error and "/tmp/" not in error]
        if status != "failed" or len(told) < len(errors) or "Traceback" in str(errors):
            problems[name] = f"{status}: {errors}"
    return problems


@pytest.mark.slow
def test_hostile_requests_are_refused_and_leave_nothing_behind(limited: Daemon) -> None:
    requests = [*every(), *batch_requests()]
    assert len(requests) >= 800
    assert limited.process is not None
    process = psutil.Process(limited.process.pid)
    port = int(limited.url.rpartition(":")[2])
    with limited.client() as client:
        first = client.post("/v1/jobs", json={"tasks": [{"prompt": "x", **SMALL}]})
        assert finished(client, first.json()["id"])["status"] == "completed"
    asyncio.run(answers_to(requests[:40], port))  # what is loaded once, is loaded now
    wait_until(lambda: not process.net_connections(kind="tcp")[1:], "closed connections")
    memory, files = process.memory_info().rss, process.num_fds()

    problems, jobs = asyncio.run(answers_to(requests, port))
    assert problems == {}
    with limited.client() as client:
        assert accepted_in_error(client, jobs) == {}

    assert process.is_running() and limited.process.poll() is None
    wait_until(lambda: process.num_fds() <= files + FILES, "files to be closed")
    assert process.memory_info().rss - memory < MEMORY
    assert "Traceback" not in limited.log
    assert "defect" not in limited.log
    with limited.client() as client:
        after = client.post("/v1/jobs", json={"tasks": [{"prompt": "y", **SMALL}]})
        assert finished(client, after.json()["id"])["status"] == "completed"
    for folder in ("inbox", "files"):
        assert list((limited.output / folder).iterdir()) == []


class Batches:
    """Sends files as batches, and waits for their ends."""

    def __init__(self, client: httpx2.Client) -> None:
        self._client = client
        self._sent: list[str] = []

    def send(self, content: bytes, endpoint: str) -> str:
        """The id of a batch of a file, which is accepted whatever is in it."""
        upload = {"file": ("batch.jsonl", content)}
        sent = self._client.post("/v1/files", files=upload, data={"purpose": "batch"})
        self._sent.append(sent.raise_for_status().json()["id"])
        asked = {"input_file_id": self._sent[-1], "endpoint": endpoint, "completion_window": "24h"}
        return str(self._client.post("/v1/batches", json=asked).raise_for_status().json()["id"])

    def ended(self, id: str) -> dict[str, Any]:
        """A batch at its end."""

        def at_its_end() -> Any:
            found = self._client.get(f"/v1/batches/{id}").raise_for_status().json()
            return found if found["status"] in ENDED else None

        found: dict[str, Any] = wait_until(at_its_end, f"the end of {id}")
        return found

    def lines(self, file: str | None) -> list[dict[str, Any]]:
        """The lines of a file of results."""
        if file is None:
            return []
        self._sent.append(file)
        text = self._client.get(f"/v1/files/{file}/content").raise_for_status().text
        return [json.loads(line) for line in text.splitlines()]

    def remove_files(self) -> None:
        for file in self._sent:
            self._client.delete(f"/v1/files/{file}").raise_for_status()


def refusal_of(line: dict[str, Any]) -> dict[str, Any]:
    """What a line of the file of errors says: of a request its answer, else of the line."""
    answer = line["response"]
    assert (answer is None) != (line["error"] is None), line
    said: dict[str, Any] = answer["body"]["error"] if answer else line["error"]
    assert answer is None or 400 <= answer["status_code"] < 500, line
    return said


def test_hostile_batches_account_for_every_line_and_leave_nothing_behind(limited: Daemon) -> None:
    drawings, edits, strange = lines_of_drawings(), lines_of_edits(), lines_with_strange_names()
    whole = batch_files()
    assert len(drawings) + len(edits) + len(whole) >= 200
    before = sorted(file for file in limited.folder.iterdir())
    with limited.client() as client:
        batches = Batches(client)
        failing = {name: batches.send(content, GENERATIONS) for name, content in whole.items()}
        refused = [
            (batches.send(text_of(lines).encode(), endpoint), lines)
            for lines, endpoint in ((drawings, GENERATIONS), (edits, EDITS))
        ]
        drawn = batches.send(text_of(strange).encode(), GENERATIONS)

        for name, id in failing.items():
            ended = batches.ended(id)
            assert (ended["status"], ended["output_file_id"]) == ("failed", None), name
            problems = ended["errors"]["data"]
            assert problems and all(p["message"] and p["code"] for p in problems), name
            assert "/tmp/" not in str(problems) and "Traceback" not in str(problems), name
        for id, lines in refused:
            ended = batches.ended(id)
            found = batches.lines(ended["error_file_id"])
            assert [line["custom_id"] for line in batches.lines(ended["output_file_id"])] == []
            assert len(found) == len(lines) == ended["request_counts"]["failed"]
            for line in found:
                said = refusal_of(line)
                assert said["code"] and said["message"], line
                assert "/tmp/" not in said["message"] and "Traceback" not in said["message"], line
        ended = batches.ended(drawn)
        names = [line["custom_id"] for line in batches.lines(ended["output_file_id"])]
        assert names == [line["custom_id"] for line in strange], ended
        batches.remove_files()
    assert limited.process is not None and limited.process.poll() is None
    assert "Traceback" not in limited.log and "defect" not in limited.log
    for folder in ("inbox", "files"):
        assert list((limited.output / folder).iterdir()) == []
    assert sorted(file for file in limited.folder.iterdir()) == before
