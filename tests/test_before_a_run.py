"""docs/BEFORE_A_RUN.md: its commands and its Python do what the page says."""

import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from apps.doctor import command as doctor
from apps.edit_benchmark import command as benchmark
from apps.tweets import command as tweets
from tests.conftest import PROJECT

PAGE = (PROJECT / "docs" / "BEFORE_A_RUN.md").read_text("utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for language, text in BLOCKS if not language for line in text.splitlines()]
TORCH = {"version": "2.13.0+cpu", "cuda": None, "available": False, "devices": 0}
SCRIPTS: dict[str, Callable[[Sequence[str]], int]] = {
    "generate_images_from_tweets.py": tweets.main,
    "run_edit_benchmark.py": benchmark.main,
    "doctor.py": lambda argv: doctor.main(argv, ask=lambda: TORCH),
}


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_page_runs(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    monkeypatch.setattr("core.devices.nvml.list_gpus", list)
    python, script, *arguments = shlex.split(line)
    assert python == "python" and (PROJECT / script).is_file()
    assert SCRIPTS[script](arguments) == 0


def test_the_python_of_the_page_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("core.devices.nvml.list_gpus", list)
    [code] = [text for language, text in BLOCKS if language == "python"]
    exec(code, {})
    said = capsys.readouterr().out
    assert "Dry run: nothing is drawn" in said and "True 1 Span(" in said
    assert "image_0000 new () None" in said and list(tmp_path.iterdir()) == []
