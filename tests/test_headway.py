"""A look at many inputs before a run begins: it is told how far it is, and Ctrl-C ends it."""

import os
import random
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import apps.headway_view
from core.headway import Headway
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from tests.conftest import EDIT_IMAGES, PATIENCE, Project, simulated, wait_until
from tests.inline_command import InlineCommand
from tests.terminal import Terminal

MANY = 1000


@pytest.fixture
def command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> InlineCommand:
    return InlineCommand(tmp_path, capfd)


def many_pictures(folder: Path) -> None:
    """A folder of pictures that take a while to look at; all are one on the disk."""
    folder.mkdir()
    noise = random.Random(1).randbytes(1024 * 1024 * 3)
    first = folder / "picture_0000.png"
    Image.frombytes("RGB", (1024, 1024), noise).save(first, compress_level=0)
    for number in range(1, MANY):
        os.link(first, folder / f"picture_{number:04}.png")


def looked_at(terminal: Terminal) -> int:
    """How many it has spoken of."""
    return max(int(count) for count in re.findall(rf"checking (\d+)/{MANY}", terminal.text))


@pytest.mark.parametrize("arguments", [[], ["--dry-run"]], ids=["run", "plan"])
def test_a_terminal_shows_how_far_it_is_until_ctrl_c_ends_it_at_once(
    project: Project, arguments: list[str]
) -> None:
    many_pictures(project.folder / "pictures")
    project.write_settings(simulated(editor={"model": "simulated"}))
    line = ["pictures", "--config", "settings.yaml", "--instruction", "make it night", *arguments]
    terminal = Terminal(60)
    process = terminal.start(EDIT_IMAGES, line, project.folder)
    try:
        told = rf"checking [1-9]\d*/{MANY} edits, \d+:\d\d"
        wait_until(lambda: re.search(told, terminal.text) or process.poll(), "how far it is")
        assert process.poll() is None, terminal.text
        os.killpg(process.pid, signal.SIGINT)
        before = looked_at(terminal)
        assert process.wait(PATIENCE) == 130
    finally:
        process.kill()
        process.wait()
    terminal.close()
    assert looked_at(terminal) < before + MANY / 2, "it went on"
    last = terminal.text.rstrip().split("\r")[-1]
    assert "Interrupted. Start again with: " in last and "--instruction 'make it night'" in last
    assert not list(project.folder.rglob("*.partial*"))


@pytest.fixture
def spoken_of_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apps.headway_view, "LOG_EVERY", 0.001)


@pytest.mark.slow
@pytest.mark.usefixtures("spoken_of_at_once")
def test_elsewhere_the_log_tells_now_and_then(command: InlineCommand) -> None:
    file = command.write("tweets.json", [{"prompt": f"{n}"} for n in range(900)])
    code, errors = command.run(file, "--plain")
    assert code == 0 and re.search(r"INFO +Checking \d+/900 tweets\.", errors)
    code, errors = command.run(file)  # no terminal
    assert code == 0 and re.search(r"INFO +Comparing \d+/900 tweets\.", errors)
    code, errors = command.run(file, "--dry-run")
    assert code == 0 and re.search(r"INFO +Checking \d+/900 tweets\.", errors)


@pytest.mark.usefixtures("spoken_of_at_once")
def test_who_wants_no_words_hears_none(command: InlineCommand) -> None:
    file = command.write("tweets.json", [{"prompt": f"{n}"} for n in range(300)])
    assert command.run(file, "--quiet") == (0, "")


def test_a_look_that_is_soon_over_is_not_spoken_of(command: InlineCommand) -> None:
    code, errors = command.run(command.write("tweets.json", [{"prompt": "a"}]), "--plain")
    assert code == 0 and "hecking" not in errors


class Watched(list[dict[str, Any]]):
    """Tasks that note what the generator says of itself while they are read."""

    generator: MultiGPUImageGenerator
    phases: list[str]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self.phases = []
        for task in super().__iter__():
            self.phases.append(self.generator.status().phase)
            yield task


def test_python_and_notebooks_are_told_too(tmp_path: Path) -> None:
    tasks = Watched({"prompt": f"{n}"} for n in range(3))
    with MultiGPUImageGenerator(1, config=simulated(), output_dir=tmp_path) as generator:
        tasks.generator = generator
        for _ in range(2):  # also after a batch that has ended
            assert all(generator.generate_batch(tasks))
            assert tasks.phases == [f"checking {n}/3" for n in range(3)]
        assert generator.status().phase == "completed"


def test_a_count_within_another_look_gives_way_to_it_again() -> None:
    headway, seen = Headway(), []
    with headway.at("preparing"):
        for _ in headway.over("checking", "ab", 2):
            seen.append(str(headway.look))
        seen.append(str(headway.look))
    assert seen == ["checking 0/2", "checking 1/2", "preparing"] and headway.look is None


def test_a_look_that_is_broken_off_is_over() -> None:
    headway = Headway()
    with headway.at("preparing"):
        counted = headway.over("checking", "abc", 3)
        next(counted)
        assert str(headway.look) == "checking 0/3"
    counted.close()  # as late as a traceback keeps it
    assert headway.look is None
