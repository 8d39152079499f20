"""Files of OpenAI's Batch API on the command line, and how they are read."""

import json
import os
import signal
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from apps.openai_images import run_batch
from apps.openai_images.batch import LocalBatch
from apps.openai_images.batch_detection import is_batch_file
from apps.openai_images.batch_file import BadLine, BatchFile, BatchRequest
from apps.openai_images.rules import load_image_settings
from apps.tweets.command import main
from core import MultiGPUImageGenerator
from core.devices.edit_models import DEMO_EDITOR
from core.errors import InputError
from tests.conftest import Project, simulated, wait_until
from tests.inline_backend import InlineBackend
from tests.server.batch_files import (
    EDITS,
    data_url,
    lines_in,
    mask_url,
    picture,
    pixels,
    request,
    text_of,
)
from tests.server.image_clients import mask

SIMULATED: dict[str, Any] = {"model": "simulated", "editor": {"model": "simulated"}}


def written(folder: Path, lines: list[Any], name: str = "batch.jsonl") -> Path:
    file = folder / name
    file.write_text(text_of(lines), "utf-8")
    return file


def generator_of(folder: Path) -> MultiGPUImageGenerator:
    return MultiGPUImageGenerator(1, config=SIMULATED, output_dir=folder, backend=InlineBackend())


def all_ids(folder: Path) -> list[str]:
    """The ids of all lines in a folder."""
    lines = [*lines_in(folder / "batch_output.jsonl"), *lines_in(folder / "batch_errors.jsonl")]
    return sorted(str(line["custom_id"]) for line in lines)


# -- told from other files ---------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "is_batch"),
    [
        ([request("a")], True),
        (["", "{bad", request("a")], True),
        (["\ufeff" + json.dumps(request("a"))], True),
        ([{"prompt": "a house", "custom_id": "a"}], False),
        ([{"prompt": "a house", "url": "x", "body": "text"}], False),
        (['"a house"', '"another"'], False),
        (['{"tweets": [', '{"prompt": "a house"}', "]}"], False),
        ([], False),
    ],
)
def test_a_batch_file_is_told_by_its_content(
    lines: list[Any], is_batch: bool, tmp_path: Path
) -> None:
    assert is_batch_file(written(tmp_path, lines, "any.json")) is is_batch


def test_files_that_cannot_be_read_are_no_batch_files(tmp_path: Path) -> None:
    assert not is_batch_file(tmp_path)
    assert not is_batch_file(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("lines", "as_requests", "as_tweets"),
    [
        ([json.dumps(request(n))[:-1] for n in "ab"], "line 1: The line is not valid JSON",
         "not valid JSON"),
        ([{k: v for k, v in request(n).items() if k != "body"} for n in "ab"],
         "line 1: Missing required parameter: 'body'.", "tweet 0: has no prompt"),
        ([{**request("a"), "body": "a house"}], "line 1: body: must be a JSON object",
         "expected a list of objects or prompts"),
        ([json.dumps([request("a"), request("b")])], "The line must be a JSON object", "no prompt"),
        (["", '{"custom_id": "a"', "[" * 3000], "line 2: The line is not valid JSON",
         "not valid JSON"),
    ],
)  # fmt: skip
def test_a_file_that_is_neither_requests_nor_tweets_is_told_what_is_wrong_with_both(
    lines: list[Any], as_requests: str, as_tweets: str, project: Project
) -> None:
    written(project.folder, lines)
    run = project.run(["batch.jsonl"])
    assert run.process.wait() == 2
    (line,) = run.errors.splitlines()
    assert "batch.jsonl: nothing in it can be used. As requests of OpenAI's Batch API: " in line
    requests, _, tweets = line.partition(" As tweets: ")
    assert as_requests in requests and as_tweets in tweets, line
    assert not (project.folder / "out").exists()


def test_tweets_that_have_a_custom_id_are_tweets(project: Project) -> None:
    tweet = {"prompt": "a house", "width": 32, "height": 32, "num_inference_steps": 1}
    written(project.folder, [{**tweet, "custom_id": "a"}, "{custom_id"])
    run = project.run(["batch.jsonl"])
    assert run.process.wait() == 1  # one of two
    assert "2 tweets: 1 done, 1 failed" in run.output


# -- read line by line --------------------------------------------------------------


@pytest.mark.slow
def test_a_large_file_is_never_held_in_memory(tmp_path: Path) -> None:
    line = json.dumps(request("?", EDITS, images=["data:image/png;base64," + "A" * 2_000_000]))
    with (tmp_path / "large.jsonl").open("w") as stream:
        for number in range(50):
            stream.write(line.replace('"?"', f'"{number}"') + "\n")
        stream.write('{"custom_id": "' + "x" * 70_000_000 + '"}\n')
        stream.write(json.dumps(request("last")) + "\n")
    rules = load_image_settings().images
    tracemalloc.start()
    found = [
        (item.line, item.custom_id, isinstance(item, BatchRequest))
        for item in BatchFile(tmp_path / "large.jsonl", rules)
    ]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 52 and found[-1] == (52, "last", True)
    assert found[-2] == (51, None, False)
    assert peak < 160_000_000, "of 170 MB; the longest line that is taken has 67 MB"


