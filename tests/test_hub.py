"""Models of a hub that refuses, passes by or answers, by the real client and at the command."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import ModelLoadError
from tests.conftest import HELD, Project, Run, going_on, wait_until
from tests.edit_world import Bench, pair
from tests.hub_server import MODEL, HubServer
from tests.test_native_image_generator import SMALL


@pytest.fixture
def hub(tiny_model: Path) -> Iterator[HubServer]:
    server = HubServer(tiny_model)
    yield server
    server.close()


def draw(
    project: Project, endpoint: str, workers: int = 2, word: str = "house", **settings: str
) -> Run:
    """Three tweets with a hub's model; each test has a cache of its own."""
    project.environment |= {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(project.folder / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "*",
    }
    tweets = project.write_tweets([{"prompt": f"{word} {n}"} for n in range(3)])
    arguments = (tweets, workers, "--log-level", "DEBUG")
    return project.run(arguments, {"model": MODEL, "defaults": SMALL, **settings})


def lines(run: Run, level: str) -> list[str]:
    return [line for line in run.errors.splitlines() if f" {level}" in line]


def starts(run: Run) -> int:
    return run.errors.count(": pid ")


def refuse(hub: HubServer, status: int, code: str = "", text: str = "") -> None:
    headers = {"X-Error-Code": code, "X-Error-Message": text or code}
    hub.refusal = lambda n, path: (status, {k: v for k, v in headers.items() if v})


def fetch(hub: HubServer, monkeypatch: pytest.MonkeyPatch, folder: Path, said: list[str]) -> Path:
    """Load with the worker's own function, in this process and within a second."""
    from huggingface_hub import constants, hf_hub_download

    import workers.hub

    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(workers.hub, "REQUEST_TIMEOUT", 0.2)
    monkeypatch.setattr(workers.hub, "PAUSES_BUSY", (0.01, 0.02, 0.03))

    def load() -> Path:
        return Path(hf_hub_download(MODEL, "model_index.json", cache_dir=folder))

    model = workers.hub.HubModel(MODEL, "v9", "model_index.json")
    return workers.hub.load_from_hub(model, load, lambda level, text: said.append(text))


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (401, "GatedRepo", r"is gated\. Accept its licence at http.*/someone/model, then log in "),
        (403, "GatedRepo", r"is gated\. Accept its licence"),
        (404, "RepoNotFound", r"there is no such model at http\S+, or it is private; nor is there"),
        (401, "", r"the name is misspelt, the model is private, or the access token is not valid"),
        (404, "RevisionNotFound", r"the model has no revision 'v9'\. Its branches and tags: "),
        (404, "EntryNotFound", r"lacks a file that a diffusers model has \(model_index\.json\)"),
        (403, "", r"the access token may not read the model"),
        (410, "", r"the hub refuses it \(Client error '410 Gone'"),
    ],
)
def test_what_lasts_is_said_after_one_request_with_what_to_do(
    hub: HubServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    status: int,
    code: str,
    said: str,
) -> None:
    refuse(hub, status, code)
    with pytest.raises(ModelLoadError, match=said):
        fetch(hub, monkeypatch, tmp_path, [])
    assert len(hub.requests) == 1


@pytest.mark.parametrize("status", [0, 408, 429, 500, 502, 503, 504])
def test_what_passes_is_asked_for_again_and_the_log_says_when(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int
) -> None:
    """A status of 0 is a hub that never answers."""
    said: list[str] = []
    hub.refusal = lambda n, path: (status, {}) if n <= 2 else None
    assert fetch(hub, monkeypatch, tmp_path, said).is_file()
    why = f"The hub answered with HTTP {status}." if status else "The hub did not answer in time."
    assert [text.partition("model: ")[2] for text in said] == [
        f"{why} Try 2 of 4 follows in 0.01 s.",
        f"{why} Try 3 of 4 follows in 0.02 s.",
    ]


@pytest.mark.parametrize("endpoint", ["hub.example.com", "ftp://hub.example.com"])
def test_an_address_that_is_none_is_said_at_once(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, endpoint: str
) -> None:
    """As HF_ENDPOINT without its https://; no other try would change that."""
    monkeypatch.setattr(hub, "url", endpoint)
    said: list[str] = []
    with pytest.raises(ModelLoadError, match=r"\(HF_ENDPOINT\); it has to begin with http://"):
        fetch(hub, monkeypatch, tmp_path, said)
    assert said == []


