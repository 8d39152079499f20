"""The daemon is killed again and again under load: one record per accepted task all the same."""

import os
import random
import signal
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from PIL import Image

from tests.both_engines import ON_BOTH
from tests.chaos.scale import scaled
from tests.conftest import Workplace, wait_until
from tests.server.conftest import Daemon

pytestmark = pytest.mark.slow

KILLS = scaled(3, 50)  # of the daemon; between two of them a worker is killed, too
CLIENTS = 4
SIDE = 64  # pixels


class Callers:
    """Clients that hand in jobs until they are told to stop, and try again after each break.

    Attributes:
        jobs: by the key of each; those whose acceptance was told to somebody.
        sent: number of tasks by key, also of those whose answer was lost.
    """

    def __init__(self, daemon: Daemon, seed: int) -> None:
        self.jobs: dict[str, str] = {}
        self.sent: dict[str, int] = {}
        self._daemon = daemon
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._call, args=(n, random.Random(f"{seed} {n}")))
            for n in range(CLIENTS)
        ]
        for thread in self._threads:
            thread.start()

    def _call(self, number: int, draw: random.Random) -> None:
        for count in range(10_000):
            key = f"{number}-{count}"
            self.sent[key] = draw.randint(1, 4)
            while key not in self.jobs:
                if self._over.wait(draw.uniform(0.02, 0.2)):
                    return
                with suppress(httpx2.HTTPError):
                    self.jobs[key] = hand_in(self._daemon, key, self.sent[key])

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def hand_in(daemon: Daemon, key: str, count: int) -> str:
    tasks = [{"prompt": f"{key} {n}", "width": SIDE, "height": SIDE} for n in range(count)]
    with daemon.client(headers={"Idempotency-Key": key}) as client:
        answer = client.post("/v1/jobs", json={"tasks": tasks}).raise_for_status()
        id: str = answer.json()["id"]
        return id


def kill_a_worker(daemon: Daemon, draw: random.Random) -> None:
    assert daemon.process is not None
    workers = daemon.workplace.workers(daemon.process.pid)
    if workers:
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            os.kill(draw.choice(workers).pid, signal.SIGKILL)


def all_jobs(client: httpx2.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after: dict[str, str] = {}
    while True:
        page = client.get("/v1/jobs", params={"limit": 100, **after}).raise_for_status().json()
        found += page["data"]
        if not page["has_more"]:
            return found
        after = {"after": page["last_id"]}


@ON_BOTH
@pytest.mark.parametrize("seed", range(scaled(1, 2)))
def test_kills_of_the_daemon_under_load_cost_no_record(
    tmp_path: Path, workplace: Workplace, seed: int
) -> None:
    draw = random.Random(seed)
    daemon = Daemon(tmp_path, workplace, simulated={"seconds_per_megapixel_step": 20.0})
    callers = None
    try:
        daemon.start()
        callers = Callers(daemon, seed)
        for _ in range(KILLS):
            before = len(callers.jobs)
            wait_until(lambda: len(callers.jobs) > before + draw.randint(0, 5), "a job")  # noqa: B023
            kill_a_worker(daemon, draw)
            wait_until(lambda: len(callers.jobs) > before + draw.randint(5, 15), "more jobs")  # noqa: B023
            daemon.kill()
            daemon.start()
        callers.stop()
        for key, count in callers.sent.items():  # whose answer was lost finds its job, or makes it
            id = hand_in(daemon, key, count)
            assert callers.jobs.setdefault(key, id) == id
        judge(daemon, callers)
    finally:
        if callers is not None:
            callers.stop()
        daemon.end()


def judge(daemon: Daemon, callers: Callers) -> None:
    """Every key is one job, every task has one record, every record has its picture."""
    with daemon.client() as client:

        def over() -> list[dict[str, Any]] | None:
            jobs = all_jobs(client)
            return None if any(job["ended_at"] is None for job in jobs) else jobs

        jobs = wait_until(over, "the end of all jobs")
        assert Counter(job["id"] for job in jobs) == Counter(callers.jobs.values())
        counts = {id: callers.sent[key] for key, id in callers.jobs.items()}
        pictures = set(daemon.output.glob("jobs/*/*.png"))
        assert len(pictures) == sum(counts.values())
        for job in jobs:
            assert job["counts"] == {
                "total": counts[job["id"]],
                "succeeded": job["counts"]["total"],
                "failed": 0,
            }
            results = client.get(job["results_url"]).json()["data"]
            assert [r["position"] for r in results] == list(range(counts[job["id"]]))
        for picture in pictures:
            with Image.open(picture) as image:
                image.load()
                assert image.size == (SIDE, SIDE)
    assert not list(daemon.output.rglob(".partial-*"))
