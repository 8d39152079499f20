"""Hub models on the nodes of a cluster, and the fence: without Ray, processes or a hub."""

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.fence import Fence
from cluster.model_fetch import ClusterFetch
from cluster.node_models import NodeModels
from cluster.nodes import Names, RayNode, share_of
from cluster.protocol import FetchNews
from core.devices.device import Device
from core.devices.model_choice import ModelChoice
from core.devices.worker_specs import spec_for
from core.events import ModelFetching
from core.messages import Load, LoadFailed, Stop
from core.settings import load_settings
from tests.conftest import PATIENCE, simulated

MODEL = ModelChoice("org/model", "org/model", "why")
SPEC = spec_for(Device("cpu", 0, ""), "generate", MODEL, load_settings(simulated()), 1)


class PlayedFetch:
    """A node's own fetch of a model, as a test plays it."""

    def __init__(self) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self.folder: str | None = None
        self.refusal: str | None = None
        self.transfers = False

    def start(self, after: Any = None) -> None:
        """Nothing comes by itself."""

    def wait(self, seconds: float) -> bool:
        return self.folder is not None

    def stop(self) -> None:
        """Nothing is on its way."""

    def ends(self, folder: str | None = None, refusal: str | None = None) -> None:
        self.folder, self.refusal = folder, refusal
        self.on_change()


class OneNode:
    """The models of a node, and what it reports."""

    def __init__(self) -> None:
        self.fetch = PlayedFetch()
        self.told: list[Any] = []
        self.models = NodeModels(lambda spec, listener: self.fetch)
        self.models.use(self.told.append, lambda: None)
        self.models.fetch(1, SPEC)


def test_a_worker_loads_when_its_own_node_has_the_model_and_from_there() -> None:
    node = OneNode()
    order = Load("/cache/of/another/node")
    assert node.models.placed(order, SPEC) is None
    node.fetch.ends(folder="/cache/here")
    assert node.models.placed(order, SPEC) == Load("/cache/here")
    assert node.told == [FetchNews(1, "/cache/here")]
    assert node.models.placed(Stop(), SPEC) == Stop()


def test_a_model_that_is_asked_for_twice_is_fetched_once() -> None:
    fetches: list[PlayedFetch] = []

    def fetch(spec: Any, listener: Any) -> PlayedFetch:
        fetches.append(PlayedFetch())
        return fetches[-1]

    models = NodeModels(fetch)
    for _ in range(2):
        models.fetch(1, SPEC)
    assert len(fetches) == 1


def test_where_one_node_cannot_have_the_model_its_own_workers_say_so() -> None:
    node = OneNode()
    node.fetch.ends(refusal="no access")
    assert node.models.placed(Load("/elsewhere"), SPEC) == LoadFailed("input", "no access")


def fetch_on(*nodes: str) -> tuple[ClusterFetch, list[Any]]:
    events: list[Any] = []
    fetch = ClusterFetch("org/model", events.append, lambda: None, lambda: None)
    fetch.nodes = set(nodes)
    return fetch, events


def test_the_engine_goes_on_when_the_first_node_has_the_model() -> None:
    fetch, events = fetch_on("a", "b")
    fetch.hear("a", FetchNews(1, done=5, total=10))
    assert fetch.transfers and fetch.folder is None and not fetch.wait(0)
    assert events == [ModelFetching("org/model", 5, 10)]
    fetch.hear("b", FetchNews(1, "/cache"))
    assert fetch.wait(0) and vars(fetch)["folder"] == "/cache" and not vars(fetch)["transfers"]


def test_the_model_is_refused_when_no_node_can_have_it() -> None:
    fetch, _ = fetch_on("a", "b", "c")
    fetch.hear("a", FetchNews(1, refusal="no access"))
    assert fetch.refusal is None
    fetch.hear("b", FetchNews(1, refusal="no access"))
    fetch.node_lost("c")
    assert fetch.refusal == "a: no access" and fetch.wait(0)


def test_the_second_model_waits_for_the_line() -> None:
    begun = threading.Event()
    first, second = PlayedFetch(), ClusterFetch("b", lambda e: None, begun.set, lambda: None)
    second.start(after=first)
    assert not begun.wait(0.05)
    first.ends(folder="/cache")
    assert begun.wait(PATIENCE)


def test_a_fence_falls_when_nobody_speaks_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that the test moves on."""
    now, sleep = 0.0, time.sleep
    clock = SimpleNamespace(monotonic=lambda: now, sleep=lambda seconds: sleep(0.001))
    monkeypatch.setattr("cluster.fence.time", clock)
    fallen = threading.Event()
    fence = Fence(10.0, fallen.set)
    for _ in range(3):
        now += 9.0
        assert not fallen.wait(0.02)
        fence.heard()
    now += 11.0
    assert fallen.wait(PATIENCE)


def test_a_fence_that_was_outlasted_falls_though_somebody_speaks_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process that was stopped may hear what was said meanwhile before it looks at its clock."""
    fallen = threading.Event()
    fence = Fence(1000.0, fallen.set)
    late = time.monotonic() + 1001.0
    monkeypatch.setattr("cluster.fence.time", SimpleNamespace(monotonic=lambda: late))
    fence.heard()
    assert fallen.is_set() and not fence.holds()


def ray_node(id: str, host: str = "h", free: int = 4, leaves: bool = False) -> RayNode:
    return RayNode(id, host, free, 4, leaves)


def test_machines_of_one_name_are_told_apart_and_keep_their_names() -> None:
    names = Names()
    first, second = ray_node("1"), ray_node("2")
    assert [names(first), names(second), names(first)] == ["h", "h-2", "h"]
    assert "/" not in names(ray_node("3", "a/b"))


@pytest.mark.parametrize(
    "node, wanted, taken",
    [
        (ray_node("1"), None, 4),
        (ray_node("1"), 3, 3),
        (ray_node("1", free=1), 3, 1),
        (ray_node("1", free=0), None, None),
        (ray_node("1"), 0, None),
        (ray_node("1", leaves=True), None, None),
    ],
)
def test_a_run_takes_the_gpus_that_nobody_else_has_and_no_more_than_it_wants(
    node: RayNode, wanted: int | None, taken: int | None
) -> None:
    assert share_of(node, wanted, nothing_given=False) == taken


def test_where_no_node_has_gpus_each_has_workers_on_its_cpus() -> None:
    node = RayNode("1", "h", 0, 0, False)
    assert share_of(node, None, nothing_given=True) == 0
    assert share_of(node, None, nothing_given=False) is None
