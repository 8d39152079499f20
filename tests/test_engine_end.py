"""An engine that cannot start workers, or breaks down, or is stopped: every job gets its answer."""

import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from core.batches import Batches
from core.devices.device import Device
from core.devices.model_choice import ModelChoice
from core.devices.worker_specs import spec_for
from core.engine.backend import Report
from core.engine.engine import Engine
from core.engine.served_model import ServedModel
from core.engine.worker_slot import State
from core.events import Event, WorkerState
from core.intake.planning import Plan
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.processes.local_backend import LocalBackend
from core.session import Session
from core.settings import load_settings
from core.store.ledger import Ledger
from core.store.tables import Tables
from core.tasks import Result
from core.worker_spec import WorkerSpec
from tests.conftest import PATIENCE, run_script, simulated, wait_until
from tests.folder_world import Folder
from tests.stub_backend import StubBackend

TASKS = [{"prompt": "a"}, {"prompt": "b"}]
SETTINGS = load_settings(simulated())


def in_background(call: Callable[[], list[Result]]) -> list[Result]:
    """The results of a call that may be waiting for ever."""
    found: list[list[Result]] = []
    threading.Thread(target=lambda: found.append(call()), daemon=True).start()
    wait_until(lambda: found, "the end of the batch")
    return found[0]


class Refusing(LocalBackend):
    """A machine that has no process to spare at first."""

    refusals = 3

    def start(self, slot: str, device: Device, spec: WorkerSpec) -> None:
        if self.refusals:
            self.refusals -= 1
            raise RuntimeError("can't start new thread")
        super().start(slot, device, spec)


def test_a_worker_that_cannot_be_started_now_is_started_later(tmp_path: Path) -> None:
    backend = Refusing(SETTINGS.workers.start_method, SETTINGS.supervision)
    with MultiGPUImageGenerator(
        2, config=simulated(), output_dir=tmp_path, backend=backend
    ) as generator:
        results = in_background(lambda: generator.generate_batch(TASKS))
    assert [r.status for r in results] == ["done"] * 2 and not backend.refusals


class BreaksDown(StubBackend):
    """Takes the engine's thread with it once that was woken so often."""

    def __init__(self, wakes: int) -> None:
        super().__init__()
        self._wakes, self._all_come = wakes, threading.Event()

    def wake(self) -> None:
        self._wakes -= 1
        if self._wakes <= 0:
            self._all_come.set()

    def poll(self, timeout: float) -> list[Report]:
        assert self._all_come.wait(PATIENCE)
        raise MemoryError("simulated")


def test_a_batch_handed_to_a_dying_engine_is_closed(tmp_path: Path) -> None:
    """It was posted, and the thread that would have read it broke down first."""
    backend = BreaksDown(wakes=2)  # for workers, and for the batch
    with MultiGPUImageGenerator(
        1, config=simulated(), output_dir=tmp_path, backend=backend
    ) as generator:
        for _ in range(2):  # the second one comes to an engine that is gone
            results = in_background(lambda: generator.generate_batch(TASKS))
            assert [r.status for r in results] == ["failed"] * 2
            assert "MemoryError('simulated')" in str(results[0].error)


class StopsLate(StubBackend):
    """An engine that is being stopped waits here, at one of its last steps, and may be watched."""

    def __init__(self, step: str) -> None:
        super().__init__()
        self.woken = 0
        self.waits, self.may_go_on = threading.Event(), threading.Event()
        self._step = step

    def wake(self) -> None:
        self.woken += 1
        super().wake()

    def listen(self, event: Event) -> None:
        if isinstance(event, WorkerState) and event.state == State.STOPPED.value:
            self._wait_at("its last worker is gone")

    def close(self) -> None:
        self._wait_at("it has read its last command")
        super().close()

    def _wait_at(self, step: str) -> None:
        if step == self._step:
            self.waits.set()
            assert self.may_go_on.wait(PATIENCE)


@pytest.mark.parametrize("step", ["its last worker is gone", "it has read its last command"])
def test_a_batch_that_races_the_stop_of_its_engine_is_closed(
    tmp_path: Path, executor: ThreadPoolExecutor, step: str
) -> None:
    backend = StopsLate(step)
    generator = MultiGPUImageGenerator(
        1, config=simulated(), output_dir=tmp_path, listener=backend.listen, backend=backend
    )
    generator.start()
    backend.worker().serve().leave_when_asked()
    stopping = executor.submit(generator.stop)
    assert backend.waits.wait(PATIENCE)
    woken = backend.woken
    batch = executor.submit(generator.generate_batch, TASKS)
    # Posted to a thread that still reads, or done without it.
    wait_until(lambda: backend.woken > woken or batch.done(), "the batch")
    backend.may_go_on.set()
    assert [r.status for r in batch.result(PATIENCE)] == ["interrupted"] * 2
    stopping.result(PATIENCE)


