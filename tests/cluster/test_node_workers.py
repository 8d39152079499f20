"""A node's side of the protocol, and links: whatever breaks there is seen by the other side."""

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from multiprocessing import Pipe
from typing import Any

import pytest

from cluster.link import Link
from cluster.node_models import NodeModels
from cluster.node_workers import NodeWorkers
from cluster.protocol import HasRead, Remark, Told
from core.devices.device import Device
from core.engine.backend import Report, Said
from core.messages import Loaded, StepsDone
from tests.conftest import PATIENCE
from tests.inline_backend import InlineBackend

DEVICES = [Device("cpu", 0, "", node="a")]


class Broken(InlineBackend):
    """A backend with a defect, which shows when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.breaks = threading.Event()

    def poll(self, timeout: float) -> list[Report]:
        if self.breaks.wait(min(timeout, 0.01)):
            raise RuntimeError("a defect")
        return []


def node_of(backend: Any) -> NodeWorkers:
    return NodeWorkers(lambda: backend, DEVICES, NodeModels(backend.fetch))


def test_a_node_whose_thread_has_broken_down_says_so_to_whoever_asks() -> None:
    """Else it would answer for ever that there is nothing new, and its workers would wait."""
    backend = Broken()
    node = node_of(backend)
    with ThreadPoolExecutor(1) as executor:
        asked = executor.submit(node.reports, 0, PATIENCE)
        backend.breaks.set()
        with pytest.raises(RuntimeError, match="a defect"):
            asked.result(PATIENCE)
    with pytest.raises(RuntimeError, match="a defect"):
        node.order(1, [])


def told(message: Any) -> Told:
    return Told("cpu0", 1, Said("cpu0", message))


def test_what_concerns_no_decision_waits_a_moment_for_company(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cluster.node_workers.LINGER", PATIENCE)
    node = node_of(InlineBackend())
    with ThreadPoolExecutor(1) as executor:
        asked = executor.submit(node.reports, 0, PATIENCE)
        node.tell(told(StepsDone("1", 1, 2)))
        node.tell(HasRead("cpu0", 1, 1))
        assert wait([asked], timeout=0.05).not_done, "it was told alone"
        node.tell(told(Loaded("m", 0.0)))
        assert [number for number, _ in asked.result(PATIENCE)] == [1, 2, 3]
        monkeypatch.setattr("cluster.node_workers.LINGER", 0.01)
        asked = executor.submit(node.reports, 3, PATIENCE)
        node.tell(told(StepsDone("1", 2, 2)))
        assert [number for number, _ in asked.result(PATIENCE)] == [4]
    node.close()


def test_a_link_that_cannot_send_something_ends() -> None:
    """Else nothing would be sent any more, and nobody would say so."""
    ours, theirs = Pipe()
    ended, other_ended = threading.Event(), threading.Event()
    hook, threading.excepthook = threading.excepthook, lambda args: None
    try:
        link = Link(ours, lambda message: None, ended.set)
        other = Link(theirs, lambda message: None, other_ended.set)
        link.start()
        other.start()
        link.send(threading.Lock())  # which cannot be pickled
        assert ended.wait(PATIENCE) and other_ended.wait(PATIENCE)
    finally:
        other.hang_up()
        link.close()
        other.close()
        threading.excepthook = hook


def test_a_link_whose_receiver_breaks_down_ends() -> None:
    ours, theirs = Pipe()
    ended = threading.Event()

    def receive(message: Any) -> None:
        raise RuntimeError("a defect")

    hook, threading.excepthook = threading.excepthook, lambda args: None
    try:
        link = Link(ours, receive, ended.set)
        other = Link(theirs, lambda message: None, lambda: None)
        link.start()
        other.start()
        other.send(Remark("INFO", "a"))
        assert ended.wait(PATIENCE)
    finally:
        other.hang_up()
        link.close()
        other.close()
        threading.excepthook = hook
