"""Which folders get a page, when it is written, and what it leaves alone."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from apps.edit_benchmark.command import main as benchmark
from apps.gallery.command import main as gallery
from apps.gallery.live import LiveGallery
from apps.gallery.places import HIDDEN, INDEX, source_copy, thumbnail
from apps.gallery.reading import read_folder
from apps.gallery.states import StateChange
from apps.gallery.timeline import sessions_of
from core.events import WorkerState
from core.store.ledger import Ledger
from core.store.ledger_reading import RecordedLease
from tests.conftest import PATIENCE, PROJECT, wait_until
from tests.gallery.conftest import run_edits, run_tweets

SMALL = {"width": 32, "height": 32}
LARGE = {"prompt": "large", "width": 1024, "height": 64}


def data_of(page: Path) -> list[dict[str, Any]]:
    """The items that a page holds, or that lie beside it."""
    return items_in("\n".join([page.read_text("utf-8"), *_parts(page.parent)]))


def items_in(scripts: str) -> list[dict[str, Any]]:
    found = []
    for line in scripts.split("\n"):
        call = line.removeprefix("<script>")
        if call.startswith("gallery.add(") and call.endswith(");"):
            found += json.loads(f"[{call[len('gallery.add(') : -2]}]")[1]
    return found


def _parts(folder: Path) -> list[str]:
    if '"running":true' not in (folder / HIDDEN / "run.js").read_text("utf-8"):
        return []
    return [f.read_text("utf-8").strip() for f in sorted((folder / HIDDEN).glob("records-*.js"))]


def states(page: Path) -> list[str]:
    return [item["state"] for item in data_of(page)]


def test_no_page_is_written_where_none_is_wanted(tmp_path: Path) -> None:
    folder = run_tweets(tmp_path, "a", [{"prompt": "x", **SMALL}], "--no-gallery")
    assert not (folder / INDEX).exists() and not (folder / HIDDEN).exists()


def test_the_index_of_somebody_else_stays(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "out" / "a" / INDEX
    mine.parent.mkdir(parents=True)
    mine.write_text("<h1>my own page</h1>")
    folder = run_tweets(tmp_path, "a", [{"prompt": "x", **SMALL}])
    assert mine.read_text() == "<h1>my own page</h1>"
    assert "was not made by this program" in capfd.readouterr().err
    assert gallery([str(folder)]) == 2


def test_a_rerun_that_does_nothing_leaves_the_page_and_the_pictures_alone(tmp_path: Path) -> None:
    given = [{"prompt": "x", **SMALL}]
    folder = run_tweets(tmp_path, "a", given)
    before = {f: f.stat().st_mtime_ns for f in (folder / INDEX, folder / "a_00.png")}
    torn = folder / HIDDEN / ".partial-records-0000.js"  # as a death while it was written leaves it
    torn.write_text("gallery.add(")
    run_tweets(tmp_path, "a", given)
    assert not torn.exists()
    assert before == {f: f.stat().st_mtime_ns for f in before}
    run_tweets(tmp_path, "a", [*given, {"prompt": "y", **SMALL}])
    assert states(folder / INDEX) == ["done", "done"]


def test_large_pictures_get_small_copies_that_no_data_set_sees(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(drawn, tmp_path / "out"))
    shutil.rmtree(folder / HIDDEN)
    assert gallery([str(folder)]) == 0
    [item] = [item for item in read_folder(folder).items if item.name == "a_b_24"]
    with Image.open(folder / thumbnail(str(item.sha256))) as small:
        assert small.size == (384, 24)
    [row] = [row for row in data_of(folder / INDEX) if row["name"] == "a_b_24"]
    assert row["thumb"] == thumbnail(str(item.sha256))
    assert len([row for row in data_of(folder / INDEX) if "thumb" in row]) == 1
    import datasets  # half a second, and threads: for no other test process

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    cache = str(tmp_path / "cache")
    for given in ({"path": str(folder)}, {"path": "imagefolder", "data_dir": str(folder)}):
        found = datasets.load_dataset(**given, cache_dir=cache)
        assert {name: len(rows) for name, rows in found.items()} == {"train": 25}


def test_a_short_run_leaves_copies_of_what_it_edited(edited: Path) -> None:
    sources = [path for item in read_folder(edited).items for path in item.sources]
    assert len(sources) == 5
    for path in sources:
        with Image.open(edited / source_copy(path)) as copy:
            assert copy.size == (64, 48)


def test_a_folder_without_its_record_is_shown_from_its_tables(drawn: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(drawn, tmp_path / "out"))
    for file in folder.glob("ledger.*"):
        file.unlink()
    assert gallery([str(folder)]) == 0
    rows = data_of(folder / INDEX)
    assert len(rows) == 28 and sum(row["state"] == "failed" for row in rows) == 3
    assert rows[0]["task"]["prompt"] and rows[0]["seed"]


def test_verdicts_are_found_where_the_folder_was_moved(edited: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(edited, tmp_path / "elsewhere"))
    items = read_folder(moved).items
    assert [item.kind for item in items] == ["edit"] * 5
    scored = [item for item in items if item.verdicts[0].scores]
    assert len(scored) == 4 and all(item.category for item in items)
    [unparsed] = [item for item in items if item not in scored]
    assert unparsed.verdicts[0].calls[0]["words"] == "no idea"


def test_two_runs_are_shown_side_by_side(
    edited: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"input_file_name": f"{n}.png", "instruction": words, "category": category}
        for n, words, category in ((0, "make it night", "sky"), (2, "paint it red", "sky"))
    ]
    other = run_edits(tmp_path, "pairs", rows, seed=7)
    page = tmp_path / "both.html"
    assert benchmark(["compare", str(edited), str(other), "--html", str(page)]) == 0
    assert f"side by side: {page}" in capsys.readouterr().out
    text = page.read_text("utf-8")
    assert text.count('"other":{"url":"results/pairs/edits/sky/') == 2
    assert "Paired" in text and '"says":"O: B \\u2212 A ' in text
    capsys.readouterr()
    beside = ["compare", str(edited), str(other), "--html", str(tmp_path / "no" / "x.html")]
    assert benchmark(beside) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_edits_that_were_only_scored_are_shown_with_their_verdicts(given: Path) -> None:
    """They lie outside of the folder, whose page has small copies of them."""
    rows = data_of(given / INDEX)
    assert [(row["name"], row["kind"], row["state"]) for row in rows[:1]] == [
        ("sky/0", "edit", "done")
    ]
    assert len(rows) == 3 and all(row["verdicts"][0]["scores"] for row in rows)
    for row in rows:
        whole, small = (given / row[name] for name in ("url", "thumb"))
        assert whole.is_file() and whole.suffix == ".png"
        with Image.open(whole) as edit, Image.open(small) as copy:
            assert copy.size == edit.size
        assert row["sources"] and "seed" not in row


def test_an_edit_that_was_only_scored_and_is_gone_is_told_as_gone(
    given: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "a" / "b"
    shutil.copytree(given, moved)
    [first, *_] = read_folder(moved).items
    Path(str(first.given)).rename(tmp_path / "away.png")
    try:
        assert [item.is_missing for item in read_folder(moved).items] == [True, False, False]
    finally:
        (tmp_path / "away.png").rename(str(first.given))


def test_own_edits_and_somebody_elses_are_shown_side_by_side(
    edited: Path, given: Path, tmp_path: Path
) -> None:
    page = tmp_path / "both.html"
    assert benchmark(["compare", str(edited), str(given), "--html", str(page)]) == 0
    rows = items_in(page.read_text("utf-8"))
    assert sorted(row["name"].rpartition("/")[2] for row in rows) == ["0", "1", "2"]
    for row in rows:
        assert (tmp_path / row["url"]).is_file() and (tmp_path / row["other"]["url"]).is_file()
        assert row["verdicts"] and row["other"]["verdicts"]


def test_a_followed_run_that_is_killed_leaves_its_page(drawn: Path, tmp_path: Path) -> None:
    """The process that follows is on its own: the end of its input is all that it hears."""
    folder = Path(shutil.copytree(drawn, tmp_path / "out"))
    (folder / INDEX).unlink()
    follower = subprocess.Popen(
        [sys.executable, "-m", "apps.gallery.follower", str(folder), f"{PATIENCE}"],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        start_new_session=True,  # as a run starts it: its priority is one within its session
    )
    try:
        wait_until((folder / INDEX).is_file, "the page")
        ledger = Ledger.open(folder)
        [entry] = ledger.entries_of(["a_b_04.png"]).values()
        ledger.lease("x", entry.key, 2, "cpu0", ".partial-x")
        ledger.close()  # a lease that is open: as a killed run leaves it
        assert follower.stdin is not None
        follower.stdin.close()
        assert follower.wait(PATIENCE) == 0
    finally:
        follower.kill()
    assert states(folder / INDEX).count("waiting") == 1
    assert '"running":false' in (folder / INDEX).read_text("utf-8")


def test_a_page_that_takes_long_is_given_up_with_the_run_that_was_killed(
    drawn: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(drawn, tmp_path / "out"))
    (folder / INDEX).unlink()
    os.mkfifo(folder / INDEX)  # who reads it waits for who writes to it
    follower = subprocess.Popen(
        [sys.executable, "-m", "apps.gallery.follower", str(folder), "1"],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        start_new_session=True,  # as a run starts it: its priority is one within its session
    )
    try:
        pipe = wait_until(lambda: opened_for_a_reader(folder / INDEX), "the page to be read")
        assert follower.stdin is not None
        follower.stdin.close()
        assert follower.wait(PATIENCE) == 1
        os.close(pipe)
    finally:
        follower.kill()


MUCH_TO_DO = """
import sys
from types import SimpleNamespace
from apps.gallery import follower

