"""Commands on a warm daemon: what they make and say is as without it."""

import hashlib
import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.ExifTags import Base

from apps.edit_images.command import main as edit_images
from core.errors import InputError
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.remote.protocol import PROTOCOL
from core.remote.socket_place import FOLDER, NAME
from core.store.provenance import read_provenance
from tests.conftest import (
    HELD,
    Project,
    Run,
    found_below,
    going_on,
    simulated,
    standing_still,
    wait_until,
    write_safetensors,
)
from tests.edit_world import Bench, pair
from tests.server.conftest import Daemon

SMALL = {"width": 64, "height": 64, "num_inference_steps": 1}
SLOW = {"seconds_per_megapixel_step": 75.0}  # 0.3 s for 64 x 64 pixels and one step
ONE_JOB = 16  # tasks at the most that a daemon is handed in one job, and has done in their order
LOADING = {"load_seconds": 60.0}  # of the commands' own workers, which are not to be started
OF_ONE_RUN = ("elapsed", "worker", "updated", "batch", "edit_seconds", "score_seconds", "sha256")
OF_A_WORKER = ("pid", "visible_devices")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One fast daemon with two workers that draw, edit and score."""
    roles = {"editor": {"model": "simulated"}, "judge": {"model": "simulated"}}
    folder = tmp_path_factory.mktemp("daemon")
    (folder / "loras").mkdir()
    write_safetensors(folder / "loras" / "snow.safetensors")
    once = {"speculative_copies": False}  # so that attempts can be counted on
    daemon = Daemon(folder, lora_dir=str(folder / "loras"), scheduling=once, **roles)
    yield daemon.start("--gpu-ids", "0,1").found()
    daemon.end()


@pytest.fixture
def lora(shared: Daemon, tmp_path: Path) -> Path:
    """This side's own copy of a LoRA that the daemon knows."""
    there = shared.folder / "loras" / "snow.safetensors"
    (tmp_path / "mine").mkdir()
    return Path(shutil.copy(there, tmp_path / "mine"))


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon with one worker, slow enough to be met in the middle of its work."""
    (tmp_path / "daemon").mkdir()
    daemon = Daemon(tmp_path / "daemon", simulated=SLOW)
    yield daemon.start().found()
    daemon.end()


def start(project: Project, daemon: Daemon | None, *arguments: str, **changes: Any) -> Run:
    """Start the tweets command beside a daemon, or where none can be found."""
    project.environment = {"XDG_RUNTIME_DIR": str(daemon.runtime)} if daemon else {}
    loading = {"simulated": LOADING} if daemon else {}
    return project.start(["tweets.json", *arguments], simulated(**loading, **changes))


def run(project: Project, daemon: Daemon | None, *arguments: str, **changes: Any) -> int:
    started = start(project, daemon, *arguments, **changes)
    code = started.finish()
    used = "has loaded" in started.errors
    assert used == (daemon is not None), started.errors
    return code


def tweets(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"house {n}", **SMALL, **fields} for n in range(count)]


def tweets_held(count: int, place: int) -> list[dict[str, Any]]:
    """Tweets of which one stands still on its worker, until the test has it go on."""
    given = tweets(count)
    given[place]["prompt"] = f"{HELD} {given[place]['prompt']}"
    return given


def ledger(folder: Path) -> list[dict[str, Any]]:
    """The rows of an output folder's record, without what differs from run to run."""
    with sqlite3.connect(f"file:{folder}/ledger.sqlite?mode=ro", uri=True) as db:
        db.row_factory = sqlite3.Row
        rows = [dict(row) for row in db.execute("SELECT * FROM tasks ORDER BY position")]
    for row in rows:
        row["used"] = without_the_worker(json.loads(row["used"]))
        data = (folder / row["output_path"]).read_bytes() if row["state"] == "done" else None
        size, sha256 = row.pop("size"), row.pop("sha256")  # with the worker's name in the file
        assert size == (data and len(data))
        assert sha256 == (data and hashlib.sha256(data).hexdigest())
    return [without_the_run(row) for row in rows]


def without_the_run(record: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in record.items() if k not in OF_ONE_RUN}


def without_the_worker(used: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in used.items() if k not in OF_A_WORKER}


