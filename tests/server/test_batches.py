"""The Batch API with the official client against the real process."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI

from apps.openai_images import run_batch
from core import MultiGPUImageGenerator
from tests.conftest import Project, found_below, simulated, wait_until
from tests.server.batch_files import (
    EDITS,
    GENERATIONS,
    data_url,
    ended,
    lines_in,
    lines_of,
    mask_url,
    picture,
    pixels,
    request,
    send,
    text_of,
)
from tests.server.conftest import Daemon
from tests.server.image_clients import openai_client

SETTINGS: dict[str, Any] = {
    "editor": {"model": "simulated"},
    "simulated": {"seconds_per_megapixel_step": 20.0},
}
SLOW: dict[str, Any] = {"size": "128x128", "num_inference_steps": 1}  # 0.3 s


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon for all tests that do not kill it."""
    daemon = Daemon(tmp_path_factory.mktemp("batches"), **SETTINGS)
    yield daemon.start()
    daemon.end()


@pytest.fixture(scope="module")
def client(served: Daemon) -> Iterator[OpenAI]:
    with openai_client(served) as client:
        yield client


def ids(lines: list[dict[str, Any]]) -> list[str | None]:
    return [line["custom_id"] for line in lines]


def test_a_batch_ends_with_a_line_for_each_request_in_their_order(client: OpenAI) -> None:
    names = [f"request {n}" for n in range(7)]
    batch = send(client, [request(name, seed=3) for name in names], metadata={"for": "a test"})
    assert (batch.object, batch.endpoint, batch.completion_window) == ("batch", GENERATIONS, "24h")
    assert batch.status in ("validating", "in_progress") and batch.metadata == {"for": "a test"}
    done = ended(client, batch)
    assert done.status == "completed" and done.error_file_id is None and done.errors is None
    assert done.request_counts is not None
    assert done.request_counts.to_dict() == {"total": 7, "completed": 7, "failed": 0}
    assert done.created_at + 24 * 3600 == done.expires_at
    times = (done.in_progress_at, done.finalizing_at, done.completed_at)
    assert all(time is not None and time >= done.created_at for time in times)
    assert done.output_file_id is not None
    file = client.files.retrieve(done.output_file_id)
    assert (file.purpose, file.filename) == ("batch_output", f"{batch.id}_output.jsonl")
    lines = lines_of(client, done.output_file_id)
    assert ids(lines) == names
    assert len({line["id"] for line in lines}) == 7
    for line in lines:
        assert line["error"] is None and line["response"]["status_code"] == 200
        assert line["response"]["request_id"].startswith("req_")
        [item] = line["response"]["body"]["data"]
        assert item["seed"] == 3
    assert len({pixels(line)[0] for line in lines}) == 1


def test_batches_are_listed_page_by_page_and_unknown_ones_are_not_found(client: OpenAI) -> None:
    made = [ended(client, send(client, [request("a")])).id for _ in range(3)]
    listed = [batch.id for batch in client.batches.list(limit=2)]
    assert listed[:3] == made[::-1]
    with pytest.raises(openai.NotFoundError, match="No batch found"):
        client.batches.retrieve("batch_0")


def test_a_bad_line_fails_alone(client: OpenAI) -> None:
    lines: list[Any] = [
        request("good", seed=1),
        "{bad",
        request("good"),
        {"custom_id": "no body", "method": "POST", "url": GENERATIONS},
        {**request("other method"), "method": "GET"},
        request("other url", EDITS, images=[data_url()]),
        {**request("other field"), "priority": 3},
        {key: value for key, value in request("").items() if key != "custom_id"},
        request("unknown parameter", svg=True),
        request("unknown model", model="gpt-image-1"),
        request("too large", size="999999x16"),
        request("streams", stream=True),
        request("no such lora", loras=["nowhere"]),
        request("fails", prompt="!nan this fails"),
        "[1, 2]",
        '{"custom_id": NaN}',
        "[" * 5000,
        {**request("x"), "custom_id": 7},
        {**request("x"), "custom_id": "x" * 513},
        {**request("not an object"), "body": "text"},
        "",
        request("last", n=2, seed=5, output_format="webp"),
    ]
    done = ended(client, send(client, lines))
    assert done.status == "completed" and done.request_counts is not None
    assert done.request_counts.to_dict() == {"total": 21, "completed": 2, "failed": 19}
    good, bad = lines_of(client, done.output_file_id), lines_of(client, done.error_file_id)
    assert ids(good) == ["good", "last"] and len(pixels(good[1])) == 2
    assert all((line["response"] is None) != (line["error"] is None) for line in bad)
    said = {
        line["custom_id"] or line["error"]["line"]: (
            line["error"]["code"] if line["error"] else line["response"]["body"]["error"]["code"]
        )
        for line in bad
    }
    assert said == {
        2: "invalid_json_line",
        3: "duplicate_custom_id",
        "no body": "missing_required_parameter",
        "other method": "invalid_method",
        "other url": "invalid_url",
        "other field": "unknown_parameter",
        8: "missing_required_parameter",
        "unknown parameter": "unknown_parameter",
        "unknown model": "model_not_found",
        "too large": "invalid_value",
        "streams": "invalid_value",
        "no such lora": "lora_not_found",
        "fails": "invalid_input",
        15: "invalid_json_line",
        16: "invalid_json_line",
        17: "invalid_json_line",
        18: "invalid_value",
        19: "invalid_value",
        "not an object": "invalid_type",
    }
    statuses = {x["custom_id"]: x["response"]["status_code"] for x in bad if x["response"]}
    assert statuses["unknown model"] == 404 and statuses["unknown parameter"] == 400


