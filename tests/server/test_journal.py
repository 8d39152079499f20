"""The durable queue under threads that read and write at once."""

import threading
from pathlib import Path

from apps.server.journal import Journal
from apps.server.records import NewJob

READERS = 3
KEPT = 200  # jobs that are there already, so that a list of them takes its time
NEW = 60


def job(tasks: int) -> NewJob:
    return NewJob("caller", tuple({"prompt": f"house {n}"} for n in range(tasks)))


def test_what_was_accepted_is_read_at_once_however_much_is_read_meanwhile(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    over = threading.Event()
    began = threading.Semaphore(0)

    def read() -> None:
        while not over.is_set():
            began.release()
            journal.jobs("caller", limit=KEPT)

    readers = [threading.Thread(target=read) for _ in range(READERS)]
    try:
        for accepted in [journal.accept(job(10)) for _ in range(KEPT)]:
            accepted.result()
        for reader in readers:
            reader.start()
        for _ in range(NEW):
            began.acquire()
            stored, _ = journal.accept(job(1)).result()
            assert journal.open_tasks(stored.number) == [(0, {"prompt": "house 0"})]
            assert journal.job(stored.id) == stored
    finally:
        over.set()
        for reader in readers:
            reader.join()
        journal.close()