def pictures(folder: Path) -> dict[str, Any]:
    """What each picture shows and says, without the worker's name."""
    found = {}
    for name in sorted(contents(folder, ".png", ".webp", ".jpg")):
        told = read_provenance(folder / name)
        told["used"] = without_the_worker(told["used"])
        with Image.open(folder / name) as image:
            texts = [value for key, value in image.info.items() if key == "parameters"]
            comment = image.getexif().get_ifd(Base.ExifOffset).get(Base.UserComment)
            found[name] = told, texts, comment, image.format, image.size, image.tobytes()
    return found


def contents(folder: Path, *endings: str) -> dict[str, bytes]:
    files = (f for e in endings for f in folder.rglob(f"*{e}") if ".replaced" not in f.parts)
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}


def test_pictures_and_records_are_the_same_with_and_without_a_daemon(
    shared: Daemon, project: Project
) -> None:
    """Names, text, notes, seeds at random, failures and refusals included."""
    project.write_tweets(
        [
            {"prompt": "a house", **SMALL},
            {
                "prompt": "ein Häuschen 🏠",
                "output_path": "sub/x.webp",
                "metadata": {"a": "é"},
                **SMALL,
            },
            {"prompt": "!nan", **SMALL},
            {"prompt": "a tree", "seed": 2**64 - 1, "task_id": "tree", **SMALL},
            {"prompt": "", **SMALL},
            {"prompt": "!error:1 once", "negative_prompt": "fog", **SMALL},
            {"prompt": "a lake", "output_path": "lake.jpg", "picture_quality": 70, **SMALL},
        ]
    )
    assert run(project, shared) == 1
    folder = project.pictures
    with_daemon = pictures(folder), ledger(folder), project.records()
    metadata = (folder / "metadata.jsonl").read_text("utf-8")
    folder.rename(project.folder / "with")
    assert run(project, None) == 1
    assert pictures(folder) == with_daemon[0]
    assert len(with_daemon[0]) == 5
    assert ledger(folder) == with_daemon[1]
    assert [*map(without_the_run, project.records())] == [*map(without_the_run, with_daemon[2])]
    named = [
        [without_the_run(json.loads(line)) for line in text.splitlines()]
        for text in (metadata, (folder / "metadata.jsonl").read_text("utf-8"))
    ]
    assert named[0] == named[1]
    assert not project.leftovers()


def test_the_daemon_keeps_nothing_of_what_a_command_has_fetched(
    shared: Daemon, project: Project
) -> None:
    project.write_tweets(tweets(20))
    assert run(project, shared) == 0
    assert len(contents(project.pictures, ".png")) == 20
    wait_until(lambda: not found_below(shared.output, "*.png"), "the end of the daemon's copies")
    with shared.client() as client:
        assert client.get("/v1/jobs").json()["data"] == []


def test_a_run_goes_on_with_and_without_the_daemon(shared: Daemon, project: Project) -> None:
    project.write_tweets(tweets(9))
    assert run(project, shared, "--limit", "3") == 0
    first = contents(project.pictures, ".png")
    assert run(project, None, "--limit", "6") == 0
    assert run(project, shared) == 0
    statuses = [record["status"] for record in project.records()]
    assert statuses == ["skipped"] * 6 + ["done"] * 3
    assert first.items() < contents(project.pictures, ".png").items()
    assert not (project.pictures / ".replaced").exists()


def test_ctrl_c_finishes_what_runs_and_the_command_goes_on_later(
    slow: Daemon, project: Project
) -> None:
    project.write_tweets(tweets_held(ONE_JOB, 3))
    started = start(project, slow)
    wait_until(lambda: f"[2/{ONE_JOB}]" in started.errors, "two pictures")
    wait_until(lambda: standing_still(slow.workers()), "the worker of another one")
    started.interrupt()
    with slow.client() as client:  # until the daemon was told

        def is_told() -> bool:
            return all(job.get("cancelling") for job in client.get("/v1/jobs").json()["data"])

        wait_until(is_told, "its cancelling")
    with going_on(slow.workers):
        assert started.finish() == 130
    done = len(contents(project.pictures, ".png"))
    statuses = [record["status"] for record in project.records()]
    assert 2 <= done < ONE_JOB
    assert statuses.count("done") == done and statuses.count("interrupted") == ONE_JOB - done
    assert "Continue later with" in started.errors
    assert not project.leftovers()
    with slow.client() as client:
        wait_until(lambda: not client.get("/v1/jobs").json()["data"], "the end of its job")
    assert run(project, slow, "--limit", str(done + 2)) == 0
    assert [r["status"] for r in project.records()] == ["skipped"] * done + ["done"] * 2


