"""What every backend promises the engine, whatever its workers are."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.checkpoints.lora_files import content_hash
from core.devices.device import Device
from core.devices.model_choice import ModelChoice
from core.devices.worker_specs import spec_for
from core.engine.backend import Died, HungUp, Report, Said, WorkerBackend
from core.engine.dispatcher import MOST_BYTES
from core.messages import (
    Done,
    Failed,
    Generated,
    Keep,
    Kept,
    Lease,
    Load,
    Loaded,
    Log,
    Ready,
    Stop,
    ToWorker,
)
from core.processes.fork_server import Keeper
from core.processes.local_backend import LocalBackend
from core.settings import load_settings
from core.tasks import MAX_TASK_BYTES, GenerateTask
from core.worker_spec import WorkerSpec
from tests.cluster.relayed import beside_nodes, relayed
from tests.conftest import (
    PATIENCE,
    fork_server,
    simulated,
    wait_until,
    worker_processes,
    write_safetensors,
)
from tests.inline_backend import InlineBackend
from tests.stub_backend import StubBackend, StubWorker
from tests.wayward_workers import hang_up, leave, read_nothing, stop_amid_a_message, talk

SETTINGS = load_settings(simulated())
DEVICES = {f"cpu{i}": Device("cpu", i, "") for i in range(2)}


def spec(slot: str, **changes: Any) -> WorkerSpec:
    model = ModelChoice("simulated", "simulated", "why")
    return replace(spec_for(DEVICES[slot], "generate", model, SETTINGS, 1), **changes)


def lease(folder: Path, name: str, prompt: str = "a") -> Lease:
    task = GenerateTask(prompt=prompt, task_id=name, output_path=f"{name}.png", seed=1)
    return Lease(name, 1, task, None, "c0ffee" * 8, str(folder / f".partial-{name}"))


def local(method: str, **more: Any) -> LocalBackend:
    return LocalBackend(method, SETTINGS.supervision, **more)


class Bench:
    """A backend under test, and everything that it has reported."""

    def __init__(self, backend: WorkerBackend) -> None:
        self.backend = backend
        self.reports: list[Report] = []

    def until(self, met: Callable[[], Any], what: str) -> Any:
        """Poll until `met` is true; returns its value."""
        end = time.monotonic() + PATIENCE
        while not (value := met()):
            left = end - time.monotonic()
            assert left > 0, f"waited for {what}; there was {self.reports}"
            self.reports += self.backend.poll(left)
        return value

    def said(self, slot: str, kind: type) -> list[Any]:
        of_slot = [r.message for r in self.reports if isinstance(r, Said) and r.slot == slot]
        return [message for message in of_slot if isinstance(message, kind)]

    def hear(self, slot: str, kind: type, count: int = 1) -> Any:
        """The `count`th message of that kind from a slot."""
        return self.until(
            lambda: len(found := self.said(slot, kind)) >= count and found[count - 1], f"{kind}"
        )

    def death(self, slot: str, count: int = 1) -> Died:
        def found() -> list[Died]:
            return [r for r in self.reports if isinstance(r, Died) and r.slot == slot]

        self.until(lambda: len(found()) >= count, f"the death of {slot}")
        return found()[count - 1]

    def start(self, slot: str = "cpu0", **changes: Any) -> None:
        worker = spec(slot, **changes)
        self.backend.prepare(worker)
        self.until(lambda: self.backend.ready, "the backend")
        self.backend.start(slot, DEVICES[slot], worker)

    def serve(self, slot: str = "cpu0") -> None:
        """Start a worker that loads its model."""
        loaded = len(self.said(slot, Loaded))
        self.start(slot)
        self.hear(slot, Ready, loaded + 1)
        assert self.backend.send(slot, Load())
        self.hear(slot, Loaded, loaded + 1)


class Played(StubBackend):
    """Stub workers that do by themselves what any worker does."""

    def start(self, slot: str, device: Device, spec: WorkerSpec) -> None:
        super().start(slot, device, spec)
        threading.Thread(target=_play, args=(self.started[slot][-1],), daemon=True).start()


def _play(worker: StubWorker) -> None:
    worker.say(Ready(os.getpid(), "stub", "STUB", None, 0.0))
    for message in worker.orders():
        match message:
            case Load():
                worker.say(Loaded("Stub", 0.0))
            case Keep() as order:
                worker.keep(order, *([order.sha256] if order.way != "unload" else []))
            case Lease() as order if order.task.output_path == "fails.png":
                worker.say(Failed(order.lease_id, "error", "simulated"))
            case Lease() as order:
                worker.finish(order)
            case Stop():
                worker.die(0)


BACKENDS: dict[str, Callable[[], WorkerBackend]] = {
    "spawned": lambda: local("spawn"),
    "forked": lambda: local("forkserver"),
    "stub": Played,
    "inline": InlineBackend,
    "on a node": lambda: relayed(lambda: local("forkserver")),
    "inline on a node": lambda: relayed(InlineBackend),
    "here beside nodes": beside_nodes,
}


@pytest.fixture(autouse=True)
def signals_of_this_thread() -> Iterator[None]:
    """An engine starts workers in a thread of its own, whose signals stay blocked: not so here."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@pytest.fixture(params=[*BACKENDS])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with ExitStack() as stack:
        backend = BACKENDS[request.param]()
        stack.callback(backend.close)
        yield Bench(backend)


