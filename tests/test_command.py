"""The command as a user runs it: exit codes, resume, interrupts, and kills of main itself."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.both_engines import ALWAYS_ON_BOTH, ON_BOTH
from tests.conftest import Project, simulated, wait_until

MANY = 200  # pictures: more than are there by the time that a test has looked
SLOW = simulated(simulated={"seconds_per_megapixel_step": 10.0})  # 0.16 s for 128 x 128


def tweets(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"picture {i}", "width": 128, "height": 128, **fields} for i in range(count)]


def pictures(project: Project) -> dict[str, bytes]:
    """Pixels by file name."""
    return {p.name: Image.open(p).tobytes() for p in sorted(project.pictures.glob("*.png"))}


@ALWAYS_ON_BOTH
def test_a_file_becomes_pictures_and_tables(project: Project) -> None:
    file = project.write_tweets(tweets(3))
    run = project.run([file, 2])
    assert run.process.returncode == 0, run.errors
    assert run.output.splitlines()[0] == "3 tweets: 3 done"
    assert sorted(pictures(project)) == ["tweets_00.png", "tweets_01.png", "tweets_02.png"]
    rows = [json.loads(x) for x in (project.pictures / "metadata.jsonl").read_text().splitlines()]
    assert [r["file_name"] for r in rows] == list(pictures(project))
    assert [r["seed"] for r in rows] == [42, 43, 44]
    assert len({tuple(r) for r in rows}) == 1  # a dataset: the same columns in every row
    assert [r["success"] for r in project.records()] == [True] * 3


@ON_BOTH
def test_the_same_command_again_draws_nothing(project: Project) -> None:
    file = project.write_tweets(tweets(4))
    project.run([file])
    before = {p: p.stat().st_mtime_ns for p in project.pictures.glob("*.png")}
    run = project.run([file])
    assert (run.process.returncode, run.output.splitlines()[0]) == (0, "4 tweets: 4 skipped")
    assert {p: p.stat().st_mtime_ns for p in before} == before


@ON_BOTH
def test_webp_pictures_are_recognised_without_their_ledger(project: Project) -> None:
    file, webp = project.write_tweets(tweets(2)), simulated(workers={"picture_format": "webp"})
    assert project.run([file], webp).process.returncode == 0
    assert sorted(p.name for p in project.pictures.glob("*.png")) == []
    (project.pictures / "ledger.sqlite").unlink()
    run = project.run([file], webp)
    assert run.output.splitlines()[0] == "2 tweets: 2 skipped", run.errors
    assert len(list(project.pictures.glob("*.webp"))) == 2


@ON_BOTH
def test_what_changed_is_drawn_again_and_nothing_else(project: Project) -> None:
    content = tweets(4)
    file = project.write_tweets(content)
    project.run([file])
    before = pictures(project)
    content[2]["prompt"] = "something else"
    project.write_tweets(content)
    (project.pictures / "tweets_01.png").unlink()
    run = project.run([file])
    assert run.output.splitlines()[0] == "4 tweets: 2 done, 2 skipped"
    after = pictures(project)
    assert {name for name in before if before[name] != after[name]} == {"tweets_02.png"}


@ON_BOTH
def test_what_failed_is_tried_again(project: Project) -> None:
    file = project.write_tweets([{"prompt": "a"}, {"prompt": "!nan"}])
    run = project.run([file])
    assert run.process.returncode == 1
    assert [r["status"] for r in project.records()] == ["done", "failed"]
    assert project.run([file]).process.returncode == 1
    assert [r["status"] for r in project.records()] == ["skipped", "failed"]


@ON_BOTH
def test_overwrite_draws_everything_again(project: Project) -> None:
    file = project.write_tweets(tweets(2))
    project.run([file])
    run = project.run([file, "--overwrite"])
    assert run.output.splitlines()[0] == "2 tweets: 2 done"


@ON_BOTH
def test_a_file_of_unknown_origin_is_kept(project: Project) -> None:
    file = project.write_tweets(tweets(2))
    project.pictures.mkdir(parents=True)
    (project.pictures / "tweets_00.png").write_bytes(b"mine")
    for _ in range(2):
        run = project.run([file])
        assert run.process.returncode == 1
        assert "was not made by this program" in str(project.records()[0]["error"])
        assert (project.pictures / "tweets_00.png").read_bytes() == b"mine"
    assert project.run([file, "--overwrite"]).process.returncode == 0


@ON_BOTH
@pytest.mark.parametrize("name", ["metadata.jsonl", "results.jsonl"])
def test_a_table_of_another_program_is_kept(project: Project, name: str) -> None:
    file = project.write_tweets(tweets(1))
    project.pictures.mkdir(parents=True)
    table = project.pictures / name
    table.write_text('{"file_name": "cat.png", "text": "my cat"}\n')
    run = project.run([file])
    assert run.process.returncode == 2 and f"{name} was not made by this program" in run.errors
    assert "cat" in table.read_text() and len(list(project.pictures.iterdir())) == 1
    assert project.run([file, "--overwrite"]).process.returncode == 0
    assert "cat" not in table.read_text()


@ON_BOTH
def test_pictures_are_recognised_without_their_ledger(project: Project) -> None:
    file = project.write_tweets(tweets(3))
    project.run([file])
    (project.pictures / "ledger.sqlite").unlink()
    whole = (project.pictures / "tweets_01.png").read_bytes()
    (project.pictures / "tweets_01.png").write_bytes(whole[:-30])
    run = project.run([file, "--overwrite", "--limit", "2"])
    assert run.output.splitlines()[0] == "2 tweets: 2 done"
    (project.pictures / "ledger.sqlite").unlink()
    run = project.run([file])
    assert run.output.splitlines()[0] == "3 tweets: 3 skipped"


@ON_BOTH
def test_a_folder_may_be_moved_between_runs(project: Project) -> None:
    file = project.write_tweets(tweets(2))
    project.run([file])
    (project.folder / "out").rename(project.folder / "moved")
    (project.folder / "moved").rename(project.folder / "out")
    other = Project(project.folder / "elsewhere", project.workplace)
    other.folder.mkdir()
    (project.folder / "out").rename(other.folder / "out")
    run = other.run([file])
    assert run.output.splitlines()[0] == "2 tweets: 2 skipped"


@ON_BOTH
@pytest.mark.parametrize("killed_after", [1, 5, 12])
def test_kill_9_of_main_costs_no_record(project: Project, killed_after: int) -> None:
    file = project.write_tweets(tweets(16))
    run = project.start([file, 2], SLOW)
    wait_until(lambda: len(list(project.pictures.glob("*.png"))) >= killed_after, "pictures")
    workers = project.workers(run)
    run.process.kill()
    run.finish()
    wait_until(lambda: not any(w.is_running() for w in workers), "the workers' end")
    done = len(pictures(project))
    resumed = project.run([file, 2], SLOW)
    assert resumed.process.returncode == 0, resumed.errors
    counts = Counter(r["status"] for r in project.records())
    assert counts["done"] + counts["skipped"] == 16 and counts["skipped"] >= done - 2
    assert [r["position"] for r in project.records()] == list(range(16))
    assert len(pictures(project)) == 16 and not project.leftovers()


@ALWAYS_ON_BOTH
def test_ctrl_c_once_finishes_what_runs(project: Project) -> None:
    file = project.write_tweets(tweets(MANY))
    run = project.start([file, 2], SLOW)
    wait_until(lambda: pictures(project), "the first picture")
    run.interrupt()
    run.finish()
    assert run.process.returncode == 130
    assert "Traceback" not in run.errors
    assert "Continue later with: " in run.errors and "generate_images_from_tweets.py" in run.errors
    counts = Counter(r["status"] for r in project.records())
    assert counts["interrupted"] > 0 and counts["done"] + counts["interrupted"] == MANY
    assert len(pictures(project)) == counts["done"] and not project.leftovers()
    assert project.run([file]).process.returncode == 0
    assert len(pictures(project)) == MANY


@ALWAYS_ON_BOTH
def test_ctrl_c_twice_stops_at_once(project: Project) -> None:
    content = [{"prompt": "a"}, *({"prompt": "!hang"} for _ in range(5))]
    file = project.write_tweets(content)
    run = project.start([file, 2])
    wait_until(lambda: pictures(project), "the first picture")
    run.interrupt()
    run.interrupt("tweets: ")
    assert run.finish() == 130
    assert "Traceback" not in run.errors
    assert len(project.records()) == 6 and not project.leftovers()


@ON_BOTH
def test_a_second_run_on_the_folder_is_refused(project: Project) -> None:
    file = project.write_tweets([{"prompt": "!hang"}])
    first = project.start([file, 1])
    wait_until(lambda: project.workers(first), "the first run")
    second = project.run([file, 1])  # on a cluster, too, another device is free
    assert second.process.returncode == 2
    assert f"in use by another run (pid {first.process.pid}" in second.errors


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("{", [], "not valid JSON"),
        ("[]", [], "holds no tweets"),
        ('[{"prompt": "a"}]', ["0"], "must be 1 or more"),
        ('[{"prompt": "a"}]', ["2", "--gpu-ids", "0,1"], "either NUM_GPUS or --gpu-ids"),
        ('[{"prompt": "a"}]', ["--gpu-ids", "0,0"], "given twice"),
        ('[{"prompt": "a"}]', ["--model", "/no/such/folder"], "not a diffusers model folder"),
        ('[{"prompt": "a"}]', ["--model", "no such model"], "neither an existing folder nor"),
        ('[{"prompt": "a"}]', ["--seed", "-2"], "or -1 for a random one"),
        ('[{"prompt": "a"}]', ["--limit", "0"], "expected a number of 1 or more"),
        ('[{"prompt": "a"}]', ["--gpu-ids", "a"], "expected ids like 0,2,4"),
    ],
)
def test_unusable_input_is_one_line_and_exit_2(
    project: Project, content: str, arguments: list[str], message: str
) -> None:
    run = project.run([project.write_tweets(content), *arguments])
    assert run.process.returncode == 2
    assert message in run.errors and "Traceback" not in run.errors


@ON_BOTH
def test_an_output_folder_that_cannot_be_written_is_exit_2(project: Project) -> None:
    (project.folder / "out").write_text("a file in the way")
    run = project.run([project.write_tweets(tweets(1))])
    assert run.process.returncode == 2
    assert "Not a directory" in run.errors and "Traceback" not in run.errors


def test_help_says_what_a_newcomer_needs(project: Project) -> None:
    run = project.run(["--help"])
    assert run.process.returncode == 0
    for word in ("NUM_GPUS", "--gpu-ids", "--overwrite", "examples:", "exit codes", "CPU workers"):
        assert word in run.output


def test_paths_with_spaces_and_any_script_work(project: Project) -> None:
    folder = project.folder / "tweets von Zoë 星"
    folder.mkdir()
    file = folder / "tweets.json"
    file.write_text(json.dumps(tweets(1)))
    assert project.run([file]).process.returncode == 0


@ON_BOTH
def test_relative_loras_are_found_beside_the_tweets_then_in_the_lora_folder(
    project: Project,
) -> None:
    from tests.conftest import write_safetensors

    (project.folder / "beside").mkdir()
    (project.folder / "shelf").mkdir()
    write_safetensors(project.folder / "near.safetensors", "near.lora_A")
    write_safetensors(project.folder / "shelf" / "far.safetensors", "far.lora_A")
    content = [
        {"prompt": "a", "lora_path": "near.safetensors"},
        {"prompt": "b", "lora_path": "far.safetensors"},
        {"prompt": "c", "lora_path": "nowhere.safetensors"},
    ]
    file = project.write_tweets(content)
    run = project.run([file], simulated(lora_dir=str(project.folder / "shelf")))
    assert run.process.returncode == 1
    assert [r["status"] for r in project.records()] == ["done", "done", "failed"]


@ON_BOTH
def test_a_full_disk_leaves_no_partial_file(project: Project) -> None:
    file = project.write_tweets([{"prompt": "!disk-full"}, *tweets(5)])
    run = project.run([file, 1], SLOW)
    assert run.process.returncode == 1
    assert "No space left on device" in run.errors and not project.leftovers()


@pytest.mark.slow
@ON_BOTH
def test_ten_thousand_tweets_are_planned_at_once(project: Project, tmp_path: Path) -> None:
    file = project.write_tweets(tweets(10_000))
    run = project.start([file, 2], SLOW)
    wait_until(lambda: pictures(project), "the first picture")
    run.interrupt()
    assert run.finish() == 130
    assert len(project.records()) == 10_000
