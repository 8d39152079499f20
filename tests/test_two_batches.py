"""Two batches at once in one output folder: neither touches what is the other's."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.intake.admission import Admitted, Rejected
from core.intake.planning import Plan
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.store.claims import BatchClaims, Claims
from core.store.ledger import Entry, Ledger
from core.store.ledger_entry import entry_for
from core.store.tables import Tables
from core.tasks import Result
from tests.conftest import simulated, wait_until
from tests.folder_world import Folder, task
from tests.played_workers import PlayedWorkers


def entry(name: str, position: int = 0, **fields: Any) -> Entry:
    return Entry(name, position, name, name, "f", "pending", **fields)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger.open(tmp_path)
    yield ledger
    ledger.close()


BAD = Rejected(2, "t", "no prompt")


@pytest.fixture
def folder(tmp_path: Path, ledger: Ledger) -> Folder:
    return Folder(tmp_path, ledger)


def test_a_new_batch_closes_no_lease_of_a_running_one(ledger: Ledger) -> None:
    first = ledger.begin_batch([entry("a.png")])
    ledger.lease("l1", "a.png", 1, "gpu0", ".partial-l1")
    second = ledger.begin_batch([entry("b.png")])
    assert ledger.entries()["a.png"].state == "leased"
    ledger.lease("l2", "b.png", 1, "gpu1", ".partial-l2")
    ledger.end_lease("l2", "done", replace(entry("b.png"), state="done"), second)
    ledger.end_lease("l1", "done", replace(entry("a.png"), state="done"), first)
    # Finished in the other order, they are listed in the order in which they were asked for.
    assert [e.key for e in ledger.finished()] == ["a.png", "b.png"]


def test_a_batch_that_is_killed_beside_another_is_tried_again_with_it(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path)
    for number, name in enumerate(("a.png", "b.png")):
        ledger.begin_batch([entry(name)])
        ledger.lease(f"l{number}", name, 1, "gpu0", f".partial-l{number}")
    ledger.close()  # as after a death: the leases are open
    ledger = Ledger.open(tmp_path)
    assert sorted(ledger.open_leases()) == [".partial-l0", ".partial-l1"]
    ledger.begin_batch([])
    assert {e.state for e in ledger.entries().values()} == {"pending"}
    assert ledger.open_leases() == []
    ledger.close()


def test_no_two_batches_have_one_number(ledger: Ledger) -> None:
    numbers = [ledger.begin_batch(entries) for entries in ([], [], [entry("a.png")], [])]
    assert len(set(numbers)) == 4 and sorted(numbers) == numbers


def test_a_batch_can_grow(ledger: Ledger) -> None:
    first = ledger.begin_batch([entry("a.png")])
    ledger.begin_batch([entry("z.png")])
    ledger.add_to_batch(first, [entry("b.png", 1), entry("c.png", 2)])
    assert [e.key for e in ledger.with_output()] == ["a.png", "b.png", "c.png", "z.png"]


def test_in_memory_a_batch_is_forgotten_when_it_ends_and_no_other_with_it() -> None:
    ledger = Ledger.in_memory()
    first = ledger.begin_batch([entry("a.png")])
    second = ledger.begin_batch([entry("b.png")])
    assert set(ledger.entries()) == {"a.png", "b.png"}
    ledger.end_batch(first)
    assert set(ledger.entries()) == {"b.png"}
    ledger.end_batch(second)
    assert ledger.entries() == {}


def test_a_plan_sweeps_what_a_dead_run_left_and_nothing_of_a_running_batch(
    tmp_path: Path,
) -> None:
    dead = Ledger.open(tmp_path)
    dead.begin_batch([entry("old.png")])
    dead.lease("dead", "old.png", 1, "gpu0", ".partial-dead")
    dead.close()
    (tmp_path / ".partial-dead").write_text("half a picture")
    (tmp_path / ".partial-dead-3").write_text("a preview")
    ledger = Ledger.open(tmp_path)
    folder = Folder(tmp_path, ledger)
    # Not at the opening: a folder of another input is refused before anything is touched.
    running = folder.plan("a.png")
    assert not list(tmp_path.glob(".partial-dead*"))
    being_written = tmp_path / ".partial-alive"
    being_written.write_text("half a picture")
    ledger.lease("alive", running.tasks[0].output.key, 1, "gpu0", ".partial-alive")
    folder.plan("b.png")
    assert being_written.exists()
    assert ledger.entries()[running.tasks[0].output.key].state == "leased"
    ledger.close()


def test_two_plans_grow_each_by_its_own(folder: Folder, ledger: Ledger) -> None:
    first, second = folder.plan("a.png"), folder.plan("z.png")
    assert first.claims is not None
    admission = folder.admission(first.claims)
    added = folder.planner.add(first, [admission.admit(1, task("b.png")), BAD])
    assert isinstance(added[0], Admitted)
    assert isinstance(added[1], Result) and added[1].error == "no prompt"
    for plan, keys in ((first, ["a.png", "b.png"]), (second, ["z.png"])):
        assert [e.key for e in ledger.entries_in(plan.batch) if e.output_path] == keys
    assert [e.key for e in ledger.with_output()] == ["a.png", "b.png", "z.png"]


def refused(result: Admitted | Rejected) -> str:
    assert isinstance(result, Rejected), result
    return result.error


def test_an_output_that_another_batch_works_on_is_refused_and_free_afterwards(
    folder: Folder,
) -> None:
    claims = folder.claims.begin("job 1")
    first, second = folder.admission(claims), folder.admission(folder.claims.begin("job 2"))
    assert isinstance(first.admit(0, task("other.png")), Admitted)
    claimed = first.admit(3, task("A.png"))
    assert isinstance(claimed, Admitted)
    error = refused(second.admit(0, task("a.png")))
    assert "'a.png' is also the output of task 3 of job 1, which is not done with it" in error
    claims.release(claimed.output.key)  # its task has its record
    assert isinstance(second.admit(0, task("a.png")), Admitted)
    # Within a batch an output stays its task's.
    assert "is also the output of task 3;" in refused(first.admit(4, task("a.png")))


def test_what_a_plan_does_not_draw_is_free_at_once(folder: Folder) -> None:
    (folder.root.folder / "mine.png").write_bytes(b"nobody knows")
    plan = folder.plan("mine.png")
    assert [r.status for r in plan.settled] == ["failed"]
    again = folder.plan("mine.png")  # the first plan is still there
    assert "was not made by this program" in str(again.settled[0].error)


def test_a_batch_that_is_dropped_unrun_keeps_no_output(folder: Folder) -> None:
    plan = folder.plan("a.png")
    assert "is also the output" in str(folder.plan("a.png").settled[0].error)
    del plan
    assert folder.plan("a.png").tasks


def test_default_names_of_two_batches_never_meet(folder: Folder) -> None:
    first, second = (folder.admission(folder.claims.begin(), count=2) for _ in range(2))
    names = [
        admitted.output.shown
        for position in (0, 1)
        for admission in (first, second)
        if isinstance(admitted := admission.admit(position, task(None)), Admitted)
    ]
    assert sorted(names) == [f"image_{n:04d}.png" for n in range(4)]


def test_of_batches_that_ask_at_once_one_gets_each_output() -> None:
    claims, keys = Claims(), [f"{i}.png" for i in range(300)]
    batches = [claims.begin(f"job {i}") for i in range(4)]
    start = threading.Barrier(len(batches))

    def ask(batch: BatchClaims) -> set[str]:
        start.wait()
        return {key for key in keys if batch.take(key, 0) is None}

    with ThreadPoolExecutor(len(batches)) as threads:
        gained = list(threads.map(ask, batches))
    assert sorted(key for keys in gained for key in keys) == sorted(keys)


def test_each_picture_of_overlapping_batches_has_one_line(
    folder: Folder, ledger: Ledger, tmp_path: Path
) -> None:
    tables = Tables(tmp_path, ledger)

    def begin(*names: str) -> Plan:
        plan = folder.plan(*names)
        tables.begin(plan)
        return plan

    def finish(plan: Plan, end: bool = True) -> None:
        for job in plan.tasks:
            job.output.file.write_bytes(b"a picture")
            ledger.set_state(entry_for(job, "done", size=9, sha256="s"), plan.batch)
        if end:
            tables.write(plan, [], {})

    def listed() -> list[str]:
        lines = (tmp_path / "metadata.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line)["file_name"] for line in lines]

    first, second, third = begin("a.png", "b.png"), begin("c.png"), begin("d.png")
    finish(first, end=False)  # done, and listed with the second: its own table is still to come
    finish(second)
    assert listed() == ["a.png", "b.png", "c.png"]
    tables.write(first, [], {})
    assert listed() == ["a.png", "b.png", "c.png"]
    finish(third)
    finish(begin("e.png"))
    assert listed() == ["a.png", "b.png", "c.png", "d.png", "e.png"]


def test_the_end_of_one_of_many_open_jobs_writes_no_other_jobs_lines_again(tmp_path: Path) -> None:
    """A file that is written anew has another inode."""
    turns = threading.Semaphore(0)
    played = PlayedWorkers(may=lambda worker, lease: turns.acquire())
    table = tmp_path / "metadata.jsonl"
    with MultiGPUImageGenerator(
        1, config=simulated(), output_dir=tmp_path, backend=played.backend
    ) as generator:
        jobs = [
            generator.submit([{"prompt": f"{n}", "width": 32, "height": 32}] * 2, owner="me")
            for n in range(5)
        ]
        turns.release(3)  # of one of the others one picture is there, too, when the first job ends
        wait_until(lambda: jobs[0].finished, "the end of the first job")
        wait_until(lambda: len(list(tmp_path.glob("*.png"))) == 3, "three pictures")
        before = table.stat().st_ino
        turns.release(7)
        for job in jobs:
            assert all(result.success for result in job.results())
        renewing = [generator.submit([{"prompt": f"other {n}"}]) for n in range(5)]
        for job in renewing:
            job.cancel(at_once=True)
            assert job.results()[0].status == "interrupted"
        assert table.stat().st_ino == before
        names = [json.loads(line)["file_name"] for line in table.read_text("utf-8").splitlines()]
    assert sorted(names) == sorted(file.name for file in tmp_path.glob("*.png"))


def test_a_picture_that_a_later_job_finds_done_keeps_its_line(tmp_path: Path) -> None:
    turns = threading.Semaphore(2)  # the third picture is held back
    played = PlayedWorkers(may=lambda worker, lease: turns.acquire())
    size = {"width": 32, "height": 32, "seed": 1}
    z, a, b = ({"prompt": n, "output_path": f"{n}.png", **size} for n in "zab")
    with MultiGPUImageGenerator(
        1, config=simulated(), output_dir=tmp_path, backend=played.backend
    ) as generator:
        assert generator.submit([z]).results()[0].success
        job = generator.submit([a, b])
        wait_until(lambda: job.progress.ended["done"] == 1, "the first of two pictures")
        assert generator.submit([a]).results()[0].status == "skipped"
        turns.release()
        assert all(result.success for result in job.results())
        lines = (tmp_path / "metadata.jsonl").read_text("utf-8").splitlines()
    assert sorted(json.loads(line)["file_name"] for line in lines) == ["a.png", "b.png", "z.png"]
