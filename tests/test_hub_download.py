"""A hub's model on its way here: once, resumed, side by side, and whatever hubs do to it."""

import hashlib
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core.byte_sizes import shown_bytes
from core.errors import ModelLoadError
from core.events import Event, ModelFetching
from core.processes.model_fetch import ModelFetch
from core.settings import load_settings
from tests.conftest import PATIENCE, Project, Run, wait_until, worker_processes
from tests.hub_server import COMMIT, MODEL, HubServer
from tests.process_tree import runs
from tests.test_hub import lines, starts
from tests.test_native_image_generator import SMALL, spec_for
from workers.hub import HubModel
from workers.hub_download import Download, Progress
from workers.process import run_fetch

OTHER_COMMIT = "f" * 40
BIG = "transformer/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
INDEX = {
    "_class_name": "ZImagePipeline",
    "transformer": ["diffusers", "ZImageTransformer2DModel"],
    "text_encoder": ["transformers", "Qwen3Model"],
    "tokenizer": ["transformers", "Qwen2Tokenizer"],
}
FILES = {
    "model_index.json": json.dumps(INDEX).encode(),
    "transformer/config.json": b"{}",
    "text_encoder/config.json": b"{}",
    "tokenizer/tokenizer.json": b"{}",
    BIG: bytes(range(256)) * 4000,
    TEXT: b"text" * 50_000,
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub of `FILES`, which the library in this process asks; its cache is the test's."""
    from huggingface_hub import constants

    import workers.hub

    for name, content in FILES.items():
        file = tmp_path / "repository" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    server = HubServer(tmp_path / "repository")
    template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    monkeypatch.setattr(workers.hub, "REQUEST_TIMEOUT", 0.3)
    monkeypatch.setattr(workers.hub, "PAUSES_BUSY", (0.01, 0.02, 0.03))
    yield server
    server.close()


def bring(said: list[str] | None = None, told: list[Progress] | None = None) -> Path:
    def log(level: str, text: str) -> None:
        if said is not None and level != "DEBUG":
            said.append(text)

    model = HubModel(MODEL, None, "model_index.json")
    return Download(model, log, (told if told is not None else []).append, time.sleep).run()


def content_of(folder: Path) -> dict[str, bytes]:
    files = [f for f in folder.rglob("*") if f.is_file()]
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in files}


def unfinished(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache").rglob("*.incomplete"))


def test_the_cache_is_as_the_libraries_make_it_and_asked_once_from_then_on(
    hub: HubServer, tmp_path: Path
) -> None:
    from huggingface_hub import scan_cache_dir, snapshot_download

    told: list[Progress] = []
    folder = bring(told=told)
    size = sum(map(len, FILES.values()))
    assert content_of(folder) == FILES
    assert told[-1].done == told[-1].total == size and told[0].done < size
    [repository] = scan_cache_dir(tmp_path / "cache").repos
    assert repository.repo_id == MODEL and repository.size_on_disk == sum(
        map(len, set(FILES.values()))
    )
    assert {ref for r in repository.revisions for ref in r.refs} == {"main"}
    assert snapshot_download(MODEL, local_files_only=True) == str(folder)

    hub.requests.clear()
    assert bring() == folder
    assert hub.requests == [f"HEAD /{MODEL}/resolve/main/model_index.json"]


def test_a_cache_that_another_program_filled_is_enough(hub: HubServer) -> None:
    from huggingface_hub import snapshot_download

    folder = snapshot_download(MODEL)
    hub.requests.clear()
    assert str(bring()) == folder and len(hub.requests) == 1


def test_a_whole_cache_is_enough_where_the_hub_is_out_of_order(hub: HubServer) -> None:
    folder, said = bring(), list[str]()
    hub.refusal = lambda n, path: (500, {})
    hub.requests.clear()
    assert bring(said) == folder and len(hub.requests) == 1
    assert said == ["someone/model: The hub answered with HTTP 500. It is loaded from the cache."]


def test_a_file_goes_on_where_it_broke_off(hub: HubServer) -> None:
    said: list[str] = []
    broke: list[str] = []

    def ends(name: str, sent: int) -> bool:
        if name != BIG or sent < 400_000 or len(broke) == 2:
            return False
        broke.append(name)
        return True

    hub.ends = ends
    assert content_of(bring(said)) == FILES
    assert len(FILES[BIG]) <= hub.sent[BIG] < len(FILES[BIG]) + 200_000
    assert len(broke) == 2
    why = "someone/model: The hub did not answer in time. Try 2 of 4 follows in 0.01 s."
    assert said == [why], "once, and each piece that came begins the tries anew"


@pytest.mark.parametrize("in_ranges", [True, False])
@pytest.mark.parametrize("kind", ["begun", "damaged", "too long"])
def test_what_an_earlier_run_left_is_used_if_it_is_right(
    hub: HubServer, tmp_path: Path, kind: str, in_ranges: bool
) -> None:
    right = FILES[BIG]
    left = {"begun": right[:500_000], "damaged": b"x" * 500_000, "too long": right * 2}[kind]
    blobs = tmp_path / "cache" / "models--someone--model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{hashlib.sha256(right).hexdigest()}.incomplete").write_bytes(left)
    hub.ranges = in_ranges
    assert content_of(bring([])) == FILES
    if kind == "begun" and in_ranges:
        assert hub.sent[BIG] == len(right) - 500_000
    assert unfinished(tmp_path) == []