class Endless:
    def __init__(self, folder):
        pass

    def write(self, running=False):
        while not running:
            pass
        return SimpleNamespace(items=())

follower.GalleryWriter = Endless
sys.exit(follower.main())
"""


@pytest.mark.slow
def test_a_page_that_is_much_work_is_given_up_with_the_run_that_was_killed(tmp_path: Path) -> None:
    """However many seconds it may take: they are few where the machine is idle."""
    done = subprocess.run(
        [sys.executable, "-c", MUCH_TO_DO, str(tmp_path), "36000"],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,  # the run is gone
        start_new_session=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1


def opened_for_a_reader(pipe: Path) -> int | None:
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:  # nobody reads it
        return None


def test_a_long_run_is_followed_and_its_small_copies_are_there_at_its_end(
    drawn: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(drawn, tmp_path / "out"))
    (folder / INDEX).unlink()
    shutil.rmtree(folder / HIDDEN)
    with LiveGallery(folder, follow_after=0) as live:
        live.hear(WorkerState("cpu0", "ready"))
        wait_until((folder / INDEX).is_file, "the page")
    assert live.page == folder / INDEX
    assert len(states(folder / INDEX)) == 28 and list((folder / HIDDEN).rglob("*.jpg"))
    assert '"worker": "cpu0"' in (folder / HIDDEN / "workers.jsonl").read_text("utf-8")


def follower_of_this_process() -> psutil.Process | None:
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if "apps.gallery.follower" in child.cmdline():
                return child
    return None


def test_a_run_writes_the_last_page_itself_where_what_follows_it_gets_no_time(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lowest priority is none at all beside processes that leave no core idle."""
    monkeypatch.setattr("apps.gallery.live.PATIENCE", 0.1)
    folder = Path(shutil.copytree(drawn, tmp_path / "out"))
    (folder / INDEX).unlink()
    with LiveGallery(folder, follow_after=0) as live:
        live.hear(WorkerState("cpu0", "ready"))
        follower = wait_until(follower_of_this_process, "the process")
        follower.suspend()
    assert live.page == folder / INDEX and len(states(folder / INDEX)) == 28
    assert '"running":false' in (folder / INDEX).read_text("utf-8")
    assert not follower.is_running()