def test_a_request_for_pictures_of_a_server_says_what_would_be_right(tmp_path: Path) -> None:
    batch = written(
        tmp_path,
        [
            request("file id", EDITS, images=[{"file_id": "file-1"}]),
            request("address", EDITS, images=["https://example.org/a.png"]),
            request("no picture", EDITS, images=["data:image/png;base64,AAAA"]),
            request("no base64", EDITS, images=["data:image/png;base64,?"]),
            request("none", EDITS),
        ],
    )
    with generator_of(tmp_path / "out") as generator:
        outcome = run_batch(generator, batch)
    assert (outcome.output, outcome.completed, outcome.failed) == (None, 0, 5)
    said = [x["response"]["body"]["error"] for x in lines_in(tmp_path / "out/batch_errors.jsonl")]
    assert [error["code"] for error in said] == [
        "image_not_found",
        "invalid_image_url",
        "invalid_image",
        "invalid_image_url",
        "missing_required_parameter",
    ]
    assert all(str(tmp_path / "out") not in error["message"] for error in said)


def test_a_file_without_requests_is_refused(tmp_path: Path) -> None:
    with generator_of(tmp_path / "out") as generator:
        for file in (written(tmp_path, [""]), tmp_path / "nowhere"):
            with pytest.raises(InputError):
                run_batch(generator, file)


# -- names and seeds --------------------------------------------------------------------


def test_requests_share_no_file_and_draw_the_same_again(tmp_path: Path) -> None:
    names = ["a", "A", "a/0", "a.0", "../a", "ä", "x" * 500, "con", ".hidden", "a\nb"]
    batch = written(tmp_path, [*(request(name) for name in names), request("b", n=2)])
    drawn = []
    for number in range(2):
        with generator_of(tmp_path / str(number)) as generator:
            outcome = run_batch(generator, batch)
        assert (outcome.completed, outcome.failed) == (12 - 1, 0)
        assert outcome.output is not None
        drawn.append([pixels(line) for line in lines_in(outcome.output)])
        assert len(list((tmp_path / str(number)).glob("*.png"))) == 12
    assert drawn[0] == drawn[1]
    assert len({tuple(each) for each in drawn[0]}) == 11, "each has a seed of its own"


def test_an_address_is_that_of_a_file_in_the_format_that_was_asked_for(tmp_path: Path) -> None:
    batch = written(tmp_path, [request("a", response_format="url", output_format="jpeg")])
    with generator_of(tmp_path / "out") as generator:
        run_batch(generator, batch)
    [line] = lines_in(tmp_path / "out/batch_output.jsonl")
    url = line["response"]["body"]["data"][0]["url"]
    assert url == (tmp_path / "out/a.jpeg").as_uri()
    assert (tmp_path / "out/a.jpeg").read_bytes().startswith(b"\xff\xd8")


