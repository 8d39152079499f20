"""Main is held up: by a disk, by a terminal, by Ctrl-Z. Its workers do not pay for it."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from core.engine.engine import BUSY_WAIT
from core.events import Event, TaskEnded
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from tests.conftest import PATIENCE, Project, simulated, wait_until
from tests.stub_backend import StubBackend

TASKS = [{"prompt": "a"}, {"prompt": "b"}]
TIMEOUT = 0.5  # seconds for a task; less than a turn of main may take unnoticed


@pytest.mark.parametrize("pause", [0.7 * BUSY_WAIT, 2.5 * BUSY_WAIT])
def test_a_worker_that_spoke_while_main_was_held_up_is_not_killed(
    tmp_path: Path, pause: float
) -> None:
    """Whoever publishes or reports a picture may wait for a disk or a terminal."""
    held_up, go_on = threading.Event(), threading.Event()

    def wait_for_the_terminal(event: Event) -> None:
        if isinstance(event, TaskEnded) and not held_up.is_set():
            held_up.set()
            go_on.wait(PATIENCE)

    config = simulated(
        supervision={"task_timeout": TIMEOUT}, scheduling={"speculative_copies": False}
    )
    backend = StubBackend()
    generator = MultiGPUImageGenerator(
        2, config=config, output_dir=tmp_path, listener=wait_for_the_terminal, backend=backend
    )
    with ThreadPoolExecutor() as executor, generator:
        workers = [backend.worker(name).serve() for name in ("cpu0", "cpu1")]
        batch = executor.submit(generator.generate_batch, TASKS)
        leases = [worker.hear_lease() for worker in workers]
        workers[0].draw(leases[0])
        workers[0].save(leases[0])
        assert held_up.wait(PATIENCE)
        workers[1].draw(leases[1])
        workers[1].save(leases[1])
        time.sleep(pause)
        go_on.set()
        results = batch.result(PATIENCE)
        assert not any(worker.killed for worker in workers)
        for worker in workers:
            worker.leave_when_asked()
    assert [(r.status, r.attempts) for r in results] == [("done", 1)] * 2


@pytest.mark.parametrize("busy", ["drawing", "loading"])
def test_workers_that_were_stopped_together_with_main_go_on(project: Project, busy: str) -> None:
    """Ctrl-Z and fg; main wakes up first here, and sees how late it is."""
    # What main forgives begins with the turn that it missed, up to `BUSY_WAIT` after the last one.
    # That and what came before and after leave workers some seconds of this to speak again.
    limit = 8.0
    slow = {"seconds_per_megapixel_step": 120.0}  # 0.5 s for 64 x 64 pixels and one step
    if busy == "loading":
        slow["load_seconds"] = 3.0
    file = project.write_tweets([{"prompt": f"{i}", "width": 64, "height": 64} for i in range(6)])
    # A copy of a task would count as an attempt.
    settings = simulated(
        supervision={"task_timeout": limit, "load_stall_timeout": limit},
        simulated=slow,
        scheduling={"speculative_copies": False},
    )
    run = project.start([file, 2, "--log-level", "DEBUG"], settings)
    if busy == "loading":
        wait_until(lambda: run.errors.count(": pid ") == 2, "both workers' start")
        time.sleep(1.5 * BUSY_WAIT)  # main has looked since they began: they stand still since then
    else:
        wait_until(lambda: list(project.pictures.glob("*.png")), "a picture")
    main = psutil.Process(run.process.pid)
    os.killpg(main.pid, signal.SIGSTOP)
    time.sleep(limit + 1.0)
    main.send_signal(signal.SIGCONT)
    time.sleep(1.0)  # in which it would have killed them
    os.killpg(main.pid, signal.SIGCONT)
    assert run.finish() == 0, run.errors
    assert run.errors.count(": pid ") == 2, f"a worker was replaced: {run.errors}"
    assert [r["attempts"] for r in project.records()] == [1] * 6
