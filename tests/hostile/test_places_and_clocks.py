"""Odd places, a moved folder, two runs at once, and a clock that jumps."""

import ast
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.multi_gpu_image_generator import MultiGPUImageGenerator
from tests.conftest import PROJECT, Project, simulated
from tests.hostile.faults import STARTUP
from tests.hostile.world import FULL, PICTURES, finish_run, folder_in_memory, replan
from tests.inline_backend import InlineBackend

TWEETS = [{"prompt": f"p{i}"} for i in range(4)]
YEARS = 10 * 365 * 86_400
ODD_NAMES = [
    "with  spaces ", "new\nline", "tab\tand\x1b[31mcolour", "Zoë 星 \U0001f600", "e\u0301",
    "'\"`$(x)",
    "-dash", "%s{0}[x]", "percent%20#?&mode=ro", "\u202eright to left", "x" * 250,
]  # fmt: skip


@pytest.fixture
def inline() -> Iterator[Path]:
    """A folder for runs without processes."""
    with folder_in_memory() as folder:
        yield folder


def draw(folder: Path, tweets: Path) -> int:
    from apps.tweets.command import main

    config = folder / "settings.yaml"
    config.write_text("model: simulated\n")
    line = [str(tweets), "1", "--config", str(config), "--output-dir", str(folder / "out")]
    return main(line, backend=InlineBackend())


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_any_name_of_a_folder_works(
    inline: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = inline / name
    folder.mkdir()
    tweets = folder / "tweets.json"
    tweets.write_text('[{"prompt": "a"}, {"prompt": "b"}]')
    assert draw(folder, tweets) == 0, capfd.readouterr().err
    assert draw(folder, tweets) == 0
    assert "2 skipped" in capfd.readouterr().out
    (folder / "out" / "tweets" / "ledger.sqlite").write_bytes(b"damaged")
    assert draw(folder, tweets) == 0
    captured = capfd.readouterr()
    assert "2 skipped" in captured.out and "\x1b[31mcolour" not in captured.err + captured.out
    assert draw(folder, folder / "absent.json") == 2
    assert len(capfd.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("name", ["new\nline", "not UTF-8 \udcff"], ids=ascii)
def test_a_persona_file_of_any_name_works(inline: Path, name: str) -> None:
    tweets = inline / f"{name}.json"
    tweets.write_text('[{"prompt": "a"}, {}]')
    assert draw(inline, tweets) == 1
    assert draw(inline, tweets) == 1


def test_a_folder_that_is_no_utf8_is_refused_in_one_line(
    inline: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = inline / "\udcff"
    folder.mkdir()
    (folder / "tweets.json").write_text('[{"prompt": "a"}]')
    assert draw(folder, folder / "tweets.json") == 2
    errors = capfd.readouterr().err
    assert len(errors.splitlines()) == 1 and "output_dir" in errors
    assert not (folder / "out").exists()


def test_odd_places_work_with_processes(project: Project) -> None:
    odd = Project(project.folder / "new\nline 星")
    odd.folder.mkdir()
    run = odd.run([odd.write_tweets(TWEETS), 2])
    assert run.process.returncode == 0, run.errors
    assert [r["success"] for r in odd.records()] == [True] * 4


def test_a_moved_folder_keeps_its_results(tmp_path: Path) -> None:
    with folder_in_memory() as folder:
        run = finish_run(folder / "run")
        moved = (folder / "run").rename(folder / "moved elsewhere")
        assert replan(moved)["skipped"] == PICTURES
        for file in moved.glob("ledger*"):
            if file.suffix != ".lock":
                file.unlink()
        moved_again = moved.rename(folder / "again")
        assert replan(moved_again)["skipped"] == PICTURES
        (moved_again / "ledger.sqlite").write_bytes(run.ledger[:-100])
        assert replan(moved_again.rename(folder / "last"))["skipped"] == PICTURES


def test_of_two_runs_at_once_one_draws_and_one_is_told(project: Project) -> None:
    file = project.write_tweets(TWEETS)
    slow = simulated(simulated={"seconds_per_megapixel_step": 125.0})  # 0.5 s a picture
    runs = [project.start([file, 1], slow) for _ in range(2)]
    codes = sorted(run.finish() for run in runs)
    assert codes in ([0, 2], [0, 0]), [run.errors for run in runs]  # or one after the other
    if codes == [0, 2]:
        assert sum("in use by another run" in run.errors for run in runs) == 1
    assert [r["success"] for r in project.records()] == [True] * 4
    assert not any("Traceback" in run.errors for run in runs)


def test_runs_without_a_folder_never_share_one(inline: Path) -> None:
    made = set()
    for _ in range(5):  # within one second
        generator = MultiGPUImageGenerator(
            1, config=simulated(output_dir=str(inline)), backend=InlineBackend()
        )
        made |= {r["output_path"] for r in generator.generate_batch([{"prompt": "a"}])}
        generator.stop()
    assert len(made) == 5 and all(Path(str(f)).is_file() for f in made)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [YEARS, -YEARS])
def test_a_jumping_clock_changes_nothing(
    project: Project, seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(STARTUP))
    monkeypatch.setenv("JUMPING_CLOCK", str(seconds))
    times = {"seconds_per_megapixel_step": 50.0}  # 0.2 s a picture
    run = project.run([project.write_tweets(TWEETS), 2], simulated(simulated=times))
    assert run.process.returncode == 0 and "longer than allowed" not in run.errors, run.errors
    again = project.run([project.folder / "tweets.json", 2], simulated(simulated=times))
    assert again.output.splitlines()[0] == "4 tweets: 4 skipped"


def test_the_wall_clock_is_for_records_alone() -> None:
    """Deadlines are of the monotonic clock: only these files may ask what time it is.

    The daemon may: it tells callers Unix times, and what it keeps expires across its restarts. So
    may what tells others how a run stands: they have no part in this process's other clock.
    """
    told = ("apps/server", "apps/openai_images", "apps/watch", "apps/json_events.py")
    asking = {
        file.name
        for folder in ("core", "apps", "workers")
        for file in (PROJECT / folder).rglob("*.py")
        if not file.relative_to(PROJECT).as_posix().startswith(told)
        for text in [file.read_text("utf-8")]
        if "time.time" in text or "datetime.now" in text  # others need no parser
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) in {("time", "time"), ("datetime", "now")}
    }
    # They say when what they show was so.
    shown = {"states.py", "two_runs.py", "writer.py", "tracker.py"}
    servers = {"endpoint.py"}  # a server may say with a date when it wants to be asked again
    assert asking == {"ledger.py", "ledger_recovery.py", *shown, *servers}


@pytest.mark.skipif(not FULL, reason="loads a real pipeline; CHAOS=full")
def test_a_model_folder_may_be_read_only(project: Project, tiny_model: Path) -> None:
    model = project.folder / "model"
    model.mkdir()
    for options in (["--bind", str(tiny_model), str(model)], ["-o", "remount,bind,ro", str(model)]):
        if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
            pytest.skip("this user may not mount")
    try:
        assert not os.access(model, os.W_OK)
        tweet = {"prompt": "a red house", "width": 64, "height": 64, "num_inference_steps": 1}
        run = project.run([project.write_tweets([tweet]), 1], {"model": str(model)})
        assert run.process.returncode == 0, run.errors
    finally:
        subprocess.run(["umount", "--lazy", model], check=True)