def test_two_downloads_at_once_fetch_each_file_once(hub: HubServer) -> None:
    hub.rate = 1e6
    folders: list[Path] = []
    threads = [threading.Thread(target=lambda: folders.append(bring())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(folders) == 3 and content_of(folders[0]) == FILES
    assert hub.sent[BIG] == len(FILES[BIG]) and hub.sent[TEXT] == len(FILES[TEXT])


def test_a_branch_that_moves_meanwhile_gives_one_commit(hub: HubServer) -> None:
    def moves(n: int, path: str) -> None:
        if n == 1:
            return
        hub.commit = OTHER_COMMIT if "/main/" in path else COMMIT

    hub.refusal = moves
    assert bring().name == COMMIT
    assert all(COMMIT in request for request in hub.requests[1:])


def test_a_model_without_room_for_it_is_refused_before_a_byte_of_it_comes(hub: HubServer) -> None:
    hub.sizes[BIG] = 10**17
    said = r"someone/model: 100000000\.0 GB of it are to be downloaded, but the models' cache \("
    with pytest.raises(ModelLoadError, match=said + r".*\) has [\d.]+ GB free\. Make room, have"):
        bring()
    assert hub.sent[BIG] == hub.sent[TEXT] == 0


@pytest.mark.parametrize("size", [10, 2_000_000])
def test_a_hub_that_lies_about_a_size_is_left_after_its_tries(
    hub: HubServer, tmp_path: Path, size: int
) -> None:
    hub.sizes[BIG] = size
    with pytest.raises(ModelLoadError, match=r"after 4 tries: The connection to the hub broke"):
        bring()
    assert sum(f.stat().st_size for f in unfinished(tmp_path)) < 2_000_000


def test_a_hostile_listing_writes_nothing_outside_the_cache(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = hub.listing

    def listing(path: str) -> Any:
        entries = honest(path)
        if "/tree/" in path:
            for name in ("../../up", "/etc/x", "tokenizer/../../../up", "a\\..\\b"):
                entries.append({"type": "file", "path": name, "size": 1, "oid": "0" * 40})
            for entry in entries:
                if entry["path"] == "tokenizer/tokenizer.json":
                    entry["oid"] = "../../../up"
        return entries

    monkeypatch.setattr(hub, "listing", listing)
    assert content_of(bring()) == FILES
    assert {p.name for p in tmp_path.iterdir()} == {"repository", "cache"}


@pytest.mark.parametrize("commit", ["", "../../../up", "main"])
def test_a_server_that_is_no_hub_is_said_at_once(hub: HubServer, commit: str) -> None:
    hub.commit = commit
    said = r"does not say which commit main is, as a model hub does \(HF_ENDPOINT\)"
    with pytest.raises(ModelLoadError, match=said):
        bring()
    assert len(hub.requests) == 1


@pytest.mark.parametrize("index", [b"[1]", b"<html>", b"\xff"])
def test_an_index_that_is_none_is_said_at_once(hub: HubServer, index: bytes) -> None:
    (hub.folder / "model_index.json").write_bytes(index)
    with pytest.raises(ModelLoadError, match=r"^someone/model: its model_index\.json holds no"):
        bring()


def test_a_weight_that_is_refused_ends_the_others(hub: HubServer) -> None:
    hub.rate = 10_000  # 100 seconds
    hub.refusal = lambda n, path: (403, {"X-Error-Code": "GatedRepo"}) if TEXT in path else None
    began = time.monotonic()
    with pytest.raises(ModelLoadError, match="the model is gated"):
        bring()
    assert time.monotonic() - began < 50


@pytest.mark.parametrize("lost", [BIG, "tokenizer/tokenizer.json"])
def test_without_the_hub_a_cache_that_is_not_whole_is_refused(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    from huggingface_hub import constants

    (bring() / lost).unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelLoadError, match="is not, or not wholly, in the cache"):
        bring()


# -- a whole run -------------------------------------------------------------------------------


@pytest.fixture
def models(tiny_model: Path) -> Iterator[HubServer]:
    """A hub of the tiny model, for runs of the command."""
    server = HubServer(tiny_model)
    yield server
    server.close()


def start(project: Project, hub: HubServer, **settings: Any) -> Run:
    project.environment |= {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(project.folder / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "*",
    }
    tweets = project.write_tweets([{"prompt": f"house {n}"} for n in range(3)])
    arguments: list[str | int | Path] = [tweets, 2, "--log-level", "DEBUG"]
    return project.start(arguments, {"model": MODEL, "defaults": SMALL, **settings})


def fetched(project: Project) -> int:
    blobs = project.folder / "hf" / "hub" / "models--someone--model" / "blobs"
    try:
        return sum(f.stat().st_size for f in blobs.glob("*.incomplete"))
    except FileNotFoundError:  # one was given its name meanwhile
        return 0


@pytest.mark.slow
def test_a_killed_run_continues_in_the_middle_of_a_file_and_its_workers_ask_the_hub_nothing(
    project: Project, models: HubServer
) -> None:
    models.ends = lambda name, sent: name == BIG and sent >= 300_000  # and no more of it comes
    big, files = models.folder / BIG, [f for f in models.folder.rglob("*") if f.is_file()]
    blobs = project.folder / "hf" / "hub" / "models--someone--model" / "blobs"
    begun = blobs / f"{hashlib.sha256(big.read_bytes()).hexdigest()}.incomplete"
    run = start(project, models)
    wait_until(lambda: begun.is_file() and begun.stat().st_size > 200_000, "some of it")
    fetching = worker_processes(run.process.pid)
    assert "Pipeline in " not in run.errors, "workers wait for the model"
    os.killpg(run.process.pid, signal.SIGKILL)
    run.finish()
    wait_until(lambda: not any(map(runs, fetching)), "their end")
    models.ends = lambda name, sent: False
    models.requests.clear()
    models.sent.clear()
    kept = begun.stat().st_size
    run = start(project, models)
    assert run.finish() == 0, run.errors
    assert models.sent[BIG] == big.stat().st_size - kept
    assert not list((project.folder / "hf").rglob("*.incomplete"))
    question = f"HEAD /{MODEL}/resolve/main/model_index.json"
    assert models.requests.count(question) == 1
    assert 1 <= starts(run) <= 2, "one worker may draw everything before the other one starts"
    assert all(COMMIT in request for request in models.requests if request != question)

    total = re.escape(shown_bytes(sum(file.stat().st_size for file in files)))
    assert re.search(rf"someone/model: downloading [\d.]+ MB of {total}\.", run.errors)
    assert re.search(r"someone/model: downloaded in \d+ s\.", run.errors)
    assert "/snapshots/" not in run.errors, "users know the model by its name"
    for picture in (project.folder / "out").rglob("*.png"):
        with Image.open(picture) as image:
            assert image.info["parameters"].endswith(", Model: someone/model")


def test_a_ctrl_c_ends_a_download_at_once(project: Project, models: HubServer) -> None:
    models.rate = 50_000
    run = start(project, models)
    wait_until(lambda: fetched(project) > 30_000, "some of it")
    run.interrupt()
    assert run.finish() == 130
    assert fetched(project) > 0, "it was waited for"
    assert "Traceback" not in run.errors
    assert not worker_processes(run.process.pid)


def test_a_refusal_names_the_model_and_ends_the_run(project: Project, models: HubServer) -> None:
    models.sizes[BIG] = 10**17
    run = start(project, models)
    assert run.finish() == 1 and starts(run) <= 2
    [line] = lines(run, "ERROR")
    assert "The model could not be loaded: someone/model: 100000000.0 GB of it are to" in line
    assert all("GB free. Make room" in record["error"] for record in project.records())


# -- the process that fetches, as main sees it -------------------------------------------------


class Fetch(ModelFetch):
    """Of the tiny model; its process is a real one."""

    def __init__(self, stall: float = 60.0) -> None:
        self.told: list[tuple[int, int]] = []
        self._end = threading.Event()
        rules = load_settings({"supervision": {"load_stall_timeout": stall}}).supervision
        super().__init__(run_fetch, spec_for(MODEL), rules, self._listen)
        self.on_change = self._look

    def _listen(self, event: Event) -> None:
        assert isinstance(event, ModelFetching) and event.model == MODEL
        self.told.append((event.done, event.total))

    def _look(self) -> None:
        if self.folder is not None or self.refusal is not None:
            self._end.set()

    def end(self) -> "Fetch":
        assert self._end.wait(PATIENCE)
        return self


@pytest.fixture
def fetch(
    models: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Fetch]]:
    """Begins to fetch from `models`."""
    monkeypatch.setenv("HF_ENDPOINT", models.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("core.processes.model_fetch.PAUSES", (0.1, 0.1))
    begun: list[Fetch] = []

    def begin(stall: float = 60.0) -> Fetch:
        begun.append(Fetch(stall))
        begun[-1].start()
        return begun[-1]

    yield begin
    for each in begun:
        each.stop()


def test_two_runs_at_once_fetch_a_model_once(
    models: HubServer, fetch: Callable[..., Fetch]
) -> None:
    models.rate = 10_000  # it is not done before both are there
    fetches = [fetch(), fetch()]
    wait_until(lambda: all(each.told for each in fetches), "both to tell of it")
    models.rate = None
    assert {each.end().folder is None for each in fetches} == {False}
    assert models.sent[BIG] == (models.folder / BIG).stat().st_size
    for each in fetches:
        assert each.told == sorted(each.told) and each.told[-1][0] == each.told[-1][1]


@pytest.mark.parametrize("hangs", [1, 10**6])
def test_a_transfer_that_stands_still_is_begun_again_and_given_up_in_the_end(
    models: HubServer, fetch: Callable[..., Fetch], hangs: int
) -> None:
    stopped: list[int] = []

    def ends(name: str, sent: int) -> bool:
        if name != BIG or sent < 100_000 * (not stopped) or len(stopped) >= hangs:
            return False
        stopped.append(sent)
        return True

    models.ends = ends
    end = fetch(stall=1.5).end()
    assert end.told and end.told == sorted(end.told)
    if hangs == 1:
        assert end.folder is not None
        assert models.sent[BIG] < (models.folder / BIG).stat().st_size + 200_000
    else:
        assert end.refusal == "someone/model after 3 tries: no byte of it came for 1.5 s."


def test_a_fetching_process_that_dies_is_followed_by_another(
    models: HubServer, fetch: Callable[..., Fetch]
) -> None:
    models.rate = 10_000  # it is not done before it is killed
    begun = fetch()
    wait_until(lambda: begun.transfers, "the transfer")
    [child] = worker_processes(os.getpid())
    child.kill()
    models.rate = None
    assert begun.end().folder is not None


def test_a_fetch_that_is_stopped_leaves_no_process(
    models: HubServer, fetch: Callable[..., Fetch]
) -> None:
    models.rate = 10_000
    begun = fetch()
    wait_until(lambda: begun.transfers, "the transfer")
    begun.stop()
    assert worker_processes(os.getpid()) == []
