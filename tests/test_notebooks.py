"""In a notebook: one line that is drawn over itself, no widgets, and a log without details."""

import io
import re
from pathlib import Path

import pytest

from core.events import TaskEnded, TaskShape, TaskStarted
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.status.progress_line import ProgressLine
from core.status.tracker import RunTracker
from core.status.words import sentence
from core.tasks import Result
from tests.conftest import run_script, simulated, wait_until
from tests.simulated_runs import Clock


def as_shown(text: str) -> list[str]:
    """Lines as a notebook shows them: a carriage return begins to write over the line."""
    shown = []
    for line in text.split("\n"):
        cells: list[str] = []
        for part in line.split("\r"):
            cells[: len(part)] = part
        shown.append("".join(cells).rstrip())
    return shown


def test_the_line_says_how_far_a_run_is_and_then_how_it_ended() -> None:
    clock, stream = Clock(), io.StringIO()
    tracker = RunTracker(memory=lambda devices: None, clock=clock, ticks=clock)
    tracker.begin([TaskShape()] * 4)
    line = ProgressLine(lambda: sentence(tracker.status()), stream, every=0.002)
    line.start()
    wait_until(lambda: "loading 0/4" in stream.getvalue(), "the first look")
    for n in range(2):
        tracker.hear(TaskStarted(f"{n}", "cpu0"))
        clock.now += 3.0
        tracker.hear(TaskEnded(Result(n, f"{n}", "done", "x.png", worker="cpu0")))
    tracker.hear(TaskStarted("2", "cpu0"))
    wait_until(lambda: "drawing 2/4" in stream.getvalue(), "two pictures")
    line.write_above("INFO a line of the log\n")
    assert as_shown(stream.getvalue()) == [
        "INFO a line of the log",
        "drawing 2/4, 20.0/min, 0:06 left",
    ]
    for n in (2, 3):
        clock.now += 3.0
        tracker.hear(TaskEnded(Result(n, f"{n}", "done", "x.png", worker="cpu0")))
    tracker.end()
    line.stop()
    shown = as_shown(stream.getvalue())
    assert shown == ["INFO a line of the log", "completed 4/4, in 0:12", ""]


def test_a_stream_that_is_closed_ends_nothing() -> None:
    stream = io.StringIO()
    line = ProgressLine(lambda: sentence(RunTracker().status()), stream, every=0.001)
    line.start()
    stream.close()
    line.write_above("text\n")
    line.stop()


@pytest.mark.parametrize("notebook", [True, False])
def test_generate_batch_in_a_kernel_and_outside(notebook: bool, tmp_path: Path) -> None:
    """The kernel's own stream is what tells; ipykernel need not be installed for that."""
    code = f"""
        import sys, types
        kernel = types.ModuleType("ipykernel.iostream")
        exec("import io\\nclass OutStream(io.TextIOWrapper): pass", kernel.__dict__)
        kernel.OutStream.__module__ = "ipykernel.iostream"
        if {notebook}:
            sys.stdout = kernel.OutStream(open(1, "wb", 0, closefd=False), write_through=True)
        from core import MultiGPUImageGenerator
        from tests.inline_backend import InlineBackend
        with MultiGPUImageGenerator(
            1, config={{"model": "simulated"}}, output_dir="out", backend=InlineBackend()
        ) as generator:
            generator.generate_batch([{{"prompt": "a"}}, {{"prompt": "!nan"}}])
    """
    done = run_script(code, tmp_path, "simulated")
    assert done.returncode == 0, done.stderr
    if notebook:
        *log, last, empty = as_shown(done.stdout)
        assert re.fullmatch(r"failed 2/2, in \d+:\d\d.*1 failed", last) and not empty
        assert any("Plan: 2 new" in line for line in log) and done.stderr == ""
        assert "DEBUG" not in done.stdout and "\x1b" not in done.stdout
    else:
        assert done.stdout == "" and "DEBUG" not in done.stderr
        assert "Plan: 2 new" in done.stderr


def test_a_cell_that_ends_with_a_plan_shows_what_the_plan_says() -> None:
    class Printer:
        shown = ""

        def text(self, text: str) -> None:
            self.shown += text

    printer, generator = Printer(), MultiGPUImageGenerator(1, config=simulated(), dry_run=True)
    plan = generator.plan([{"prompt": "a red house"}])
    plan._repr_pretty_(printer, cycle=False)  # which is IPython's, by name
    assert "Plan: 1 new." in printer.shown and printer.shown == str(plan)
