"""The bridge's side of an agent, without Ray: what is refused, and what ends the connection."""

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import GetTimeoutError, RayTaskError

from cluster import relay as relays
from cluster.holders import Holding
from cluster.nodes import RayNode
from cluster.protocol import Connect, Prepare
from cluster.reachable import why_unreachable
from cluster.relay import Relay
from cluster.software import other_software, software_here
from core.devices.device import Device
from tests.cluster.relayed import SETTINGS
from tests.cluster.test_models import SPEC
from tests.conftest import PATIENCE

NODE = RayNode("1", "a", 1, 1, False)
CONNECT = Connect(SETTINGS.ray, SETTINGS.supervision, "forkserver", "auto", 1, {}, "run")


class PlayedAgent:
    """An agent, each of whose methods is a test's to replace.

    Attributes:
        lost: relays that said that theirs is.
    """

    def __init__(self, folder: str) -> None:
        self.over = threading.Event()
        self.lost = SimpleQueue[Relay]()
        self.hello: Callable[[], Any] = lambda: (folder, [Device("cpu", 0, "")])
        self.order: Callable[..., None] = lambda first, orders: None
        self.files: Callable[..., Any] = lambda what, *arguments: None

    def poll(self, after: int) -> list[Any]:
        """Nothing is ever said."""
        self.over.wait(0.01)
        return []

    def close(self) -> None:
        """Nobody has to be ended."""

    def relay(self, connect: Connect = CONNECT) -> Relay:
        return Relay("a", NODE, 1, connect, lambda message: None, self.lost.put)


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[PlayedAgent]:
    played = PlayedAgent(str(tmp_path))

    class Handle:
        def __getattr__(self, name: str) -> Any:
            def remote(*arguments: Any) -> Callable[[], Any]:
                return lambda: getattr(played, name)(*arguments)

            return SimpleNamespace(remote=remote)

    ray = SimpleNamespace(
        get=lambda asked, timeout=None: asked(),
        wait=lambda asked, timeout: (asked, []),
        kill=lambda agent, no_restart: None,
    )
    options = SimpleNamespace(remote=lambda *_: Handle())
    monkeypatch.setattr(relays, "ray", ray)
    monkeypatch.setattr(relays, "Agent", SimpleNamespace(options=lambda **_: options))
    monkeypatch.setattr(relays, "NodeAffinitySchedulingStrategy", lambda node_id, soft: None)
    monkeypatch.setattr(relays, "why_unreachable", lambda host, port: None)
    monkeypatch.setattr(relays, "process_of", lambda agent: None)
    monkeypatch.setattr(relays, "others_with_its_gpus", lambda *_, with_tasks: [])
    yield played
    played.over.set()


def test_an_agent_that_cannot_be_sent_something_is_lost(agent: PlayedAgent) -> None:
    """Else its orders would pile up, and its workers wait for ever."""

    def order(first: int, orders: Any) -> None:
        raise TypeError("cannot pickle this")

    agent.order = order
    relay = agent.relay()
    relay.place()
    relay.send(Prepare(SPEC))
    assert agent.lost.get(timeout=PATIENCE) is relay
    assert "cannot pickle this" in str(relay.why)


def nothing() -> Any:
    """An agent that does not answer yet."""
    raise GetTimeoutError


def test_an_agent_whose_process_is_slow_to_start_is_waited_for(agent: PlayedAgent) -> None:
    """As where the program lies on a network drive; Ray counts its GPUs as used meanwhile."""
    hello, looks = agent.hello, iter(range(3))
    agent.hello = lambda: hello() if next(looks, None) is None else nothing()
    relay = agent.relay()
    relay.place()
    assert relay.node.name == "a"
    relay.close()


def test_an_agent_whose_gpus_others_took_meanwhile_is_given_up_and_says_who_they_are(
    agent: PlayedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first look, so that the run asks the next node at once."""
    taken = Holding("1", 1.0, "0200", "actor Trainer")
    monkeypatch.setattr(relays, "others_with_its_gpus", lambda *_, with_tasks: [taken])
    monkeypatch.setattr(relays, "whose", lambda held: f"job {held[0].job}: {held[0].what}")
    agent.hello = nothing
    with pytest.raises(relays.GpusTaken, match="taken just now by job 0200: actor Trainer"):
        agent.relay().place()


def test_a_node_that_cannot_be_reached_is_told_with_its_address(
    agent: PlayedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No agent is begun there that Ray would wait for."""
    monkeypatch.setattr(relays, "why_unreachable", why_unreachable)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        place = replace(NODE, address="127.0.0.1", port=taken.getsockname()[1])
        relay = Relay("a", place, 1, CONNECT, lambda message: None, agent.lost.put)
        with pytest.raises(relays.NotPlaced) as raised:
            relay.place()
    assert f"nothing answers there at 127.0.0.1:{place.port} (Connection refused)" in str(
        raised.value
    )


def test_an_agent_that_runs_where_it_cannot_be_reached_is_told_with_its_address(
    agent: PlayedAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a firewall lets Ray's own ports through and not those of its workers."""
    why = "at 10.0.0.2:10002 (timed out)"
    monkeypatch.setattr(relays, "ANSWERS", 0.0)
    monkeypatch.setattr(relays, "process_of", lambda agent: ("10.0.0.2", 10002))
    monkeypatch.setattr(
        relays, "why_unreachable", lambda host, port: why if host == "10.0.0.2" else None
    )
    agent.hello = nothing
    with pytest.raises(relays.NotPlaced, match="its agent runs, but does not answer at"):
        agent.relay().place()


def test_an_error_of_a_nodes_files_is_told_as_it_is_there(agent: PlayedAgent) -> None:
    """Ray hands out one of its own, whose text is a traceback with colours."""

    def files(what: str, *arguments: Any) -> None:
        error = OSError(28, "No space left on device")
        raise RayTaskError("files", "a traceback", error).as_instanceof_cause()

    agent.files = files
    relay = agent.relay()
    relay.place()
    with pytest.raises(OSError) as raised:
        relay.files("take", "x")
    assert str(raised.value) == "[Errno 28] No space left on device"
    relay.close()


@pytest.mark.parametrize("changed", [False, True])
def test_a_node_with_another_program_than_at_the_runs_beginning_is_told_with_what_changed_here(
    agent: PlayedAgent, changed: bool
) -> None:
    """A checkout that is updated while a run goes on changes for nodes that come later."""
    now = software_here()
    at_the_beginning = {**now, "this program": "0ld"} if changed else now
    found = now if changed else {**now, "this program": "0ld"}
    agent.hello = lambda: other_software(at_the_beginning, found)
    with pytest.raises(relays.NotPlaced, match="it has other software") as refused:
        agent.relay(replace(CONNECT, software=at_the_beginning)).place()
    assert ("has changed on this machine as well" in str(refused.value)) is changed
