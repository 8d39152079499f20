"""Results of all jobs of a caller: pages, searches, small pictures, and the same task once more."""

import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from tests.conftest import PATIENCE, found_below, wait_until
from tests.server.conftest import Daemon, finished
from tests.server.in_process import data_url
from tests.server.test_lora_names import write as write_lora

SMALL = {"width": 512, "height": 256, "num_inference_steps": 1}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("results")
    daemon = Daemon(
        folder,
        lora_dir=str(folder / "loras"),
        editor={"model": "simulated"},
        simulated={"seconds_per_megapixel_step": 0.1},
    )
    daemon.start()
    yield daemon
    daemon.end()


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[httpx2.Client]:
    with daemon.client() as client:
        yield client


def run(client: httpx2.Client, *tasks: dict[str, Any]) -> str:
    id = str(client.post("/v1/jobs", json={"tasks": tasks}).raise_for_status().json()["id"])
    finished(client, id)
    return id


def listed(client: httpx2.Client, **query: Any) -> list[str]:
    answer = client.get("/v1/results", params=query).raise_for_status().json()
    return [one["id"] for one in answer["data"]]


def test_results_of_all_jobs_come_newest_first_page_by_page(client: httpx2.Client) -> None:
    first = run(client, *({"prompt": f"page {n}"} for n in range(3)))
    second = run(client, {"prompt": "page"}, {"prompt": "page", "width": 17})
    ids: list[str] = []
    after = None
    while True:
        query = {"words": "page", "limit": "2", **({"after": after} if after else {})}
        page = client.get("/v1/results", params=query).raise_for_status().json()
        ids += [one["id"] for one in page["data"]]
        after = page["last_id"]
        if not page["has_more"]:
            break
    assert len(ids) == len(set(ids)) == 5
    assert {id.split("/")[0] for id in ids[:2]} == {second}
    assert {id.split("/")[0] for id in ids[2:]} == {first}


def test_failures_can_be_asked_for_with_their_reasons(client: httpx2.Client) -> None:
    job = run(client, {"prompt": "reasons"}, {"prompt": "!nan reasons"}, {"prompt": ["reasons"]})
    assert listed(client, words="reasons", outcome="done") == [f"{job}/0"]
    bad = run(client, {"prompt": "bad reasons", "width": 17})
    found = client.get("/v1/results", params={"words": "reasons", "outcome": "failed"}).json()
    assert [one["id"] for one in found["data"]] == [f"{bad}/0", f"{job}/1"]
    assert "width" in found["data"][0]["error"]
    assert found["data"][0]["task"]["prompt"] == "bad reasons"
    assert found["data"][1]["cause"] == "input"
    assert found["data"][1]["thumbnail_url"] is None


def test_words_are_found_in_any_case_and_alphabet(client: httpx2.Client) -> None:
    job = run(client, {"prompt": "Ein HÄUSCHEN 100% grün_"})
    for words in ("häuschen", "100% GRÜN", "_"):
        assert f"{job}/0" in listed(client, words=words)
    assert listed(client, words="häus%en") == []


def test_small_pictures_are_webp_and_are_kept(daemon: Daemon, client: httpx2.Client) -> None:
    job = run(client, {"prompt": "small", **SMALL})
    url = client.get("/v1/results", params={"words": "small"}).json()["data"][0]["thumbnail_url"]
    for _ in range(2):
        answer = client.get(url).raise_for_status()
        with Image.open(io.BytesIO(answer.content)) as image:
            assert (image.format, image.size) == ("WEBP", (384, 192))
        assert answer.headers["content-type"] == "image/webp"
        assert "immutable" in answer.headers["cache-control"]
    assert [f.name for f in (daemon.output / "thumbnails" / job).iterdir()] == ["0.webp"]


