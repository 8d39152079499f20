"""Lines with a path or a command are broken by the terminal alone, which copies them whole."""

import json
import re
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import apps.doctor.command
import apps.edit_benchmark.command
import apps.edit_images.command
import apps.server.command
import apps.tweets.command
import apps.watch.command
from apps.edit_benchmark.plain_table import print_note
from core.status.run_status import Failure, KindStatus, RunStatus
from tests.conftest import COMMAND, PATIENCE, PROJECT, Project, simulated
from tests.terminal import Terminal

DEEP = "a-folder-with-a-long-name/below another one with spaces/and-a-third-that-is-longer-still"


@pytest.mark.parametrize("columns", [60, 80])
def test_paths_and_commands_of_a_run_stay_whole(project: Project, columns: int) -> None:
    tweets = [{"prompt": "a"}, {"prompt": "b", "lora_path": f"{DEEP}/there-is-no.safetensors"}]
    project.write_tweets(tweets)
    project.write_settings(simulated())
    line = ["tweets.json", "1", "--config", "settings.yaml", "--output-dir", DEEP]
    terminal = Terminal(columns)
    code = terminal.start(COMMAND, line, project.folder).wait(PATIENCE)
    terminal.close()
    said = [re.sub(r".*\r", "", line) for line in terminal.text.split("\r\n")]
    page = f"All at a glance: {project.folder}/{DEEP}/tweets/index.html"
    assert code == 1 and sum(line.endswith(page) for line in said) == 1, said
    assert f"pictures and results: {project.folder}/{DEEP}/tweets" in said
    again = f"try again with: python {COMMAND} tweets.json 1 --config settings.yaml"
    [told] = [line for line in said if "try again with: " in line]
    assert re.sub(r"python[\d.]*", "python", told, count=1) == f"{again} --output-dir '{DEEP}'"
    reasons = [line for line in said if "there-is-no" in line]
    assert reasons and all("/there-is-no.safetensors' is not a file" in line for line in reasons)


def test_a_long_place_and_the_command_of_a_killed_run_are_told_whole(tmp_path: Path) -> None:
    folder = tmp_path / DEEP
    folder.mkdir(parents=True)
    command = f"python generate_images_from_tweets.py tweets.json --output-dir '{DEEP}'"
    status = RunStatus(
        "running",
        "drawing",
        1000.0,
        1060.0,
        kinds=(KindStatus("generate", 100, 50, 1),),
        failures=(Failure("t7", "failed", "lora", f"{DEEP}/x.safetensors is no LoRA."),),
        pid=2**22 + 1,  # above every process
        host=socket.gethostname(),
        command=command,
    )
    (folder / "status.json").write_text(json.dumps(status.as_json()))
    for once in ([], ["--once"]):
        terminal = Terminal(60)
        line = [str(folder), *once]
        assert terminal.start(PROJECT / "watch.py", line, tmp_path).wait(PATIENCE) == 1
        terminal.close()
        said = terminal.text.split("\r\n")
        assert [line for line in said if line.endswith(f"Continue with: {command}")], said
        if once:
            assert str(folder) in said
            assert f"t7: {DEEP}/x.safetensors is no LoRA." in said


def test_a_note_breaks_between_words_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    words = f"B edited by: /models/{DEEP.replace(' ', '-')} with --a-long-option-of-many-words"
    print_note(words)
    said = capsys.readouterr().out.splitlines()
    assert " ".join(said) == words and len(said) > 2


COMMANDS: list[Callable[[Sequence[str]], int]] = [
    apps.tweets.command.main,
    apps.edit_images.command.main,
    apps.edit_benchmark.command.main,
    apps.server.command.main,
    apps.watch.command.main,
    apps.doctor.command.main,
]


@pytest.mark.parametrize("main", COMMANDS, ids=lambda main: main.__module__.split(".")[1])
def test_no_name_is_broken_in_the_help_of_a_narrow_terminal(
    main: Callable[[Sequence[str]], int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def words(columns: int) -> set[str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        with pytest.raises(SystemExit, match="0"):
            main(["--help"])
        return set(capsys.readouterr().out.split())

    assert words(60) == words(400)