def test_a_task_is_done_and_every_word_of_it_comes_in_order(bench: Bench, tmp_path: Path) -> None:
    bench.serve()
    bench.backend.send("cpu0", lease(tmp_path, "a"))
    bench.backend.send("cpu0", lease(tmp_path, "b"))
    bench.hear("cpu0", Done, 2)
    assert [m.lease_id for m in bench.said("cpu0", Generated)] == ["a", "b"]
    order = [r.message for r in bench.reports if isinstance(r, Said)]
    order = [m for m in order if isinstance(m, Generated | Done) and m.lease_id == "a"]
    assert [type(m) for m in order] == [Generated, Done]
    assert (tmp_path / ".partial-a").stat().st_size == order[1].size
    wait_until(lambda: bench.backend.reads_along("cpu0"), "the pipe is empty")


def test_a_task_that_fails_says_so_and_the_worker_goes_on(bench: Bench, tmp_path: Path) -> None:
    bench.serve()
    bench.backend.send("cpu0", lease(tmp_path, "fails", prompt="!error"))
    assert bench.hear("cpu0", Failed).kind == "error"
    bench.backend.send("cpu0", lease(tmp_path, "b"))
    assert bench.hear("cpu0", Done).lease_id == "b"


def test_a_lora_is_held_and_let_go_between_two_tasks(bench: Bench, tmp_path: Path) -> None:
    file = write_safetensors(tmp_path / "ink.safetensors")
    sha256 = content_hash(file)
    bench.serve()
    bench.backend.send("cpu0", lease(tmp_path, "a"))
    bench.backend.send("cpu0", Keep(sha256, str(file), "pin"))
    held = bench.hear("cpu0", Kept)
    assert (held.sha256, held.lora_loads, held.kind) == (sha256, 1, None)
    assert held.resident_loras == [sha256]
    bench.backend.send("cpu0", Keep(sha256, str(file), "unload"))
    assert bench.hear("cpu0", Kept, 2).resident_loras == []
    bench.backend.send("cpu0", lease(tmp_path, "b"))
    assert bench.hear("cpu0", Done, 2).lease_id == "b"


def test_what_a_worker_says_before_its_death_is_reported_before_it(
    bench: Bench, tmp_path: Path
) -> None:
    """Nobody looks while it works and leaves, so words and death are found together."""
    bench.serve()
    for name in "abcd":
        bench.backend.send("cpu0", lease(tmp_path, name))
    bench.backend.send("cpu0", Stop())
    wait_until(lambda: bench.backend.is_gone("cpu0"), "its end")
    assert not bench.backend.send("cpu0", Load())
    end = bench.death("cpu0")
    assert end == Died("cpu0", "its process ended with exit code 0")
    assert [m.lease_id for m in bench.said("cpu0", Done)] == [*"abcd"]
    assert bench.reports[-1] == end


def test_a_killed_worker_is_gone_and_its_slot_takes_another_of_another_kind(
    bench: Bench, tmp_path: Path
) -> None:
    bench.serve()
    bench.backend.kill("cpu0")
    assert bench.death("cpu0") == Died("cpu0", "its process was ended by SIGKILL", by_sigkill=True)
    bench.start(role="edit", max_resident_loras=1)
    bench.hear("cpu0", Ready, 2)
    bench.backend.send("cpu0", Load())
    bench.hear("cpu0", Loaded, 2)


def test_of_a_slot_without_a_worker_every_question_has_its_answer(bench: Bench) -> None:
    backend = bench.backend

    def check(slot: str) -> None:
        assert backend.is_gone(slot) and not backend.has_word(slot)
        assert not backend.send(slot, Load()) and not backend.reads_along(slot)
        assert backend.progress(slot) is None
        backend.kill(slot)
        backend.forget(slot)

    check("cpu1")
    bench.serve()
    assert not backend.is_gone("cpu0")
    backend.kill("cpu0")
    bench.death("cpu0")
    check("cpu0")


