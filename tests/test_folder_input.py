"""An output folder remembers its input, and another input does not replace its results."""

import gc
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core.multi_gpu_image_generator import MultiGPUImageGenerator
from tests.conftest import Project
from tests.edit_world import Bench, pair
from tests.inline_command import InlineCommand, prompts

ALICE = [{"prompt": "a red house on grass", "seed": 1}]
BOB = [{"prompt": "a blue tree on sand", "seed": 1}]


@pytest.fixture
def command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> InlineCommand:
    return InlineCommand(tmp_path, capfd)


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file with its time."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def test_two_files_of_one_name_do_not_share_a_folder(command: InlineCommand) -> None:
    alice, bob = command.write("alice/tweets.json", ALICE), command.write("bob/tweets.json", BOB)
    assert command.run(alice)[0] == 0
    before = snapshot(command.out)
    code, errors = command.run(bob)
    assert code == 2
    [line] = errors.splitlines()
    assert str(alice) in line and str(bob) in line
    assert "--name bob_tweets" in line and "--output-dir" in line
    assert snapshot(command.out) == before, "a refused run touches nothing"
    assert command.run(bob, "--name", "bob_tweets")[0] == 0
    assert prompts(command.out) == {
        "tweets/tweets_00.png": ALICE[0]["prompt"],
        "bob_tweets/tweets_00.png": BOB[0]["prompt"],
    }
    assert command.run(alice)[0] == command.run(bob, "--name", "bob_tweets")[0] == 0
    assert command.run(alice, "--name", "bob_tweets")[0] == 2


def test_no_worker_starts_for_a_refused_input(project: Project) -> None:
    (project.folder / "bob").mkdir()
    project.run([project.write_tweets(ALICE)])
    run = project.run([project.write_tweets(BOB, "bob/tweets.json")])
    assert run.process.returncode == 2
    assert len(run.errors.splitlines()) == 1 and "Traceback" not in run.errors


def test_other_names_that_come_to_one_folder_are_refused_too(command: InlineCommand) -> None:
    first = command.write("my tweets.json", ALICE)
    assert command.run(first)[0] == 0
    folder = next(p for p in command.out.iterdir())
    code, errors = command.run(command.write("other.json", BOB), "--name", folder.name)
    assert code == 2 and "my tweets.json" in errors


def test_an_input_edited_in_place_is_the_same(command: InlineCommand) -> None:
    file = command.write("tweets.json", ALICE)
    command.run(file)
    for content in (BOB, ALICE + BOB, BOB):
        assert command.run(command.write("tweets.json", content))[0] == 0
    assert command.run(file, "--limit", "1", "--prompt-from", "prompt", "--seed", "3")[0] == 0


def test_an_input_that_moved_is_the_same(command: InlineCommand) -> None:
    first = command.write("here/tweets.json", ALICE)
    command.run(first)
    there = command.folder / "there"
    first.parent.rename(there)
    assert "1 unchanged" in command.plan(there / "tweets.json")
    command.write("there/tweets.json", BOB)  # it is known at its new place now
    assert command.run(there / "tweets.json")[0] == 0
    os.symlink(there, command.folder / "link")
    command.write("there/tweets.json", ALICE)
    assert command.run(command.folder / "link" / "tweets.json")[0] == 0


def test_a_project_moved_with_its_outputs_goes_on(command: InlineCommand) -> None:
    command.write("project/tweets.json", ALICE)
    project = command.folder / "project"
    command.out = project / "out"
    command.run(project / "tweets.json")
    moved = project.rename(command.folder / "moved")
    command.out = moved / "out"
    assert command.run(command.write("moved/tweets.json", ALICE + BOB))[0] == 0


def test_a_copy_counts_as_the_input_only_while_it_is_equal(command: InlineCommand) -> None:
    alice, copy = (command.write(f"{name}/tweets.json", ALICE) for name in ("alice", "copy"))
    command.run(alice)
    assert "1 unchanged" in command.plan(copy)
    command.write("copy/tweets.json", BOB)
    assert command.run(copy)[0] == 2
    command.write("alice/tweets.json", BOB + ALICE)
    assert command.run(alice)[0] == 0


def test_a_lost_or_damaged_ledger_does_not_make_the_folder_forget(command: InlineCommand) -> None:
    alice, bob = command.write("alice/tweets.json", ALICE), command.write("bob/tweets.json", BOB)
    command.run(alice)
    ledger = command.out / "tweets" / "ledger.sqlite"
    ledger.write_bytes(ledger.read_bytes()[:100])
    assert command.run(bob)[0] == 2
    ledger.unlink()
    assert command.run(bob)[0] == 2
    assert "1 unchanged" in command.plan(alice)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"path": 1}', "null", '{"path": "/x"}'])
def test_a_folder_from_before_adopts_its_own_input(command: InlineCommand, damage: str) -> None:
    file = command.write("tweets.json", ALICE + BOB)
    command.run(file)
    record = command.out / "tweets" / ".input.json"
    record.write_text(damage)
    # Settings may have changed since; its prompts tell the input.
    assert "2 changed" in command.plan(file, defaults={"num_inference_steps": 4})
    assert json.loads(record.read_text())["path"] == str(file)