def test_a_cache_that_cannot_be_used_is_said_at_once(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file"))
    said: list[str] = []
    with pytest.raises(
        ModelLoadError, match=r"cache \(.*file\) cannot be used \(Not a directory\)"
    ):
        fetch(hub, monkeypatch, tmp_path / "file", said)
    assert said == []


def test_what_does_not_pass_ends_after_its_tries(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    refuse(hub, 500)
    said: list[str] = []
    with pytest.raises(ModelLoadError, match=r"after 4 tries: The hub answered with HTTP 500\."):
        fetch(hub, monkeypatch, tmp_path, said)
    assert len(said) == 3 and len(hub.requests) == 4


# -- the command -------------------------------------------------------------------------------


def test_a_gated_model_ends_the_run_at_once_with_one_line(project: Project, hub: HubServer) -> None:
    refuse(hub, 403, "GatedRepo")
    run = draw(project, hub.url)
    assert run.process.returncode == 1
    [line] = lines(run, "ERROR")
    assert "is gated. Accept its licence at http" in line
    assert run.errors.count("is gated") == 1, "and no other line repeats it"
    assert len(hub.requests) == 1 and starts(run) <= 2
    records = project.records()
    assert [r["status"] for r in records] == ["failed"] * 3
    assert "is gated. Accept its licence" in records[2]["error"]


def test_offline_without_the_model_ends_at_once(project: Project) -> None:
    project.environment["HF_HUB_OFFLINE"] = "1"
    run = draw(project, "http://127.0.0.1:9")
    assert run.process.returncode == 1 and starts(run) <= 2
    [line] = lines(run, "ERROR")
    assert "HF_HUB_OFFLINE is set, and the model is not, or not wholly, in the cache" in line
    assert f"hf download {MODEL}" in line


def test_without_a_network_a_few_tries_are_made_and_counted(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    run = draw(project, f"http://127.0.0.1:{port}", workers=1)
    assert run.process.returncode == 1 and starts(run) <= 1
    tries = re.findall(r"Try (\d) of 5 follows in (\d) s", run.errors)
    assert tries == [("2", "1"), ("3", "2"), ("4", "4"), ("5", "8")]
    [line] = lines(run, "ERROR")
    assert "after 5 tries: The hub cannot be reached at http" in line


@pytest.mark.slow
def test_what_passes_is_tried_again_and_then_the_cache_does_without_the_hub(
    project: Project, hub: HubServer
) -> None:
    hub.refusal = lambda n, path: (503, {}) if n <= 2 else None
    run = draw(project, hub.url, workers=1)
    assert run.process.returncode == 0, run.errors
    assert starts(run) == 1
    tries = re.findall(r"answered with HTTP 503\. Try (\d+) of 13 follows in (\d) s", run.errors)
    assert tries == [("2", "1"), ("3", "2")]
    assert len(lines(run, "WARNING")) == 2

    hub.requests.clear()
    project.environment["HF_HUB_OFFLINE"] = "1"
    run = draw(project, hub.url, workers=1, word="tree")
    assert run.process.returncode == 0 and lines(run, "WARNING") == []
    assert hub.requests == []


@pytest.mark.slow
def test_a_judge_that_nobody_may_load_is_asked_for_once(project: Project, hub: HubServer) -> None:
    """Where editors and judges share the devices, those of the editors would try again."""
    refuse(hub, 403, "GatedRepo")
    project.environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(project.folder / "hf")}
    bench = Bench(project)
    bench.write_pairs([pair(0), pair(1)])
    run = bench.run(judge={"model": MODEL}, stages="overlapped")
    assert run.process.returncode == 1
    assert run.errors.count("is gated") == 1, run.errors
    assert bench.outcomes() == ["score_failed"] * 2


@pytest.mark.slow
def test_a_judge_that_cannot_be_had_is_named_while_edits_are_still_made(
    project: Project, hub: HubServer
) -> None:
    refuse(hub, 403, "GatedRepo")
    project.environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(project.folder / "hf")}
    project.environment["HF_HUB_DISABLE_TELEMETRY"] = "1"
    bench = Bench(project)
    bench.write_pairs([pair(0), pair(1), pair(2, f"{HELD} make it night")])
    run = bench.start(judge={"model": MODEL}, cpu_workers=1)
    wait_until(lambda: "is gated" in run.errors, "the warning")
    with going_on(bench.workers):
        assert run.finish() == 1
    [warning] = [n for n in lines(run, "WARNING") if "is gated" in n]
    assert "The model to score with cannot be had as yet: someone/model: the model is" in warning
    assert run.errors.index(warning) < run.errors.index("[3/6]"), "before the last edit"
    assert len(lines(run, "ERROR")) == 1 and len(bench.edits()) == 3
    assert len(hub.requests) == 2, "it is asked for again when its turn comes"