@pytest.mark.parametrize(
    ("lines", "code", "line"),
    [
        (["{bad", "worse"], "invalid_json_line", 1),
        ([request("a", EDITS, images=["x"])], "invalid_url", 1),
        ([""], "empty_file", None),
        (["{}\n" * 50_001], "too_many_requests", None),
    ],
)
def test_a_file_without_requests_fails_as_a_whole(
    client: OpenAI, lines: list[Any], code: str, line: int | None
) -> None:
    failed = ended(client, send(client, lines))
    assert (failed.status, failed.output_file_id, failed.error_file_id) == ("failed", None, None)
    assert failed.failed_at is not None
    assert failed.errors is not None and failed.errors.data is not None
    assert (failed.errors.data[0].code, failed.errors.data[0].line) == (code, line)


def test_what_cannot_be_a_batch_is_refused(client: OpenAI) -> None:
    file = client.files.create(file=("a.jsonl", text_of([request("a")]).encode()), purpose="batch")
    other = client.files.create(file=("a.png", picture()), purpose="vision")
    create: Any = client.batches.create
    for asked, param in (
        ({"endpoint": "/v1/chat/completions"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"input_file_id": "file-0"}, "input_file_id"),
        ({"input_file_id": other.id}, "input_file_id"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"extra_body": {"priority": 1}}, "priority"),
    ):
        usual = {"endpoint": GENERATIONS, "completion_window": "24h", "input_file_id": file.id}
        with pytest.raises(openai.BadRequestError) as refused:
            create(**{**usual, **asked})
        assert refused.value.param == param


def test_a_cancelled_batch_keeps_what_is_done_and_accounts_for_the_rest(client: OpenAI) -> None:
    names = [str(n) for n in range(300)]  # more than one job holds
    batch = send(client, [request(name, **SLOW) for name in names])

    def something_done() -> bool:
        counts = client.batches.retrieve(batch.id).request_counts
        return counts is not None and counts.completed > 0

    wait_until(something_done, "a request that is done")
    assert client.batches.cancel(batch.id).status == "cancelling"
    done = ended(client, batch)
    assert done.status == "cancelled" and done.cancelled_at is not None
    good, bad = lines_of(client, done.output_file_id), lines_of(client, done.error_file_id)
    assert good and {line["error"]["code"] for line in bad} == {"batch_cancelled"}
    assert sorted([*ids(good), *ids(bad)], key=str) == sorted(names)
    with pytest.raises(openai.ConflictError, match="'cancelled'"):
        client.batches.cancel(batch.id)


def test_a_direct_request_does_not_wait_for_a_batch(client: OpenAI) -> None:
    batch = send(client, [request(str(n), **SLOW) for n in range(300)])
    answer = client.images.generate(prompt="at once", size="32x32")
    assert answer.data
    assert client.batches.retrieve(batch.id).status == "in_progress"
    client.batches.cancel(batch.id)
    assert ended(client, batch).status == "cancelled"


def test_addresses_in_a_batch_outlive_those_of_requests(client: OpenAI) -> None:
    done = ended(client, send(client, [request("a", response_format="url")]))
    [line] = lines_of(client, done.output_file_id)
    url = line["response"]["body"]["data"][0]["url"]
    with httpx2.Client(trust_env=False) as anybody:
        answer = anybody.get(url)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert "max-age=6" in answer.headers["cache-control"]  # a week has 604800 seconds


