"""Workers that show what they draw, and end a task when the test says so."""

import threading

from PIL import Image

from core.messages import Lease, Preview, StepsDone
from core.store.outputs import preview_of
from tests.played_workers import PlayedWorkers
from tests.stub_backend import StubWorker

STEPS = 8


class Sketching:
    """Workers that show as many previews as a lease asks for, each in another colour.

    Attributes:
        turns: a task ends with each that is released.
    """

    def __init__(self) -> None:
        self.turns = threading.Semaphore(0)
        self.workers = PlayedWorkers(may=self._may)

    def _may(self, worker: StubWorker, lease: Lease) -> None:
        worker.say(StepsDone(lease.lease_id, 1, STEPS))
        for number in range(1, lease.previews + 1):
            colour = (0, 0, 80 * number)
            Image.new("RGB", (16, 16), colour).save(preview_of(lease.partial_path, number), "JPEG")
            worker.say(Preview(lease.lease_id, number, 2 * number, STEPS))
        self.turns.acquire()
