"""Workers that hang, in a task or in a load: replaced in time, and nobody else is held up."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from core.events import Event, TaskEnded, TaskStarted, WorkerState
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from tests.both_engines import ON_BOTH
from tests.chaos.checks import count_orphans
from tests.chaos.engines import RealEngine
from tests.chaos.scale import LIMIT, scaled
from tests.chaos.verdict import Verdict
from tests.conftest import PATIENCE, Workplace, wait_until
from tests.fault_tickets import SPAWNED, arm_in_children

Report = Callable[[Verdict], Verdict]
DEADLINE = scaled(1.0, 3.0)  # seconds for a task or a load
TASK = {"seconds_per_megapixel_step": 12.2}  # 0.05 s for 64 x 64 pixels and one step
TASK_SECONDS = 0.05
PER_WORKER = int(4 * DEADLINE / TASK_SECONDS)  # tasks: some time before and after the hang
MAX_LOSS = scaled(0.4, 0.1)  # of the others' throughput; one task is 3 % of a short window's
REPEATS = range(scaled(1, 5))
TRIES = range(scaled(6, 3))  # beside other tests something else may have slowed them


@dataclass
class Diary:
    """What happened when."""

    started: dict[str, tuple[float, str]] = field(default_factory=dict)  # task: when, where
    ended: list[tuple[float, str]] = field(default_factory=list)  # when, where
    states: list[tuple[float, str, str]] = field(default_factory=list)  # when, worker, state

    def listen(self, event: Event) -> None:
        now = time.monotonic()
        match event:
            case TaskStarted():
                self.started.setdefault(event.task_id, (now, event.worker))
            case TaskEnded() if event.result.worker:
                self.ended.append((now, event.result.worker))
            case WorkerState():
                self.states.append((now, event.worker, event.state))

    def next_time(self, worker: str, state: str, after: float) -> float:
        """When `worker` came to `state`; infinity if it never did."""
        times = (t for t, w, s in self.states if (w, s) == (worker, state) and t > after)
        return next(times, float("inf"))

    def throughput(self, without: str, begin: float, end: float) -> float:
        """Tasks per second of the other workers, from one end of a task to another."""
        times = [t for t, w in self.ended if w != without and begin <= t <= end]
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 2 else 0.0


def judge_hang(diary: Diary, worker: str, hung_at: float, verdict: Verdict) -> None:
    """Replaced within its deadline and `LIMIT`; the others went on as before and after."""
    verdict.attempts += 1
    replaced = diary.next_time(worker, "starting", hung_at)
    verdict.found("late", replaced > hung_at + DEADLINE + LIMIT)
    all_serving = max(diary.next_time(w, "ready", 0) for _, w, _ in diary.states if w != worker)
    meanwhile = diary.throughput(worker, max(hung_at, all_serving), replaced)
    before = diary.throughput(worker, all_serving, hung_at)
    after = diary.throughput(worker, replaced, diary.ended[-1][0] - 0.5)
    verdict.found("slowed", meanwhile < (1 - MAX_LOSS) * (before or after))


def not_slowed(attack: Callable[[Path], Verdict], folder: Path) -> Verdict:
    """The verdict of an attack, which is repeated where all that was found is that time passed."""
    for number in TRIES:
        verdict = attack(folder / str(number))
        if not verdict.violations or verdict.violations.keys() - {"slowed", "late"}:
            break
    return verdict


@ON_BOTH
@pytest.mark.parametrize("fault", scaled(["stuck"], ["stuck", "stop", "hang"]))
@pytest.mark.parametrize("_repeat", REPEATS)
def test_a_hanging_task_is_taken_from_its_worker(
    tmp_path: Path, workplace: Workplace, report: Report, fault: str, _repeat: int
) -> None:
    verdict = not_slowed(partial(attack_task, fault=fault, workplace=workplace), tmp_path)
    assert not report(verdict).violations


def attack_task(folder: Path, fault: str, workplace: Workplace) -> Verdict:
    diary, workers = Diary(), 3
    tasks = [{"prompt": f"picture {i}", "task_id": str(i)} for i in range(workers * PER_WORKER)]
    place = len(tasks) // 3
    tasks[place]["prompt"] = f"!{fault}:1"
    config = workplace.simulated(simulated=TASK, supervision={"task_timeout": DEADLINE})
    generator = MultiGPUImageGenerator(
        workers, config=config, output_dir=folder, listener=diary.listen
    )
    with generator:
        results = generator.generate_batch(tasks)
    verdict = Verdict("a hang is replaced in time, the others go on", f"task: {fault}")
    hung_at, worker = diary.started[str(place)]
    judge_hang(diary, worker, hung_at, verdict)
    verdict.found("lost", sum(not r.success for r in results))
    return verdict


@ON_BOTH
@pytest.mark.parametrize("_repeat", REPEATS)
def test_a_load_that_hangs_is_started_again(
    tmp_path: Path,
    workplace: Workplace,
    report: Report,
    monkeypatch: pytest.MonkeyPatch,
    _repeat: int,
) -> None:
    """Stuck in a native call that holds the GIL, so that no thread of the worker reacts."""
    attack = partial(attack_load, monkeypatch=monkeypatch, workplace=workplace)
    verdict = not_slowed(attack, tmp_path)
    assert not report(verdict).violations


def attack_load(folder: Path, monkeypatch: pytest.MonkeyPatch, workplace: Workplace) -> Verdict:
    diary, workers = Diary(), 3
    folder.mkdir()
    arm_in_children(monkeypatch, folder, "worker.load:1:stuck", 1, workplace)
    tasks = [{"prompt": f"picture {i}"} for i in range(workers * PER_WORKER)]
    rules = {"load_timeout": DEADLINE}
    config = workplace.simulated(workers=SPAWNED, simulated=TASK, supervision=rules)
    generator = MultiGPUImageGenerator(
        workers, config=config, output_dir=folder / "out", listener=diary.listen
    )
    with generator:
        results = generator.generate_batch(tasks)
    [worker] = {w for _, w, s in diary.states if s == "waiting to start"}
    verdict = Verdict("a hang is replaced in time, the others go on", "load: stuck")
    judge_hang(diary, worker, diary.next_time(worker, "loading the model", 0), verdict)
    verdict.found("lost", sum(not r.success for r in results))
    return verdict


@ON_BOTH
@pytest.mark.parametrize("_repeat", range(scaled(1, 20)))
def test_nobody_outlives_main_in_a_native_call_or_stopped(
    tmp_path: Path, workplace: Workplace, report: Report, _repeat: int
) -> None:
    """Neither can react to anything but the kernel's own SIGKILL."""
    verdict = Verdict("nobody outlives main by 2 s", "SIGKILL of main, workers stuck and stopped")
    tasks = [{"prompt": f"!{fault}"} for fault in ("stuck", "stuck", "stop")]
    with RealEngine(tmp_path, tasks, 3, workplace) as engine:
        engine.start()
        wait_until(lambda: len(engine.leases("TRUE")) == 3, "three leases")
        stopped = wait_until(lambda: len(engine.workers()) == 3 and engine.workers(), "workers")
        wait_until(lambda: any(w.status() == "stopped" for w in stopped), "the stop")
        engine.process.send_signal(signal.SIGKILL)
        engine.process.wait()
        verdict.attempts += 1
        count_orphans(engine, verdict)
    assert not report(verdict).violations


@ON_BOTH
def test_a_load_that_hangs_does_not_keep_the_others_from_loading(
    tmp_path: Path, workplace: Workplace, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loads take turns here, and the first one may by its deadline take an hour."""
    arm_in_children(monkeypatch, tmp_path, "worker.load:1:stuck", 1, workplace)
    config = workplace.simulated(
        workers={"concurrent_loads": 1, **SPAWNED}, supervision={"load_stall_timeout": DEADLINE}
    )
    verdict = Verdict("a hang is replaced in time, the others go on", "load: stuck, in turns")
    diary = Diary()
    with MultiGPUImageGenerator(
        2, config=config, output_dir=tmp_path, listener=diary.listen
    ) as generator:
        results = generator.generate_batch([{"prompt": "a"}, {"prompt": "b"}], timeout=PATIENCE)
        verdict.attempts += 1
        verdict.found("lost", sum(not r.success for r in results))
        wait_until(lambda: len({w for _, w, s in diary.states if s == "ready"}) == 2, "both")
    assert not report(verdict).violations
