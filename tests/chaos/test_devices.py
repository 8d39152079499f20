"""Faults of devices, simulated: out of memory, lost contexts, lost devices, flapping workers."""

import os
import random
import re
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.both_engines import ON_BOTH
from tests.chaos.checks import count_orphans, judge
from tests.chaos.engines import RealEngine
from tests.chaos.scale import scaled
from tests.chaos.verdict import Verdict
from tests.conftest import Workplace, wait_until
from workers.process import LEAVING_EXIT

Report = Callable[[Verdict], Verdict]
SEEDS = range(scaled(1, 5))
TASKS = scaled(40, 300)
FAULTS = scaled(3, 30)  # of each kind
TIMES = {"seconds_per_megapixel_step": 5.0, "jitter": 0.5}  # about 0.02 s a task
PATIENT_RESTARTS = 4  # in a row without a finished task
RULES = {
    "restart_backoff": 0.05,
    "restart_backoff_maximum": 0.4,
    "restarts_before_retirement": PATIENT_RESTARTS,
}


def pictures(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"picture {i}", "width": 64, "height": 64} for i in range(count)]


def processes(errors: str) -> Counter[str]:
    """Worker processes that came up, by worker."""
    return Counter(re.findall(r"(cpu\d+): pid \d+", errors))


def errors_of(engine: RealEngine) -> str:
    """What it said, with workers by their names on their nodes: all of these are on one."""
    return re.sub(r"\S+/(cpu\d)", r"\1", engine.run.errors) if engine.run else ""


@ON_BOTH
@pytest.mark.parametrize("seed", SEEDS)
def test_a_lost_context_or_memory_costs_one_process_and_no_record(
    tmp_path: Path, workplace: Workplace, report: Report, seed: int
) -> None:
    """After such an error a process is never used again: it ends, and another one comes."""
    verdict = Verdict("device faults cost no record", "sticky CUDA errors, out of memory twice")
    tasks = pictures(TASKS)
    places = random.Random(seed).sample(range(TASKS), 2 * FAULTS)
    for place in places:
        tasks[place]["prompt"] = f"!{'cuda' if place % 2 else 'oom'}:1 {place}"
    with RealEngine(tmp_path, tasks, 2, workplace, simulated=TIMES) as engine:
        engine.start("--log-level", "DEBUG")
        engine.wait()
        # Only a first attempt breaks, and one that its worker had not come to is none.
        never_begun = engine.leases("attempt = 1 AND outcome = 'released'")
        spared = {int(re.sub(r"\D", "", row["key"])) for row in never_begun}
        verdict.attempts = len(set(places) - spared)
        ended = errors_of(engine).count(f"ended with exit code {LEAVING_EXIT}")
        # One each; of the two workers' last ones the run's own end may take the word.
        verdict.found("process", abs(ended - verdict.attempts) > 2)
        judge(engine, verdict)
    assert not report(verdict).violations


@ON_BOTH
@pytest.mark.parametrize("seed", SEEDS)
def test_what_does_not_fit_together_is_drawn_in_smaller_groups(
    tmp_path: Path, workplace: Workplace, report: Report, seed: int
) -> None:
    """In the same process and the same attempt."""
    verdict = Verdict("device faults cost no record", "out of memory in a group: smaller retry")
    tasks = pictures(TASKS)
    for place in random.Random(seed).sample(range(TASKS), FAULTS):
        tasks[place]["prompt"] = f"!crowd {place}"
    groups = {"max_batch": 8}
    with RealEngine(tmp_path, tasks, 2, workplace, simulated=TIMES, workers=groups) as engine:
        engine.start("--log-level", "DEBUG")
        engine.wait()
        errors = errors_of(engine)
        verdict.attempts = errors.count("out of memory with")
        verdict.found("process", processes(errors).total() - 2)
        copied = "SELECT key FROM leases WHERE outcome = 'superseded'"
        verdict.found("rerun", len(engine.leases(f"attempt > 1 AND key NOT IN ({copied})")))
        judge(engine, verdict)
    assert not report(verdict).violations
    assert verdict.attempts >= FAULTS // 2


