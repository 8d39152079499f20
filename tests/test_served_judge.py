"""A judge that is served elsewhere: one server in this process, one killed and resumed run."""

import base64
import json
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image, PngImagePlugin

from apps.edit_benchmark.settings import load_benchmark_settings
from core.devices.edit_models import judge_model, judging_devices
from core.errors import InputError
from core.judge import load_judge
from core.store.outputs import ANSWERS_PREFIX
from tests.conftest import BENCHMARK, PATIENCE, Project, Run, wait_until
from tests.edit_world import Bench, pair, settings
from workers.judges.endpoint import Reply
from workers.judges.kept_answers import KeptAnswers

KEY = "sk-of-the-test"
PAIRS = 6
PASSES = 2
EACH = 2 * PASSES  # questions about an edit: two calls in each pass
BEFORE_THE_KILL = 2 * EACH + 5  # answers: two edits whole, and two of which one has three


@dataclass
class Served:
    """A server, what it was asked, and how it answers.

    The first request gets 429, the second no answer in time; others are answered, until so many
    are that the next ones wait for `open`.
    """

    asked: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)  # questions
    waiting: int = 0  # requests under way that nobody answers
    closed_after: int = BEFORE_THE_KILL
    open: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def turn(self, headers: dict[str, str], body: dict[str, Any]) -> tuple[str, str]:
        """How a request is met, and its question."""
        [question] = [p["text"] for p in body["messages"][0]["content"] if p["type"] == "text"]
        with self.lock:
            self.asked.append((headers, body))
            number = len(self.asked)
            if number <= 2:
                return ("busy", "late")[number - 1], question
            if not self.open.is_set() and len(self.answered) >= self.closed_after:
                self.waiting += 1
                return "waits", question
            self.answered.append(question)
            return "answers", question