def test_a_mask_belongs_to_what_an_edit_is(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(picture())
    (tmp_path / "mask.png").write_bytes(mask()[1])
    masks = {"by path": "mask.png", "sent": mask_url()}
    lines = [request(n, EDITS, images=["picture.png"], mask=m) for n, m in masks.items()]
    batch = written(tmp_path, lines)

    def drawn() -> dict[str, int]:
        with generator_of(tmp_path / "out") as generator:
            assert run_batch(generator, batch).completed == 2
        return {file.stem: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*.png")}

    first = drawn()
    assert drawn() == first, "nothing has changed"
    (tmp_path / "mask.png").write_bytes(mask(30)[1])
    third = drawn()
    [changed] = [name for name in first if third[name] != first[name]]
    assert changed.startswith("by_path")


def test_a_batch_for_a_model_that_takes_no_mask_says_so_in_the_lines_of_edits_with_one(
    tmp_path: Path,
) -> None:
    line = request("a", EDITS, images=[data_url()], mask=mask_url())
    settings = {**SIMULATED, "editor": {"model": str(DEMO_EDITOR)}}
    out = tmp_path / "out"
    with MultiGPUImageGenerator(
        1, config=settings, output_dir=out, backend=InlineBackend()
    ) as generator:
        assert run_batch(generator, written(tmp_path, [line])).failed == 1
    [answer] = lines_in(out / "batch_errors.jsonl")
    assert answer["response"]["status_code"] == 400
    assert answer["response"]["body"]["error"]["code"] == "unsupported_parameter"


# -- whatever dies ------------------------------------------------------------------------


def test_a_killed_command_leaves_one_line_for_each_request_when_it_runs_again(
    project: Project,
) -> None:
    (project.folder / "source.png").write_bytes(picture())
    lines = [request(f"g{n}", size="128x128", num_inference_steps=1) for n in range(12)]
    edits = [request(f"e{n}", EDITS, images=["source.png"]) for n in range(3)]
    batch = project.write_tweets(text_of([*lines, "{bad", *edits]), "batch.jsonl")
    settings = simulated(
        editor={"model": "simulated"}, simulated={"seconds_per_megapixel_step": 12.0}
    )
    folder = project.folder / "out" / "batch"
    run = project.start([batch, 1], settings)
    wait_until(lambda: list(folder.glob("g*.png")), "a picture")
    os.killpg(run.process.pid, signal.SIGKILL)
    run.process.wait()
    assert all_ids(folder) == []
    before = {file: file.stat().st_mtime_ns for file in folder.glob("*.png")}
    assert project.run([batch, 1], settings).process.returncode == 1
    good, bad = lines_in(folder / "batch_output.jsonl"), lines_in(folder / "batch_errors.jsonl")
    wanted = [line["custom_id"] for line in [*lines, *edits]]
    assert [line["custom_id"] for line in good] == wanted
    assert [line["error"]["code"] for line in bad] == ["invalid_json_line"]
    assert all(file.stat().st_mtime_ns == moment for file, moment in before.items())


class Killed(BaseException):
    """Stands for the end of the process, at a call that reaches the disk."""


@pytest.mark.parametrize("call", range(1, 5))
def test_no_request_is_in_both_files_wherever_a_second_run_ends(
    call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = written(tmp_path, [request("a"), request("b", prompt="!nan fails"), request("c")])
    folder = tmp_path / "out"
    with generator_of(folder) as generator:
        run_batch(generator, batch)
    assert all_ids(folder) == ["a", "b", "c"]
    written(tmp_path, [request("a", prompt="!nan fails"), request("b"), request("c")])

    calls = 0

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def at_last(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                raise Killed
            return real(*arguments)

        return at_last

    with generator_of(folder) as generator:
        local = LocalBatch(generator, batch)
        results = generator.generate_batch(list(local))  # type: ignore[arg-type]
        with monkeypatch.context() as patch:
            for name in ("remove", "_publish", "sync_folder"):
                real = getattr(__import__("apps.openai_images.batch", fromlist=[name]), name)
                patch.setattr(f"apps.openai_images.batch.{name}", dying(real))
            with pytest.raises(Killed):
                local.write(results)
        ids = all_ids(folder)
        assert len(set(ids)) == len(ids)
        local.write(results)
    assert all_ids(folder) == ["a", "b", "c"]
    assert [x["custom_id"] for x in lines_in(folder / "batch_errors.jsonl")] == ["a"]


def test_a_picture_that_is_gone_costs_its_own_line(tmp_path: Path) -> None:
    batch = written(tmp_path, [request("a", n=2), request("b"), request("c")])
    with generator_of(tmp_path / "out") as generator:
        local = LocalBatch(generator, batch)
        results = generator.generate_batch(list(local))  # type: ignore[arg-type]
        (tmp_path / "out/a.1.png").unlink()
        (tmp_path / "out/b.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        outcome = local.write(results)
    assert (outcome.completed, outcome.failed) == (1, 2)
    bad = lines_in(tmp_path / "out/batch_errors.jsonl")
    assert [line["response"]["body"]["error"]["code"] for line in bad] == 2 * ["picture_gone"]
    [good] = lines_in(tmp_path / "out/batch_output.jsonl")
    assert good["custom_id"] == "c" and pixels(good)


def test_bad_lines_of_a_reader_name_their_line(tmp_path: Path) -> None:
    file = written(tmp_path, ["", "{bad", request("a")])
    bad, good = BatchFile(file, load_image_settings().images)
    assert isinstance(bad, BadLine) and (bad.line, bad.custom_id) == (2, None)
    assert isinstance(good, BatchRequest) and (good.line, good.custom_id) == (3, "a")


def test_options_that_mean_nothing_for_a_batch_are_refused(project: Project) -> None:
    batch = project.write_tweets(text_of([request("a", EDITS, images=[data_url()])]), "b.jsonl")
    run = project.run([batch, "--prompt-from", "prompt"])
    assert run.process.returncode == 2 and "--prompt-from" in run.errors


def test_lines_that_cannot_be_used_are_counted_at_the_beginning_and_the_end(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = [request("a"), "{bad", request("b"), "{worse", request("c", depth=3), request("b")]
    file = written(tmp_path, lines)
    line = [str(file), "1", "--output-dir", str(tmp_path / "out")]
    config = tmp_path / "settings.yaml"
    config.write_text("model: simulated\n")
    assert main([*line, "--config", str(config)], backend=InlineBackend()) == 1
    said = capfd.readouterr()
    [refusal] = [one for one in said.err.splitlines() if "cannot be used" in one]
    assert "4 of 6 lines of batch.jsonl cannot be used, and fail: line 2: " in refusal
    assert "line 4: " in refusal and "line 5: Unknown parameter: 'depth'; and 1 more." in refusal
    assert said.err.index("cannot be used") < said.err.index("Plan: 2 new")
    assert "6 requests: 2 completed, 4 failed (4 of them unusable lines)" in said.out