def test_what_waits_to_be_reported_is_known(bench: Bench, tmp_path: Path) -> None:
    bench.serve()
    bench.backend.poll(0)
    wait_until(lambda: not bench.backend.has_word("cpu0"), "the answer that nothing is said")
    bench.backend.send("cpu0", lease(tmp_path, "a"))
    wait_until(lambda: bench.backend.has_word("cpu0"), "a word")
    bench.hear("cpu0", Done)
    assert not bench.backend.has_word("cpu0")


def test_workers_do_not_wait_for_each_other(bench: Bench, tmp_path: Path) -> None:
    for slot in DEVICES:
        bench.serve(slot)
    bench.backend.kill("cpu0")
    bench.backend.send("cpu1", lease(tmp_path, "a"))
    assert bench.hear("cpu1", Done).lease_id == "a"
    bench.death("cpu0")


def test_a_worker_that_works_makes_progress(bench: Bench, tmp_path: Path) -> None:
    bench.serve()
    before = bench.backend.progress("cpu0")
    for task in range(500):  # of which each may take less than the kernel counts
        bench.backend.send("cpu0", lease(tmp_path, str(task)))
        bench.hear("cpu0", Done, task + 1)
        if bench.backend.progress("cpu0") not in (None, before):
            return
    raise AssertionError("500 tasks, and no progress")


def test_another_thread_ends_a_wait(bench: Bench) -> None:
    bench.serve()
    bench.backend.poll(0)
    timer = threading.Timer(0.05, bench.backend.wake)
    timer.start()
    began = time.monotonic()
    assert bench.backend.poll(PATIENCE) == []
    assert time.monotonic() - began < PATIENCE / 2


def test_a_call_before_the_wait_ends_it_and_ten_thousand_count_as_one(bench: Bench) -> None:
    """Nobody who calls may have to wait, whatever the engine is at."""
    for _ in range(10_000):
        bench.backend.wake()
    began = time.monotonic()
    assert bench.backend.poll(PATIENCE) == []
    assert time.monotonic() - began < PATIENCE / 2
    began = time.monotonic()
    bench.backend.poll(0.05)
    assert time.monotonic() - began >= 0.05, "of the ten thousand some were left"


def test_a_forgotten_worker_is_not_heard_of_and_its_slot_is_free(bench: Bench) -> None:
    bench.serve()
    left = worker_processes(os.getpid())
    bench.backend.forget("cpu0")
    assert bench.backend.is_gone("cpu0") and bench.backend.poll(0.05) == []
    bench.serve()
    for process in left:  # whose pipes are closed: it leaves by itself
        process.wait(PATIENCE)


@pytest.mark.parametrize("name", [*BACKENDS])
def test_a_closed_backend_leaves_nothing_behind(name: str, tmp_path: Path) -> None:
    if name in ("spawned", "forked", "on a node"):  # fork server and resource tracker outlive it
        Bench(warm := BACKENDS[name]()).serve()
        warm.close()
    me = psutil.Process()
    before = me.num_fds()
    bench = Bench(BACKENDS[name]())
    for slot in DEVICES:
        bench.serve(slot)
    bench.backend.send("cpu0", lease(tmp_path, "a"))
    bench.backend.kill("cpu1")
    bench.backend.close()
    assert worker_processes(me.pid) == [] and me.num_fds() == before
    bench.backend.wake()  # of somebody who does not know yet


# -- what only processes do --------------------------------------------------------------------


@pytest.fixture
def processes() -> Iterator[Callable[..., Bench]]:
    """Benches with workers in processes of their own; `target` is what they run."""
    with ExitStack() as stack:

        def bench(method: str = "spawn", **more: Any) -> Bench:
            backend = local(method, **more)
            stack.callback(backend.close)
            return Bench(backend)

        yield bench


def test_a_worker_that_hangs_up_is_heard_to_the_end_and_its_death_follows(
    processes: Callable[..., Bench],
) -> None:
    bench = processes(target=hang_up)
    bench.start()
    bench.until(lambda: HungUp("cpu0") in bench.reports, "the end of its words")
    assert bench.said("cpu0", Log) == [Log("INFO", "farewell")]
    backend = bench.backend
    assert not backend.is_gone("cpu0") and not backend.has_word("cpu0")
    assert backend.poll(0.05) == [], "an engine with such a worker may sleep"
    backend.kill("cpu0")
    assert bench.death("cpu0").by_sigkill


def test_a_worker_that_stops_amid_a_message_holds_nobody_up(
    processes: Callable[..., Bench],
) -> None:
    bench = processes(target=stop_amid_a_message)
    bench.start()
    bench.hear("cpu0", Log)
    assert bench.backend.poll(0.05) == []
    bench.backend.send("cpu0", Load())
    assert bench.hear("cpu0", Log, 2) == Log("INFO", "half")
    bench.backend.kill("cpu0")
    bench.death("cpu0")