def test_a_folder_from_before_is_not_adopted_by_strangers(command: InlineCommand) -> None:
    alice, bob = command.write("alice/tweets.json", ALICE), command.write("bob/tweets.json", BOB)
    command.run(alice)
    (command.out / "tweets" / ".input.json").unlink()
    code, errors = command.run(bob)
    assert code == 2 and "of other prompts" in errors and str(bob) in errors
    assert prompts(command.out) == {"tweets/tweets_00.png": ALICE[0]["prompt"]}
    assert command.run(alice)[0] == 0
    assert command.run(bob)[0] == 2


def test_overwrite_takes_the_folder_over(command: InlineCommand) -> None:
    alice, bob = command.write("alice/tweets.json", ALICE), command.write("bob/tweets.json", BOB)
    command.run(alice)
    assert command.run(bob, "--overwrite")[0] == 0
    assert prompts(command.out) == {"tweets/tweets_00.png": BOB[0]["prompt"]}
    assert not (command.out / "tweets" / ".replaced").exists()
    assert command.run(bob)[0] == 0
    assert command.run(alice)[0] == 2


def test_a_pipe_is_not_the_input_of_a_folder_that_has_one(command: InlineCommand) -> None:
    pipe = command.folder / "pipe"
    os.mkfifo(pipe)

    def run_piped(content: object, *arguments: str) -> tuple[int, str]:
        with ThreadPoolExecutor() as writers:
            writers.submit(pipe.write_text, json.dumps(content))
            return command.run(pipe, *arguments)

    assert run_piped(ALICE)[0] == 0
    assert run_piped(ALICE + BOB)[0] == 0, "it continues"
    code, errors = run_piped([{"prompt": "something else"}])
    assert code == 2 and f"of other prompts, not of {pipe}" in errors
    command.run(command.write("tweets.json", ALICE))
    assert run_piped(ALICE, "--name", "tweets")[0] == 2


@pytest.mark.parametrize(
    "name", ["", " ", ".", "..", "a/b", "/a", "a\\b", ".hidden", "a\nb", " a", "x" * 256, "य" * 86]
)
def test_a_name_that_is_no_folder_name_is_one_error(command: InlineCommand, name: str) -> None:
    code, errors = command.run(command.write("tweets.json", ALICE), f"--name={name}")
    assert code == 2 and "argument --name" in errors.splitlines()[-1]
    assert not command.out.exists()


@pytest.mark.parametrize("name", ["trial 2", "प्रिया", "a.b", "-"])
def test_any_plain_name_is_a_folder(command: InlineCommand, name: str) -> None:
    assert command.run(command.write("tweets.json", ALICE), f"--name={name}")[0] == 0
    assert (command.out / name / "tweets_00.png").exists()


def test_python_may_say_where_its_tasks_come_from(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.json", "b.json")]
    for file, tasks in zip(files, (ALICE, BOB), strict=True):
        file.write_text(json.dumps(tasks))

    def generator(file: Path, overwrite: bool = False) -> MultiGPUImageGenerator:
        return MultiGPUImageGenerator(
            1,
            config={"model": "simulated"},
            output_dir=tmp_path / "out",
            input_file=file,
            overwrite=overwrite,
        )

    generator(files[0]).prepare(ALICE, [])
    with pytest.raises(Exception, match=r"holds the results of .*a\.json, not of .*b\.json"):
        generator(files[1]).prepare(BOB, [])
    generator(files[1], overwrite=True).prepare(BOB, [])


def test_a_generator_that_is_dropped_frees_its_folder(tmp_path: Path) -> None:
    """At once, not when Python comes to look for cycles."""
    gc.disable()
    try:
        for _ in range(2):
            config = {"model": "simulated"}
            MultiGPUImageGenerator(1, config=config, output_dir=tmp_path / "out").prepare(ALICE, [])
    finally:
        gc.enable()


def test_two_data_sets_of_one_name_do_not_share_a_folder(project: Project) -> None:
    bench = Bench(project)
    bench.write_pairs([pair(0)])
    assert bench.run().process.returncode == 0
    before = snapshot(bench.results)
    other = project.folder / "other" / "pairs"
    shutil.copytree(bench.data, other)
    (other / "000.png").write_bytes((bench.data / "000.png").read_bytes()[:-1] + b"x")
    run = bench.run("--data", str(other))
    assert run.process.returncode == 2
    [line] = run.errors.splitlines()
    assert str(bench.data) in line and str(other) in line and "--name other_pairs" in line
    assert snapshot(bench.results) == before
    shutil.copy(bench.data / "000.png", other / "000.png")
    run = bench.run("--data", str(other), "--limit", "1", "--categories", "sky")
    assert run.process.returncode == 0, "data with the same content is the same"
    assert bench.run("--data", str(other), "--name", "another").process.returncode == 0
    assert (project.folder / "out" / "another" / "edits").is_dir()
