"""Connections and bodies that are slow, many or endless, in front of a small application."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send

from apps.server.safety.bodies import Bodies
from apps.server.safety.connections import connection_class
from apps.server.safety.limits import BodyLimits, ConnectionLimits
from tests.conftest import PATIENCE
from tests.server.own_time import run

BODIES = BodyLimits(10_000, 20_000, 15_000, seconds=0.3, bytes_per_second=20_000)
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
LARGE = 50_000_000  # bytes: more than sockets hold


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the length of a body, or with a large one to /large."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = b"x" * LARGE if scope["path"] == "/large" else str(size).encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body[:1000], "more_body": True})
    await send({"type": "http.response.body", "body": body[1000:], "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def serving(**limits: Any) -> AsyncIterator[int]:
    rules = ConnectionLimits(
        **{"connections": 9, "header_seconds": 0.3, "write_seconds": 0.3, **limits}
    )
    config = uvicorn.Config(
        Bodies(echo, BODIES),
        http=connection_class(rules),
        ws="none",
        lifespan="off",
        log_config=None,
    )
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(server.serve([listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def asked(port: int, *parts: bytes, pause: float = 0.0) -> tuple[int, Any]:
    """Status and body of the first answer, read until the connection ends; 0 if there is none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with suppress(ConnectionError):
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    if not answer:
        return 0, None
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def test_a_kept_connection_serves_again_and_ends_when_it_is_slow() -> None:
    async def use() -> None:
        async with serving() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(3):
                writer.write(GET)
                answer = await reader.readuntil(b"\r\n\r\n0")
                assert answer.startswith(b"HTTP/1.1 200")
            for _ in range(20):  # never a whole request, and never idle
                with suppress(ConnectionError):
                    writer.write(b"\r\n")
                    await writer.drain()
                await asyncio.sleep(0.05)
            with suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()

    run(use())


def test_two_requests_at_once_are_both_served() -> None:
    async def use() -> None:
        async with serving() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET + GET + GET)
            for _ in range(3):
                assert (await reader.readuntil(b"\r\n\r\n0")).startswith(b"HTTP/1.1 200")
            writer.close()

    run(use())


def test_no_more_connections_than_allowed() -> None:
    async def use() -> None:
        async with serving(connections=2, header_seconds=5) as port:
            held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
            status, body = await asked(port, GET)
            assert (status, body["error"]["code"]) == (503, "too_many_connections")
            for _, writer in held:
                writer.close()
                await writer.wait_closed()
            closing = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
            assert await asked(port, closing) == (200, 0)

    run(use())


def test_who_takes_nothing_of_an_answer_is_left() -> None:
    async def use() -> None:
        async with serving() as port:
            client = socket.create_connection(("127.0.0.1", port))
            client.sendall(GET.replace(b"/ ", b"/large "))
            await asyncio.sleep(3.0)  # ten times what is allowed
            client.settimeout(PATIENCE)
            received = 0
            with suppress(ConnectionError):
                while part := await asyncio.to_thread(client.recv, 1_000_000):
                    received += len(part)
            assert received < LARGE
            client.close()

    run(use())


def posted(kind: bytes, *headers: bytes) -> bytes:
    lines = [b"POST / HTTP/1.1", b"Host: localhost", b"Content-Type: " + kind, *headers]
    return b"\r\n".join([*lines, b"", b""])


CHUNKED = posted(b"application/json", b"Transfer-Encoding: chunked")


def test_a_body_may_be_as_slow_as_the_limit_says() -> None:
    async def use() -> None:
        async with serving() as port:
            # 0.3 s and a second for 20 kB: 8 kB may take 0.7 s.
            head = posted(b"text/x", b"Content-Length: 8000", b"Connection: close")
            fine = await asked(port, head, *[b" " * 2000] * 4, pause=0.1)
            assert fine == (200, 8000)
            status, body = await asked(port, head, *[b" " * 10] * 60, pause=0.02)
            assert (status, body["error"]["code"]) == (408, "request_timeout")

    run(use())


def test_what_came_while_the_server_itself_stood_still_is_not_late() -> None:
    async def use() -> None:
        async with serving() as port:
            for kind in (b"application/json", b"text/x"):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(posted(kind, b"Content-Length: 4", b"Connection: close"))
                await asyncio.sleep(0.05)  # the server waits for the body
                writer.write(b"1234")
                time.sleep(2 * BODIES.seconds)
                assert (await reader.read()).startswith(b"HTTP/1.1 200")
                writer.close()

    asyncio.run(use())  # whose time goes on meanwhile, as a daemon's does


def test_bodies_are_cut_off_where_they_are_too_large() -> None:
    async def use() -> None:
        async with serving() as port:
            for kind, most in (
                (b"application/json", 10_000),
                (b"multipart/form-data; boundary=b", 20_000),
            ):
                said = posted(kind, b"Content-Length: %d" % (most + 1))
                status, body = await asked(port, said, b" " * (most + 1))
                assert (status, body["error"]["code"]) == (413, "request_too_large")
                chunked = posted(kind, b"Transfer-Encoding: chunked")
                chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
                status, body = await asked(
                    port, chunked, *[chunk] * (most // 4096 + 1), b"0\r\n\r\n"
                )
                assert (status, body["error"]["code"]) == (413, "request_too_large")

    run(use())


def test_all_bodies_together_fit_in_memory() -> None:
    async def use() -> None:
        async with serving() as port:
            half = posted(b"application/json", b"Content-Length: 9000") + b" " * 8000
            found = await asyncio.gather(asked(port, half), asked(port, half))
            codes = sorted(body["error"]["code"] for _, body in found)
            assert codes == ["overloaded", "request_timeout"]
            whole = posted(b"application/json", b"Content-Length: 9000", b"Connection: close")
            for _ in range(3):  # what was refused holds nothing
                assert await asked(port, whole, b"1" + b" " * 8999) == (200, 9000)

    run(use())


def test_json_is_handed_on_as_it_came() -> None:
    async def use() -> None:
        async with serving() as port:
            whole = json.dumps(
                {"a": [1, "\U0001f600", 1.5, None], "b": {"a": "\\ud83d\\ude00"}}
            ).encode()
            parts = [b"%x\r\n%b\r\n" % (1, whole[i : i + 1]) for i in range(len(whole))]
            head = posted(b"application/json", b"Transfer-Encoding: chunked", b"Connection: close")
            assert await asked(port, head + b"".join(parts) + b"0\r\n\r\n") == (200, len(whole))

    run(use())