def test_what_a_result_says_of_its_task_draws_the_same_again(client: httpx2.Client) -> None:
    source = data_url("green")
    job = run(client, {"kind": "edit", "instruction": "again", "source_images": [source]})
    [first] = client.get("/v1/results", params={"words": "again"}).json()["data"]
    assert first["task"] == {
        "kind": "edit",
        "instruction": "again",
        "source_images": [f"{job}/0/sources/0"],
        "seed": first["seed"],
    }
    shown = client.get(f"/v1/jobs/{job}/results/0/sources/0").raise_for_status()
    with Image.open(io.BytesIO(shown.content)) as image:
        assert image.getpixel((5, 5))[1] > 100  # type: ignore[index]
    second = run(client, first["task"])
    pictures = [client.get(f"/v1/jobs/{id}/results/0/content").content for id in (job, second)]
    assert pixels(pictures[0]) == pixels(pictures[1])
    assert client.get(f"/v1/jobs/{job}/results/0/sources/1").status_code == 404


def pixels(content: bytes) -> bytes:
    with Image.open(io.BytesIO(content)) as image:
        return image.tobytes()


@pytest.mark.parametrize(
    "query",
    [
        {"after": "job_1/x"},
        {"after": "job_unknown/0"},
        {"outcome": "ok"},
        {"kind": "draw"},
        {"limit": 201},
        {"words": "x" * 201},
    ],
)
def test_a_page_that_cannot_be_is_refused(client: httpx2.Client, query: dict[str, Any]) -> None:
    answer = client.get("/v1/results", params=query)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["message"]


def test_events_of_all_jobs_come_as_things_happen(client: httpx2.Client) -> None:
    seen: list[tuple[str, dict[str, Any]]] = []
    opened = threading.Event()

    def watch() -> None:
        with client.stream("GET", "/v1/events") as stream:
            name = ""
            for line in stream.iter_lines():
                if line.startswith("event:"):
                    name = line.removeprefix("event:").strip()
                elif line.startswith("data:"):
                    seen.append((name, json.loads(line.removeprefix("data:"))))
                    opened.set()
                    if name == "job" and seen[-1][1]["ended_at"]:
                        return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    wait_until(opened.is_set, "the stream")
    job = run(client, {"prompt": "event 0"}, {"prompt": "!nan event 1"})
    watcher.join(PATIENCE)
    names = [name for name, _ in seen]
    assert names[0] == "open" and seen[-1][1]["status"] == "completed"
    results = {data["id"]: data for name, data in seen if name == "task"}
    assert set(results) == {f"{job}/0", f"{job}/1"}
    assert results[f"{job}/0"]["task"]["prompt"] == "event 0"
    assert results[f"{job}/1"]["error"]


def test_small_pictures_go_with_their_job(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.start()
    try:
        with daemon.client() as client:
            job = run(client, {"prompt": "gone"})
            client.get(f"/v1/jobs/{job}/results/0/thumbnail").raise_for_status()
        assert daemon.stop() == 0
        daemon.settings = {"server": {"keep_results": 1e-6}}
        daemon.start()
        wait_until(lambda: not found_below(daemon.output, "*.webp"), "the sweep")
        assert not (daemon.output / "thumbnails" / job).exists()
    finally:
        daemon.end()


def test_a_lora_that_is_gone_is_missed_by_its_name_and_not_by_its_path(
    daemon: Daemon, client: httpx2.Client
) -> None:
    folder = daemon.folder / "loras"

    def refused() -> Any:
        """The list of LoRAs is kept for a moment, in which the file goes."""
        file = write_lora(folder / "ink.safetensors")
        if not client.get("/v1/loras").json()["data"]:
            return None
        file.unlink()
        job = run(client, {"prompt": "x", "loras": ["ink"]})
        [result] = client.get(f"/v1/jobs/{job}/results").json()["data"]
        return result if "ink.safetensors" in (result["error"] or "") else None

    error = wait_until(refused, "a LoRA that is gone")["error"]
    assert str(folder) not in error
