"""The bridge's side of one agent: finds out whether it is there, and passes on what is said.

Ray's own retries and restarts are off. A call that fails may have run all the same, so orders are
numbered and sent again, and an agent that is lost stays lost: another one takes its place.
"""

import pickle
import queue
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import uuid4

import ray
from ray.exceptions import (
    ActorUnavailableError,
    GetTimeoutError,
    RayActorError,
    RayError,
    RayTaskError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.agent import Agent
from cluster.courier import Courier, NodeLostError
from cluster.holders import others_with_its_gpus, whose
from cluster.node_files import Wanted
from cluster.nodes import RayNode
from cluster.protocol import Connect, From, FromAgent, FromBridge, Node, Order
from cluster.ray_state import process_of
from cluster.reachable import why_unreachable
from cluster.software import changed_here

PLACING = 60.0  # seconds for a new agent to answer
TASKS_SEEN = 3.0  # seconds after which Ray has been told of a task that took its GPUs
ANSWERS = 5.0  # seconds after which an agent whose process is there should have answered
SLICE = 0.5  # seconds between looks at an agent that does not answer
RETRY = 0.1  # seconds before a call is made again
CLOSING = 5.0  # seconds for an agent's workers to end
MOST_AT_ONCE = 200  # orders
PORTS = "machines of a cluster have to reach each other at all ports that Ray uses"
PATIENCE = 1.5  # times the fence's seconds: by then a silent agent has ended itself


class NotPlaced(Exception):
    """There can be no agent on the node."""


class GpusTaken(NotPlaced):
    """Another Ray job was quicker."""


class Relay:
    """One node with its agent.

    Args:
        name: of the node, as everybody but Ray calls it.
        raylet: the node, as Ray lists it.
        gpus: that the agent is to have.
        tell: tells main; safe for several threads.
        on_lost: called once when the agent is gone, from a thread of the relay.

    Attributes:
        node: as main is told of it, when the agent is placed.
        why: the agent is lost; None while it is not.
    """

    node: Node

    def __init__(
        self,
        name: str,
        raylet: RayNode,
        gpus: int,
        connect: Connect,
        tell: Callable[[FromBridge], None],
        on_lost: Callable[["Relay"], None],
    ) -> None:
        self.name, self.node_id, self.gpus = name, raylet.node_id, gpus
        self._raylet = raylet
        self._tell = tell
        self._on_lost = on_lost
        self._patience = PATIENCE * connect.settings.fence_timeout
        self._orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._lost = threading.Event()
        self._closing = False
        self._connect = connect
        self.why: str | None = None
        self._agent: Any = None

    def place(self) -> None:
        """Start an agent, wait for it, and begin to relay.

        Raises:
            NotPlaced: it does not come, or has no device.
        """
        why = why_unreachable(self._raylet.address, self._raylet.port)
        if why is not None:
            raise NotPlaced(f"nothing answers there {why}; {PORTS}")
        self._agent = Agent.options(  # type: ignore[attr-defined]
            name=uuid4().hex,  # by which the next bridge finds it
            num_gpus=self.gpus,
            num_cpus=0,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(self.node_id, soft=False),
        ).remote(pickle.dumps(self._connect), dict(self._connect.software), self.gpus)
        try:
            answer = self._first_answer()
            if isinstance(answer, str):
                raise NotPlaced(changed_here(answer, self._connect.software))
        except BaseException:
            self._end()
            raise
        spool, devices = answer
        self._courier = Courier(AgentFiles(self), spool, self._orders.put, self._report)
        self.node = Node(self.name, tuple(replace(device, node=self.name) for device in devices))
        for run in (self._poll, self._send):  # from now on, as its fence would fall
            threading.Thread(target=run, name=f"relay-{self.name}", daemon=True).start()

    def _first_answer(self) -> Any:
        asked, began = self._agent.hello.remote(), time.monotonic()
        while True:
            try:
                return ray.get(asked, timeout=SLICE)
            except GetTimeoutError:
                self._check_may_come(time.monotonic() - began)
            except RayError as error:
                raise NotPlaced(_words(error)) from None

    def _check_may_come(self, waited: float) -> None:
        """Raise `NotPlaced` if it is of no use to wait for the agent any more.

        Args:
            waited: seconds until now.
        """
        process = process_of(self._agent)
        if process is None:
            others = others_with_its_gpus(
                self.node_id, self._raylet.all_gpus, self.gpus, with_tasks=waited > TASKS_SEEN
            )
            if others:
                raise GpusTaken(f"its GPUs were taken just now by {whose(others)}")
        elif waited > ANSWERS:
            why = why_unreachable(*process)
            if why is not None:
                raise NotPlaced(f"its agent runs, but does not answer {why}; {PORTS}")
        if waited > PLACING:
            raise NotPlaced(f"its agent did not start within {PLACING:g} s")

    def send(self, order: Order) -> None:
        """Send an order, some time; it is lost where the agent is."""
        self._courier.order(order)

    def files(self, what: str, *arguments: Any) -> Any:
        """Call a method of the node's `NodeFiles`, again where it is not known whether it ran.

        Raises:
            NodeLostError: the agent is gone.
            OSError: as there.
        """
        while not self._lost.is_set():
            try:
                asked = self._agent.files.remote(what, *arguments)
                while not ray.wait([asked], timeout=SLICE)[0]:
                    if self._lost.is_set():
                        raise NodeLostError(self.name)
                return ray.get(asked)
            except ActorUnavailableError:
                time.sleep(RETRY)
            except RayActorError:
                break
            except RayTaskError as error:  # its text is a traceback, with colours
                raise getattr(error, "cause", error) from None
        raise NodeLostError(self.name)

    def _report(self, report: FromAgent) -> None:
        self._tell(From(self.name, report))

    def lose(self, why: str) -> None:
        """Take the agent for lost; what the node still does is seen by nobody."""
        if not self._lost.is_set():
            self.why = self.why or why
            self._lost.set()
            self._orders.put(None)

    def close(self) -> None:
        """Have the agent end its workers, and end it."""
        if not self._lost.is_set():
            self._closing = True
            self.lose("the run is over")
            with suppress(RayError):
                ray.get(self._agent.close.remote(), timeout=CLOSING)
        self._end()

    def _end(self) -> None:
        with suppress(RayError, ValueError):
            ray.kill(self._agent, no_restart=True)

    # -- threads -----------------------------------------------------------------------------------

    def _poll(self) -> None:
        """Pass on reports until the agent is lost; then say so."""
        try:
            self._pass_on_reports()
        except RayError as error:
            self.lose(_words(error))
        except Exception as error:  # nobody would hear the agent any more
            traceback.print_exc()
            self.lose(f"its reports could not be passed on ({error!r}); this is a defect")
        if not self._closing:
            self._end()
        self._courier.close()
        if not self._closing:
            self._on_lost(self)

    def _pass_on_reports(self) -> None:
        last, answered = 0, time.monotonic()
        while not self._lost.is_set():
            try:
                reports = self._answer(self._agent.poll.remote(last), answered)
            except ActorUnavailableError:
                if time.monotonic() - answered > self._patience:
                    self.lose("it does not answer")
                time.sleep(RETRY)
                continue
            if reports is None:
                continue
            answered = time.monotonic()
            for number, report in reports:
                if number > last:
                    self._courier.report(report)
                    last = number

    def _answer(self, asked: Any, since: float) -> Any:
        """What the agent answers; None once it is lost."""
        while not self._lost.is_set():
            try:
                return ray.get(asked, timeout=SLICE)
            except GetTimeoutError:
                if time.monotonic() - since > self._patience:
                    self.lose(f"it did not answer for {self._patience:g} s")
        return None

    def _send(self) -> None:
        """Pass on orders until the agent is lost."""
        try:
            self._pass_on_orders()
        except RayError as error:
            self.lose(_words(error))
        except Exception as error:  # the agent would be asked on, and have nothing to do for ever
            traceback.print_exc()
            self.lose(f"orders could not be sent there ({error!r}); this is a defect")

    def _pass_on_orders(self) -> None:
        first, over = 1, False
        while not over:
            orders = [self._orders.get()]
            with suppress(queue.Empty):
                while len(orders) < MOST_AT_ONCE:
                    orders.append(self._orders.get_nowait())
            over = None in orders
            batch = [order for order in orders if order is not None]
            while batch and not self._lost.is_set():
                try:
                    # It may have run although it fails: the agent drops what it knows.
                    ray.get(self._agent.order.remote(first, batch), timeout=self._patience)
                except (ActorUnavailableError, GetTimeoutError):
                    time.sleep(RETRY)
                    continue
                first += len(batch)
                batch = []


class AgentFiles:
    """The files of an agent's node, as the courier asks for them."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def find(self, wanted: Wanted) -> str | None:
        return self._relay.files("find", wanted)  # type: ignore[no-any-return]

    def begin(self, coming: str, size: int) -> None:
        self._relay.files("begin", coming, size)

    def receive(self, coming: str, name: str, offset: int, data: bytes) -> None:
        self._relay.files("receive", coming, name, offset, data)

    def finish(self, coming: str, wanted: Wanted) -> str:
        return self._relay.files("finish", coming, wanted)  # type: ignore[no-any-return]

    def sees(self, path: str, word: str) -> bool:
        return self._relay.files("sees", path, word)  # type: ignore[no-any-return]

    def take(self, path: str) -> bytes:
        return self._relay.files("take", path)  # type: ignore[no-any-return]

    def drop(self, paths: Sequence[str]) -> None:
        self._relay.files("drop", list(paths))


def _words(error: Exception) -> str:
    """What became of an agent, in a sentence that no user needs a dictionary for."""
    text = str(error).strip()
    if isinstance(error, RayActorError):
        for line in text.splitlines():
            if "ModuleNotFoundError" in line or "ImportError" in line:
                return (
                    f"this program cannot be imported there ({line.strip()}); it has to lie at the "
                    "same place on every node, in one version"
                )
        if "node" in text and "died" in text.lower() and "killed by" not in text:
            return "the node is gone"
        return "its agent has died"
    return text.splitlines()[-1] if text else type(error).__name__