@ON_BOTH
@pytest.mark.parametrize("seed", SEEDS)
def test_a_lost_device_is_given_up_and_the_others_carry_on(
    tmp_path: Path, workplace: Workplace, report: Report, seed: int
) -> None:
    """Its worker backs off, is given up after some deaths in a row, and takes no task with it."""
    verdict = Verdict("device faults cost no record", "one device of three lost for good")
    flag = tmp_path / "lost"
    times = {**TIMES, "lost_while": {"cpu1": str(flag)}}
    how = {"simulated": times, "supervision": RULES}
    with RealEngine(tmp_path, pictures(TASKS), 3, workplace, **how) as engine:
        engine.start("--log-level", "DEBUG")
        moment = random.Random(seed).randint(1, TASKS // 2)
        wait_until(partial(has_drawn, engine, moment), "some pictures")
        flag.touch()
        engine.wait()
        verdict.attempts = 1
        errors = errors_of(engine)
        starts = processes(errors)["cpu1"]
        verdict.found("restart", starts - 1 - PATIENT_RESTARTS)
        verdict.found("exit code", engine.process.returncode != 0)
        judge(engine, verdict)
    assert not report(verdict).violations


def has_drawn(engine: RealEngine, count: int) -> bool:
    return engine.drawn() >= count


@pytest.mark.slow
@ON_BOTH
def test_a_device_that_comes_back_is_used_again(
    tmp_path: Path, workplace: Workplace, report: Report
) -> None:
    verdict = Verdict("device faults cost no record", "a device lost for a while")
    flag = tmp_path / "lost"
    rules = {"restart_backoff": 0.1, "restarts_before_retirement": 50}
    # The other one would need a minute and more for all of it.
    times = {**TIMES, "lost_while": {"cpu1": str(flag)}, "slowness": {"cpu0": 20.0}}
    how = {"simulated": times, "supervision": rules}
    with RealEngine(tmp_path, pictures(TASKS * 5), 2, workplace, **how) as engine:
        engine.start("--log-level", "DEBUG")
        wait_until(lambda: "cpu1: SimulatedGpu in" in errors_of(engine), "the first load")
        flag.touch()
        wait_until(lambda: "cpu1: the model could not be loaded" in errors_of(engine), "its loss")
        flag.unlink()
        engine.wait()
        verdict.attempts = 1
        last = errors_of(engine).rsplit("could not be loaded", 1)[1]
        verdict.found("unused", not re.search(r"s on cpu1", last))
        judge(engine, verdict)
    assert not report(verdict).violations


@pytest.mark.slow
@ON_BOTH
def test_when_all_devices_are_lost_the_command_says_so(
    tmp_path: Path, workplace: Workplace, report: Report
) -> None:
    verdict = Verdict("device faults cost no record", "all devices lost")
    flag = tmp_path / "lost"
    slow = {"seconds_per_megapixel_step": 250.0}  # a second a task: not all is done by then
    times = {**TIMES, **slow, "lost_while": {f"cpu{i}": str(flag) for i in range(2)}}
    how = {"simulated": times, "supervision": RULES}
    with RealEngine(tmp_path, pictures(TASKS), 2, workplace, **how) as engine:
        engine.start()
        wait_until(partial(has_drawn, engine, 2), "some pictures")
        flag.touch()
        engine.wait()
        verdict.attempts = 1
        verdict.found("exit code", engine.process.returncode != 1)
        verdict.found("silence", "No worker is left" not in errors_of(engine))
        records = [r for r in engine.records() if r is not None]
        verdict.found("lost", TASKS - len({r.position for r in records}))
        flag.unlink()
        engine.settings["simulated"] |= TIMES
        engine.start()  # the devices are back: the same command continues
        engine.wait()
        judge(engine, verdict)
    assert not report(verdict).violations


@pytest.mark.slow
@ON_BOTH
def test_a_flapping_worker_backs_off_and_is_given_up(
    tmp_path: Path, workplace: Workplace, report: Report
) -> None:
    """It dies after every picture: each restart costs a load, and it never gets better."""
    verdict = Verdict("device faults cost no record", "a worker dies after every task")
    killed: set[int] = set()
    # 0.5 s: it is killed before its second picture, long before the other one has done them all.
    times = {**TIMES, "slowness": {"cpu0": 10.0, "cpu1": 25.0}}
    how = {"simulated": times, "supervision": RULES}
    with RealEngine(tmp_path, pictures(3000), 2, workplace, **how) as engine:
        engine.start("--log-level", "DEBUG")
        while engine.wait(lambda: unharmed(engine, killed) or given_up(engine)):
            if given_up(engine):
                break
            killed.add(pid := newest_process(engine))
            os.kill(pid, signal.SIGKILL)
        verdict.attempts = len(killed)
        verdict.found("restart", len(killed) - 3 * PATIENT_RESTARTS)
        verdict.found("not given up", not given_up(engine))
        engine.process.send_signal(signal.SIGINT)
        engine.wait()
        count_orphans(engine, verdict)
    assert not report(verdict).violations
    assert len(killed) > PATIENT_RESTARTS


def given_up(engine: RealEngine) -> bool:
    return "cpu1 is given up" in errors_of(engine)


def newest_process(engine: RealEngine) -> int:
    """The pid of the newest process of cpu1; 0 before there is one."""
    return int(re.findall(r"cpu1: pid (\d+)", "cpu1: pid 0" + errors_of(engine))[-1])


def unharmed(engine: RealEngine, killed: set[int]) -> bool:
    """The newest process of cpu1 has drawn a picture and was not killed yet."""
    pid = newest_process(engine)
    since = errors_of(engine).rsplit(f"cpu1: pid {pid}", 1)[-1]
    return pid not in killed and "s on cpu1" in since