def test_ctrl_c_twice_ends_at_once(slow: Daemon, project: Project) -> None:
    project.write_tweets(tweets_held(3, 0))
    started = start(project, slow)
    wait_until(
        lambda: ".partial" in str(os.listdir(slow.output)) or _runs(slow), "a task that runs"
    )
    started.interrupt()
    os.killpg(started.process.pid, signal.SIGINT)
    assert started.finish() == 130
    assert [r["status"] for r in project.records()] == ["interrupted"] * 3
    assert not project.leftovers()


def _runs(daemon: Daemon) -> Any:
    with daemon.client() as client:
        jobs = client.get("/v1/jobs").json()["data"]
        return any(job.get("running") for job in jobs)


def test_a_killed_daemon_that_comes_back_costs_a_command_nothing(
    slow: Daemon, project: Project
) -> None:
    project.write_tweets(tweets_held(12, 4))
    started = start(project, slow)
    wait_until(lambda: "[3/12]" in started.errors, "three pictures")
    slow.kill()
    wait_until(lambda: "does not answer" in started.errors, "the command's notice")
    slow.start()
    with going_on(slow.workers):
        assert started.finish() == 0, started.errors
    assert [r["status"] for r in project.records()] == ["done"] * 12
    assert started.errors.count("] tweets_") == 12, started.errors
    assert started.errors.count("The server is there again.") == 1, started.errors
    assert not project.leftovers()


def test_a_daemon_that_stays_away_ends_a_command_with_what_it_has(
    slow: Daemon, project: Project
) -> None:
    project.write_tweets(tweets_held(ONE_JOB, 4))
    started = start(project, slow, server_timeout=1.5)
    wait_until(lambda: f"[3/{ONE_JOB}]" in started.errors, "three pictures")
    slow.kill()
    assert started.finish() == 1, started.errors
    assert "does not answer" in started.errors and "it has 1.5 s to come back" in started.errors
    assert f"The server at {slow.runtime / FOLDER / NAME} is gone" in started.errors
    assert "is there again" not in started.errors
    assert "Traceback" not in started.errors and "defect" not in started.errors
    before = contents(project.pictures, ".png")
    records = project.records()
    statuses = [record["status"] for record in records]
    assert 3 <= len(before) < ONE_JOB
    assert statuses == ["done"] * len(before) + ["interrupted"] * (ONE_JOB - len(before))
    errors = {record["error"] for record in records if record["status"] == "interrupted"}
    assert errors == {"Not finished: the server went away. Run again to continue."}
    assert not project.leftovers()
    slow.start().found()
    with going_on(slow.workers):
        assert run(project, slow, "--limit", str(len(before) + 1)) == 0
    statuses = [record["status"] for record in project.records()]
    assert statuses == ["skipped"] * len(before) + ["done"]
    assert before.items() <= contents(project.pictures, ".png").items()


def test_a_killed_command_goes_on_where_it_was(slow: Daemon, project: Project) -> None:
    project.write_tweets(tweets(8))
    started = start(project, slow)
    wait_until(lambda: "[3/8]" in started.errors, "three pictures")
    started.process.kill()
    started.finish()
    before = contents(project.pictures, ".png")
    assert len(before) >= 3
    assert run(project, slow) == 0
    statuses = [record["status"] for record in project.records()]
    assert statuses.count("skipped") == len(before)
    assert statuses.count("done") == 8 - len(before)
    assert not project.leftovers()


def test_what_the_daemon_does_not_have_is_done_without_it(shared: Daemon, project: Project) -> None:
    project.write_tweets(tweets(1))
    project.environment = {"XDG_RUNTIME_DIR": str(shared.runtime)}
    started = project.start(["tweets.json"], simulated(dtype="float16"))
    assert started.finish() == 0
    assert "is not used: the server" in started.errors
    assert "dtype auto, and the settings ask for float16" in started.errors
    assert "as asked for" in started.errors