def handler_of(served: Served) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            how, question = served.turn(dict(self.headers), body)
            if how in ("late", "waits"):
                served.open.wait(PATIENCE)
                return self.close_connection_at_once()
            if how == "busy":
                return self.say(429, {"error": {"message": "slow down"}}, {"Retry-After": "0.1"})
            answer = '{"score": [9, 5], "reasoning": "-"}'
            if "asked" in question:
                answer = '<think>{"score": [1, 1]}</think>{"score": [8, 6], "reasoning": "-"}'
            message = {"message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}
            usage = {"prompt_tokens": 100, "completion_tokens": 10}
            self.say(200, {"model": "judge-2026", "choices": [message], "usage": usage})

        def close_connection_at_once(self) -> None:
            self.close_connection = True

        def say(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@dataclass
class Played:
    """The run that was killed, and the one that went on."""

    served: Served
    bench: Bench
    before: Counter[str]
    finished_before: int
    resumed: Run


def started(bench: Bench, address: str) -> Run:
    """The command, with a judge at `address` and editors that are simulated."""
    api = {"base_url": address, "key_variable": "JUDGE_KEY", "concurrency": 2, "timeout": 2}
    api |= {"picture_format": "jpeg", "price_in": 2.0, "price_out": 10.0, "extra": {"user": "t"}}
    judge: dict[str, Any] = {"type": "openai", "model": "judge", "prompts": "viescore.yaml"}
    judge |= {"num_pass": PASSES, "temperature": 0.5, "api": api}
    config = bench.project.folder / "bench.yaml"
    values = settings(data=str(bench.data), judge=judge, cpu_workers=1, use_server="never")
    config.write_text(yaml.safe_dump({**values, "workers": {"start_method": "auto"}}), "utf-8")
    out = str(bench.project.folder / "out")
    return bench.project.execute(BENCHMARK, ["--config", str(config), "--output-dir", out])


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    project = Project(tmp_path_factory.mktemp("served"))
    project.environment = {"JUDGE_KEY": KEY, "NO_PROXY": "*", "no_proxy": "*"}
    bench = Bench(project)
    rows = [pair(i, f"make it night {i}") for i in range(PAIRS)]
    secret = PngImagePlugin.PngInfo()
    secret.add_text("Comment", "where it was taken")
    for row in rows:
        file = bench.data / row["input_file_name"]
        Image.new("RGB", (48, 32), (9, 9, 99)).save(file, pnginfo=secret)
    bench.write_pairs(rows)
    served = Served()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(served))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/v1"
    first = started(bench, address)
    # Whoever asks the next question has written the answer before it down.
    wait_until(
        lambda: served.waiting >= 2 and len(bench.verdicts()) == 2,
        "two verdicts, and two questions that nobody answers",
    )
    first.process.kill()
    first.process.wait()
    before, finished = Counter(served.answered), len(bench.verdicts())
    served.open.set()
    resumed = started(bench, address)
    resumed.finish()
    yield Played(served, bench, before, finished, resumed)
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_a_killed_run_goes_on_and_every_edit_is_scored(played: Played) -> None:
    assert played.resumed.process.returncode == 0, played.resumed.errors
    assert played.bench.outcomes() == ["scored"] * PAIRS
    for record in played.bench.records():
        assert record["scores"] == {"SC": 6, "PQ": 5, "O": pytest.approx(30**0.5)}


def test_no_answer_that_came_before_the_kill_is_paid_for_again(played: Played) -> None:
    """Neither of edits with a verdict, nor of those that were half judged, in either pass."""
    assert (played.finished_before, played.before.total()) == (2, BEFORE_THE_KILL)
    assert len(played.served.answered) == EACH * PAIRS
    times = Counter(q for q in played.served.answered if "asked" in q)
    assert times == dict.fromkeys(times, PASSES) and len(times) == PAIRS


def test_nothing_is_left_of_answers_when_each_edit_has_its_verdict(played: Played) -> None:
    assert not list(played.bench.results.rglob(f"{ANSWERS_PREFIX}*"))
    for file in played.bench.verdicts():
        calls = json.loads(file.read_text("utf-8"))["calls"]
        assert [(c["pass"], c["name"]) for c in calls] == [
            (number, name) for number in range(PASSES) for name in ("SC", "PQ")
        ]


def test_nothing_is_sent_that_the_settings_do_not_name(played: Played) -> None:
    headers, body = played.served.asked[-1]
    assert body.keys() == {"model", "messages", "max_tokens", "temperature", "user"}
    assert (body["model"], body["user"]) == ("judge", "t")
    assert headers["Authorization"] == f"Bearer {KEY}"
    others = {"Host", "Accept", "Accept-Encoding", "Connection", "User-Agent", "Content-Length"}
    assert {name.title() for name in headers} <= {*others, "Content-Type", "Authorization"}
    urls = [p["image_url"]["url"] for p in body["messages"][0]["content"] if "image_url" in p]
    for url in urls:
        picture = Image.open(BytesIO(base64.b64decode(url.partition(",")[2])))
        assert picture.format == "JPEG" and not picture.getexif() and "comment" not in picture.info


def test_what_it_cost_is_in_the_summary(played: Played) -> None:
    usage = played.bench.summary()["judged_by"]["usage"]
    assert usage == {
        "requests": EACH * PAIRS,
        "tokens_in": 100 * EACH * PAIRS,
        "tokens_out": 10 * EACH * PAIRS,
        "cost": pytest.approx((100 * 2 + 10 * 10) * EACH * PAIRS / 1e6),
    }
    line = "24 requests, 2,400 tokens in, 240 out, cost 0.0072 by the prices of judge.api"
    assert f"judge's server: {line}" in played.resumed.output


def test_the_key_is_in_no_file_and_no_line(played: Played) -> None:
    files = [p for p in played.bench.project.folder.rglob("*") if p.is_file()]
    assert not [p for p in files if KEY.encode() in p.read_bytes()]
    assert KEY not in played.resumed.output


def test_verdicts_say_who_answered(played: Played) -> None:
    verdict = json.loads(played.bench.verdicts()[0].read_text("utf-8"))
    assert verdict["used"]["answered_by"] == ["judge-2026"]
    assert verdict["used"]["judge"] == "openai-viescore-judge"


def test_answers_to_other_questions_and_half_a_line_are_none(tmp_path: Path) -> None:
    file = tmp_path / "answers"
    kept = KeptAnswers(file, "mine")
    kept.keep("0/0/0", Reply("9", False, 1, 2, "m"))
    KeptAnswers(file, "another's").keep("0/1/0", Reply("8", False, 1, 2, None))
    with file.open("ab") as stream:
        stream.write(b'\n["mine", "0/2/0", {"text": "7"')  # the run was killed here
    again = KeptAnswers(file, "mine")
    again.keep("0/3/0", Reply("6", True, 1, 2, None))
    found = KeptAnswers(file, "mine")
    assert [found.get(f"0/{i}/0") for i in range(4)] == [
        Reply("9", False, 1, 2, "m"),
        None,
        None,
        Reply("6", True, 1, 2, None),
    ]


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ({"model": "m"}, "judge.api.base_url: a judge of type openai needs the address"),
        ({"api": {"base_url": "http://x/v1"}}, "judge.model: .* name the model as its server"),
        (
            {"model": "m", "api": {"base_url": "http://x/v1", "key_variable": "NOT_THERE_1"}},
            "the environment variable NOT_THERE_1 is not set",
        ),
        ({"api": {"base_url": "x"}}, "expected an address such as"),
        ({"api": {"base_url": "https://me:pw@x/v1"}}, "keys do not belong into the address"),
    ],
)
def test_a_served_judge_that_cannot_be_asked_is_refused(judge: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        judge_model(load_benchmark_settings({"judge": {"type": "openai", **judge}}), [])


def test_only_what_may_change_an_answer_has_edits_judged_again() -> None:
    def identity(**api: Any) -> str:
        api = {"base_url": "http://x/v1", **api}
        settings = load_benchmark_settings({"judge": {"type": "openai", "model": "m", "api": api}})
        model, asked = judge_model(settings, [])
        return load_judge(asked).identity(model.deciding)

    first = identity()
    assert identity(concurrency=1, retries=0, price_in=1.0, timeout=9) == first
    assert identity(picture_quality=50) == first, "PNG has no quality"
    changes: list[dict[str, Any]] = [{"extra": {"a": 1}}, {"base_url": "http://y/v1"}]
    changes += [{"picture_format": "jpeg"}, {"picture_detail": "high"}, {"send_seed": True}]
    assert len({first, *(identity(**change) for change in changes)}) == 6


def test_a_served_judge_takes_no_gpu() -> None:
    judge = load_benchmark_settings({"judge": {"type": "openai", "model": "m"}}).judge
    [device] = judging_devices(judge, [])
    assert (device.kind, device.mask, device.label) == ("cpu", "", "cpu0-api")


def test_its_worker_imports_no_torch() -> None:
    import subprocess

    code = "import sys; import workers.judges.openai; assert 'torch' not in sys.modules"
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
