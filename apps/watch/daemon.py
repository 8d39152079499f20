"""A daemon as its API tells of it: its workers, and the caller's jobs that have not ended."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apps.watch.look import Look
from core.errors import InputError
from core.remote.server import KEY_VARIABLE, Server, ServerBusy, ServerLost, ServerRefusal
from core.status.run_status import KindStatus, RunStatus, WorkerStatus

MOST_JOBS = 100
TIMEOUT = 10.0  # seconds for an answer


class WatchedDaemon:
    """A daemon, by its URL or its socket.

    Raises:
        InputError: the URL is none.
    """

    def __init__(self, place: str | Path) -> None:
        key = None if isinstance(place, Path) else os.environ.get(KEY_VARIABLE)
        self._server = Server(place, key)

    def look(self) -> Look:
        """How it stands.

        Raises:
            InputError: it refuses to say.
        """
        name, get = self._server.name, self._get
        try:
            workers = get("/v1/workers")["data"]
            jobs = [
                job
                for status in ("running", "queued")
                for job in get(f"/v1/jobs?status={status}&limit={MOST_JOBS}")["data"]
            ]
        except (ServerLost, ServerBusy) as error:
            return Look(name, "silent", title=f"It does not answer: {error}")
        except ServerRefusal as error:
            raise InputError(f"{name} does not say how it stands: {error}") from None
        except (LookupError, TypeError):
            raise InputError(f"{name} does not answer as this project's server does.") from None
        return look_at(name, workers, jobs, time.time())

    def _get(self, path: str) -> Any:
        return self._server.call("GET", path, timeout=TIMEOUT)


def look_at(
    name: str, workers: Sequence[Mapping[str, Any]], jobs: Sequence[Mapping[str, Any]], now: float
) -> Look:
    """What `/v1/workers` and `/v1/jobs` say, as a run; see docs/SERVER.md for their fields."""
    kinds = {kind for job in jobs for kind in job["kinds"] or ()}
    counts = [job["counts"] for job in jobs]
    ends = [job["expected_end_at"] for job in jobs if job.get("expected_end_at") is not None]
    left = max(0.0, max(ends) - now) if len(ends) == len(jobs) and ends else None
    tasks = KindStatus(
        kinds.pop() if len(kinds) == 1 else "tasks",
        sum(count["total"] for count in counts),
        sum(count["succeeded"] for count in counts),
        sum(count["failed"] for count in counts),
        seconds_left=left,
    )
    running = sum(job["status"] == "running" for job in jobs)
    status = RunStatus(
        "running",
        "working" if jobs else "idle",
        now,
        now,
        kinds=(tasks,) if jobs else (),
        seconds_left=left,
        workers=tuple(map(_worker, workers)),
        server=name,
    )
    title = f"{running} of your jobs running, {len(jobs) - running} waiting."
    return Look(name, "running", status, title)


def _worker(told: Mapping[str, Any]) -> WorkerStatus:
    tasks = told["tasks"]
    first = tasks[0] if tasks else None
    return WorkerStatus(
        str(told["id"]),
        str(told["status"]),
        told["kind"],
        told["model"],
        tuple(told["loras"]),
        None if first is None else first.get("task_id", "of another caller"),
        1,
        first.get("step", 0) if first else 0,
        first.get("steps", 0) if first else 0,
        memory_used=told["memory_used"],
        memory_total=told["memory_total"],
    )
