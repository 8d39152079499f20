"""Main's link to the bridge, which outlives it: where one bridge ends, another one is started."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Protocol

from loguru import logger

from cluster.link import Link
from cluster.protocol import Alive, Connect, Connected, Refused
from cluster.reachable import check_reachable
from core.details import detail
from core.errors import InputError

PATIENCE = 1.5  # times the fence's seconds: so long may a bridge say nothing
SIGNS = 4  # of life that it gives within the fence's seconds
CONNECTING = 120.0  # seconds until a bridge has to have connected to the cluster
MOST_ENDS = 5  # bridges that may end, or fail to be started, in a row
STEADY = 600.0  # seconds after which a bridge's end is not in a row with those before
PAUSES = (0.5, 1.0, 2.0, 5.0, 15.0)  # seconds before another one is started


class BridgeEnd(Protocol):
    """A bridge as main holds it; `cluster.bridge_process` has the real one."""

    @property
    def connection(self) -> Connection: ...
    def kill(self) -> None: ...
    def wait(self) -> None: ...
    def describe_end(self) -> str: ...


@dataclass
class _Held:
    """One bridge.

    Attributes:
        heard: it said something since this was last looked at.
        connected: it has reached the cluster.
        ended: it is gone.
    """

    bridge: BridgeEnd
    link: Link = field(init=False)
    heard: bool = False
    connected: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)


class LastingLink:
    """Starts bridges, one after the other, and passes on what they say.

    Args:
        start: starts a bridge.
        connect: tells it what is wanted.
        receive: called with each message, by one thread at a time. After `on_cut` the first is
            `Connected`.
        on_cut: called with the reason when a bridge has ended and another one is to come; in
            between nothing is received, and what is sent is lost.
        on_over: called with the reason when none is to come.
    """

    def __init__(
        self,
        start: Callable[[], BridgeEnd],
        connect: Connect,
        receive: Callable[[Any], None],
        on_cut: Callable[[str], None],
        on_over: Callable[[str], None],
    ) -> None:
        self._start, self._connect = start, connect
        self._receive, self._on_cut, self._on_over = receive, on_cut, on_over
        self._tries = 0  # to connect anew, since there was a bridge that had connected
        self._ends = 0  # of bridges in a row, and of tries to start one
        self._tick = connect.settings.fence_timeout / SIGNS
        self._lock = threading.Lock()  # guards the two that follow
        self._closing = False
        self._held: _Held
        self._wakes = threading.Event()  # set when it is closed
        self._keeper = threading.Thread(target=self._keep, name="cluster-keeper", daemon=True)

    def open(self) -> None:
        """Start the first bridge.

        Raises:
            InputError: no process can be started.
        """
        self._begin(self._connect)
        self._keeper.start()

    def send(self, message: Any) -> None:
        """Send a message, some time; it is lost where the bridge is gone."""
        self._held.link.send(message)

    def close(self) -> None:
        """End the bridge, and start none any more."""
        with self._lock:
            self._closing = True
            held = self._held
        self._wakes.set()
        self._end(held)
        self._keeper.join()

    def _end(self, held: _Held) -> None:
        if held.connected.is_set():
            held.link.hang_up()
        else:
            held.bridge.kill()  # it may be waiting for a cluster, and holds nothing of ours
        held.bridge.wait()
        held.link.close()

    # -- the keeper's thread, and those of links ---------------------------------------------------

    def _begin(self, connect: Connect) -> None:
        bridge = self._start()
        held = _Held(bridge)
        held.link = Link(bridge.connection, partial(self._hear, held), held.ended.set)
        held.link.send(connect)  # before all that is sent from now on
        with self._lock:
            if self._closing:
                bridge.kill()  # and with it, the link ends
            else:
                self._held = held
        try:
            held.link.start()
        except BaseException:
            bridge.kill()
            held.link.close()
            raise

    def _hear(self, held: _Held, message: Any) -> None:
        held.heard = True
        if isinstance(message, Alive):
            return
        if isinstance(message, Refused) and self._connect.again:
            detail(f"The cluster cannot be used yet: {message.why}")
            return
        if isinstance(message, Connected):
            # From now on it is this cluster, and not the next best one.
            settings = self._connect.settings.model_copy(update={"address": message.address})
            self._connect = replace(self._connect, settings=settings, again=True)
            self._tries = 0
            held.connected.set()
        self._receive(message)

    def _keep(self) -> None:
        try:
            self._keep_up()
        except Exception as error:  # no bridge would ever come, and nobody would say so
            logger.exception("The connection to the cluster cannot be kept.")
            self._on_over(f"by a defect of this program: {error!r}")
            self._held.bridge.kill()

    def _keep_up(self) -> None:
        while True:
            held = self._held
            began = time.monotonic()
            self._watch(held)
            if self._closing:
                return
            how = held.bridge.describe_end()
            if not self._connect.again:
                self._on_over(how)
                return
            if held.connected.is_set():
                self._ends = 1 if time.monotonic() - began > STEADY else self._ends + 1
                self._on_cut(how)
            if self._ends > MOST_ENDS:
                self._on_over(f"{how}. It has ended {self._ends} times in a row")
                return
            self._end(held)
            if not self._begin_again():
                return

    def _watch(self, held: _Held) -> None:
        """Wait for a bridge's end; one that says nothing any more is ended."""
        if not held.connected.wait(0) and not self._connects(held):
            held.bridge.kill()
        silent = 0  # looks, and no seconds: this program may have been stopped meanwhile
        while not held.ended.wait(self._tick):
            silent = 0 if held.heard else silent + 1
            held.heard = False
            if silent > PATIENCE * SIGNS:
                held.bridge.kill()

    def _connects(self, held: _Held) -> bool:
        """Whether a new bridge reaches the cluster in time; True also if it ends by itself."""
        end = time.monotonic() + CONNECTING
        while time.monotonic() < end:
            if held.connected.wait(self._tick / SIGNS) or held.ended.is_set():
                return True
        return False

    def _begin_again(self) -> bool:
        """Start another bridge as soon as there is somebody to connect to; False: none comes."""
        while True:
            pause = PAUSES[min(self._tries, len(PAUSES) - 1)]
            self._tries += 1
            if self._wakes.wait(pause):
                return False
            try:
                check_reachable(self._connect.settings.address)
            except InputError:
                continue
            try:
                self._begin(self._connect)
            except Exception as error:  # as where this machine is out of threads or of its disk
                self._ends += 1
                logger.warning(f"A bridge to the cluster could not be started: {error}")
                if self._ends > MOST_ENDS:
                    self._on_over(f"and another one could not be started: {error}")
                    return False
                continue
            return not self._closing
