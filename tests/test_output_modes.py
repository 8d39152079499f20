"""`--json`, `--quiet` and `--plain`, and the lines with which a run ends."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from apps.json_events import AnyEvent
from apps.run_summary import Tally, failure_lines, time_line
from apps.tweets.command import main
from core.engine.backend import NotUsed, Report
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.status.run_status import KindStatus, RunStatus
from core.tasks import Result
from tests.conftest import wait_until
from tests.inline_backend import InlineBackend

EVENTS: TypeAdapter[Any] = TypeAdapter(AnyEvent)


class Command:
    """The tweets command in this process: exit code, standard output and standard error."""

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.backend: Callable[[], InlineBackend] = InlineBackend
        self._capfd = capfd

    def run(self, tweets: Any, *arguments: str) -> tuple[int, str, str]:
        file, config = self.folder / "tweets.json", self.folder / "settings.yaml"
        file.write_text(json.dumps(tweets), "utf-8")
        config.write_text(yaml.safe_dump({"model": "simulated"}), "utf-8")
        line = [str(file), "1", "--config", str(config), "--output-dir", str(self.folder / "out")]
        self._capfd.readouterr()
        code = main([*line, *arguments], backend=self.backend())
        said = self._capfd.readouterr()
        return code, said.out, said.err

    def events(self, tweets: Any, *arguments: str) -> list[dict[str, Any]]:
        """What `--json` says; each line is one of the documented events."""
        _, out, _ = self.run(tweets, "--json", *arguments)
        return [dict(EVENTS.validate_json(line, strict=True)) for line in out.splitlines()]


@pytest.fixture
def command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, capfd)


def test_json_says_a_line_per_event_and_nothing_else(command: Command) -> None:
    tweets = [{"prompt": "早安\n🌅", "output_path": "a.png"}, {"prompt": "!nan"}, {"width": 1}]
    events = command.events(tweets)
    names = [event["event"] for event in events]
    assert (names[0], names[-1]) == ("start", "end") and names.count("start") == 1
    assert names.count("task") == 3 and names.count("task_started") == 2
    start, end = events[0], events[-1]
    assert (start["total"], start["already_done"]) == (3, 0)
    assert (end["state"], end["done"], end["failed"]) == ("failed", 1, 2)
    tasks = {event["position"]: event for event in events if event["event"] == "task"}
    assert tasks[0]["success"] and tasks[0]["output_path"].endswith("a.png")
    assert tasks[0]["kind"] == "generate" and tasks[0]["worker"] == "cpu0"
    assert tasks[1]["status"] == "failed" and "failure" in tasks[1]["error"]
    assert "prompt" in tasks[2]["error"] and tasks[2]["worker"] is None


def test_json_tells_of_every_task_once_also_of_what_is_done_already(command: Command) -> None:
    command.run([{"prompt": "a"}])
    events = command.events([{"prompt": "a"}, {"prompt": "b"}])
    told = [(e["task_id"], e["status"]) for e in events if e["event"] == "task"]
    assert sorted(told) == [("tweets_00", "skipped"), ("tweets_01", "done")]
    again = command.events([{"prompt": "a"}, {"prompt": "b"}])
    assert [e["event"] for e in again] == ["start", "task", "task", "end"]
    assert (again[-1]["state"], again[-1]["already_done"]) == ("completed", 2)


def test_json_says_first_how_much_is_to_be_done_whatever_happens_before(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OfCluster(InlineBackend):
        """One that says at once what it does without."""

        def poll(self, timeout: float) -> list[Report]:
            first, self.told = not self.told, True
            return [NotUsed("b", "b: it has other software")] if first else super().poll(timeout)

        told = False

    def run(generator: MultiGPUImageGenerator, *arguments: Any) -> Any:
        wait_until(lambda: bool(generator.status().not_used), "the cluster's word")
        return original(generator, *arguments)

    original = MultiGPUImageGenerator.run
    monkeypatch.setattr(MultiGPUImageGenerator, "run", run)
    command.backend = OfCluster
    start, *others, end = command.events([{"prompt": "a"}, {"prompt": "b"}])
    assert (start["event"], start["total"]) == ("start", 2)
    assert [e["why"] for e in others if e["event"] == "not_used"] == ["b: it has other software"]
    assert end["done"] == 2


def test_json_says_why_nothing_ran(command: Command) -> None:
    [event] = command.events({"no": "tweets"})
    assert event["event"] == "error" and "tweets" in event["message"]


def test_quiet_says_what_failed_and_the_result(command: Command) -> None:
    code, out, err = command.run([{"prompt": "a"}, {"prompt": "!nan"}], "--quiet")
    assert code == 1 and out.startswith("2 tweets: 1 done, 1 failed\n")
    [line] = err.splitlines()
    assert "ERROR" in line and "tweets_01" in line
    assert command.run([{"prompt": "a"}], "-q", "--name", "good")[2] == ""


def test_two_ways_at_once_are_refused(command: Command) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.run([{"prompt": "a"}], "--json", "--quiet")


def test_lines_of_the_log_have_a_date_and_a_count(command: Command) -> None:
    _, _, err = command.run([{"prompt": "a"}, {"prompt": "b"}], "--plain")
    [last] = [line for line in err.splitlines() if "[2/2]" in line]
    date, time, level, count, *_ = last.split()
    assert len(date) == 10 and date.count("-") == 2 and time.count(":") == 2
    assert (level, count) == ("INFO", "[2/2]")


def test_a_run_ends_with_time_speed_reasons_and_the_way_on(command: Command) -> None:
    code, out, _ = command.run([{"prompt": "a"}, {"prompt": "!nan"}, {"prompt": "!nan b"}])
    first, where, elapsed, *rest = out.splitlines()
    assert code == 1 and first == "3 tweets: 1 done, 2 failed" and "out/tweets" in where
    assert elapsed.startswith("elapsed: 0:0") and "1 picture" in elapsed and "/min" in elapsed
    assert rest[0].startswith("2 failed: ") and "tweets_01, tweets_02" in rest[1]
    assert rest[-1].startswith("try again with: ") and "tweets.json" in rest[-1]
    code, out, _ = command.run([{"prompt": "a"}])
    assert code == 0 and "try again" not in out and "elapsed" not in out, "nothing was to be done"


def failed(number: int, cause: str, error: str, status: Any = "failed") -> Result:
    return Result(number, f"t{number}", status, None, error=error, cause=cause)


def test_errors_that_differ_in_names_and_numbers_are_one_reason() -> None:
    results = [failed(n, "lora", f"lora/{n}.safetensors is no file.") for n in range(9)]
    results += [failed(9, "out_of_memory", "CUDA out of memory: 3 GB")]
    results += [failed(10, "crash", "It took its worker with it", "quarantined")]
    tally = Tally.of(reversed(results))  # in whichever order they come
    many, memory, quarantined = tally.reasons
    assert many.count == 9 and many.error == "lora/0.safetensors is no file."
    assert "memory" in str(memory.advice) and "--retry-quarantined" in str(quarantined.advice)
    lines = failure_lines(tally, "python x.py", "results.jsonl")
    assert lines[0] == "9 failed like this: lora/0.safetensors is no file."
    assert lines[1] == "  t0, t1, t2 and 6 more" and lines[-1] == "try again with: python x.py"


def test_of_hundreds_of_reasons_some_are_shown_and_the_table_has_the_others() -> None:
    results = [failed(n, "error", "reason " + "x" * n) for n in range(200)]
    lines = failure_lines(Tally.of(results), "again", "out/results.jsonl")
    assert len(lines) < 20 and "195 other reasons are in out/results.jsonl." in lines


def test_a_benchmarks_time_counts_edits_and_scores() -> None:
    kinds = (KindStatus("edit", 50, 50), KindStatus("score", 50, 48, 2))
    status = RunStatus("failed", "failed", 0.0, 300.0, 300.0, kinds)
    line = time_line(status)
    assert line is not None and "elapsed: 5:00" in line and "50 edits and 48 scores" in line
    assert "picture" not in line and "19.6/min" in line