def test_all_three_ways_have_the_same_result(
    client: OpenAI, project: Project, tmp_path: Path
) -> None:
    file = client.files.create(file=("source.png", picture()), purpose="vision")
    (project.folder / "source.png").write_bytes(picture())

    def requests(reference: str) -> list[Any]:
        return [
            request("one", EDITS, images=[{"image_url": data_url()}], seed=1),
            request("bad", EDITS, images=[data_url()], svg=1),
            request("two", EDITS, images=[reference], n=2, seed=2, output_format="webp"),
            request("three", EDITS, images=[data_url()], mask=mask_url(), seed=3),
            request("four", EDITS, images=[data_url()], mask=data_url()),
            request("five", EDITS, images=[reference], mask={"image_url": mask_url(40)}, seed=3),
        ]

    done = ended(client, send(client, requests(file.id), EDITS))
    served = lines_of(client, done.output_file_id), lines_of(client, done.error_file_id)

    batch = project.write_tweets(text_of(requests("source.png")), "batch.jsonl")
    run = project.start([batch, 1], simulated(**SETTINGS))
    assert run.finish() == 1, run.errors
    assert "6 requests: 4 completed, 2 failed" in run.output
    folder = project.folder / "out" / "batch"
    command = lines_in(folder / "batch_output.jsonl"), lines_in(folder / "batch_errors.jsonl")

    config = simulated(**SETTINGS)
    with MultiGPUImageGenerator(1, config=config, output_dir=tmp_path / "python") as generator:
        outcome = run_batch(generator, batch)
    assert outcome.output is not None and outcome.errors is not None
    python = lines_in(outcome.output), lines_in(outcome.errors)

    for good, bad in (served, command, python):
        assert ids(good) == ["one", "two", "three", "five"] and ids(bad) == ["bad", "four"]
        assert [pixels(line) for line in good] == [pixels(line) for line in served[0]]
        answers = [line["response"]["body"] for line in bad]
        assert answers == [line["response"]["body"] for line in served[1]]
        assert [len(line["response"]["body"]["data"]) for line in good] == [1, 2, 1, 1]
        assert good[1]["response"]["body"]["output_format"] == "webp"


@pytest.mark.slow
def test_a_daemon_that_is_killed_again_and_again_loses_no_line(daemon: Daemon) -> None:
    daemon.settings = {**SETTINGS, "server": {"max_tasks_per_job": 40}}
    daemon.start()
    names = [str(n) for n in range(70)]  # two jobs
    lines = [request(name, size="32x32", seed=1, num_inference_steps=1) for name in names]
    with openai_client(daemon) as client:
        batch = send(client, [*lines, "{bad"])
    pictures = daemon.output / "jobs"
    for least in (1, 20, 50, 65):
        wait_until(partial(_has, pictures, least), "pictures")
        daemon.kill()
        daemon.start()
    with openai_client(daemon) as client:
        done = ended(client, batch)
        assert done.status == "completed"
        good, bad = lines_of(client, done.output_file_id), lines_of(client, done.error_file_id)
        files = [file for file in client.files.list() if file.purpose == "batch_output"]
    assert ids(good) == names and ids(bad) == [None]
    assert len(files) == 2
    assert len(list((daemon.output / "jobs").rglob("*.png"))) == len(names)
    assert not list((daemon.output / "batches").rglob("*.jsonl"))


def _has(folder: Path, least: int) -> bool:
    return len(found_below(folder, "*.png")) >= least


def test_a_batch_whose_time_is_up_accounts_for_every_request(daemon: Daemon) -> None:
    daemon.settings = SETTINGS
    daemon.start("--drain-timeout", "0")
    with openai_client(daemon) as client:
        batch = send(client, [request(str(n), **SLOW) for n in range(150)])
        wait_until(lambda: found_below(daemon.output, "*.png"), "a picture")
    assert daemon.stop() == 0, daemon.log
    [record] = (daemon.output / "batches").glob("*/batch.json")
    said = json.loads(record.read_text("utf-8"))
    record.write_text(json.dumps({**said, "expires": said["created"]}), "utf-8")
    daemon.start()
    with openai_client(daemon) as client:
        done = ended(client, batch)
        good, bad = lines_of(client, done.output_file_id), lines_of(client, done.error_file_id)
    assert done.status == "expired" and done.expired_at is not None
    assert good and {line["error"]["code"] for line in bad} == {"batch_expired"}
    assert len(good) + len(bad) == 150


def test_a_batch_waits_where_the_queue_is_full_and_fits_into_a_small_one(daemon: Daemon) -> None:
    small = {"max_tasks_per_job": 5, "max_waiting_per_key": 5, "max_waiting": 5}
    daemon.settings = {**SETTINGS, "server": small}
    daemon.start()
    slow = {"width": 128, "height": 128, "num_inference_steps": 1, "prompt": "a house"}
    with daemon.client() as other, openai_client(daemon) as client:
        assert other.post("/v1/jobs", json={"tasks": [slow] * 5}).status_code == 202
        requests = [request(str(n), n=2) for n in range(6)]
        done = ended(client, send(client, [*requests, request("too many", n=6)]))
        good, bad = lines_of(client, done.output_file_id), lines_of(client, done.error_file_id)
    assert ids(good) == [str(n) for n in range(6)] and ids(bad) == ["too many"]
    assert all(len(pixels(line)) == 2 for line in good)
    assert bad[0]["response"]["body"]["error"]["code"] == "too_many_tasks"