def test_no_word_of_a_talkative_worker_is_lost(processes: Callable[..., Bench]) -> None:
    bench = processes(target=talk)
    bench.start()
    bench.death("cpu0")
    assert [m.text for m in bench.said("cpu0", Log)] == [str(n) for n in range(5_000)]


def test_how_a_worker_died_is_told_in_words(
    processes: Callable[..., Bench], tmp_path: Path
) -> None:
    bench = processes()
    bench.serve()
    bench.backend.send("cpu0", lease(tmp_path, "a", prompt="!crash"))
    assert bench.death("cpu0") == Died("cpu0", "its process was ended by SIGSEGV")
    bench = processes(target=leave)
    bench.start()
    assert bench.death("cpu0") == Died("cpu0", "its process ended with exit code 3")


def test_a_worker_that_went_with_the_fork_server_is_blameless_and_another_comes(
    processes: Callable[..., Bench],
) -> None:
    bench = processes("forkserver")
    bench.serve()
    server = fork_server(os.getpid())
    assert server is not None
    server.kill()
    end = bench.death("cpu0")
    assert end.blameless and end.how == "the fork server has died, and its forks with it"
    with pytest.raises(OSError, match="is started again"):
        bench.backend.start("cpu0", DEVICES["cpu0"], spec("cpu0"))
    bench.until(lambda: bench.backend.ready, "a new server")
    bench.serve()


def test_nobody_waits_for_a_fork_server_that_is_not_ready(
    processes: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Keeper, "server", lambda keeper, role: Future())
    backend = processes("forkserver").backend
    with pytest.raises(OSError, match="still being started"):
        backend.start("cpu0", DEVICES["cpu0"], spec("cpu0"))
    assert not backend.ready and backend.is_gone("cpu0")


def test_workers_that_need_no_fork_server_do_not_wait_for_it(
    processes: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Keeper, "server", lambda keeper, role: Future())
    bench = processes("auto")
    bench.backend.prepare(spec("cpu0"))
    assert bench.backend.ready
    bench.backend.prepare(spec("cpu1", model="/models/one"))
    assert not bench.backend.ready, "not all of them can be started"
    bench.backend.start("cpu0", DEVICES["cpu0"], spec("cpu0"))
    bench.hear("cpu0", Ready)


def test_when_the_fork_server_hangs_workers_are_spawned_and_the_engine_is_told(
    processes: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Keeper, "server", lambda keeper, role: Future())
    rules = SETTINGS.supervision.model_copy(update={"boot_timeout": 0.1})
    bench = Bench(LocalBackend("forkserver", rules))
    bench.serve()  # which polls, with all the patience of a test, until the backend is ready
    bench.backend.close()


def test_a_worker_that_reads_nothing_keeps_nobody_waiting_who_sends_it_all_that_it_may_have(
    processes: Callable[..., Bench], tmp_path: Path
) -> None:
    """A group of leases, and the one after it; half a page each, the last as long as may be."""
    bench = processes(target=read_nothing)
    bench.start()
    bench.hear("cpu0", Log)
    group = [lease(tmp_path, f"{i}", "a" * 2_000) for i in range(MOST_BYTES // 2_000)]
    group.append(lease(tmp_path, "last", "a" * (MAX_TASK_BYTES - 500)))

    def send() -> list[bool]:
        messages: list[ToWorker] = [*group, *group, Stop()]
        return [bench.backend.send("cpu0", message) for message in messages]

    with ThreadPoolExecutor(1) as thread:
        sent = thread.submit(send)
        try:
            assert all(sent.result(PATIENCE))
        finally:
            bench.backend.kill("cpu0")  # which ends a send that waits


def test_a_worker_that_cannot_be_started_leaves_no_file_descriptor(
    processes: Callable[..., Bench],
) -> None:
    processes().serve()  # multiprocessing's resource tracker outlives it
    backend = processes(target=lambda *_: None).backend  # which cannot be sent to a process
    before = psutil.Process().num_fds()
    with pytest.raises(Exception, match="pickle"):
        backend.start("cpu0", DEVICES["cpu0"], spec("cpu0"))
    assert psutil.Process().num_fds() == before and backend.is_gone("cpu0")


def test_a_stuck_worker_is_forgotten_and_does_not_come_back(
    processes: Callable[..., Bench],
) -> None:
    """As one that does not react to SIGKILL: here it is stopped, and not killed at all."""
    bench = processes(target=stop_amid_a_message)
    others = {process.pid for process in worker_processes(os.getpid())}
    bench.start()
    bench.hear("cpu0", Log)
    [process] = [p for p in worker_processes(os.getpid()) if p.pid not in others]
    process.suspend()
    bench.backend.forget("cpu0")
    process.resume()
    process.wait(PATIENCE)
    assert bench.backend.poll(0.05) == []
