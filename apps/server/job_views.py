"""Jobs and results as callers see them: names, times and URLs, and no path of this machine."""

import time
from collections.abc import Mapping
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from apps.server.live_job import LiveJob, Preview, Running
from apps.server.outlines import KINDS, TITLE
from apps.server.public_results import hidden_folders
from apps.server.records import JobStatus, StoredJob, TaskResult
from apps.server.service import Service
from apps.server.task_views import task_view

STATUSES = {"skipped": "done", "interrupted": "cancelled"}  # those that mean nothing to a caller


class Counts(TypedDict):
    """How many tasks of a job have ended, and how."""

    total: int
    succeeded: int
    failed: int


class StepView(TypedDict):
    """A task that a worker has, and the step that it is at.

    Attributes:
        position: of the task in its job, from 0.
        title: the first words of what is asked for.
        steps: all that it takes; 0 where the task does not say, until the worker does.
    """

    task_id: str
    position: int
    kind: str
    title: str
    worker: str
    step: int
    steps: int


class RunningView(StepView):
    """A task that a worker has, with the address of its newest preview, if there is one."""

    preview_url: str | None


class PreviewView(TypedDict):
    """That a running task has a new preview.

    Attributes:
        position: of the task in its job, from 0.
        url: of the preview; it is good until the task has its result.
    """

    job: str
    task_id: str
    position: int
    step: int
    steps: int
    url: str


class JobView(TypedDict):
    """How a job stands. Times are Unix times; what is expected, is left out once it has ended.

    Attributes:
        source: the part of the API that it came by, such as `jobs`, `images` or `batch`.
        title: the first words of what its first task asks for.
        kinds: how many tasks it has of each kind.
        queue_position: tasks that come before its first one.
        expected_start_at: null until times of tasks are known, as is `expected_end_at`.
        cancelling: no more of its tasks are begun.
        waiting_for: what keeps it from going on, such as a full disk or drained workers.
    """

    id: str
    object: Literal["job"]
    status: JobStatus
    created_at: int
    started_at: int | None
    ended_at: int | None
    priority: int
    source: str
    title: str | None
    kinds: dict[str, int] | None
    counts: Counts
    results_url: str
    events_url: str
    queue_position: NotRequired[int]
    expected_start_at: NotRequired[int | None]
    expected_end_at: NotRequired[int | None]
    running: NotRequired[list[RunningView]]
    cancelling: NotRequired[bool]
    waiting_for: NotRequired[str | None]


class ResultView(TypedDict):
    """What became of a task.

    Attributes:
        position: of the task in its job, from 0.
        status: done, failed, quarantined (it killed its workers again and again) or cancelled.
        cause: why it failed, in a word, such as `input` or `out_of_memory`.
        elapsed: seconds of device time and saving.
        attempts: how often a worker was given it.
        url: of its picture or verdict.
    """

    object: Literal["job.result"]
    position: int
    task_id: str
    kind: str
    status: str
    success: bool
    error: str | None
    cause: str | None
    seed: int | None
    elapsed: float
    worker: str | None
    attempts: int
    url: str | None


class ResultWithTask(ResultView):
    """What became of a task, with its job and what was asked for.

    Attributes:
        id: of the result: its job and its position there.
        thumbnail_url: of a small copy of its picture.
        task: the fields of the task, which `POST /v1/jobs` takes as they are.
    """

    id: str
    job: str
    created_at: int
    thumbnail_url: str | None
    task: dict[str, Any]


