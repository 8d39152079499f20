"""Ctrl-C, SIGTERM, SIGHUP, SIGUSR1 and a closed terminal at random moments of a run."""

import fcntl
import os
import pty
import random
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.store.provenance import read_provenance
from tests.both_engines import ON_BOTH
from tests.chaos.checks import count_orphans, judge
from tests.chaos.engines import RealEngine
from tests.chaos.scale import LIMIT, scaled
from tests.chaos.verdict import Verdict
from tests.conftest import COMMAND, HELD, PATIENCE, Run, Workplace, standing_still, wait_until

Report = Callable[[Verdict], Verdict]
RUNS = scaled(1, 100)
INTERRUPTED = 130
AT_ONCE = scaled(PATIENCE, LIMIT)  # seconds; beside other tests any process may stand still
NEVER = {"stop_timeout": 3600.0}  # seconds after which a worker that does not leave is killed
SLOW = {"seconds_per_megapixel_step": 25.0}  # 0.1 s for 64 x 64 pixels and one step
TASKS = [{"prompt": f"picture {i}"} for i in range(60)]
STUCK = [{"prompt": "a"}, {"prompt": "!stuck"}, *({"prompt": f"b{i}"} for i in range(40))]


@pytest.fixture(autouse=True)
def hangup_counts() -> Iterator[None]:
    """A run ignores SIGHUP if it was born so, and these tests may run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def start(engine: RealEngine, rng: random.Random) -> None:
    """And wait for a random moment: while it plans, while workers start, while it draws."""
    engine.start()
    wait_until(lambda: catches(engine.process.pid, signal.SIGTERM), "the handlers")
    time.sleep(rng.uniform(0, 1.5))


def judge_end(engine: RealEngine, verdict: Verdict, allowed: float) -> None:
    """The right exit code, in time, nothing but words for the user, and nobody left."""
    verdict.attempts += 1
    began = time.monotonic()
    try:
        engine.process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        verdict.found("hang")
        return
    took = time.monotonic() - began
    verdict.found("late", took > allowed)
    print(f"ended after {took:.2f} s")
    verdict.found("exit code", engine.process.returncode != INTERRUPTED)
    count_orphans(engine, verdict)
    verdict.found("leftover", len(engine.leftovers()))


def judge_words(engine: RealEngine, verdict: Verdict) -> None:
    assert engine.run is not None
    errors = engine.run.errors
    verdict.found("traceback", "Traceback" in errors or "Exception ignored" in errors)
    resume = "Continue later with: " in errors or "Start again with: " in errors
    verdict.found("no resume command", not resume)


@ON_BOTH
@pytest.mark.parametrize("seed", range(RUNS))
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_one_signal_ends_a_run_in_order(
    tmp_path: Path, workplace: Workplace, report: Report, number: signal.Signals, seed: int
) -> None:
    verdict = Verdict("an interrupted run ends in order", f"one {number.name}")
    with RealEngine(tmp_path, TASKS, 2, workplace, simulated=SLOW) as engine:
        start(engine, random.Random(seed))
        os.killpg(engine.process.pid, number)
        judge_end(engine, verdict, allowed=PATIENCE)
        judge_words(engine, verdict)
    assert not report(verdict).violations


@ON_BOTH
def test_under_nohup_a_run_outlives_its_terminal(
    tmp_path: Path, workplace: Workplace, report: Report
) -> None:
    verdict = Verdict("an interrupted run ends in order", "SIGHUP under nohup: it goes on")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with RealEngine(tmp_path, TASKS[:10], 2, workplace, simulated=SLOW) as engine:
        engine.start()
        wait_until(lambda: engine.drawn() > 0, "a picture")
        os.killpg(engine.process.pid, signal.SIGHUP)
        engine.wait()
        verdict.attempts += 1
        verdict.found("exit code", engine.process.returncode != 0)
        judge(engine, verdict)
    assert not report(verdict).violations


@ON_BOTH
@pytest.mark.parametrize("seed", range(RUNS))
def test_a_second_ctrl_c_ends_it_at_once(
    tmp_path: Path, workplace: Workplace, report: Report, seed: int
) -> None:
    """Although a worker is stuck and would hold up an orderly end."""
    verdict = Verdict("an interrupted run ends in order", "two SIGINT, a worker stuck")
    rng = random.Random(seed)
    rules = {"simulated": SLOW, "supervision": NEVER}
    with RealEngine(tmp_path, STUCK, 2, workplace, **rules) as engine:
        start(engine, rng)
        os.killpg(engine.process.pid, signal.SIGINT)
        time.sleep(rng.uniform(0, 0.5))
        if not engine.ended:
            os.killpg(engine.process.pid, signal.SIGINT)
        judge_end(engine, verdict, allowed=AT_ONCE + workplace.grace)
        judge_words(engine, verdict)
    assert not report(verdict).violations


@ON_BOTH
def test_a_second_ctrl_c_does_not_wait_for_a_worker_to_leave(
    tmp_path: Path, workplace: Workplace, report: Report
) -> None:
    """After the first one main waits for its workers, of which one is stopped here."""
    verdict = Verdict("an interrupted run ends in order", "two SIGINT, a worker stopped")
    tasks = [{"prompt": f"{HELD} a"}, {"prompt": "b"}]  # in turn: the second is another worker's
    rules = {"simulated": SLOW, "supervision": NEVER}
    with RealEngine(tmp_path, tasks, 2, workplace, **rules) as engine:
        engine.start()
        wait_until(lambda: engine.drawn() == 1, "an idle worker")
        [busy] = wait_until(lambda: standing_still(engine.workers()), "a busy one")
        os.kill(maker_of(engine.pictures / "tweets_01.png"), signal.SIGSTOP)
        assert engine.run is not None
        engine.run.interrupt()
        busy.resume()
        wait_until(lambda: engine.drawn() == 2, "the end of what runs")
        time.sleep(0.2)
        os.killpg(engine.process.pid, signal.SIGINT)
        judge_end(engine, verdict, allowed=AT_ONCE + workplace.grace)
        judge_words(engine, verdict)
    assert not report(verdict).violations


def maker_of(picture: Path) -> int:
    """The worker process that drew it."""
    return int(read_provenance(picture)["used"]["pid"])


@ON_BOTH
@pytest.mark.parametrize("seed", range(RUNS))
def test_a_closed_terminal_ends_a_run_in_order(
    tmp_path: Path, workplace: Workplace, report: Report, seed: int
) -> None:
    verdict = Verdict("an interrupted run ends in order", "terminal closed")
    with RealEngine(tmp_path, TASKS, 2, workplace, simulated=SLOW) as engine:
        terminal = start_in_terminal(engine)
        wait_until(lambda: catches(engine.process.pid, signal.SIGTERM), "the handlers")
        drain(terminal, random.Random(seed).uniform(0, 1.5))
        os.close(terminal)
        judge_end(engine, verdict, allowed=PATIENCE)
        engine.run = None
    assert not report(verdict).violations


def start_in_terminal(engine: RealEngine) -> int:
    """The command in a terminal of its own; returns the terminal's other side."""
    config = engine.project.write_settings(engine.settings)
    line = [sys.executable, str(COMMAND), str(engine.file), "2", "--config", str(config)]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*line, "--output-dir", str(engine.project.folder / "out")],
        text=True,
        env={**os.environ, **engine.project.environment},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    engine.run = Run(process, engine.project.folder / "nothing")
    return ours


def drain(terminal: int, seconds: float) -> None:
    """Read what the program shows, as a terminal does."""
    os.set_blocking(terminal, False)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.read(terminal, 65536)
        except BlockingIOError:
            time.sleep(0.01)
