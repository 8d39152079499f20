"""What a day brings to a daemon, as fast as it goes: callers of every kind.

Each of `CALLERS` does one thing again and again until it is told to stop. What a daemon may not
answer is counted as unexpected; a 404 or 410 is not, as everything is kept for a short time here.
"""

import asyncio
import base64
import io
import json
import os
import random
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import httpx2
import psutil
from PIL import Image

from benchmarks.daemon import PROJECT, Daemon

PATIENCE = 120.0  # seconds for an answer on a machine that does much else
GONE = (404, 410)
ENDED = ("completed", "failed", "cancelled", "expired")
SIDE = 128  # pixels of the pictures that are asked for
STEPS = 4
KINDS = ("generate", "edit", "score")
WORKERS = ("cpu0", "cpu1")
GENERATIONS = "/v1/images/generations"


class Unexpected(Exception):
    """An answer that no caller should get."""


class Churn:
    """Callers of one daemon.

    Attributes:
        counts: what was done so far, in the words of the table.
        unexpected: what should not have been answered, each once.
    """

    def __init__(self, daemon: Daemon, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self.unexpected: Counter[str] = Counter()
        self._daemon = daemon
        self._draw = random.Random(seed)
        self._number = 0
        self._client: httpx2.AsyncClient

    async def run(self, seconds: float) -> None:
        """Have everybody call for so long; on return all have their answers, and are gone."""
        self._end = time.monotonic() + seconds
        async with httpx2.AsyncClient(
            base_url=self._daemon.url, timeout=PATIENCE, trust_env=False
        ) as self._client:
            await asyncio.gather(*(self._repeat(caller) for caller in CALLERS))
            for name in WORKERS:
                await self._post(f"/v1/workers/{name}/undrain")
            await self._until_all_ended()

    async def _repeat(self, caller: Callable[["Churn"], Awaitable[None]]) -> None:
        while time.monotonic() < self._end:
            try:
                await caller(self)
            except (Unexpected, httpx2.HTTPError, TimeoutError) as error:
                self.unexpected[f"{caller.__name__}: {type(error).__name__} {error}"[:300]] += 1
            await asyncio.sleep(self._draw.uniform(0.0, 0.2))

    async def _until_all_ended(self) -> None:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            found = [
                await self._get("/v1/jobs", params={"status": status})
                for status in ("queued", "running")
            ]
            batches = await self._get("/v1/batches", params={"limit": 100})
            open_jobs = [job for page in found for job in page.json()["data"]]
            open_batches = [b for b in batches.json()["data"] if b["status"] not in ENDED]
            if not open_jobs and not open_batches:
                return
            await asyncio.sleep(0.1)
        self.unexpected["jobs do not end"] += 1

    # -- callers ---------------------------------------------------------------------

    async def draws_pictures(self) -> None:
        """Pictures as base64, or by an address that is then asked for."""
        wanted = self._draw.choice(("b64_json", "url"))
        asked = {
            **self._picture(),
            "n": self._draw.randint(1, 2),
            "response_format": wanted,
            "output_format": self._draw.choice(("png", "webp", "jpeg")),
        }
        answer = await self._post(GENERATIONS, json=asked)
        self.counts["pictures by the Images API"] += asked["n"]
        for picture in answer.json().get("data", []):
            if wanted == "url":
                await self._get(urlsplit(picture["url"]).path)
                self.counts["links followed"] += 1

    async def draws_streams(self) -> None:
        """Events with previews; every third caller leaves in the middle."""
        asked = {**self._picture(), "stream": True, "partial_images": 2}
        leaves = self._draw.random() < 1 / 3
        async with self._client.stream("POST", GENERATIONS, json=asked) as answer:
            async for _ in answer.aiter_lines():
                if leaves:
                    break
        self.counts["streams left early" if leaves else "streams of pictures"] += 1

    async def edits(self) -> None:
        """Edits of pictures that were never sent before, as a form."""
        files = [
            ("image[]", (f"{n}.png", self._new_picture(), "image/png"))
            for n in range(self._draw.randint(1, 2))
        ]
        data = {"prompt": "make it blue", "num_inference_steps": str(STEPS)}
        await self._post("/v1/images/edits", data=data, files=files)
        self.counts["edits of new pictures"] += 1

    async def edits_uploads(self) -> None:
        """An upload, an edit that names it, and its removal."""
        file = await self._upload("picture.png", self._new_picture(), "vision")
        asked = {"prompt": "make it red", "images": [{"file_id": file}]}
        await self._post("/v1/images/edits", json=asked)
        await self._answered("DELETE", f"/v1/files/{file}")

    async def hands_in_jobs(self) -> None:
        """Jobs of all kinds under a key, sent twice, followed to their end, and looked at."""
        tasks = [self._task() for _ in range(self._draw.randint(1, 6))]
        headers = {"Idempotency-Key": f"key-{self._next()}"}
        job = (await self._post("/v1/jobs", json={"tasks": tasks}, headers=headers)).json()["id"]
        again = await self._post("/v1/jobs", json={"tasks": tasks}, headers=headers)
        if again.json()["id"] != job:
            raise Unexpected("two jobs under one key")
        await self._follow(job)
        self.counts["jobs of several kinds"] += 1
        self.counts["tasks of these jobs"] += len(tasks)
        results = (await self._get(f"/v1/jobs/{job}/results")).json().get("data", [])
        for result in results:
            path = f"/v1/jobs/{job}/results/{result['position']}"
            if result["success"] and result["kind"] != "score":
                await self._get(f"{path}/thumbnail")
                self.counts["thumbnails"] += 1
            if result["success"] and result["kind"] == "edit":
                await self._get(f"{path}/sources/0")
            if result["success"]:
                await self._get(f"{path}/content")
            else:
                self.counts["tasks that failed"] += 1

    async def cancels(self) -> None:
        """A job that is cancelled once its first result is there."""
        await asyncio.sleep(self._draw.uniform(0.5, 1.5))
        tasks = [self._task("generate") for _ in range(12)]
        job = (await self._post("/v1/jobs", json={"tasks": tasks})).json()["id"]
        await self._follow(job, until="task")
        await self._answered("DELETE", f"/v1/jobs/{job}")
        await self._follow(job)
        self.counts["jobs cancelled"] += 1

    async def vanishes(self) -> None:
        """Connections that end in the middle of a body, of an answer, or of a stream."""
        place = urlsplit(self._daemon.url)
        body = json.dumps(self._picture()).encode()
        head = f"POST {GENERATIONS} HTTP/1.1\r\nHost: {place.netloc}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        said = [
            head.encode() + body[: len(body) // 2],
            head.encode() + body,
            f"GET /v1/events HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode(),
        ]
        _, writer = await asyncio.open_connection(place.hostname, place.port)
        writer.write(self._draw.choice(said))
        await writer.drain()
        await asyncio.sleep(self._draw.uniform(0.0, 0.1))
        if self._draw.random() < 0.5:  # as a machine that is switched off: no FIN, a reset
            linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        self.counts["clients that vanished"] += 1

    async def sends_batches(self) -> None:
        """A batch with a bad line, its files of results, and the removal of all; some cancelled."""
        lines = [
            json.dumps(
                {"custom_id": str(n), "method": "POST", "url": GENERATIONS, "body": self._picture()}
            )
            for n in range(6)
        ]
        text = "\n".join([*lines, '{"custom_id": "bad"}']).encode()
        file = await self._upload("in.jsonl", text, "batch")
        asked = {"input_file_id": file, "endpoint": GENERATIONS, "completion_window": "24h"}
        batch = (await self._post("/v1/batches", json=asked)).json()
        if self._draw.random() < 0.25:
            await self._answered("POST", f"/v1/batches/{batch['id']}/cancel", fine=(*GONE, 409))
            self.counts["batches cancelled"] += 1
        end = time.monotonic() + PATIENCE
        while batch.get("status") not in ENDED and time.monotonic() < end:
            await asyncio.sleep(0.2)
            answer = await self._get(f"/v1/batches/{batch['id']}")
            if answer.status_code in GONE:
                raise Unexpected("a batch that was kept for too short")
            batch = answer.json()
        for id in (batch.get("output_file_id"), batch.get("error_file_id"), file):
            if id is not None:
                await self._get(f"/v1/files/{id}/content")
                await self._answered("DELETE", f"/v1/files/{id}")
        self.counts["batches"] += 1

    async def watches(self) -> None:
        """The streams of all that happens, and every list."""
        async with self._client.stream("GET", "/v1/events") as answer:
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    async for _ in answer.aiter_lines():
                        pass
        for path in ("/", "/metrics", "/v1/workers", "/v1/models", "/v1/files", "/v1/loras"):
            await self._get(path)
        await self._get("/v1/results", params={"words": "HOUSE", "limit": 20})
        self.counts["rounds of a watcher"] += 1

    async def operates(self) -> None:
        """Models are loaded and unloaded, workers drained and undrained."""
        kind = self._draw.choice(KINDS)
        await self._post("/v1/workers/load", json={"kind": kind})
        await asyncio.sleep(self._draw.uniform(0.5, 1.5))
        await self._post("/v1/workers/unload", json={"kind": kind})
        name = self._draw.choice(WORKERS)
        await self._post(f"/v1/workers/{name}/drain")
        await asyncio.sleep(self._draw.uniform(0.2, 0.5))
        await self._post(f"/v1/workers/{name}/undrain")
        self.counts["loads, unloads and drains"] += 1

    async def kills_workers(self) -> None:
        """SIGKILL, as a machine that runs out of memory does it."""
        await asyncio.sleep(self._draw.uniform(4.0, 8.0))
        main = psutil.Process(self._daemon.process.pid)
        forks = [worker for server in main.children() for worker in server.children()]
        if forks:
            with suppress(psutil.Error):
                self._draw.choice(forks).kill()
                self.counts["workers killed"] += 1

    async def runs_commands(self) -> None:
        """A command of this project that finds the daemon, and is killed in the middle."""
        await asyncio.sleep(self._draw.uniform(10.0, 20.0))
        if time.monotonic() > self._end:
            return
        folder = self._daemon.folder / "commands" / str(self._next())
        folder.mkdir(parents=True)
        prompts = [f"house {self._next()}" for _ in range(200)]
        (folder / "prompts.json").write_text(json.dumps(prompts))
        (folder / "small.yaml").write_text(f"model: simulated\ngeneration: {{width: {SIDE}}}\n")
        program = str(PROJECT / "generate_images_from_tweets.py")
        line = [sys.executable, program, "prompts.json", "--config", "small.yaml"]
        command = await asyncio.create_subprocess_exec(
            *line,
            cwd=folder,
            env={**os.environ, "XDG_RUNTIME_DIR": self._daemon.runtime},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(30.0):
                while not any((folder / "outputs").rglob("*.png")) and command.returncode is None:
                    await asyncio.sleep(0.1)
        finally:
            with suppress(ProcessLookupError):
                command.send_signal(signal.SIGKILL)
            await command.wait()
        self.counts["commands killed"] += 1

    # -- what they need ----------------------------------------------------------------

    async def _follow(self, job: str, until: str = "end") -> None:
        async with self._events(job) as events:
            async for line in events:
                if line in (f"event: {until}", "event: end"):
                    break
        self.counts["streams of jobs"] += 1

    @asynccontextmanager
    async def _events(self, job: str) -> AsyncIterator[AsyncIterator[str]]:
        async with self._client.stream("GET", f"/v1/jobs/{job}/events") as answer:
            yield answer.aiter_lines()

    async def _upload(self, name: str, content: bytes, purpose: str) -> str:
        files = {"file": (name, content)}
        answer = await self._post("/v1/files", data={"purpose": purpose}, files=files)
        self.counts["uploads"] += 1
        return str(answer.json()["id"])

    async def _get(self, path: str, **more: Any) -> httpx2.Response:
        return await self._answered("GET", path, **more)

    async def _post(self, path: str, **more: Any) -> httpx2.Response:
        return await self._answered("POST", path, fine=(), **more)

    async def _answered(
        self, method: str, path: str, fine: tuple[int, ...] = GONE, **more: Any
    ) -> httpx2.Response:
        answer = await self._client.request(method, path, **more)
        self.counts["requests"] += 1
        if answer.is_error and answer.status_code not in fine:
            raise Unexpected(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
        return answer

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _picture(self) -> dict[str, Any]:
        prompt = f"a house {self._next()}"
        return {"prompt": prompt, "size": f"{SIDE}x{SIDE}", "num_inference_steps": STEPS}

    def _task(self, kind: str = "") -> dict[str, Any]:
        """One of any kind; some that are refused, and some that fail."""
        steps = {"num_inference_steps": STEPS}
        match kind or self._draw.choice((*KINDS, "refused", "failing")):
            case "generate":
                return {"prompt": f"house {self._next()}", "width": SIDE, "height": SIDE, **steps}
            case "edit":
                return {"instruction": "blue", "source_images": self._sent(), **steps}
            case "score":
                edited = {"source_images": self._sent(), "edited_image": self._sent()}
                return {"instruction": "blue", **edited}
            case "refused":
                return {"prompt": "house", "width": -1}
        return {"prompt": f"!nan {self._next()}"}

    def _sent(self) -> str:
        """A picture that was never sent before, as a data URL."""
        return "data:image/png;base64," + base64.b64encode(self._new_picture()).decode()

    def _new_picture(self) -> bytes:
        """A PNG that was never sent before."""
        noise = Image.frombytes("RGB", (64, 64), self._draw.randbytes(3 * 64 * 64))
        stream = io.BytesIO()
        noise.save(stream, "PNG", compress_level=0)
        return stream.getvalue()


CALLERS: tuple[Callable[[Churn], Awaitable[None]], ...] = (
    Churn.draws_pictures,
    Churn.draws_pictures,
    Churn.draws_streams,
    Churn.edits,
    Churn.edits_uploads,
    Churn.hands_in_jobs,
    Churn.hands_in_jobs,
    Churn.cancels,
    Churn.vanishes,
    Churn.sends_batches,
    Churn.watches,
    Churn.operates,
    Churn.kills_workers,
    Churn.runs_commands,
)
