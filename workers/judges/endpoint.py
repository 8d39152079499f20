"""Requests to a server with OpenAI's chat completions API: paced, repeated, and counted."""

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from core.errors import InputError, MultiGPUError
from core.judge_api import ApiSettings
from core.validation import shown

ROUTE = "/chat/completions"
AGENT = "multi-gpu-images"
PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
FOR_ALL = frozenset({401, 402, 404})  # no other request would fare better
# Codes with which OpenAI answers 429 where waiting cannot mend it. Its words tell nothing: others
# speak of billing where a minute's limit is reached.
NO_MONEY = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
FIRST_WAIT, MOST_WAIT = 1.0, 60.0  # seconds between tries where the server names none
MOST_ERROR = 300  # characters of a server's message
CONNECTING = 20.0  # seconds


class Unserved(InputError):
    """The server refuses whatever it is asked, as for want of a valid key."""


@dataclass(frozen=True)
class Reply:
    """One answer.

    Attributes:
        text: what the model said.
        cut: it reached its limit of tokens.
        model: what the server calls the model that answered.
    """

    text: str
    cut: bool
    tokens_in: int
    tokens_out: int
    model: str | None


class Endpoint:
    """A server, for any number of threads.

    Args:
        key: sent as a bearer token; None sends none.
        client: sends requests.
        told: called before it waits, for its turn or an answer, which is not taken for a hang then.
        log: told of waits that the server asks for.
    """

    def __init__(
        self,
        api: ApiSettings,
        key: str | None,
        client: httpx2.Client,
        told: Callable[[], None],
        log: Callable[[str, str], None],
        wait: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        assert api.base_url is not None
        self._api = api
        self._url = api.base_url + ROUTE
        self._headers = {"User-Agent": AGENT}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"
        self._key = key
        self._client, self._told, self._log = client, told, log
        self._wait, self._clock = wait, clock
        self._lock = threading.Lock()
        self._not_before = 0.0  # of the next request, by the clock
        self._refusal: Unserved | None = None
        self._has_answered = False

    def ask(self, body: Mapping[str, Any]) -> Reply:
        """One answer, after as many tries as the settings allow.

        Raises:
            Unserved: nothing that is asked here will be answered.
            InputError: this request is refused.
            MultiGPUError: it was tried in vain, and another time it may work.
        """
        for failures in range(self._api.retries + 1):
            self._take_turn()
            if self._refusal is not None:
                raise self._refusal
            self._told()  # some answers take many times as long as others
            try:
                response = self._client.post(self._url, json=body, headers=self._headers)
            except httpx2.TimeoutException:
                problem, asked_for = f"no answer within {self._api.timeout:g} s", None
            except httpx2.TransportError as error:
                problem, asked_for = f"it cannot be reached: {self._clean(str(error))}", None
            else:
                if response.is_success:
                    self._has_answered = True
                    return self._reply(response)
                problem = f"{response.status_code}: {self._message(response)}"
                asked_for = self._refused(response, problem)
            if failures < self._api.retries:
                self._before_the_next(failures, asked_for, problem)
        tries = self._api.retries + 1
        raise MultiGPUError(f"The judge's server {self._url} failed {tries} times; last {problem}.")

    def _take_turn(self) -> None:
        """Wait until a request may be sent, and note that it is."""
        with self._lock:
            now = self._clock()
            turn = max(now, self._not_before)
            if self._api.requests_per_minute is not None:
                self._not_before = turn + 60 / self._api.requests_per_minute
        if turn > now:
            self._told()
            self._wait(turn - now)

    def _refused(self, response: httpx2.Response, problem: str) -> float | None:
        """Raise what waiting cannot mend; else the seconds that the server wants to be left alone.

        All threads leave it alone: a limit is of the key, not of a request.
        """
        status = response.status_code
        no_money = status == 429 and not NO_MONEY.isdisjoint(_codes(response))
        # Whom it has answered may be refused a single picture with 403.
        forbidden = status == 403 and not self._has_answered
        if status in FOR_ALL or no_money or forbidden:
            self._refusal = Unserved(
                f"The judge's server {self._url} refuses all requests ({problem}). Look at "
                "judge.api.base_url, judge.api.key_variable and judge.model."
            )
            raise self._refusal
        if status not in PASSING:
            raise InputError(f"The judge's server {self._url} refuses the request ({problem}).")
        seconds = retry_after(response.headers)
        if not seconds:  # at once, or before now by our clock, is no word of how long
            return None
        if seconds > self._api.longest_wait:
            raise MultiGPUError(
                f"The judge's server {self._url} wants to be left alone for {seconds:.0f} s "
                f"({problem}); judge.api.longest_wait is {self._api.longest_wait:g} s."
            )
        with self._lock:
            self._not_before = max(self._not_before, self._clock() + seconds)
        return seconds

    def _before_the_next(self, failures: int, asked_for: float | None, problem: str) -> None:
        self._told()
        if asked_for is not None:
            self._log("INFO", f"The judge's server asks for {asked_for:.3g} s of rest ({problem}).")
            return  # the wait is everybody's: see `_take_turn`
        most = min(MOST_WAIT, FIRST_WAIT * 2**failures)
        self._wait(random.uniform(most / 2, most))

    def _reply(self, response: httpx2.Response) -> Reply:
        try:
            answer = response.json()
            choice = answer["choices"][0]
            message = choice["message"]
            usage = answer.get("usage") or {}
            tokens_in = int(usage.get("prompt_tokens") or 0)
            tokens_out = int(usage.get("completion_tokens") or 0)
            # What it thought stands in fields of its own, which are no answer.
            text = _text_of(message.get("content")) or str(message.get("refusal") or "")
            cut = choice.get("finish_reason") == "length"
            return Reply(text, cut, tokens_in, tokens_out, answer.get("model"))
        except (ValueError, LookupError, TypeError, AttributeError):
            raise MultiGPUError(
                f"The judge's server {self._url} answers, but not as OpenAI's chat completions do: "
                f"{self._clean(response.text)}."
            ) from None

    def _message(self, response: httpx2.Response) -> str:
        try:
            said = response.json()
            error = said.get("error", said)
            text = error.get("message", error) if isinstance(error, dict) else error
        except (ValueError, AttributeError):
            text = response.text
        return self._clean(str(text))

    def _clean(self, text: str) -> str:
        """A server's words on one line, without the key, and not too many."""
        if self._key:
            text = text.replace(self._key, "…")
        return " ".join(text.split())[:MOST_ERROR].rstrip(".")


def _codes(response: httpx2.Response) -> set[str]:
    """What a refusal calls itself, for programs."""
    try:
        error = response.json()["error"]
        return {str(error.get("code")), str(error.get("type"))}
    except (ValueError, LookupError, TypeError, AttributeError):
        return set()


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to be left alone, by its `Retry-After`: a number, or a date."""
    said = headers.get("retry-after")
    if said is None:
        return None
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(said)
    except (ValueError, TypeError):
        return None
    date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def _text_of(content: Any) -> str:
    """An answer's text, which may come in parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    if content is not None and not isinstance(content, str):
        raise ValueError(f"content {shown(content)}")
    return content or ""
