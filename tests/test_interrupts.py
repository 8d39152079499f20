"""A Ctrl-C, whenever it comes: in the middle of a library, before a daemon serves, in a run."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from loguru import logger
from pydantic import BaseModel, field_serializer

from apps.interrupts import Interrupts, unwrapped
from apps.server.command import main
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from tests.conftest import PATIENCE, PROJECT, simulated
from tests.stub_backend import StubBackend


class _Interrupted(BaseModel):
    name: str = "a"

    @field_serializer("name")
    def _written(self, _: str) -> Any:
        raise KeyboardInterrupt


def test_a_ctrl_c_while_settings_are_copied_is_a_ctrl_c() -> None:
    with pytest.raises(KeyboardInterrupt), unwrapped():
        _Interrupted().model_dump()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_daemon_that_is_stopped_before_it_serves_ends_as_one_that_was_asked_to(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stopped(BaseModel):
        """Settings over which it comes."""

        name: str = "a"

        @field_serializer("name")
        def _written(self, name: str) -> str:
            os.kill(os.getpid(), number)
            return name

    settings = SimpleNamespace(server=Stopped())
    monkeypatch.setattr("apps.server.command.load_server_settings", lambda config: settings)
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    assert main([]) == 0
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    assert "Stopped before anything was served." in capsys.readouterr().err


def test_other_errors_stay_as_they_are() -> None:
    with pytest.raises(ValueError, match="mine"), unwrapped():
        raise ValueError("mine")


def test_a_run_says_first_that_it_was_interrupted_and_then_what_is_left(tmp_path: Path) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}", level="WARNING")
    backend = StubBackend(ready=False)  # no worker ever comes
    with (
        Interrupts(["tweets.json"]) as interrupts,
        MultiGPUImageGenerator(config=simulated(), output_dir=tmp_path, backend=backend) as run,
    ):
        interrupts.run = run
        job = run.submit([{"prompt": f"house {n}"} for n in range(3)])
        os.kill(os.getpid(), signal.SIGINT)
        assert {result.status for result in job.results(PATIENCE)} == {"interrupted"}
    logger.remove(sink)
    first, second = (line.strip() for line in lines)
    assert first.startswith("Interrupted: ") and first.endswith("tweets.json")
    assert second == "Stopped with 3 tasks left."


@pytest.mark.parametrize("script", ["generate_images_from_tweets.py", "serve.py", "doctor.py"])
def test_a_ctrl_c_while_the_program_is_still_being_read_ends_it_without_words(
    tmp_path: Path, script: str
) -> None:
    (tmp_path / "loguru.py").write_text(
        "import time\nprint('reading', flush=True)\ntime.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, PROJECT / script],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None and process.stdout.readline() == "reading\n"
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=PATIENCE)
    assert said == ("", "") and process.returncode == -signal.SIGINT