def dying_engine() -> Engine:
    """Breaks down once a job was handed over, before it reads that."""
    model = ModelChoice("simulated", "simulated", "why")
    device = Device("cpu", 0, "")
    served = ServedModel(
        "generate",
        [device],
        lambda device: spec_for(device, "generate", model, SETTINGS, 1),
        SETTINGS.supervision,
        1,
    )
    backend = BreaksDown(wakes=1)
    return Engine([device], [served], backend, SETTINGS.supervision, SETTINGS.scheduling)


def planned(folder: Path) -> Plan:
    with closing(Ledger.open(folder)) as ledger:
        return Folder(folder, ledger).plan("a.png", "b.png")


def test_a_task_added_after_the_engines_end_has_its_record(tmp_path: Path) -> None:
    """As the edit benchmark adds the scores to come, edit by edit."""
    engine = dying_engine()
    plan = planned(tmp_path / "plans")
    session = Session(tmp_path / "out")
    first, second = plan.tasks
    session.planner()  # opens the folder
    engine.start()
    job = session.submit(engine, plan, [first], sealed=False)
    assert job.wait(PATIENCE)
    engine.stop()
    engine.extend(job, [second])
    results = job.results()
    assert [r.status for r in results] == ["failed"] * 2
    assert results[0].error == results[1].error
    assert results[1].error is not None and "broke down" in results[1].error
    session.close()


def test_a_part_of_a_batch_handed_to_a_dying_engine_is_closed(tmp_path: Path) -> None:
    """It has no tables to be written at its end, which comes at once."""
    engine = dying_engine()
    plan = planned(tmp_path / "plans")
    session = Session(tmp_path / "out")
    session.planner()  # opens the folder
    engine.start()
    job = session.submit(engine, plan, plan.tasks, ends_batch=False)
    assert [r.status for r in job.results(PATIENCE)] == ["failed"] * 2
    engine.stop()
    session.close()


def test_the_ledger_stays_open_until_the_last_batch_has_written_its_tables(
    tmp_path: Path, executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread stops the generator meanwhile; to close what it reads crashed the process."""
    stopped: list[Future[None]] = []
    write = Tables.write

    def write_while_it_stops(tables: Tables, *given: Any) -> None:
        stopped.append(executor.submit(generator.stop))
        wait_until(lambda: worker.dead, "the end of the worker")
        wait(stopped, timeout=0.2)  # as long as a close without regard would take
        write(tables, *given)

    monkeypatch.setattr(Tables, "write", write_while_it_stops)
    backend = StubBackend()
    generator = MultiGPUImageGenerator(1, config=simulated(), output_dir=tmp_path, backend=backend)
    batch = executor.submit(generator.generate_batch, TASKS)
    worker = backend.worker().serve()
    worker.finish_all(2)
    assert [r.status for r in batch.result(PATIENCE)] == ["done", "done"]
    stopped[0].result(PATIENCE)
    assert generator.tables_error is None
    assert len((tmp_path / "metadata.jsonl").read_text().splitlines()) == 2


def waits(thread: threading.Thread) -> bool:
    """It has come to where it waits for another thread."""
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and frame.f_code.co_name == "wait"


def test_a_stop_while_a_batch_is_prepared_ends_it_and_leaves_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers are started behind the preparation, and the stop comes before there are any."""
    prepare = Batches.prepare
    stopping = threading.Thread(target=lambda: generator.stop(), daemon=True)

    def prepare_while_it_stops(batches: Batches, *args: Any) -> Plan:
        stopping.start()
        wait_until(lambda: waits(stopping), "the stop")
        return prepare(batches, *args)

    monkeypatch.setattr(Batches, "prepare", prepare_while_it_stops)
    backend = StubBackend()
    generator = MultiGPUImageGenerator(1, config=simulated(), output_dir=tmp_path, backend=backend)
    tasks = [{"prompt": f"{n}", "output_path": f"{n}.png"} for n in range(500)]
    results = in_background(lambda: generator.generate_batch(tasks))
    stopping.join(PATIENCE)
    assert not stopping.is_alive()
    assert len(results) == 500 and results[-1].status == "interrupted"
    assert backend.closed
    assert all(worker.dead for workers in backend.started.values() for worker in workers)


def test_a_signal_handler_may_stop_the_generator(tmp_path: Path) -> None:
    """It interrupts the very thread that runs the batch."""
    script = """
        import os, signal
        from core.events import TaskEnded
        from core.multi_gpu_image_generator import MultiGPUImageGenerator

        def end(event):
            if isinstance(event, TaskEnded) and event.result.position == 0:
                os.kill(os.getpid(), signal.SIGTERM)

        config = {"model": "simulated"}
        generator = MultiGPUImageGenerator(1, config=config, output_dir="o", listener=end)
        signal.signal(signal.SIGTERM, lambda *_: generator.stop(at_once=True))
        tasks = [{"prompt": f"{n}"} for n in range(500)]
        print(generator.generate_batch(tasks)[-1].status)
        """
    done = run_script(script, tmp_path, "simulated")
    assert done.stdout == "interrupted\n", done.stderr
