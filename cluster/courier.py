"""Brings files to a node and results back, where the node does not see main's folders.

It runs in the bridge, on main's machine, between what main orders and what the agent is told. What
is seen at its own path is left there: that is tried for every file and every output folder, once.
"""

import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeGuard
from uuid import uuid4

from cluster.file_hashes import Kind, files_of, hash_of
from cluster.node_files import STILL_USED, Wanted
from cluster.probes import answer_to, probe_in
from cluster.protocol import (
    AskProgress,
    AskSilence,
    Forget,
    FromAgent,
    Kill,
    Order,
    Remark,
    Send,
    Silent,
    Start,
    Told,
)
from core.engine.backend import Died, Said
from core.errors import one_line
from core.messages import Done, Failed, Keep, Lease, Preview
from core.store.outputs import FATAL_ERRNOS, discard, preview_of
from core.worker_spec import WorkerSpec

CHUNK = 8 * 1024**2  # bytes of one part
MOST_THREADS = 128  # one for each slot and direction: whoever waits for a file holds up nobody else
# Seconds after which the node is asked for a file again, which notes that it is still used: what is
# not leaves the cache where that is full.
LOOKED_FOR_AGAIN = STILL_USED / 4
MOST_KNOWN = 4000  # files, and folders, of which it is remembered where the node has them
ForSlot = Start | Send | AskSilence | AskProgress


class NodeLostError(Exception):
    """The node answers no more."""


class OnNode(Protocol):
    """`cluster.node_files.NodeFiles` of the node; each call waits for its answer.

    Raises:
        NodeLostError: there is none.
        OSError: as there.
    """

    def find(self, wanted: Wanted) -> str | None: ...
    def begin(self, coming: str, size: int) -> None: ...
    def receive(self, coming: str, name: str, offset: int, data: bytes) -> None: ...
    def finish(self, coming: str, wanted: Wanted) -> str: ...
    def sees(self, path: str, word: str) -> bool: ...
    def take(self, path: str) -> bytes: ...
    def drop(self, paths: Sequence[str]) -> None: ...


