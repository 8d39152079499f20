"""What a judge's server answers, and what becomes of it; without a network."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import pytest

from apps.edit_benchmark.settings import load_benchmark_settings
from core.errors import InputError, MultiGPUError
from workers.judges.endpoint import Endpoint, Unserved, retry_after

API = load_benchmark_settings({"judge": {"api": {"base_url": "http://judge/v1"}}}).judge.api
ANSWER = {
    "model": "judge-1",
    "choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3},
}


class World:
    """A server that answers from a list, and a clock that only waits move."""

    def __init__(self, *answers: httpx2.Response | Exception, **settings: Any) -> None:
        self.answers = list(answers)
        self.requests: list[httpx2.Request] = []
        self.waits: list[float] = []
        self.told = 0
        self.now = 0.0
        self.endpoint = Endpoint(
            API.model_copy(update=settings),
            "secret-key",
            httpx2.Client(transport=httpx2.MockTransport(self._answer)),
            self._told,
            lambda level, text: None,
            self._wait,
            lambda: self.now,
        )

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else httpx2.Response(200, json=ANSWER)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _told(self) -> None:
        self.told += 1

    def _wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def ask(self) -> Any:
        return self.endpoint.ask({"model": "m"})


def busy(seconds: str) -> httpx2.Response:
    return httpx2.Response(429, headers={"Retry-After": seconds}, json={"error": "slow down"})


def test_an_answer_is_read_and_counted() -> None:
    world = World()
    reply = world.ask()
    assert (reply.text, reply.cut, reply.tokens_in, reply.tokens_out) == ("fine", False, 7, 3)
    [request] = world.requests
    assert str(request.url) == "http://judge/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer secret-key"
    assert request.headers["user-agent"] == "multi-gpu-images"
    assert world.told == 1, "a slow answer is not taken for a hang"


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab"),
        ({"content": None, "refusal": "I cannot"}, "I cannot"),
        ({"content": "x", "reasoning_content": '{"score": 9}'}, "x"),
    ],
)
def test_only_what_a_judge_says_is_its_answer(message: dict[str, Any], text: str) -> None:
    said = {"choices": [{"message": message, "finish_reason": "length"}]}
    reply = World(httpx2.Response(200, json=said)).ask()
    assert (reply.text, reply.cut, reply.tokens_in) == (text, True, 0)


def test_a_server_that_asks_for_rest_is_left_alone_for_as_long() -> None:
    world = World(busy("7"))
    assert world.ask().text == "fine"
    assert world.waits == [7] and world.told >= 3


def test_all_threads_leave_it_alone() -> None:
    world = World(busy("7"), retries=0)
    with pytest.raises(MultiGPUError, match="failed 1 times; last 429: slow down"):
        world.ask()
    assert world.ask().text == "fine" and world.waits == [7]


def test_a_wait_that_is_too_long_ends_the_try() -> None:
    world = World(busy("4000"))
    with pytest.raises(MultiGPUError, match=r"alone for 4000 s .*longest_wait is 300 s"):
        world.ask()


def test_what_passes_is_tried_again_with_longer_waits() -> None:
    passing: list[httpx2.Response | Exception] = [
        httpx2.ReadTimeout(""),
        httpx2.ConnectError("no"),
        httpx2.Response(503, text="x"),
    ]
    world = World(*passing)
    assert world.ask().text == "fine"
    first, second, third = world.waits
    assert 0.5 <= first <= 1 and 1 <= second <= 2 and 2 <= third <= 4


def test_a_server_that_never_answers_fails_the_task_for_now() -> None:
    world = World(*[httpx2.ReadTimeout("")] * 3, retries=2)
    with pytest.raises(MultiGPUError, match="failed 3 times; last no answer within 120 s") as error:
        world.ask()
    assert not isinstance(error.value, InputError), "another time it may answer"


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_of_everything_is_heard_once(status: int) -> None:
    world = World(httpx2.Response(status, json={"error": {"message": "bad secret-key"}}))
    for _ in range(3):
        with pytest.raises(Unserved, match=rf"refuses all requests .{status}: bad …") as error:
            world.ask()
    assert len(world.requests) == 1 and "secret-key" not in str(error.value)


def test_an_empty_purse_is_not_waited_for() -> None:
    poor = httpx2.Response(429, json={"error": {"code": "insufficient_quota", "message": "pay"}})
    with pytest.raises(Unserved, match="429: pay"):
        World(poor).ask()


def test_a_bad_request_fails_its_own_task_alone() -> None:
    world = World(httpx2.Response(400, json={"error": {"message": "too large"}}))
    with pytest.raises(InputError, match=r"refuses the request .400: too large"):
        world.ask()
    assert world.ask().text == "fine"


def test_something_else_than_an_answer_is_said_to_be_none() -> None:
    with pytest.raises(MultiGPUError, match="not as OpenAI's chat completions do: <html>"):
        World(httpx2.Response(200, text="<html>")).ask()


def test_requests_are_spread_over_the_minute_whoever_asks() -> None:
    world = World(requests_per_minute=30)
    threads = [threading.Thread(target=world.ask) for _ in range(3)]
    for thread in threads:
        thread.start()
        thread.join()
    assert len(world.requests) == 3 and sum(world.waits) == pytest.approx(4)


@pytest.mark.parametrize(
    ("said", "holds"),
    [
        ("1.5", lambda s: s == 1.5),
        ("-3", lambda s: s == 0),
        ("Wed, 01 Jan 2020 00:00:00 GMT", lambda s: s == 0),
        ("soon", lambda s: s is None),
    ],
)
def test_retry_after_is_seconds_or_a_date(said: str, holds: Callable[[Any], bool]) -> None:
    assert holds(retry_after({"retry-after": said}))


def test_retry_after_may_be_a_date_to_come() -> None:
    then = format_datetime(datetime.now(UTC) + timedelta(hours=1))
    assert 3500 < (retry_after({"retry-after": then}) or 0) <= 3600


def test_a_limit_of_a_minute_that_speaks_of_billing_passes() -> None:
    """As Gemini words it; what OpenAI means by its codes does not pass."""
    words = {"error": {"code": 429, "message": "check your plan and billing details"}}
    world = World(httpx2.Response(429, json=words))
    assert world.ask().text == "fine" and len(world.requests) == 2
    world = World(httpx2.Response(429, json={"error": {"code": "insufficient_quota"}}))
    with pytest.raises(Unserved):
        world.ask()


def test_one_picture_may_be_forbidden_where_others_were_answered() -> None:
    forbidden = httpx2.Response(403, json={"error": {"message": "flagged"}})
    world = World(httpx2.Response(200, json=ANSWER), forbidden)
    world.ask()
    with pytest.raises(InputError, match="flagged") as error:
        world.ask()
    assert not isinstance(error.value, Unserved) and world.ask().text == "fine"


def test_rest_that_is_over_before_it_begins_is_the_usual_one() -> None:
    world = World(busy("0"))
    assert world.ask().text == "fine" and 0.5 <= world.waits[0] <= 1


def test_no_piece_of_the_key_is_repeated() -> None:
    world = World(httpx2.Response(400, json={"error": {"message": "x" * 295 + "secret-key"}}))
    with pytest.raises(InputError) as error:
        world.ask()
    assert "secr" not in str(error.value)


@pytest.mark.parametrize("key", ["sk-one\nsk-two", "sk one", "sk-\u00e4"])
def test_what_is_no_key_is_refused_without_being_repeated(key: str) -> None:
    api = API.model_copy(update={"key_variable": "JUDGE_KEY"})
    with pytest.raises(InputError, match=r"JUDGE_KEY holds line breaks") as error:
        api.key({"JUDGE_KEY": key})
    assert "sk" not in str(error.value)
