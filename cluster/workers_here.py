"""Workers on main's own machine, beside those of a cluster: such as need no GPU of it.

A judge that is served elsewhere is asked from here: the key and the way to the server are main's,
and whatever was answered lies in main's folder, whichever nodes come and go.
"""

import threading
from collections.abc import Callable

from cluster.node_models import NodeModels
from cluster.node_workers import NodeWorkers
from cluster.protocol import FromAgent, Order
from core.devices.device import Device
from core.engine.backend import WorkerBackend

POLL = 1.0  # seconds for which a question for reports waits


class WorkersHere:
    """A node without Ray, and without files that have to travel.

    Args:
        make_backend: called in the thread that outlives every worker.
        tell: told the reports, in a thread of their own.
        on_defect: called with the error that has ended that thread, and with it the workers.
    """

    def __init__(
        self,
        device: Device,
        make_backend: Callable[[], WorkerBackend],
        tell: Callable[[FromAgent], None],
        on_defect: Callable[[BaseException], None],
    ) -> None:
        backend = make_backend()
        self._workers = NodeWorkers(lambda: backend, [device], NodeModels(backend.fetch))
        self._tell, self._on_defect = tell, on_defect
        self._lock = threading.Lock()  # guards the number
        self._next_order = 1
        self._over = threading.Event()
        threading.Thread(target=self._pass_on, name="workers-here", daemon=True).start()

    def order(self, order: Order) -> None:
        """Give an order about a worker of this machine."""
        with self._lock:
            try:
                self._workers.order(self._next_order, [order])
            except Exception:
                return  # the thread of the reports says so
            self._next_order += 1

    def close(self) -> None:
        """Kill the workers, and tell nothing more."""
        self._over.set()
        self._workers.close()

    def _pass_on(self) -> None:
        last = 0
        while not self._over.is_set():
            try:
                reports = self._workers.reports(last, POLL)
            except BaseException as error:
                self._on_defect(error)
                return
            for number, report in reports:
                self._tell(report)
                last = number