class Courier:
    """Passes orders and reports of one node on in their order, when their files are where they go.

    Args:
        node: its files.
        spool: its folder of results.
        send: sends an order to the agent.
        tell: tells main a report.
    """

    def __init__(
        self,
        node: OnNode,
        spool: str,
        send: Callable[[Order], None],
        tell: Callable[[FromAgent], None],
    ) -> None:
        self._node, self._spool = node, spool
        self._send, self._tell = send, tell
        self._pool = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="courier")
        self._lock = threading.RLock()  # guards what follows
        self._orders: dict[str, deque[ForSlot]] = {}  # by slot: those that wait
        self._reports: dict[str, deque[Told | Silent]] = {}
        # Both with what was asked for last at the end.
        self._found: dict[Wanted, Future[tuple[str | None, float]]] = {}  # with monotonic time
        self._shared: dict[str, Future[bool]] = {}  # by output folder
        self._never_started: set[int] = set()  # lives of workers that were to go before they came
        self._away: dict[str, tuple[str, str, str]] = {}  # by lease: slot, partial file, place
        self._closed = False

    # -- orders ------------------------------------------------------------------------------------

    def order(self, order: Order) -> None:
        """Send an order, behind all that its slot was told before."""
        if isinstance(order, Kill | Forget):
            self._end(order)
            return
        if not isinstance(order, ForSlot):
            self._send(order)
            return
        with self._lock:
            if self._closed:
                return
            waiting = self._orders.get(order.slot)
            if waiting is not None:
                waiting.append(order)
                return
            ready = self._ready(order)
            if ready is None:
                self._orders[order.slot] = deque([order])
                self._pool.submit(self._work, order.slot)
                return
        self._send(ready)

    def _end(self, order: Kill | Forget) -> None:
        """A worker is to go at once: what it was still to be told is dropped."""
        with self._lock:
            waiting = self._orders.get(order.slot)
            if waiting:
                first, *others = waiting
                waiting.clear()
                waiting.extend([first, *(o for o in others if o.life != order.life)])
                if isinstance(first, Start) and first.life == order.life:
                    self._never_started.add(order.life)
                    if isinstance(order, Kill):
                        death = Died(order.slot, "it was not started yet", by_sigkill=True)
                        self._tell(Told(order.slot, order.life, death))
                    return
        self._send(order)

    def _work(self, slot: str) -> None:
        """Send what waits for a slot, each when its files are there."""
        while True:
            with self._lock:
                waiting = self._orders[slot]
                if not waiting:
                    del self._orders[slot]
                    return
                order = ready = waiting[0]
            try:
                ready = self._prepared(order)
            except NodeLostError:
                with self._lock:
                    del self._orders[slot]
                return
            except Exception as error:  # the worker will say what that means for its task
                self._tell(Remark("WARNING", f"{slot}: files could not be brought: {error!r}"))
            with self._lock:  # a kill comes before or behind it, and not between
                waiting.popleft()
                if order.life not in self._never_started:
                    self._send(ready)

    def _ready(self, order: ForSlot) -> ForSlot | None:
        """The order as the agent is told it, if that needs no look at any file."""
        try:
            return self._prepared(order, wait=False)
        except (_Unknown, NodeLostError):
            return None

    def _prepared(self, order: ForSlot, wait: bool = True) -> ForSlot:
        if isinstance(order, Start):
            return replace(order, spec=self._spec(order.spec, wait))
        if isinstance(order, Send) and isinstance(order.message, Keep):
            keep = order.message
            if keep.way == "unload":
                return order
            place = self._place(Wanted("lora", keep.path, keep.sha256), wait)
            return replace(order, message=replace(keep, path=place))
        if isinstance(order, Send) and isinstance(order.message, Lease):
            return replace(order, message=self._lease(order.slot, order.message, wait))
        return order

    def _spec(self, spec: WorkerSpec, wait: bool) -> WorkerSpec:
        loras = {lora.path for lora in spec.model_loras}

        def place(path: str) -> str:
            if not os.path.isabs(path) or not os.path.exists(path):  # of a hub, or simulated
                return path
            if not wait:
                raise _Unknown
            kind: Kind = "lora" if path in loras else "model"
            return self._place(Wanted(kind, path, hash_of(kind, path)), wait)

        return spec.with_paths(place)

    def _lease(self, slot: str, lease: Lease, wait: bool) -> Lease:
        places = {}
        wanted = [Wanted("picture", path, sha256) for path, sha256 in lease.files.items()]
        wanted += [Wanted("lora", lora.path, lora.sha256) for lora in lease.loras]
        for one in wanted:
            place = self._place(one, wait)
            if place != one.path:
                places[one.path] = place
        if not self._is_shared(os.path.dirname(lease.partial_path), wait):
            place = os.path.join(self._spool, os.path.basename(lease.partial_path))
            places[lease.partial_path] = place
            with self._lock:
                self._away[lease.lease_id] = slot, lease.partial_path, place
        return replace(lease, places=places) if places else lease

    # -- files to the node -------------------------------------------------------------------------

    def _place(self, wanted: Wanted, wait: bool) -> str:
        """Where something is on the node; its own path, if it can be had neither here nor there."""

        def bring() -> tuple[str | None, float]:
            asked_at = time.monotonic()
            return self._node.find(wanted) or self._bring(wanted), asked_at

        with self._lock:
            known = self._found.get(wanted)
            if known is not None and known.done():
                place, asked_at = known.result()
                if place is None or time.monotonic() - asked_at > LOOKED_FOR_AGAIN:
                    del self._found[wanted]
        place, _ = self._once(self._found, wanted, bring, wait)
        return place or wanted.path

    def _bring(self, wanted: Wanted) -> str | None:
        """Send it to the node, part by part; None where it is not here as it should be."""
        try:
            files = files_of(wanted.kind, wanted.path)
            coming = uuid4().hex
            self._node.begin(coming, sum(file.stat().st_size for file in files))
            for file in files:
                self._bring_file(coming, os.path.relpath(file, Path(wanted.path).parent), file)
            return self._node.finish(coming, wanted)
        except OSError as error:  # the worker says what that means for its task
            self._tell(Remark("WARNING", f"{wanted.path} could not be brought there: {error}"))
            return None

    def _bring_file(self, coming: str, name: str, file: Path) -> None:
        offset = 0
        with file.open("rb") as stream:
            while data := stream.read(CHUNK):
                self._node.receive(coming, name, offset, data)
                offset += len(data)
        if not offset:
            self._node.receive(coming, name, 0, b"")

    def _is_shared(self, folder: str, wait: bool) -> bool:
        """Whether the node sees a folder of results as this machine does, and may write there."""

        def look() -> bool:
            word = uuid4().hex
            probe = probe_in(folder, word)
            seen = answer_to(probe)
            try:
                probe.write_text(word, "utf-8")
                return self._node.sees(str(probe), word) and seen.read_text("utf-8") == word
            except OSError:
                return False
            finally:
                for file in (probe, seen):
                    with suppress(OSError):
                        file.unlink()

        shared = self._once(self._shared, folder, look, wait)
        return bool(shared)

    def _once(
        self, known: dict[Any, "Future[Any]"], key: Any, find: Callable[[], Any], wait: bool
    ) -> Any:
        """What was found out before, or is now by whoever comes first."""
        with self._lock:
            found = known.pop(key, None)
            mine = found is None and wait
            if mine:
                found = Future()
            if found is not None:
                known[key] = found  # as the newest
            for old in list(islice(known, max(0, len(known) - MOST_KNOWN))):
                if known[old].done():
                    del known[old]
        if found is None or not (wait or found.done()):
            raise _Unknown
        if mine:
            try:
                found.set_result(find())
            except BaseException as error:
                with self._lock:
                    del known[key]
                found.set_exception(error)
        return found.result()

    # -- results to main ---------------------------------------------------------------------------

    def report(self, report: FromAgent) -> None:
        """Tell main a report, behind all that its slot has said before."""
        if not isinstance(report, Told | Silent):
            self._tell(report)
            return
        with self._lock:
            waiting = self._reports.get(report.slot)
            if waiting is not None:
                waiting.append(report)
                return
            if self._concerns_a_file(report):
                self._reports[report.slot] = deque([report])
                self._pool.submit(self._fetch, report.slot)
                return
        self._pass_on(report)

    def _concerns_a_file(self, told: Told | Silent) -> TypeGuard[Told]:
        if not isinstance(told, Told) or not isinstance(told.report, Said):
            return False
        said = told.report.message
        return isinstance(said, Done | Preview) and said.lease_id in self._away

    def _fetch(self, slot: str) -> None:
        while True:
            with self._lock:
                waiting = self._reports[slot]
                if not waiting:
                    del self._reports[slot]
                    return
                first = waiting[0]
            told: Told | Silent | None = first
            written: str | None = None
            if self._concerns_a_file(first):
                told, written = self._fetched(first)
            with self._lock:  # main does not hear of the node's loss meanwhile
                waiting.popleft()
                if self._closed:  # main has let go of the attempt, and removes its files no more
                    if written is not None:
                        discard(written)
                    return
                if told is not None:
                    self._pass_on(told)

    def _fetched(self, told: Told) -> tuple[Told | None, str | None]:
        """Write a result, or a preview, where main looks for it.

        Returns what main is told, None where it cannot be had; and the file.
        """
        assert isinstance(told.report, Said)
        message = told.report.message
        _, file, place = self._away[message.lease_id]
        if isinstance(message, Preview):
            file, place = (preview_of(path, message.number) for path in (file, place))
            try:
                Path(file).write_bytes(self._node.take(place))
            except Exception:  # whatever it is: one that cannot be had is left out
                return None, file
            return told, file
        try:
            data = self._node.take(place)
            if hashlib.sha256(data).hexdigest() != message.sha256:
                raise OSError("it is not what the worker has written")
            _write_synced(Path(file), data)
        except NodeLostError:
            return None, file  # and with it the worker
        except Exception as error:  # also of Ray, as where its object store is full
            errno, why = getattr(error, "errno", None), getattr(error, "strerror", None)
            kind = "storage" if errno in FATAL_ERRNOS else "error"
            text = f"The result could not be brought here: {why or one_line(str(error))}"
            failed = Failed(message.lease_id, kind, text, message.elapsed)  # type: ignore[arg-type]
            return replace(told, report=Said(told.slot, failed)), file
        return told, file

    def _pass_on(self, told: Told | Silent) -> None:
        """Tell main, and have the node forget the results that it does not need any more."""
        self._tell(told)
        if isinstance(told, Silent):
            return
        ended: list[str] = []
        with self._lock:
            if isinstance(told.report, Died):
                ended = [k for k, (slot, _, _) in self._away.items() if slot == told.slot]
            elif isinstance(told.report, Said) and isinstance(told.report.message, Done | Failed):
                ended = [told.report.message.lease_id]
            places = [self._away.pop(lease)[2] for lease in ended if lease in self._away]
            if places and not self._closed:
                self._pool.submit(self._drop, places)

    def _drop(self, places: list[str]) -> None:
        previews = [preview_of(place, number) for place in places for number in (1, 2, 3)]
        with suppress(NodeLostError, OSError):
            self._node.drop([*places, *previews])

    def close(self) -> None:
        """Begin nothing more, and tell nothing more; call it before main hears of the loss."""
        with self._lock:
            self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)


class _Unknown(Exception):
    """The answer needs a look at files."""


def _write_synced(file: Path, data: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
