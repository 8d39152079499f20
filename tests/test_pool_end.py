"""A pool that cannot start workers, or breaks down, or is stopped: every batch gets its answer."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
from core.engine.batch import Batch
from core.engine.worker_pool import WorkerPool

from core.events import ignore
from core.intake.planning import Plan
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.processes.spawning import Spawning
from core.store.tables import Tables
from core.tasks import Result
from tests.conftest import PATIENCE, run_script, simulated, wait_until

TASKS = [{"prompt": "a"}, {"prompt": "b"}]


def in_background(call: Callable[[], list[Result]]) -> list[Result]:
    """The results of a call that may be waiting for ever."""
    found: list[list[Result]] = []
    threading.Thread(target=lambda: found.append(call()), daemon=True).start()
    wait_until(lambda: found, "the end of the batch")
    return found[0]


def test_a_worker_that_cannot_be_started_now_is_started_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, refusals = Spawning.start, [1, 2, 3]

    def refuse(*arguments: Any) -> Any:
        if refusals:
            refusals.pop()
            raise RuntimeError("can't start new thread")
        return start(*arguments)

    monkeypatch.setattr(Spawning, "start", refuse)
    with MultiGPUImageGenerator(2, config=simulated(), output_dir=tmp_path) as generator:
        results = in_background(lambda: generator.generate_batch(TASKS))
    assert [r.status for r in results] == ["done"] * 2 and not refusals


def test_a_batch_handed_to_a_dying_pool_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was posted, and the thread that would have read it broke down first."""

    def break_down(pool: WorkerPool) -> None:
        wait_until(lambda: pool._commands, "a batch")
        raise MemoryError("simulated")

    monkeypatch.setattr(WorkerPool, "_turn", break_down)
    with MultiGPUImageGenerator(1, config=simulated(), output_dir=tmp_path) as generator:
        for _ in range(2):  # the second one comes to a pool that is gone
            results = in_background(lambda: generator.generate_batch(TASKS))
            assert [r.status for r in results] == ["failed"] * 2
            assert "MemoryError('simulated')" in str(results[0].error)


def test_a_batch_that_races_the_stop_of_its_pool_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Posted after the last command that the pool reads, before its thread is gone."""
    leave = WorkerPool._leave
    posted = threading.Event()

    def leave_late(pool: WorkerPool) -> None:
        posted.wait(PATIENCE)
        leave(pool)

    monkeypatch.setattr(WorkerPool, "_leave", leave_late)
    generator = MultiGPUImageGenerator(1, config=simulated(), output_dir=tmp_path)
    generator.start()
    assert generator._pool is not None
    pool, submit = generator._pool, generator._pool.submit
    wait_until(lambda: any(h.alive for h in pool._handles), "a worker")
    stopping = threading.Thread(target=pool.stop)
    stopping.start()
    wait_until(lambda: pool._closing and not any(h.alive for h in pool._handles), "the stop")

    def submit_late(batch: Batch) -> None:
        submit(batch)
        posted.set()

    monkeypatch.setattr(pool, "submit", submit_late)
    results = in_background(lambda: generator.generate_batch(TASKS))
    assert [r.status for r in results] == ["interrupted"] * 2
    stopping.join()
    generator.stop()


def test_a_job_added_after_the_pools_end_has_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the edit benchmark adds the scores to come, edit by edit."""

    def break_down(pool: WorkerPool) -> None:
        raise MemoryError("simulated")

    monkeypatch.setattr(WorkerPool, "_turn", break_down)
    with MultiGPUImageGenerator(1, config=simulated(), output_dir=tmp_path) as generator:
        first, second = generator.prepare(TASKS, []).tasks
        pool, settings = generator._pool, generator.settings
        assert pool is not None and generator._ledger is not None
        batch = Batch(
            [first],
            [],
            generator._ledger,
            generator._root,
            settings.supervision,
            settings.scheduling.max_passed_over,
            ignore,
            open_ended=True,
        )
        pool.submit(batch)
        assert batch.wait(PATIENCE)
        wait_until(lambda: not pool._thread.is_alive(), "the pool's end")
        pool.extend(second)
        assert [r.status for r in batch.results()] == ["failed"] * 2


def test_the_ledger_stays_open_until_the_last_batch_has_written_its_tables(
    tmp_path: Path, executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread stops the generator meanwhile; to close what it reads crashed the process."""
    stopped: list[Future[None]] = []
    write = Tables.write

    def write_while_it_stops(tables: Tables, plan: Plan, results: Sequence[Result]) -> None:
        assert generator._pool is not None
        thread = generator._pool._thread
        stopped.append(executor.submit(generator.stop))
        thread.join(PATIENCE)
        wait(stopped, timeout=0.2)  # as long as a close without regard would take
        write(tables, plan, results)

    monkeypatch.setattr(Tables, "write", write_while_it_stops)
    generator = MultiGPUImageGenerator(1, config=simulated(), output_dir=tmp_path)
    assert [r.status for r in generator.generate_batch(TASKS)] == ["done", "done"]
    stopped[0].result(PATIENCE)
    assert generator.tables_error is None
    assert len((tmp_path / "metadata.jsonl").read_text().splitlines()) == 2


def test_a_stop_while_a_batch_is_prepared_ends_it_and_leaves_no_worker(
    tmp_path: Path, executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers are started behind the preparation, and the stop comes before there are any."""
    prepare = MultiGPUImageGenerator.prepare
    pools: list[WorkerPool] = []
    stopped: list[Future[None]] = []

    def prepare_while_it_stops(generator: MultiGPUImageGenerator, *args: Any) -> Plan:
        stopped.append(executor.submit(generator.stop))
        wait_until(lambda: generator._stopping, "the stop")
        return prepare(generator, *args)

    def note_pool(pool: WorkerPool) -> None:
        pools.append(pool)
        start(pool)

    start = WorkerPool.start
    monkeypatch.setattr(MultiGPUImageGenerator, "prepare", prepare_while_it_stops)
    monkeypatch.setattr(WorkerPool, "start", note_pool)
    generator = MultiGPUImageGenerator(1, config=simulated(), output_dir=tmp_path)
    tasks = [{"prompt": f"{n}", "output_path": f"{n}.png"} for n in range(500)]
    results = in_background(lambda: generator.generate_batch(tasks))
    stopped[0].result(PATIENCE)
    assert len(results) == 500 and results[-1].status == "interrupted"
    assert not any(pool._thread.is_alive() for pool in pools)


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
    done = run_script(script, tmp_path)
    assert done.stdout == "interrupted\n", done.stderr