def test_a_named_server_serves_what_is_asked_for_or_nothing(
    shared: Daemon, project: Project
) -> None:
    project.write_tweets(tweets(2))
    refused = project.run(["tweets.json", "--server", shared.url], simulated(dtype="float16"))
    assert refused.process.wait() == 2
    assert "use_server: the server at" in refused.errors and "Traceback" not in refused.errors
    nobody = project.run(["tweets.json", "--server", "http://127.0.0.1:9"], simulated())
    assert nobody.process.wait() == 2
    assert "no server answers" in nobody.errors
    served = project.run(["tweets.json", "--server", shared.url], simulated(simulated=LOADING))
    assert served.process.wait() == 0, served.errors
    assert len(contents(project.pictures, ".png")) == 2


def test_a_left_over_socket_is_no_daemon(tmp_path: Path, project: Project) -> None:
    daemon = Daemon(tmp_path)
    daemon.start().found()
    daemon.kill()
    assert list(daemon.runtime.rglob("*.sock"))
    project.write_tweets(tweets(1))
    project.environment = {"XDG_RUNTIME_DIR": str(daemon.runtime)}
    started = project.start(["tweets.json"])
    assert started.finish() == 0
    assert "server" not in started.errors
    daemon.end()


def test_a_benchmark_has_the_same_scores_with_and_without_a_daemon(
    shared: Daemon, project: Project
) -> None:
    bench = Bench(project)
    bench.write_pairs([pair(n) for n in range(4)] + [pair(4, "!nan")])
    seen = []
    for daemon in (shared, None):
        project.environment = {"XDG_RUNTIME_DIR": str(daemon.runtime)} if daemon else {}
        started = bench.start(**({"simulated": LOADING} if daemon else {}))
        assert started.finish() == 1, started.errors
        assert ("has loaded" in started.errors) == (daemon is not None)
        lines = (bench.results / "results.jsonl").read_text("utf-8").splitlines()
        records = [without_the_run(json.loads(line)) for line in lines]
        edits = pictures(bench.results / "edits")
        verdicts = sorted(contents(bench.results, ".json"))
        seen.append((records, edits, verdicts, started.output))
        bench.results.rename(project.folder / f"results-{len(seen)}")
    assert seen[0] == seen[1]


def test_commands_share_the_daemon_fairly(slow: Daemon, project: Project, tmp_path: Path) -> None:
    """A second command is not kept waiting by all that an earlier one has handed in."""
    project.write_tweets(tweets(60))
    first = start(project, slow)
    wait_until(lambda: "[1/60]" in first.errors, "a picture of the first")
    (tmp_path / "second").mkdir()
    other = Project(tmp_path / "second")
    other.write_tweets(tweets(6))
    assert run(other, slow) == 0
    done = len(contents(project.pictures, ".png"))
    first.interrupt()
    first.finish()
    assert 5 <= done <= 30


def test_python_has_all_kinds_of_task_done_by_a_server_elsewhere(
    shared: Daemon, tmp_path: Path, lora: Path
) -> None:
    """Pictures are sent there; LoRAs are known there by name, and checked by their content."""
    source = tmp_path / "source.png"
    Image.new("RGB", (64, 48), (9, 80, 40)).save(source)
    tasks: list[dict[str, Any]] = [
        {"prompt": "a house", "lora_path": str(lora), **SMALL},
        {"instruction": "make it night", "source_images": [str(source)], "num_inference_steps": 1},
        {
            "instruction": "make it night",
            "source_images": [str(source)],
            "edited_image": str(source),
        },
        {"prompt": "!nan", **SMALL},
        {"prompt": "a house", "lora_path": str(tmp_path / "none.safetensors"), **SMALL},
    ]
    roles = {"editor": {"model": "simulated"}, "judge": {"model": "simulated"}}
    statuses = []
    for name, place in (("with", shared.url), ("without", "never")):
        settings = simulated(use_server=place, simulated=LOADING if name == "with" else {}, **roles)
        with MultiGPUImageGenerator(config=settings, output_dir=tmp_path / name) as generator:
            statuses.append([(r.status, r.error, r.cause) for r in generator.generate_batch(tasks)])
    assert statuses[0] == statuses[1]
    assert [status for status, _, _ in statuses[0]] == ["done"] * 3 + ["failed"] * 2
    assert pictures(tmp_path / "with") == pictures(tmp_path / "without")
    assert ledger(tmp_path / "with") == ledger(tmp_path / "without")
    with shared.client() as client:
        assert client.get("/v1/files").json()["data"] == []


