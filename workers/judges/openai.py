"""The judge that is served elsewhere: it is asked over the network, and needs no device here.

Nothing is sent but what the settings name: the model's name, the question with the pair's own
words, the pictures without what their files say beside, and how the answer is to be drawn.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import httpx2
from PIL import Image

from core.errors import InputError
from core.judge import Judge
from core.judge_calls import JudgeCall
from core.judge_rows import row_of
from core.messages import Lease
from core.tasks import ScoreTask
from core.worker_spec import WorkerSpec
from workers.judges.asking import Ask, Asked, Words, ask_of, heard
from workers.judges.endpoint import CONNECTING, Endpoint, Reply
from workers.judges.kept_answers import KeptAnswers
from workers.judges.passes import Passes, for_pass, why_unscored
from workers.judges.pictures import Pictures, pictures_of
from workers.models.base import Log, ModelFamily, Product, Verdict


@dataclass
class Usage:
    """What the answers about one edit took."""

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def count(self, reply: Reply) -> None:
        self.requests += 1
        self.tokens_in += reply.tokens_in
        self.tokens_out += reply.tokens_out


class OpenAIJudge(ModelFamily):
    """Asks a server about several edits at once; each edit's questions follow one another."""

    def __init__(self, spec: WorkerSpec, log: Log) -> None:
        assert spec.judge is not None
        self.spec = spec
        self.judge: Judge = spec.judge
        assert self.judge.settings.api is not None
        self._api = self.judge.settings.api
        self._log = log
        self._told: Callable[[], None] = lambda: None
        self._finished: dict[str, Verdict | Exception] = {}
        self._endpoint: Endpoint | None = None

    def device_identity(self) -> tuple[str, str]:
        return f"no device: asks {self._api.base_url}", self.spec.name

    def before_compiling(self, tell: Callable[[], None]) -> None:
        self._told = tell  # a wait for the server takes a while, too

    def load(self) -> str:
        timeout = httpx2.Timeout(self._api.timeout, connect=min(CONNECTING, self._api.timeout))
        many = self._api.concurrency
        limits = httpx2.Limits(max_connections=many, max_keepalive_connections=many)
        client = httpx2.Client(timeout=timeout, limits=limits, follow_redirects=False)
        self._endpoint = Endpoint(
            self._api, self._api.key(), client, lambda: self._told(), self._log
        )
        return "chat completions API"

    def run(self, leases: Sequence[Lease]) -> list[Product]:
        """One verdict per lease.

        Where one of several cannot be had, each is asked for by itself. So what was answered and
        paid for is kept until then, and so is each failure.
        """
        if len(leases) > 1:
            self._finished.clear()
        waiting = [lease for lease in leases if lease.lease_id not in self._finished]
        with ThreadPoolExecutor(max(1, min(len(waiting), self._api.concurrency))) as threads:
            found = threads.map(self._verdict_or_error, waiting)
            self._finished |= {x.lease_id: v for x, v in zip(waiting, found, strict=True)}
        failed = any(isinstance(self._finished[x.lease_id], Exception) for x in leases)
        take = self._finished.get if failed and len(leases) > 1 else self._finished.pop
        verdicts: list[Product] = []
        for lease in leases:
            verdict = take(lease.lease_id)
            if isinstance(verdict, Exception):
                raise verdict
            assert verdict is not None
            verdicts.append(verdict)
        return verdicts

    def _verdict_or_error(self, lease: Lease) -> Verdict | Exception:
        try:
            return self._verdict(lease)
        except Exception as error:
            return error

    def _verdict(self, lease: Lease) -> Verdict:
        assert isinstance(lease.task, ScoreTask)
        prompts, settings = self.judge.prompts, self.judge.settings
        row = row_of(lease.task)
        problem = prompts.problem_of(row)
        if problem is not None:
            raise InputError(problem)
        seen = _Shown(pictures_of(lease, prompts, settings.image_area), self._data_url)
        kept = KeptAnswers.about(lease)
        usage, models = Usage(), set[str]()

        def hear(question: str, ask: Ask, drawn: Lease) -> Reply:
            """The answer to a question: of an earlier attempt, or the server's, which is kept."""
            reply = kept.get(question)
            if reply is None:
                assert self._endpoint is not None
                reply = self._endpoint.ask(self._body(ask, drawn, seen))
                kept.keep(question, reply)
            usage.count(reply)
            models.update([reply.model] if reply.model else [])
            return reply

        number = settings.num_pass or 1
        calls, each = [], list[list[dict[str, Any]]]()
        for place in range(number):
            drawn = for_pass(lease, place)
            answers = []
            for i, call in enumerate(prompts.asked(row)):
                answers.append(self._answer(call, f"{place}/{i}", drawn, hear))
                drawn = heard(drawn, call, answers[-1])
            each.append(answers)
            calls += [{**a, "pass": place} if number > 1 else a for a in answers]
        found = Passes.of(prompts, row, each)
        if found.scores is None:
            self._log("WARNING", why_unscored(lease, calls))
        cost = self._api.cost(usage.tokens_in, usage.tokens_out)
        used = {
            "scores": found.scores,
            "judge": self.judge.name(self.spec.model_identity),
            "model": self.spec.model_identity,
            "prompt_hash": self.judge.prompt_hash,
            **found.record(number),
            "answered_by": sorted(models),
            "usage": {**vars(usage), **({} if cost is None else {"cost": cost})},
        }
        return Verdict(used, {"calls": calls})

    def _answer(
        self, call: JudgeCall, name: str, lease: Lease, hear: Callable[[str, Ask, Lease], Reply]
    ) -> dict[str, Any]:
        """What a verdict records of a call.

        Args:
            name: of the call, among all about the edit.
            hear: gives the answer to a question, which has a name, too.
        """
        settings = self.judge.settings
        asked = Asked.of(lease, settings)
        while asked.asks_left:
            ask = ask_of(call, asked.manner, asked.limit, settings.temperature)
            reply = hear(f"{name}/{len(asked.raws)}", ask, lease)
            words = Words(reply.text)
            words.cut = reply.cut
            asked.hear(words, call)
        return asked.answer(call)

    def _body(self, ask: Ask, lease: Lease, seen: "_Shown") -> dict[str, Any]:
        """A request."""
        assert isinstance(lease.task, ScoreTask)
        detail = {"detail": self._api.picture_detail} if self._api.picture_detail else {}
        content: list[dict[str, Any]] = []
        for piece in ask.pieces(row_of(lease.task), seen.counts):
            if piece[0] == "text":
                content.append({"type": "text", "text": piece[1]})
            else:
                url = seen.url(piece[1], piece[2])
                content.append({"type": "image_url", "image_url": {"url": url, **detail}})
        settings = self.judge.settings
        drawn: dict[str, Any] = {
            "temperature": ask.temperature,
            "top_p": settings.top_p,
            "top_k": settings.top_k,
        }
        if self._api.send_seed:
            drawn["seed"] = (lease.task.seed or 0) + ask.draw
        return {
            "model": settings.model,
            "messages": [{"role": "user", "content": content}],
            self._api.limit_field: ask.limit,
            **{name: value for name, value in drawn.items() if value is not None},
            **self._api.extra,
        }

    def _data_url(self, picture: Image.Image) -> str:
        stream = BytesIO()
        if self._api.picture_format == "png":
            picture.save(stream, "PNG")
        else:
            picture.convert("RGB").save(stream, "JPEG", quality=self._api.picture_quality)
        encoded = base64.b64encode(stream.getvalue()).decode("ascii")
        return f"data:image/{self._api.picture_format};base64,{encoded}"


class _Shown:
    """Pictures of one edit as they are sent, each encoded once."""

    def __init__(self, pictures: Pictures, encode: Callable[[Image.Image], str]) -> None:
        self._pictures, self._encode = pictures, encode
        self._urls: dict[tuple[str, int], str] = {}

    @property
    def counts(self) -> Mapping[str, int]:
        return {kind: len(pictures) for kind, pictures in self._pictures.items()}

    def url(self, kind: str, place: int) -> str:
        if (kind, place) not in self._urls:
            picture = self._pictures[kind][place]
            plain = Image.frombytes(picture.mode, picture.size, picture.tobytes())
            self._urls[kind, place] = self._encode(plain)
        return self._urls[kind, place]
