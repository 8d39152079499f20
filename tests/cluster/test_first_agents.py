"""On which nodes a bridge places its first agents, and for how long it waits for them."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import bridge as bridges
from cluster import placements
from cluster.bridge import Bridge
from cluster.nodes import RayNode
from cluster.protocol import Connect, Connected, From, Node, NodeJoined, NotUsed, Remark
from cluster.relay import GpusTaken
from core.devices.device import Device
from tests.cluster.relayed import SETTINGS
from tests.conftest import PATIENCE, wait_until

CONNECT = Connect(SETTINGS.ray, SETTINGS.supervision, "forkserver", "auto", 4, {}, "run")


class Cluster:
    """Nodes of four GPUs each, as a test says, whose agents come at once but for some."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.nodes: list[RayNode] = []
        self.looks: Callable[[], list[RayNode]] = lambda: self.nodes
        self.unreachable: set[str] = set()
        self.refusing: dict[str, float] = {}  # after how many seconds, once
        self.told: list[Any] = []  # what main was, in its order
        self.closed: list[str] = []  # nodes whose agents were ended
        self.over = threading.Event()
        self.losses: dict[str, Callable[[], None]] = {}  # by node: its agent is lost
        monkeypatch.setattr("cluster.bridge.join", lambda *_: ("played", "played"))
        monkeypatch.setattr("cluster.bridge.end_agents_of_the_bridge_before", lambda _: None)
        monkeypatch.setattr("cluster.ray_state.list_nodes", lambda: self.looks())
        monkeypatch.setattr("cluster.relay.Relay", self._relay)
        monkeypatch.setattr(bridges, "LOOK", 0.01)

    def _relay(self, name: str, raylet: RayNode, gpus: int, *more: Any) -> Any:
        def place() -> None:
            if name in self.unreachable:
                self.over.wait(PATIENCE)
            if name in self.refusing:
                self.over.wait(self.refusing.pop(name))
                raise GpusTaken("its GPUs were taken just now by job 02")

        devices = tuple(Device("cpu", i, "", node=name) for i in range(gpus))

        def lose() -> None:
            relay.why = "its agent is lost"
            more[-1](relay)

        self.losses[name] = lose
        relay = SimpleNamespace(
            name=name,
            node_id=raylet.node_id,
            gpus=gpus,
            place=place,
            close=lambda: self.closed.append(name),
            why=None,
            node=Node(name, devices),
        )
        return relay

    def connected(self, connect: Connect) -> Connected:
        """What the bridge tells main first."""
        self.bridge = Bridge(connect, self.told.append)
        self.bridge.open()
        self.bridge.introduce()
        assert isinstance(self.told[-1], Connected)
        return self.told[-1]

    @property
    def remarks(self) -> list[str]:
        """What a user was told."""
        reports = [message.report for message in self.told if isinstance(message, From)]
        return [report.text for report in reports if isinstance(report, Remark)]


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


def test_gpus_that_another_job_had_for_a_moment_are_tried_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may be free when it is seen that they were taken, and there may be no other node."""
    monkeypatch.setattr(placements, "AGAIN", (0.1,))
    cluster.nodes = [RayNode("1", "a", 4, 4, False)]
    cluster.refusing = {"a": 0.0}
    [node] = cluster.connected(CONNECT).nodes
    assert node.name == "a"


@pytest.fixture
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents are late soon."""
    for module in (placements, bridges):
        monkeypatch.setattr(module, "PROMPT", 0.1)


TWO = [RayNode(i, name, 2, 2, False) for i, name in (("1", "a"), ("2", "b"))]


@pytest.mark.usefixtures("prompt")
def test_the_next_bridge_does_not_wait_for_a_node_that_cannot_be_reached(cluster: Cluster) -> None:
    """Main waits for the bridge no longer than for a node."""
    cluster.nodes, cluster.unreachable = TWO, {"b"}
    [node] = cluster.connected(replace(CONNECT, again=True)).nodes
    assert node.name == "a" and not cluster.over.is_set()


@pytest.mark.usefixtures("prompt")
def test_the_next_bridge_that_reaches_no_node_yet_says_so_and_is_there(cluster: Cluster) -> None:
    cluster.nodes, cluster.unreachable = TWO, {"a", "b"}
    assert cluster.connected(replace(CONNECT, again=True)).nodes == ()
    assert not cluster.over.is_set()


@pytest.mark.usefixtures("prompt")
def test_gpus_of_other_nodes_are_taken_in_place_of_those_of_one_that_does_not_come(
    cluster: Cluster,
) -> None:
    """The line that says so names it; when it comes, its GPUs are not wanted any more."""
    cluster.nodes = [*TWO, RayNode("3", "c", 2, 2, False)]
    cluster.unreachable = {"b"}
    nodes = cluster.connected(CONNECT).nodes
    assert [node.name for node in nodes] == ["a", "c"] and not cluster.over.is_set()
    [said] = cluster.remarks
    assert said.startswith("b: waited 0.1 s for its agent")
    cluster.over.set()
    wait_until(lambda: cluster.closed, "the end of the late agent")
    assert cluster.closed == ["b"]


@pytest.mark.usefixtures("prompt")
def test_while_there_is_no_other_node_a_line_says_which_one_is_waited_for(
    cluster: Cluster,
) -> None:
    cluster.nodes, cluster.unreachable = TWO[:1], {"a"}
    with ThreadPoolExecutor(1) as executor:
        answer = executor.submit(cluster.connected, CONNECT)
        wait_until(lambda: cluster.remarks, "a line")
        assert cluster.remarks[0].startswith("a: waited") and not answer.done()
        cluster.over.set()
        assert [node.name for node in answer.result(PATIENCE).nodes] == ["a"]


def test_a_node_that_joined_and_was_lost_is_told_again_as_not_used(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Main forgets why a node was not used when it joins, so that the same reason is news."""
    monkeypatch.setattr(placements, "AGAIN", (0.01,))
    cluster.nodes = TWO[:1]
    cluster.connected(replace(CONNECT, most=None))
    watching = threading.Thread(target=cluster.bridge.watch)
    watching.start()

    def told(kind: type) -> list[Any]:
        return [message for message in cluster.told if isinstance(message, kind)]

    try:
        cluster.refusing, cluster.nodes = {"b": 0.0}, TWO
        wait_until(lambda: told(NodeJoined), "the node, which could not be used at first")
        assert [message.why.partition(": ")[0] for message in told(NotUsed)] == ["b"]
        cluster.refusing = {"b": 0.0}
        cluster.losses["b"]()
        wait_until(lambda: len(told(NodeJoined)) == 2, "the node once more")
        first, again = told(NotUsed)
        assert first == again
    finally:
        cluster.bridge.closing = True
        watching.join()
