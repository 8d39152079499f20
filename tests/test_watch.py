"""`watch.py`: a run from outside, whether it goes on, has ended, was killed or has not begun."""

import io
import json
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from apps.watch.command import main
from apps.watch.daemon import look_at
from apps.watch.folder import WatchedFolder, is_alive
from apps.watch.lines import look_sentence
from apps.watch.look import look_of
from core.status.run_status import KindStatus, RunStatus
from core.status.status_file import read_status
from tests.conftest import PATIENCE, PROJECT, Project, Run, simulated, wait_until
from tests.terminal import Terminal

SLOW = simulated(simulated={"seconds_per_megapixel_step": 24.4})  # 0.1 s a step of 64 x 64 pixels
WATCH = PROJECT / "watch.py"
MANY = 200  # pictures; two minutes'
RUNNING = RunStatus(
    "running",
    "drawing",
    1000.0,
    1060.0,
    kinds=(KindStatus("generate", 100, 50, 1, per_minute=30.0, seconds_left=100.0),),
    seconds_left=100.0,
    pid=os.getpid(),
    host=socket.gethostname(),
    command="python generate_images_from_tweets.py tweets.json",
)


def test_while_nothing_new_is_written_time_goes_on() -> None:
    look = look_of(RUNNING, "out", True, now=1090.0)
    assert look.status is not None and look.status.seconds_left == 70.0
    assert look.status.kinds[0].seconds_left == 70.0 and look.seen == "running"
    assert look_of(RUNNING, "out", True, now=5000.0).title == "Nothing new for 1:05:40."


def test_a_killed_run_is_told_by_its_process_and_says_how_to_continue() -> None:
    look = look_of(RUNNING, "out", False, now=1090.0)
    assert look.seen == "killed" and look.is_over and not look.is_good
    assert "has gone without a word" in look.title and look.title.endswith(RUNNING.command)
    assert "left" not in look_sentence(look)


def test_of_another_machines_process_nobody_says_that_it_is_gone() -> None:
    far = replace(RUNNING, host="elsewhere", pid=1)
    assert is_alive(far) is None
    look = look_of(far, "out", None, now=1100.0)
    assert look.seen == "running"
    assert look.title == "It runs on elsewhere, and was last heard of 0:40 ago."


def test_a_process_that_began_later_only_has_the_number() -> None:
    assert is_alive(RUNNING) is False, "this process began long after 1970"
    now = replace(RUNNING, updated=2e10)
    assert is_alive(now) is True


def test_a_folder_where_nothing_has_run_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, said in {
        tmp_path: "Nothing has run here yet.",
        tmp_path / "not" / "there": "There is no such folder yet.",
    }.items():
        assert main([str(place), "--once"]) == 0
        assert said in capsys.readouterr().out
    assert main([str(tmp_path), "--once", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"state": "waiting", "place": str(tmp_path)}


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("tweets.json", "is a file"),
        ("http://127.0.0.1:9", "does not answer"),
        ("http://", "no URL of a server"),
        ("broken", "cannot be read: it is no JSON"),
    ],
)
def test_what_cannot_be_watched_is_one_line(
    place: str,
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tweets.json").write_text("[]")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "status.json").write_text("{")
    assert main([place, "--once"]) in (1, 2)
    said = capsys.readouterr()
    assert why in said.out + said.err and "Traceback" not in said.err


def test_what_a_daemon_says_becomes_lines_of_the_same_kind() -> None:
    counts = {"total": 40, "succeeded": 10, "failed": 2}
    job = {"status": "running", "kinds": {"generate": 40}, "counts": counts}
    jobs = [
        {**job, "expected_end_at": 1060},
        {**job, "status": "queued", "kinds": {"edit": 40}, "expected_end_at": 1090},
    ]
    worker = {
        "id": "gpu0",
        "status": "ready",
        "kind": "generate",
        "model": "z-image",
        "loras": ["ink"],
        "tasks": [{"doing": "running", "task_id": "a", "step": 3, "steps": 8}, {"doing": "next"}],
        "memory_used": 1,
        "memory_total": 2,
    }
    idle = {**worker, "id": "gpu1", "tasks": [], "loras": []}
    look = look_at(
        "http://x", [worker, idle, {**worker, "tasks": [{"doing": "running"}]}], jobs, 1000.0
    )
    assert look.status is not None and look.status.seconds_left == 90.0
    [kind] = look.status.kinds
    assert (kind.kind, kind.total, kind.done, kind.failed) == ("tasks", 80, 20, 4)
    first, second, other = look.status.workers
    assert (first.task, first.step, first.steps, first.loras) == ("a", 3, 8, ("ink",))
    assert second.task is None and other.task == "of another caller"
    assert look.title == "1 of your jobs running, 1 waiting."


# -- a run of its own ----------------------------------------------------------------------


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    yield Terminal(80)


@pytest.mark.slow
def test_a_run_is_watched_killed_and_continued(
    project: Project, terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    """From outside, in a terminal of 80 columns, with a Ctrl-C that leaves it as it was."""
    # It may take a while until the other program is there, and this one must not be done by then.
    tweets = project.write_tweets(
        [{"prompt": f"{n}", "num_inference_steps": 6} for n in range(MANY)]
    )
    parent = str(project.folder / "out")
    run = project.start([tweets, 1], SLOW)
    watch = terminal.start(WATCH, [parent], project.folder)
    wait_until(lambda: re.search(rf"drawing .* [1-9]\d*/{MANY}", terminal.text), "a picture")
    watch.send_signal(signal.SIGINT)
    assert watch.wait(PATIENCE) == 130
    terminal.close()
    assert "Traceback" not in terminal.text
    assert terminal.raw.rfind("\x1b[?25h") > terminal.raw.rfind("\x1b[?25l"), "the cursor is back"
    assert f"out/{project.pictures.name}" in terminal.text and "cpu0" in terminal.text

    assert main([parent, "--once", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["state"] == "running" and told["place"] == str(project.pictures)
    os.killpg(run.process.pid, signal.SIGKILL)
    run.process.wait()
    assert main([parent]) == 1
    assert "killed" in capsys.readouterr().out
    assert WatchedFolder(project.pictures).look().seen == "killed"

    assert project.run([tweets, 1], simulated()).process.returncode == 0
    assert main([parent]) == 0
    status = read_status(project.pictures)
    assert status is not None and status.state == "completed"
    assert status.already_done >= 1 and status.already_done + status.done == MANY


class AtTheFirstLine(io.StringIO):
    """An output that begins something when it has had its first line."""

    def __init__(self, begin: Callable[[], Run]) -> None:
        super().__init__()
        self._begin = begin
        self.answer: Run

    def write(self, text: str) -> int:
        is_first = "\n" not in self.getvalue() and "\n" in text
        written = super().write(text)
        if is_first:
            self.answer = self._begin()
        return written


def test_what_follows_the_run_line_by_line_ends_with_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    tweets = project.write_tweets([{"prompt": f"{n}", "num_inference_steps": 6} for n in range(4)])
    told = AtTheFirstLine(lambda: project.start([tweets, 2], SLOW))
    monkeypatch.setattr(sys, "stdout", told)
    assert main([str(project.pictures), "--json"]) == 0
    told.answer.finish()
    looks: list[dict[str, Any]] = [json.loads(line) for line in told.getvalue().splitlines()]
    assert looks[0]["state"] == "waiting"
    assert looks[-1]["state"] == "completed" and looks[-1]["done"] == 4
    done = [look.get("done", 0) for look in looks]
    assert done == sorted(done) and len(looks) > 1
