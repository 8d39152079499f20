"""Exit codes are about the pictures: streams that are closed, full or gone change none."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import (
    BENCHMARK,
    COMMAND,
    PATIENCE,
    PROJECT,
    Project,
    run_script,
    simulated,
    wait_until,
    worker_processes,
)

TWEETS = [{"prompt": f"picture {i}", "width": 64, "height": 64} for i in range(3)]
PLACES = [
    "2>/dev/full", ">/dev/full 2>/dev/full", ">&-", "2>&-", "<&- >&- 2>&-", "| head -n 1",
    "2>&1 | head -c 0",
]  # fmt: skip
COMPLAINTS = ("Traceback", "Exception ignored", "BrokenPipeError", "Logging error", "No space left")


def in_shell(folder: Path, line: str, redirection: str) -> tuple[int, str]:
    """Exit code of `line` with its streams redirected, and all that could still be said."""
    # Descriptor 9 tells the code where the command is the first of a pipeline.
    script = f"{{ {line}; echo $? >&9; }} 9>code {redirection}"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        text=True,
        capture_output=True,
        timeout=2 * PATIENCE,
    )
    return int((folder / "code").read_text()), done.stdout + done.stderr


def assert_no_complaint(said: str) -> None:
    assert not [word for word in COMPLAINTS if word in said], said


@pytest.mark.parametrize("redirection", PLACES)
def test_a_complete_run_ends_with_zero_wherever_its_words_go(
    project: Project, redirection: str
) -> None:
    project.write_tweets(TWEETS)
    project.write_settings(simulated())
    line = f"{sys.executable} {COMMAND} tweets.json 2 --config settings.yaml --output-dir out"
    code, said = in_shell(project.folder, line, redirection)
    assert code == 0, said
    assert_no_complaint(said)
    assert [r["status"] for r in project.records()] == ["done"] * 3
    # No word of the run, nor of a worker, went into a file that has a standard stream's number.
    assert (project.pictures / "ledger.sqlite").read_bytes().startswith(b"SQLite format 3\0")
    assert json.loads((project.pictures / "ledger.lock").read_text())["pid"]


@pytest.mark.parametrize(
    ("script", "redirection"),
    [
        *((COMMAND, redirection) for redirection in ("| head -n 1", ">/dev/full")),
        (BENCHMARK, ">/dev/full"),
        (PROJECT / "test_multi_gpu.py", "| head -n 1"),
    ],
)
def test_help_ends_with_zero_wherever_its_words_go(
    tmp_path: Path, script: Path, redirection: str
) -> None:
    code, said = in_shell(tmp_path, f"{sys.executable} {script} --help", redirection)
    assert code == 0
    assert_no_complaint(said)


def test_a_pipe_that_somebody_made_impatient_loses_no_word(tmp_path: Path) -> None:
    """Whoever shares a pipe or terminal may have set it to refuse rather than wait."""
    done = run_script(
        """
        import os
        from core.streams import protect_standard_streams

        protect_standard_streams()
        os.set_blocking(1, False)
        print("x" * 1_000_000)
        """,
        tmp_path,
    )
    assert done.returncode == 0 and len(done.stdout) == 1_000_001, done.stderr


def test_without_standard_streams_no_file_of_the_run_takes_their_numbers(tmp_path: Path) -> None:
    script = f"""
import os, sys
from pathlib import Path
sys.path.insert(0, {str(PROJECT)!r})
from core.multi_gpu_image_generator import MultiGPUImageGenerator

with MultiGPUImageGenerator(1, config={{"model": "simulated"}}, output_dir="out") as generator:
    results = generator.generate_batch([{{"prompt": "a", "output_path": "a.png"}}])
    held = [os.readlink(f"/proc/self/fd/{{number}}") for number in range(3)]
Path("held").write_text(f"{{results[0].status}} {{held}}")
"""
    (tmp_path / "caller.py").write_text(script)
    code, _ = in_shell(tmp_path, f"{sys.executable} caller.py", "<&- >&- 2>&-")
    assert code == 0
    assert (tmp_path / "held").read_text() == f"done {['/dev/null'] * 3}"


def test_a_terminal_that_goes_away_ends_no_run_that_ignores_it(project: Project) -> None:
    """As under nohup, which leaves standard error to the terminal where it is told so."""
    project.write_tweets(TWEETS)
    project.write_settings(simulated(simulated={"seconds_per_megapixel_step": 50.0}))
    ours, theirs = pty.openpty()
    line = [sys.executable, str(COMMAND), "tweets.json", "1", "--config", "settings.yaml"]
    process = subprocess.Popen(
        [*line, "--output-dir", "out"],
        cwd=project.folder,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    os.close(theirs)
    try:
        wait_until(lambda: list(project.pictures.glob("*.png")), "a picture")
        os.close(ours)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
    assert [r["status"] for r in project.records()] == ["done"] * 3


MANY = 600  # pictures: more than are there by the time that a test has looked


def test_slurms_warning_ends_a_run_in_order(project: Project) -> None:
    """`--signal=USR1@120` reaches every process of a job step, 120 s before its time is up."""
    file = project.write_tweets([{"prompt": f"picture {i}"} for i in range(MANY)])
    slow = simulated(simulated={"seconds_per_megapixel_step": 25.0})
    run = project.start([file, 2], slow)
    wait_until(lambda: list(project.pictures.glob("*.png")), "the first picture")
    workers = worker_processes(run.process.pid)
    os.killpg(run.process.pid, signal.SIGUSR1)
    assert run.finish() == 130
    assert workers and "Continue later with: " in run.errors
    assert_no_complaint(run.errors)
    assert "died" not in run.errors and "ended by" not in run.errors
    counts = Counter(r["status"] for r in project.records())
    assert counts["interrupted"] and counts["done"] + counts["interrupted"] == MANY
    assert not project.leftovers()


def test_a_run_that_was_started_to_ignore_the_warning_goes_on(project: Project) -> None:
    file = project.write_tweets(TWEETS)
    slow = simulated(simulated={"seconds_per_megapixel_step": 50.0})
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        run = project.start([file, 1], slow)
        wait_until(lambda: list(project.pictures.glob("*.png")), "the first picture")
        os.killpg(run.process.pid, signal.SIGUSR1)
        assert run.finish() == 0, run.errors
    finally:
        signal.signal(signal.SIGUSR1, before)
