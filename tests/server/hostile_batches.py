"""Batches that nobody should send: requests about them, files as a whole, and single lines."""

import gzip
import json
from collections.abc import Iterator
from typing import Any

from tests.server.batch_files import EDITS, GENERATIONS
from tests.server.hostile_requests import (
    PATHS,
    Hostile,
    broken_pictures,
    data_url,
    posted,
    request,
)

ROUTE = "/v1/batches"
NAMES = ("batch_0", "..%2f..%2fbatch", "%00", "a" * 3000, "batch_0%0a", "%f0%9f%92%a3")


def batch_requests() -> Iterator[Hostile]:
    """Requests for batches, as bytes of HTTP."""
    usual = {"input_file_id": "file-0", "endpoint": GENERATIONS, "completion_window": "24h"}
    wrong: list[Any] = [
        {}, [], "x", None, 7, usual, {**usual, "input_file_id": None},
        *({**usual, "input_file_id": path} for path in PATHS),
        {**usual, "input_file_id": "file-" + "a" * 5000}, {**usual, "input_file_id": ["file-0"]},
        {**usual, "input_file_id": "file-0\0"}, {**usual, "input_file_id": 2**63},
        {**usual, "endpoint": "/v1/jobs"}, {**usual, "endpoint": "/v1/images/../files"},
        {**usual, "endpoint": "http://169.254.169.254/"}, {**usual, "endpoint": GENERATIONS * 999},
        {**usual, "endpoint": None}, {**usual, "completion_window": "0h"},
        {**usual, "completion_window": -1}, {**usual, "completion_window": "9" * 5000},
        {**usual, "metadata": []}, {**usual, "metadata": {"a": 1}},
        {**usual, "metadata": {"a": {"b": "c"}}}, {**usual, "metadata": {"k" * 65: "v"}},
        {**usual, "metadata": {"k": "v" * 513}},
        {**usual, "metadata": {str(n): "v" for n in range(17)}},
        {**usual, "output_expires_after": 3600}, {**usual, "output_expires_after": {}},
        {**usual, "output_expires_after": {"anchor": "created_at", "seconds": 1}},
        {**usual, "output_expires_after": {"anchor": "created_at", "seconds": 1e9}},
        {**usual, "output_expires_after": {"anchor": "created_at", "seconds": True}},
        {**usual, "output_expires_after": {"anchor": "tomorrow", "seconds": 3600}},
        {**usual, "priority": 10}, {**usual, "__proto__": {}}, {**usual, "caller": "local"},
    ]  # fmt: skip
    for number, body in enumerate(wrong):
        text = posted(json.dumps(body).encode(), ROUTE)
        yield Hostile(f"batch {number}: {str(body)[:70]}", [text], (400,))
    raw = {
        "a key twice": b'{"endpoint": "a", "endpoint": "b"}', "NaN": b'{"input_file_id": NaN}',
        "deep": b"[" * 5000, "half a pair": b'{"input_file_id": "\\ud800"}', "binary": b"\0\1\2",
        "UTF-16": '{"a": 1}'.encode("utf-16"), "nothing": b"",
    }  # fmt: skip
    for name, content in raw.items():
        yield Hostile(f"batch of {name}", [posted(content, ROUTE)], (400,))
    yield Hostile("a batch as a form", [posted(b"x=1", ROUTE, "multipart/form-data")], (400,))
    for name in NAMES:
        yield Hostile(f"batch {name[:30]}", [request(f"{ROUTE}/{name}")], (404,))
        cancelled = request(f"{ROUTE}/{name}/cancel", "POST")
        yield Hostile(f"cancel batch {name[:30]}", [cancelled], (404,))
    for query in ("limit=0", "limit=-1", "limit=101", "limit=x", "limit=" + "9" * 400):
        yield Hostile(f"batches {query[:20]}", [request(f"{ROUTE}?{query}")], (400,))
    for after in ("x", "%00", "batch_0", "a" * 5000):
        yield Hostile(f"batches after {after[:20]}", [request(f"{ROUTE}?after={after}")], (404,))
    for method in ("DELETE", "PUT", "PATCH"):
        yield Hostile(f"{method} of a batch", [request(f"{ROUTE}/batch_0", method)], (405,))


def batch_files() -> dict[str, bytes]:
    """Files without one request, for `/v1/images/generations`: a batch of each fails as a whole."""
    line = json.dumps(_line("a")).encode()
    return {
        "blank lines": b"\n\r\n \t\n" * 100, "a mark alone": b"\xef\xbb\xbf",
        "NUL bytes": b"\0" * 10_000, "binary": bytes(range(256)) * 40,
        "UTF-16": "{}".encode("utf-16"),
        "gzip": gzip.compress(line * 1000),
        "an array of requests": b"[" + line + b"," + line + b"]",
        "brackets": b"[" * 100_000, "braces, one a line": b"{\n" * 10_000,
        "one long line": b'{"custom_id": "' + b"a" * 2_000_000,
        "numbers": b"1e999\n" * 100 + b"9" * 5000 + b"\n-0\n", "NaN": b"NaN\nInfinity\n-Infinity\n",
        "texts": b'"a"\n"b"\n', "HTML": b"<html><script>x</script></html>",
        "a table": b"custom_id,method,url,body\na,POST,/v1/images/generations,x\n",
        "half of a request": line[:40], "carriage returns": line.replace(b", ", b",\r\n"),
        "the other endpoint": json.dumps(_line("a", EDITS)).encode(),
        "an address": json.dumps({**_line("a"), "url": "http://169.254.169.254/"}).encode(),
    }  # fmt: skip