def test_another_lora_of_the_name_is_not_taken_for_ones_own(
    shared: Daemon, tmp_path: Path, lora: Path
) -> None:
    other = write_safetensors(tmp_path / lora.name, "y.lora_A.weight")
    settings = simulated(use_server=shared.url)
    with MultiGPUImageGenerator(config=settings, output_dir=tmp_path / "out") as generator:
        (result,) = generator.generate_batch([{"prompt": "x", "lora_path": str(other), **SMALL}])
    assert result.status == "failed"
    assert "made of other files" in str(result.error)
    assert not list((tmp_path / "out").rglob("*.png"))


def test_edits_within_masks_are_done_by_the_daemon(
    shared: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 48), (9, 80, 40)).save("house.png")
    Image.new("L", (64, 48), 255).save("mask.png")
    config = tmp_path / "settings.yaml"
    values = simulated(simulated=LOADING, editor={"model": "simulated"}, gallery=False)
    config.write_text(json.dumps(values), "utf-8")
    line = ["house.png", "--instruction", "make it night", "--mask", "mask.png"]
    assert edit_images([*line, "--server", shared.url, "--config", str(config)]) == 0
    made = tmp_path / "outputs" / "edited" / "house_make_it_night.png"
    assert read_provenance(made)["task"]["mask"].endswith("mask.png")


def test_python_has_a_servers_workers_hold_loras_that_they_have_by_name(
    shared: Daemon, lora: Path, tmp_path: Path
) -> None:
    settings = simulated(use_server=shared.url, lora_dir=str(lora.parent))
    with MultiGPUImageGenerator(config=settings, output_dir=tmp_path / "out") as generator:
        with shared.client() as client:

            def seen() -> Any:
                return client.get("/v1/loras/snow").json()

            generator.generate_batch([{"prompt": "house"}])  # a worker may have had another model
            generator.load_loras(lora, pin=True)
            wait_until(lambda: seen()["loaded_on"], "the LoRA on a worker")
            assert seen()["pinned_for"] == ["generate"]
            generator.unload_loras("snow.safetensors")
            wait_until(lambda: not seen()["loaded_on"], "its end")
        other = write_safetensors(lora.parent / "mist.safetensors")
        with pytest.raises(InputError, match="does not load a LoRA: name: there is no LoRA 'mist'"):
            generator.load_loras(other)


def test_a_job_whose_command_is_gone_is_dropped(daemon: Daemon, project: Project) -> None:
    """Nobody would fetch its results; the daemon has other things to do."""
    daemon.settings = {
        "simulated": SLOW,
        "server": {"command_timeout": 1, "max_tasks_per_job": 10},
    }
    slow = daemon.start().found()
    project.write_tweets(tweets(200))
    started = start(project, slow)
    wait_until(lambda: "[2/200]" in started.errors, "two pictures")
    with slow.client() as client:
        assert client.get("/v1/jobs").json()["data"]
    started.process.kill()
    started.finish()
    with slow.client() as client:
        wait_until(lambda: not client.get("/v1/jobs").json()["data"], "the end of its jobs")
    assert not list((slow.output / "jobs").rglob("*.png"))


def test_the_socket_is_for_its_user_alone(shared: Daemon) -> None:
    (place,) = shared.runtime.rglob("*.sock")
    assert place.stat().st_mode & 0o777 == 0o600
    assert place.parent.stat().st_mode & 0o777 == 0o700
    with shared.client() as client:  # and by the network nobody names files of this machine
        task = {"instruction": "x", "source_images": ["/etc/hostname"]}
        job = {"tasks": [task], "owner": "x", "suffixes": [".png"]}
        made = client.post("/v1/engine/jobs", json=job).json()
        shown = client.get(f"/v1/jobs/{made['id']}/results").json()["data"][0]
        assert shown["status"] == "failed"
        assert client.get("/v1/engine").json()["protocol"] == PROTOCOL
