"""`/metrics`: what a Prometheus server reads, by prometheus-client.

https://prometheus.io/docs/practices/naming/
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from core.devices.device import memory_in_use
from core.devices.host_memory import free_host_memory, host_memory
from core.engine.snapshot import EngineSnapshot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "imagegen"
RECENT = 60.0  # seconds that the rate of pictures is a mean of
SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
WAITS = (0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
KINDS = ("generate", "edit", "score")
PICTURES = ("generate", "edit")  # kinds of task whose result is one


class Metrics:
    """Counts what happens to tasks. In the event loop alone, but for `expose`."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._scraped = _Scraped()
        self._registry.register(self._scraped)
        self._accepted = self._counter("tasks_accepted", "Tasks that were accepted.", [])
        self._tasks = self._counter(
            "tasks", "Tasks that have their result, by kind and outcome.", ["kind", "outcome"]
        )
        self._pictures = self._counter("pictures", "Pictures that were made.", [])
        self._requests = self._counter(
            "http_requests", "Requests by method and status code.", ["method", "status"]
        )
        self._seconds = self._histogram(
            "task_seconds", "Seconds of device time and saving per task.", SECONDS
        )
        self._waits = self._histogram(
            "task_wait_seconds", "Seconds from a task's acceptance until a worker had it.", WAITS
        )
        rate = Gauge(
            f"{PREFIX}_pictures_per_second",
            f"Pictures a second over the last {RECENT:g} s.",
            registry=self._registry,
        )
        rate.set_function(self._pictures_per_second)
        self._recent: deque[float] = deque()  # monotonic times of the pictures of the last minute

    def _counter(self, name: str, text: str, labels: list[str]) -> Counter:
        return Counter(f"{PREFIX}_{name}", text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(
            f"{PREFIX}_{name}", text, ["kind"], buckets=buckets, registry=self._registry
        )

    def accepted(self, tasks: int) -> None:
        """Tasks were accepted."""
        self._accepted.inc(tasks)

    def waited(self, kind: str, seconds: float) -> None:
        """A worker has a task that waited so long."""
        self._waits.labels(kind).observe(max(0.0, seconds))

    def ended(self, kind: str, outcome: str) -> None:
        """A task has its result; the outcome is its status."""
        self._tasks.labels(kind, outcome).inc()
        if kind in PICTURES and outcome == "done":
            self._pictures.inc()
            now = time.monotonic()
            self._recent.append(now)
            while self._recent[0] < now - RECENT:
                self._recent.popleft()

    def took(self, kind: str, seconds: float) -> None:
        """A task was done."""
        self._seconds.labels(kind).observe(seconds)

    def answered(self, method: str, status: int) -> None:
        """A request was answered."""
        self._requests.labels(method, status).inc()

    def _pictures_per_second(self) -> float:
        since = time.monotonic() - RECENT
        return sum(moment >= since for moment in list(self._recent)) / RECENT

    def expose(self, engine: EngineSnapshot, jobs: int, queue: dict[str, int]) -> bytes:
        """All metrics as text.

        Args:
            engine: how workers and models stand.
            jobs: that have not ended.
            queue: tasks without a result, by kind.
        """
        self._scraped.now = engine, jobs, queue
        return generate_latest(self._registry)


class _Scraped(Collector):
    """What is not counted but looked up: workers, models, queue and memory."""

    now: tuple[EngineSnapshot, int, dict[str, int]] = (EngineSnapshot(), 0, {})

    def collect(self) -> Iterable[Metric]:
        engine, jobs, queue = self.now
        yield _gauge("jobs", "Jobs that have not ended.", [], [((), jobs)])
        depth: _Values = [((kind,), queue.get(kind, 0)) for kind in KINDS]
        yield _gauge("queue_depth", "Tasks without a result.", ["kind"], depth)
        yield from _of_models(engine)
        yield from _of_workers(engine)
        yield from _of_the_host()


_Values = list[tuple[tuple[str, ...], float]]


def _gauge(name: str, text: str, labels: list[str], values: _Values) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=labels)
    for label_values, value in values:
        family.add_metric(label_values, value)
    return family


def _count(name: str, text: str, labels: list[str], values: _Values) -> Metric:
    family = CounterMetricFamily(f"{PREFIX}_{name}", text, labels=labels)
    for label_values, value in values:
        family.add_metric(label_values, value)
    return family


def _of_models(engine: EngineSnapshot) -> Iterator[Metric]:
    models, kind = engine.models, ["kind"]
    waiting: _Values = [((m.role,), m.waiting) for m in models]
    yield _gauge("tasks_waiting", "Tasks that wait for a worker.", kind, waiting)
    loads: _Values = [((m.role,), m.loads) for m in models]
    yield _count("model_loads", "Loads of models by workers.", kind, loads)
    switches: _Values = [((m.role,), m.switches) for m in models]
    text = "Loads of a model in place of another one."
    yield _count("model_switches", text, kind, switches)
    loras: _Values = [((m.role,), m.lora_loads) for m in models]
    yield _count("lora_loads", "Loads of LoRA files.", kind, loras)
    changes: _Values = [((m.role,), m.lora_switches) for m in models]
    yield _count("lora_switches", "Changes from one LoRA to another.", kind, changes)


def _of_workers(engine: EngineSnapshot) -> Iterator[Metric]:
    workers, name = engine.workers, ["worker"]
    states: _Values = [((w.name, w.state), 1) for w in workers]
    yield _gauge("worker_state", "What each worker does.", ["worker", "state"], states)
    restarts: _Values = [((w.name,), w.restarts) for w in workers]
    yield _count("worker_restarts", "Deaths of workers that nobody ordered.", name, restarts)
    used: _Values = []
    total: _Values = []
    for worker in workers:
        in_use = memory_in_use([worker.device])
        if in_use is not None:
            used.append(((worker.name,), in_use))
        if worker.device.memory:
            total.append(((worker.name,), worker.device.memory))
    yield _gauge("device_memory_used_bytes", "Memory in use on a device.", name, used)
    yield _gauge("device_memory_bytes", "A worker's device memory, or its share.", name, total)


def _of_the_host() -> Iterator[Metric]:
    values = {
        "host_memory_bytes": ("Memory of this machine or container.", host_memory()),
        "host_memory_free_bytes": ("Of it, what may still be used.", free_host_memory()),
        "process_memory_bytes": (
            "Memory of the daemon itself.",
            psutil.Process().memory_info().rss,
        ),
    }
    for name, (text, value) in values.items():
        yield _gauge(name, text, [], [((), value)])