def lines_of_drawings() -> list[Any]:
    """Lines for `/v1/images/generations`, each of which is refused alone."""
    names: tuple[Any, ...] = (None, "", 7, [], {}, True, "x" * 513)
    methods: tuple[Any, ...] = (None, "GET", "post", 7, ["POST"])
    urls: tuple[Any, ...] = (
        None, "", "/v1/jobs", "/v1/files", GENERATIONS + "/", GENERATIONS + "?x=1", "//evil", 7,
        "/v1/images/generations/../../files", [GENERATIONS], {"path": GENERATIONS}, EDITS,
    )  # fmt: skip
    no_objects: tuple[Any, ...] = (None, [], "x", 7, True)
    wrong: list[Any] = [
        "{", "[]", "7", "null", '"x"', "[" * 5000, '{"custom_id": "a", "custom_id": "b"}',
        '{"custom_id": "\\ud800"}', '{"custom_id": NaN}', '{"custom_id": 1e999}',
        *({**_line("x"), "custom_id": name} for name in names),
        *({**_line(f"method{n}"), "method": method} for n, method in enumerate(methods)),
        *({**_line(f"url{n}"), "url": url} for n, url in enumerate(urls)),
        *({**_line(f"{n}"), "body": body} for n, body in enumerate(no_objects)),
        {**_line("more"), "headers": {"Authorization": "Bearer x"}}, {**_line("p"), "priority": 10},
        {**_line("proto"), "__proto__": {}},
    ]  # fmt: skip
    bodies: list[Any] = [
        {"prompt": None}, {"prompt": ""}, {"prompt": 7}, {"prompt": "a\0b"},
        {"prompt": "x" * 32_001},
        {"n": 0}, {"n": 11}, {"n": 10**9}, {"n": -1}, {"n": 1.5}, {"n": True}, {"n": "1"},
        {"size": "999999x999999"}, {"size": "8192x8192"}, {"size": "64x64x64"}, {"size": 64},
        {"seed": 2**64}, {"seed": -2}, {"stream": True}, {"partial_images": 2}, {"mask": "x"},
        {"response_format": "file"}, {"output_format": "../png"}, {"output_compression": 101},
        {"num_inference_steps": 10**9}, {"guidance_scale": 10**9}, {"quality": "best"},
        {"output_path": "/etc/x"}, {"lora_path": "/etc/passwd"}, {"task_id": "../x"},
        {"images": [data_url(b"x")]}, {"callback": "http://evil.example"}, {"user": "a" * 513},
        *({"loras": [{"name": path}]} for path in PATHS), *({"model": path} for path in PATHS),
        {"loras": ["x"] * 17}, {"loras": "x"}, {"loras": [{"name": "x", "strength": 10**9}]},
    ]  # fmt: skip
    return wrong + [_line(f"body{n}", **body) for n, body in enumerate(bodies)]


def lines_of_edits() -> list[Any]:
    """Lines for `/v1/images/edits`, each of which is refused alone, or fails."""
    texts = [*PATHS, "", " ", "data:image/png,x", "data:image/png;base64,A===", "file-0", "job_0/0"]
    pictures: list[Any] = [
        *([text] for text in texts),
        *([{"image_url": text}] for text in texts),
        *([data_url(content)] for content in broken_pictures().values()),
        [{}], [{"file_id": "file-0", "image_url": "x"}], [{"path": "/etc/passwd"}], [None], [7],
        [[]], [], {}, "x", None, [data_url(b"x")] * 17,
    ]  # fmt: skip
    return [_line(f"edit{n}", EDITS, images=each) for n, each in enumerate(pictures)]


def lines_with_strange_names() -> list[Any]:
    """Lines that are requests like any other, but for names that something might stumble over."""
    names = [
        "../../etc/passwd", "/etc/passwd", "a\0b", "a\nb", "a\r\nSet-Cookie: x", " ", ".", "..",
        "CON", "a" * 512, "\N{BUG}" * 512, "\u202etxt.exe", "%s%n", "'; DROP TABLE jobs; --",
        "<script>alert(1)</script>", "{{7*7}}", "$(reboot)", "\x1b[2J",
    ]  # fmt: skip
    return [_line(name) for name in names]


def _line(custom_id: str, url: str = GENERATIONS, **body: Any) -> dict[str, Any]:
    body = {"prompt": "x", "size": "16x16", **body}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}