class JobViews:
    """Makes views of jobs for one request.

    Args:
        base: the URL of the daemon as its caller wrote it, with the last slash.
    """

    def __init__(self, service: Service, base: str) -> None:
        self._service = service
        self._base = base.rstrip("/")
        self._hidden = hidden_folders(service)

    def job(self, job: StoredJob) -> JobView:
        """A job as it stands, with what is expected of it while it has not ended."""
        live = self._service.live(job.id)
        estimate = self._service.estimate(job)
        url = f"{self._base}/v1/jobs/{job.id}"
        view: JobView = {
            "id": job.id,
            "object": "job",
            "status": _status(job),
            "created_at": int(job.created),
            "started_at": None if job.started is None else int(job.started),
            "ended_at": None if job.ended is None else int(job.ended),
            "title": job.metadata.get(TITLE),
            "kinds": job.metadata.get(KINDS),
            "priority": job.priority,
            "source": job.source,
            "counts": {"total": job.total, "succeeded": job.succeeded, "failed": job.failed},
            "results_url": f"{url}/results",
            "events_url": f"{url}/events",
        }
        if estimate is not None:
            now = time.time()
            starts, ends = estimate.starts_in, estimate.ends_in
            is_queued = _status(job) == "queued"
            view["queue_position"] = estimate.position if is_queued else 0
            view["expected_start_at"] = (
                int(now + starts) if is_queued and starts is not None else None
            )
            view["expected_end_at"] = None if ends is None else int(now + ends)
        if live is not None and not job.has_ended:
            view["running"] = [self._running(live, one) for one in live.running.values()]
            view["cancelling"] = live.to_be_cancelled
            view["waiting_for"] = self._public(self._service.waits_for(live))
        return view

    def preview(self, job: str, preview: Preview) -> PreviewView:
        """That a preview came, with its URL, which is good until the task has its result."""
        return {
            "job": job,
            "task_id": preview.task_id,
            "position": preview.position,
            "step": preview.step,
            "steps": preview.total,
            "url": self._preview_url(job, preview),
        }

    def _running(self, live: LiveJob, running: Running) -> RunningView:
        preview = live.newest_preview(running)
        url = None if preview is None else self._preview_url(live.stored.id, preview)
        return {**running_view(running), "preview_url": url}

    def _preview_url(self, job: str, preview: Preview) -> str:
        return (
            f"{self._base}/v1/jobs/{job}/results/{preview.position}/preview?number={preview.number}"
        )

    def result(self, job: StoredJob, one: TaskResult) -> ResultView:
        """What became of a task, with the URL of its picture or verdict."""
        record = one.result
        status = str(record["status"])
        url = f"{self._base}/v1/jobs/{job.id}/results/{one.position}/content"
        return {
            "object": "job.result",
            "position": one.position,
            "task_id": record["task_id"],
            "kind": record["kind"],
            "status": STATUSES.get(status, status),
            "success": record["success"],
            "error": self._public(record["error"]),
            "cause": record.get("cause"),
            "seed": record["seed"],
            "elapsed": record["elapsed"],
            "worker": record["worker"],
            "attempts": record["attempts"],
            "url": url if record["success"] else None,
        }

    def result_with_task(
        self, job: StoredJob, one: TaskResult, task: Mapping[str, Any]
    ) -> ResultWithTask:
        """What became of a task, wherever it is shown: with its job and what was asked for."""
        view = self.result(job, one)
        url = view["url"] if view["kind"] != "score" else None
        return {
            **view,
            "id": f"{job.id}/{one.position}",
            "job": job.id,
            "created_at": int(job.created),
            "thumbnail_url": None if url is None else url.removesuffix("content") + "thumbnail",
            "task": task_view(job.id, one.position, task),
        }

    def _public(self, text: str | None) -> str | None:
        """A message without folders of this machine."""
        for folder, shown in self._hidden.items():
            text = text and text.replace(folder, shown)
        return text


def running_view(running: Running) -> StepView:
    """A running task as callers see it."""
    return {
        "task_id": running.task_id,
        "position": running.outline.position,
        "kind": running.outline.kind,
        "title": running.outline.title,
        "worker": running.worker,
        "step": running.done,
        "steps": running.total,
    }


def _status(job: StoredJob) -> JobStatus:
    """A job that is being cancelled counts as what it was until its last task has ended."""
    if job.status == "cancelled" and not job.has_ended:
        return "running"
    return job.status


def has_changed(live: LiveJob, told: dict[str, Running]) -> list[Running]:
    """Tasks of a job that run and of which this was not told yet; notes that it is now."""
    new = [one for name, one in live.running.items() if told.get(name) != one]
    told.clear()
    told.update(live.running)
    return new
