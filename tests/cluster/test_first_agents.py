"""On which nodes a bridge places its first agents, and for how long it waits for them."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import bridge as bridges
from cluster.bridge import Bridge
from cluster.nodes import RayNode
from cluster.protocol import Connect, Connected, Node
from cluster.relay import NotPlaced
from core.devices.device import Device
from tests.cluster.relayed import SETTINGS
from tests.conftest import PATIENCE

CONNECT = Connect(SETTINGS.ray, SETTINGS.supervision, "forkserver", "auto", 4, {}, "run")


class Cluster:
    """Nodes of four GPUs each, as a test says, whose agents come at once but for some."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.nodes: list[RayNode] = []
        self.looks: Callable[[], list[RayNode]] = lambda: self.nodes
        self.unreachable: set[str] = set()
        self.refusing: dict[str, float] = {}  # after how many seconds
        self.over = threading.Event()
        monkeypatch.setattr("cluster.bridge.join", lambda *_: ("played", "played"))
        monkeypatch.setattr("cluster.bridge.end_agents_of_the_bridge_before", lambda _: None)
        monkeypatch.setattr("cluster.nodes.list_nodes", lambda: self.looks())
        monkeypatch.setattr("cluster.relay.Relay", self._relay)
        monkeypatch.setattr(bridges, "LOOK", 0.01)

    def _relay(self, name: str, node_id: str, gpus: int, *_: Any) -> Any:
        def place() -> None:
            if name in self.unreachable:
                self.over.wait(PATIENCE)
            if name in self.refusing:
                self.over.wait(self.refusing[name])
                raise NotPlaced("its GPUs were taken by another Ray job just now")

        devices = tuple(Device("cpu", i, "", node=name) for i in range(gpus))
        return SimpleNamespace(
            name=name, node_id=node_id, gpus=gpus, place=place, why=None, node=Node(name, devices)
        )

    def connected(self, connect: Connect) -> Connected:
        """What the bridge tells main first."""
        told: list[Any] = []
        bridge = Bridge(connect, told.append)
        bridge.open()
        bridge.introduce()
        assert isinstance(told[0], Connected)
        return told[0]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Cluster(monkeypatch)
    yield made
    made.over.set()


def test_gpus_of_a_run_that_has_just_ended_are_waited_for_where_they_are_counted_on(
    cluster: Cluster,
) -> None:
    looks = iter([2, 2, 3])

    def look() -> list[RayNode]:
        return [RayNode("1", "a", next(looks, 4), 4, False)]

    cluster.looks = look
    [node] = cluster.connected(CONNECT).nodes
    assert len(node.devices) == 4


def test_gpus_that_another_job_keeps_are_not_waited_for_for_long(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridges, "FREED", 0.1)
    cluster.nodes = [RayNode("1", "a", 2, 4, False)]
    [node] = cluster.connected(CONNECT).nodes
    assert len(node.devices) == 2


def test_where_another_job_was_quicker_on_one_node_the_next_one_is_asked(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it took to see that: two commands that start at once choose the same node."""
    monkeypatch.setattr(bridges, "FREED", 0.05)
    monkeypatch.setattr(bridges, "LOOK", 0.15)  # it ends within the second look
    cluster.nodes = [RayNode(i, name, 4, 4, False) for i, name in (("1", "a"), ("2", "b"))]
    cluster.refusing = {"a": 0.2}
    [node] = cluster.connected(CONNECT).nodes
    assert node.name == "b"


def test_gpus_that_there_are_not_are_not_waited_for(cluster: Cluster) -> None:
    cluster.nodes = [RayNode("1", "a", 3, 3, False)]
    began = time.monotonic()
    [node] = cluster.connected(CONNECT).nodes
    assert len(node.devices) == 3 and time.monotonic() - began < bridges.FREED


def test_the_next_bridge_does_not_wait_for_a_node_that_cannot_be_reached(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Main waits for the bridge no longer than for a node."""
    monkeypatch.setattr(bridges, "PROMPT", 0.1)
    cluster.nodes = [RayNode(i, name, 2, 2, False) for i, name in (("1", "a"), ("2", "b"))]
    cluster.unreachable = {"b"}
    [node] = cluster.connected(replace(CONNECT, again=True)).nodes
    assert node.name == "a" and not cluster.over.is_set()