def lease(key: str, worker: str, given: float, ended: float | None, outcome: str | None) -> Any:
    return RecordedLease(key, 1, worker, given, ended, outcome)


def test_the_time_of_a_worker_is_shared_out_between_what_it_did() -> None:
    leases = [
        lease("a", "gpu0", 10, 14, "done"),
        lease("b", "gpu0", 10.5, 20, "crash"),  # given ahead of the end of the one before
        lease("b", "gpu0", 32, 36, "done"),
        lease("c", "gpu1", 10, 15, "done"),
    ]
    changes = [
        StateChange(2, "gpu0", "starting"),
        StateChange(4, "gpu0", "loading the model"),
        StateChange(9, "gpu0", "ready"),
        StateChange(20, "gpu0", "waiting to start"),
        StateChange(24, "gpu0", "loading the model"),
        StateChange(31, "gpu0", "ready"),
        StateChange(36, "gpu0", "stopping"),
    ]
    [session] = sessions_of(leases, {"a": 4, "b": 4, "c": 5}, changes)
    found = [(s.doing, s.start, s.end) for s in session.lanes["gpu0"]]
    assert found == [
        ("loading", 2, 9),
        ("waiting", 9, 10),
        ("drawing", 10, 14),
        ("failed", 14, 20),
        ("dead", 20, 24),
        ("loading", 24, 31),
        ("waiting", 31, 32),
        ("drawing", 32, 36),
    ]
    assert [(s.doing, s.start, s.end) for s in session.lanes["gpu1"]] == [("drawing", 10, 15)]


def test_runs_that_lie_apart_are_sessions_of_their_own() -> None:
    day = 86_400.0
    leases = [
        lease("a", "gpu10", 0, 4, "done"),
        lease("b", "gpu10", 4, day, "interrupted"),  # its run was killed; closed by the next one
        lease("b", "gpu10", day, day + 4, "done"),
        lease("c", "gpu2", day, day + 4, "done"),
    ]
    first, second = sessions_of(leases, {})
    assert (first.start, first.end) == (0, 8)
    assert list(second.lanes) == ["gpu2", "gpu10"]
