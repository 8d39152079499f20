"""Requests that nobody should send, in families; each is bytes for a socket, and what may come."""

import base64
import io
import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

CRLF = b"\r\n"
TASKS = (202, 400)  # of a job in which a task is bad: it fails alone


@dataclass(frozen=True)
class Hostile:
    """One request. What is accepted is a job of which every task should fail.

    Attributes:
        parts: bytes to send, one after the other.
        statuses: that may answer it; empty for a closed connection alone.
        silent: the connection may be closed without an answer, too.
    """

    name: str
    parts: Sequence[bytes]
    statuses: tuple[int, ...]
    silent: bool = False


def request(
    target: str = "/v1/jobs",
    method: str = "GET",
    headers: Sequence[tuple[str, str]] = (),
    body: bytes = b"",
    host: str | None = "localhost",
) -> bytes:
    """A request, valid HTTP but for what it is given."""
    lines = [f"{method} {target} HTTP/1.1"]
    if host is not None:
        lines.append(f"Host: {host}")
    lines += [f"{name}: {value}" for name, value in headers]
    if body and not any(
        name.lower() in ("content-length", "transfer-encoding") for name, _ in headers
    ):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body


def posted(body: bytes, target: str = "/v1/jobs", kind: str = "application/json") -> bytes:
    return request(target, "POST", [("Content-Type", kind)], body)


def job(*tasks: Any, **more: Any) -> bytes:
    return posted(json.dumps({"tasks": list(tasks), **more}).encode())


def every() -> list[Hostile]:
    """All families."""
    families = [
        broken_http(), names(), pages(), documents(), packings(), forms(), addresses(), queries(),
        tasks(), paths(), pictures(), file_requests(), images(),
    ]  # fmt: skip
    return [hostile for family in families for hostile in family]


def broken_http() -> Iterator[Hostile]:
    raw = {
        "not http": b"\x00\x01\x02\x03\r\n\r\n",
        "tls hello": bytes.fromhex("16030100c8010000c40303") + b"\x11" * 200,
        "ssh banner": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        "smb": b"\x00\x00\x00\x85\xffSMBr\x00\r\n\r\n",
        "h2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "http 0.9": b"GET /\r\n\r\n",
        "http 3": b"GET / HTTP/3.0\r\nHost: localhost\r\n\r\n",
        "no version": b"GET / \r\nHost: localhost\r\n\r\n",
        "bad version": b"GET / HTTP/one\r\nHost: localhost\r\n\r\n",
        "unknown method": b"STEAL / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "lower-case method": b"get / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "space before colon": b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
        "no colon": b"GET / HTTP/1.1\r\nHost localhost\r\n\r\n",
        "nul in a value": b"GET / HTTP/1.1\r\nHost: local\x00host\r\n\r\n",
        "nul in a name": b"GET / HTTP/1.1\r\nHo\x00st: localhost\r\n\r\n",
        "nul in the target": b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "bare CR": b"GET / HTTP/1.1\rHost: localhost\r\r",
        "letters in a length": request(method="POST", headers=[("Content-Length", "ten")]),
        "negative length": request(method="POST", headers=[("Content-Length", "-1")]),
        "signed length": request(method="POST", headers=[("Content-Length", "+5")]),
        "length beyond 64 bits": request(method="POST", headers=[("Content-Length", "9" * 40)]),
        "two lengths": request(
            method="POST", headers=[("Content-Length", "3"), ("Content-Length", "4")], body=b"abc"
        ),
        "length and chunks": request(
            method="POST", headers=[("Content-Length", "3"), ("Transfer-Encoding", "chunked")],
            body=b"0\r\n\r\n",
        ),
        "chunk size of letters": request(
            method="POST", headers=[("Transfer-Encoding", "chunked")], body=b"zz\r\n\r\n"
        ),
        "negative chunk size": request(
            method="POST", headers=[("Transfer-Encoding", "chunked")], body=b"-1\r\n\r\n"
        ),
        "endless chunk size": request(
            method="POST", headers=[("Transfer-Encoding", "chunked")], body=b"f" * 40 + CRLF
        ),
        "unknown transfer encoding": request(
            method="POST", headers=[("Transfer-Encoding", "rot13")], body=b"abc"
        ),
        "authority as target": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "no letters in the target": b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    }  # fmt: skip
    for name, text in raw.items():
        yield Hostile(name, [text], (400, 403, 404, 405), silent=True)
    yield Hostile("a long address", [request("/" + "a" * 80_000)], (431,))
    yield Hostile("a long header", [request(headers=[("X", "a" * 80_000)])], (431,))
    many = [(f"X-{n}", "1") for n in range(150)]
    yield Hostile("many headers", [request(headers=many)], (431,))
    endless = [b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", *[b"a" * 50_000] * 8]
    yield Hostile("a header without an end", endless, (431,), silent=True)
    breaks = [CRLF * 1000] * 4
    yield Hostile("line breaks and no request", breaks, (400, 408), silent=True)
    yield Hostile("nothing at all", [], (), silent=True)
    yield Hostile("a byte, and nothing more", [b"G"], (408,))
    yield Hostile("half of the headers", [b"GET / HTTP/1.1\r\nHost: local"], (408,))
    slow = [b"GET / HTTP/1.1\r\n", *(f"X-{n}: 1\r\n".encode() for n in range(40))]
    # Who goes on sending after the answer resets the connection, and may lose the answer by it.
    yield Hostile("a header now and then", slow, (408,), silent=True)
    head = request(method="POST", headers=[("Content-Type", "application/json"),
                                           ("Transfer-Encoding", "chunked")])  # fmt: skip
    yield Hostile(
        "a chunk extension without an end", [head + b"1;", *[b"x" * 50_000] * 8], (), True
    )
    trailer = [head + b"1\r\n{\r\n0\r\nX: ", *[b"x" * 50_000] * 8]
    yield Hostile("a trailer without an end", trailer, (), True)
    many_trailers = b"".join(b"X-%d: 1\r\n" % n for n in range(500))
    yield Hostile(
        "many trailers", [head + b"2\r\n{}\r\n0\r\n" + many_trailers + CRLF], (400,), True
    )
    for upgrade in ("websocket", "h2c", "TLS/1.2"):
        asked = [("Connection", "Upgrade"), ("Upgrade", upgrade), ("Sec-WebSocket-Version", "13")]
        text = request("/nothing", headers=asked).replace(b"Connection: close\r\n", b"")
        yield Hostile(f"an upgrade to {upgrade}", [text], (404,))
    for method in ("TRACE", "OPTIONS", "PUT", "PATCH", "PROPFIND", "DELETE", "PURGE"):
        yield Hostile(f"{method} of jobs", [request(method=method)], (405,))
    stolen = request("/v1/jobs", "POST", [("Expect", "200-nonsense")], b"{}")
    yield Hostile("an unknown expectation", [stolen], (400,))


def names() -> Iterator[Hostile]:
    hosts = [
        "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.nip.io",
        "127.0.0.1.evil.example", "localhost@evil.example", "evil.example#localhost",
        "localhost/evil", "xn--lclhost-9za", "0.0.0.0", "[::]", "192.168.0.1", "169.254.169.254",
        "10.0.0.1", "[::ffff:10.0.0.1]", "[fe80::1]", "0x7f000001", "2130706433", "127.1",
        "metadata.google.internal", "localhost:80:80", "localhost:http", "localhost:999999", "",
        " ", "local host", "localhost,evil.example", "*", "..", "[", "[::1", "a" * 300,
        "127.0.0.1%00evil.example", "\u00a0localhost",
    ]  # fmt: skip
    for host in hosts:
        text = request("/v1/files", host=host)
        yield Hostile(f"Host {host[:40]!r}", [text], (400, 403))
    yield Hostile("no Host", [request(host=None)], (400,))
    yield Hostile("Host twice", [request(headers=[("Host", "evil.example")])], (400, 403))
    old = b"GET /v1/files HTTP/1.0\r\n\r\n"
    yield Hostile("HTTP/1.0 without Host", [old], (400,))


def pages() -> Iterator[Hostile]:
    origins = [
        "null", "http://evil.example", "https://evil.example", "http://localhost:3000",
        "http://localhost.evil.example", "http://127.0.0.1", "file://", "chrome-extension://abc",
        "http://localhost/", "HTTP://EVIL.EXAMPLE", "localhost", "", "//localhost",
        "http://localhost@evil.example", "http://user@localhost", "ftp://localhost", "http://",
    ]  # fmt: skip
    targets = [("GET", "/v1/files"), ("POST", "/v1/jobs"), ("GET", "/v1/jobs/job_1/events")]
    for origin in origins:
        for method, target in targets:
            text = request(target, method, [("Origin", origin)])
            yield Hostile(f"{method} {target} from {origin!r}", [text], (403,))
    twice = [("Origin", "http://localhost"), ("Origin", "http://evil.example")]
    yield Hostile("two origins", [request(headers=twice)], (403,))
    for site in ("cross-site", "same-site", "nonsense"):
        for mode, dest in (("no-cors", "image"), ("cors", "empty"), ("navigate", "iframe")):
            told = [("Sec-Fetch-Site", site), ("Sec-Fetch-Mode", mode), ("Sec-Fetch-Dest", dest)]
            yield Hostile(f"{dest} of a {site} page", [request(headers=told)], (403,))
    sent = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"),
            ("Sec-Fetch-Dest", "document")]  # fmt: skip
    yield Hostile("a form that a page sent", [request(method="POST", headers=sent)], (403,))
    asked = [("Origin", "http://evil.example"), ("Access-Control-Request-Method", "POST")]
    yield Hostile("a preflight", [request(method="OPTIONS", headers=asked)], (403,))


def documents() -> Iterator[Hostile]:
    task = b'{"prompt":"x"}'
    texts: dict[str, bytes] = {
        "nothing": b"", "a space": b" ", "a brace": b"{", "a bracket": b"]", "a word": b"tasks",
        "an open string": b'{"tasks', "a comma": b'{"tasks":[],}', "quotes": b"{'tasks':[]}",
        "a comment": b'{"tasks":[]} // x', "two documents": b'{"tasks":[]}{}',
        "null": b"null", "a number": b"7", "a string": b'"x"', "a list": b"[]", "true": b"true",
        "no tasks": b"{}", "tasks of null": b'{"tasks":null}', "no task": b'{"tasks":[]}',
        "tasks of one object": b'{"tasks":{}}', "a task of text": b'{"tasks":["x"]}',
        "a task of lists": b'{"tasks":[[[]]]}', "an empty task": b'{"tasks":[{}]}',
        "NaN": b'{"tasks":[{"prompt":"x","cfg":NaN}]}',
        "infinity": b'{"tasks":[{"prompt":"x","cfg":Infinity}]}',
        "minus infinity": b'{"tasks":[{"prompt":"x","cfg":-Infinity}]}',
        "1e999": b'{"tasks":[{"prompt":"x","cfg":1e999}]}',
        "a number of 5000 digits": b'{"tasks":[' + task + b'],"priority":' + b"9" * 5000 + b"}",
        "a number of 30 digits": b'{"tasks":[' + task + b'],"priority":' + b"9" * 30 + b"}",
        "a number beyond SQLite": b'{"tasks":[' + task + b'],"priority":18446744073709551615}',
        "a large priority": b'{"tasks":[' + task + b'],"priority":1e18}',
        "a key twice": b'{"tasks":[' + task + b'],"tasks":[{}]}',
        "a key twice inside": b'{"tasks":[{"prompt":"x","prompt":"y"}]}',
        "deep lists": b'{"tasks":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "deep objects": b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
        "depths that Python bears": b'{"tasks":[{"prompt":"x","metadata":{"a":' + b"[" * 300
        + b"]" * 300 + b"}}]}",
        "open lists": b"[" * 100_000, "not UTF-8": b'{"tasks":[{"prompt":"\xff\xfe"}]}',
        "half of a letter": b'{"tasks":[{"prompt":"\xe2\x82"}]}',
        "overlong UTF-8": b'{"tasks":[{"prompt":"\xc0\xaf"}]}',
        "UTF-16": '{"tasks":[{"prompt":"x"}]}'.encode("utf-16"),
        "UTF-32": '{"tasks":[{"prompt":"x"}]}'.encode("utf-32"),
        "a byte order mark": b"\xef\xbb\xbf" + b'{"tasks":[{"prompt":"x"}]}',
        "half of a surrogate pair": b'{"tasks":[{"prompt":"\\ud800"}]}',
        "half of one as a key": b'{"tasks":[{"prompt":"x"}],"\\udfff":1}',
        "a raw control character": b'{"tasks":[{"prompt":"a\x01b"}]}',
        "NUL bytes": b"\0" * 1000,
        "an escaped NUL in a task": b'{"tasks":[{"prompt":"a\\u0000b"}]}',
        "an unknown field": b'{"tasks":[' + task + b'],"admin":true}',
        "a polluted prototype": b'{"tasks":[' + task + b'],"__proto__":{}}',
        "pickle": b"\x80\x04\x95\x10\x00\x00\x00", "gzip": b"\x1f\x8b\x08\x00" + b"\0" * 20,
        "XML": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a/>',
    }  # fmt: skip
    for name, text in texts.items():
        yield Hostile(f"JSON: {name}", [posted(text)], TASKS if "task" in name else (400,))


def packings() -> Iterator[Hostile]:
    body = b'{"tasks":[{"prompt":"x"}]}'
    json_type = ("Content-Type", "application/json")
    for encoding in ("gzip", "deflate", "br", "zstd", "compress", "gzip, gzip", "GZIP", "x"):
        text = request(
            method="POST", headers=[json_type, ("Content-Encoding", encoding)], body=body
        )
        yield Hostile(f"Content-Encoding {encoding}", [text], (415,))
    for charset in ("utf-16", "utf-7", "latin-1", "raw_unicode_escape", "idna", "x"):
        kind = f"application/json; charset={charset}"
        yield Hostile(f"charset {charset}", [posted(body, kind=kind)], (415,))
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/xml", "x", "/",
                 "multipart/form-data", "multipart/form-data; boundary=", "text/html; charset=x",
                 "application/octet-stream", ";;;;", "application/json" * 50):  # fmt: skip
        yield Hostile(f"JSON as {kind[:40]!r}", [posted(body, kind=kind)], (400, 415))
    large = [json_type, ("Content-Length", "99999999")]
    yield Hostile("a large length", [request(method="POST", headers=large)], (413,))
    lying = [json_type, ("Content-Length", "500")]
    yield Hostile(
        "a body shorter than said", [request(method="POST", headers=lying) + body], (408,)
    )
    chunked = [json_type, ("Transfer-Encoding", "chunked")]
    head = request(method="POST", headers=chunked)
    chunk = b"10000\r\n" + b" " * 65536 + CRLF
    yield Hostile("chunks without an end", [head, *[chunk] * 40], (413,), silent=True)
    yield Hostile("one chunk, and no end", [head + chunk], (408,))
    drops = [head, *[b"1\r\n \r\n"] * 40]
    yield Hostile("a chunk now and then", drops, (408,), silent=True)


def form(*parts: bytes, boundary: str = "b", end: bool = True) -> bytes:
    lines = b"".join(b"--b\r\n" + part + CRLF for part in parts)
    body = lines + (b"--b--\r\n" if end else b"")
    return posted(body, "/v1/files", f"multipart/form-data; boundary={boundary}")


def field(name: str, value: bytes, filename: str | None = None) -> bytes:
    also = "" if filename is None else f'; filename="{filename}"'
    return f'Content-Disposition: form-data; name="{name}"{also}\r\n\r\n'.encode() + value


def forms() -> Iterator[Hostile]:
    file, purpose = field("file", b"x", "a.txt"), field("purpose", b"user_data")
    texts = {
        "no part": form(), "no end": form(file, purpose, end=False),
        "another boundary": form(file, purpose, boundary="c"),
        "a long boundary": form(file, purpose, boundary="c" * 500), "no file": form(purpose),
        "no purpose": form(file), "a file of text": form(field("file", b"x"), purpose),
        "an unknown purpose": form(file, field("purpose", b"world domination")),
        "a purpose of elsewhere": form(file, field("purpose", b"fine-tune")),
        "a purpose of NUL": form(file, field("purpose", b"\0")),
        "a purpose that is no text": form(file, field("purpose", b"\xff\xfe")),
        "two files": form(file, file, purpose), "two purposes": form(file, purpose, purpose),
        "an unknown field": form(file, purpose, field("path", b"/etc/passwd")),
        "a long field": form(file, field("purpose", b"x" * 1_100_000)),
        "many fields": form(file, purpose, *(field(f"f{n}", b"") for n in range(2000))),
        "many files": form(*(field(f"f{n}", b"", "a") for n in range(2000))),
        "a part without a name": form(b"Content-Disposition: form-data\r\n\r\nx"),
        "a part without headers": form(b"\r\nx"),
        "a part with many headers": form(b"X: 1\r\n" * 50 + b"\r\nx"),
        "a part with a long header": form(b"X: " + b"a" * 20_000 + b"\r\n\r\nx"),
        "a header without colon": form(b"nonsense\r\n\r\nx"),
        "expiry of no anchor": form(file, purpose, field("expires_after[seconds]", b"3600")),
        "expiry of no seconds": form(file, purpose, field("expires_after[anchor]", b"created_at")),
    }  # fmt: skip
    for name, text in texts.items():
        yield Hostile(f"form: {name}", [text], (400,))
    anchor = field("expires_after[anchor]", b"created_at")
    for seconds in (
        b"0",
        b"-1",
        b"1e9",
        b"NaN",
        b"9" * 5000,
        b"",
        b"\xd9\xa3600",
        b"3599",
        b"2592001",
    ):
        text = form(file, purpose, anchor, field("expires_after[seconds]", seconds))
        yield Hostile(f"expiry of {seconds[:20]!r} seconds", [text], (400,))
    said = [("Content-Type", "multipart/form-data; boundary=b"), ("Content-Length", "9" * 12)]
    yield Hostile("a large upload", [request("/v1/files", "POST", said)], (413,))
    plain = [("Content-Type", "multipart/form-data; boundary=b"), ("Transfer-Encoding", "chunked")]
    start = request("/v1/files", "POST", plain)
    part = b"--b\r\n" + field("file", b"", "a.txt")
    chunk = b"10000\r\n" + b" " * 65536 + CRLF
    opened = b"%x\r\n" % len(part) + part + CRLF
    endless = [start + opened, *[chunk] * 80]
    yield Hostile("an upload without an end", endless, (413,), silent=True)
    yield Hostile("an upload that stops", [start + opened + chunk], (408,))


CLIMBS = (
    "../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "..%5c..%5cwindows",
    "....//....//etc/passwd", "%252e%252e%252fetc", "/etc/passwd", "%00", "a%00.png", "%ff%fe",
    "..;/admin", "~root", "file-%2e%2e", "con", "%0d%0aSet-Cookie:x=1", "'%20OR%20'1'='1",
    "%f0%9f%92%a9", "a" * 5000, "%ED%A0%80", "{id}", "%7Bid%7D", "<script>", "*", ".", "..",
)  # fmt: skip


def addresses() -> Iterator[Hostile]:
    for climb in CLIMBS:
        for start, end in (("/v1/files/", "/content"), ("/v1/jobs/", ""), ("/v1/loras/", "")):
            target = f"{start}{climb}{end}"
            yield Hostile(f"GET {target[:60]}", [request(target)], (400, 404, 405))
        yield Hostile(f"DELETE {climb[:40]}", [request(f"/v1/files/{climb}", "DELETE")],
                      (400, 404, 405))  # fmt: skip
    for target in (
        "http://evil.example/x",
        "http://127.0.0.1:22/x",
        "/%",
        "/%zz",
        "//evil/",
    ):
        yield Hostile(f"GET {target}", [request(target)], (400, 404))


def queries() -> Iterator[Hostile]:
    numbers = ("-1", "0", "1e9", "NaN", "9" * 30, "9" * 5000, "", "%00", "1;drop", "%d9%a3", "[]")
    for number in numbers:
        text = request(f"/v1/files?limit={number}")
        yield Hostile(f"files, limit {number[:20]}", [text], (400,))
    for order in ("up", "", "%00", "desc;"):
        yield Hostile(f"files, order {order}", [request(f"/v1/files?order={order}")], (400,))
    for after in ("file-x", "..", "%00", "a" * 3000, "%ff"):
        yield Hostile(f"files after {after[:20]}", [request(f"/v1/files?after={after}")], (404,))


def tasks() -> Iterator[Hostile]:
    wrong: list[dict[str, Any]] = [
        {"kind": "Exec", "prompt": "x"}, {"kind": ["generate"], "prompt": "x"},
        {"kind": "os.system", "prompt": "x"}, {"prompt": ""}, {"prompt": 7}, {"prompt": ["x"]},
        {"prompt": "a\0b"}, {"prompt": "x", "width": 17}, {"prompt": "x", "width": 10**9},
        {"prompt": "x", "width": -16}, {"prompt": "x", "height": "large"},
        {"prompt": "x", "num_inference_steps": 0}, {"prompt": "x", "num_inference_steps": 10**6},
        {"prompt": "x", "guidance_scale": -1}, {"prompt": "x", "seed": 2**64},
        {"prompt": "x", "seed": True}, {"prompt": "x", "metadata": "text"},
        {"prompt": "x", "served_by": "os:system"}, {"prompt": "x", "__class__": "y"},
        {"prompt": "x", "loras": [{"path": "x"}] * 40}, {"prompt": "x", "lora_strength": 99},
        {"instruction": "x"}, {"instruction": "x", "source_images": []},
        {"instruction": "x", "source_images": [7]}, {"instruction": "x", "source_images": {}},
        {"instruction": "x", "source_images": ["AAAA"] * 40},
    ]  # fmt: skip
    for task in wrong:
        yield Hostile(f"task {str(task)[:60]}", [job(task)], TASKS)


PATHS = (
    "/etc/passwd", "/etc/passwd/", "../../../../etc/passwd", "~/.ssh/id_rsa", "file:///etc/passwd",
    "/proc/self/environ", "/dev/zero", "/dev/stdin", "\\\\evil\\share\\a.png", "C:\\a.png", ".",
    "gopher://localhost/", "http://169.254.169.254/latest/meta-data", "https://localhost/a.png",
    "http://[::1]/", "https://127.0.0.1:8000/", "job_x/0", "job_0/../../journal.sqlite", "file-0",
    "file-../journal", "journal.sqlite", "inbox/x", "ftp://evil.example/a.png",
)  # fmt: skip


def paths() -> Iterator[Hostile]:
    for path in PATHS:
        edit = {"instruction": "x", "source_images": [path]}
        yield Hostile(f"source {path}", [job(edit)], TASKS)
        score = {"kind": "score", "instruction": "x", "source_images": [path], "edited_image": path}
        yield Hostile(f"edited {path}", [job(score)], TASKS)
        yield Hostile(f"output {path}", [job({"prompt": "x", "output_path": path})], TASKS)
        for spelling in ("lora_path", "loraFile", "lora_model", "loras", "output_file"):
            task = {"prompt": "x", spelling: path}
            yield Hostile(f"{spelling} {path}", [job(task)], TASKS)


def png(width: int, height: int, data: bytes = b"", colour: int = 2, depth: int = 8) -> bytes:
    """A PNG whose header says what it is told to say."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, chunks))


def _chunk(chunk: tuple[bytes, bytes]) -> bytes:
    name, data = chunk
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def picture(form: str = "PNG", size: tuple[int, int] = (64, 64)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, "red").save(stream, form)
    return stream.getvalue()


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def broken_pictures() -> dict[str, bytes]:
    """What is sent as a picture and is none."""
    good = picture()
    return {
        "nothing": b"", "text": b"hello", "NUL bytes": b"\0" * 5000, "half a signature": good[:6],
        "a signature": good[:8], "a cut header": good[:20], "HTML": b"<html><script>x</script>",
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run",
        "PDF": b"%PDF-1.7",
        "ImageMagick's": b"push graphic-context\nfill 'url(https://evil.example)'\n",
        "pickle": b"\x80\x04\x95", "ZIP": b"PK\x03\x04" + b"\0" * 30,
        "a bomb of 50000 x 50000": png(50_000, 50_000, zlib.compress(b"\0" * 1_000_000)),
        "2**31 pixels a side": png(2**31 - 1, 2**31 - 1), "no pixels": png(0, 0),
        "BMP of gigapixels": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 70, 0, 0, 54, 40, 60000, 60000,
                                                 1, 24, 0, 0, 0, 0, 0, 0) + b"\0" * 16,
        "GIF of 65535 x 65535": b"GIF89a" + b"\xff" * 4 + b"\0\0\0;",
        "WebP of nothing": b"RIFF\x04\0\0\0WEBP",
        "AVIF of nothing": b"\0\0\0\x18ftypavif" + b"\0" * 12,
        "HEIC of nothing": b"\0\0\0\x18ftypheic" + b"\0" * 12,
        "JPEG of nothing": b"\xff\xd8\xff\xe0", "TIFF that loops": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
        "JPEG 2000 of nothing": b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 20,
        "PSD": b"8BPS\0\1" + b"\0" * 20, "ICO": b"\0\0\1\0\1\0" + b"\0" * 16,
        "PPM": b"P6 90000 90000 255\n",
    }  # fmt: skip


def pictures() -> Iterator[Hostile]:
    for name, data in broken_pictures().items():
        edit = {"instruction": "x", "source_images": [data_url(data)]}
        yield Hostile(f"picture: {name}", [job(edit)], TASKS)
    urls = {
        "no base64": "data:image/png,hello", "an empty one": "data:image/png;base64,",
        "broken base64": "data:image/png;base64,A===",
        "letters of no alphabet": "data:image/png;base64,ÄÖ",
        "a space in it": "data:image/png;base64," + " ".join("iVBORw0KGgo="),
        "no comma": "data:image/png;base64", "an empty reference": "", "a blank": "   ",
        "one too large": "data:image/png;base64," + "A" * 600_000,
    }  # fmt: skip
    for name, url in urls.items():
        edit = {"instruction": "x", "source_images": [url]}
        yield Hostile(f"data URL: {name}", [job(edit)], TASKS)
    large = {"instruction": "x", "source_images": [data_url(picture(size=(1100, 1000)))]}
    yield Hostile("more megapixels than allowed", [job(large)], TASKS)


def file_requests() -> Iterator[Hostile]:
    for target in ("/v1/files/file-0", "/v1/files/file-0/content", "/v1/files/file-0/x"):
        yield Hostile(f"GET {target}", [request(target)], (404,))
    yield Hostile("a file by PUT", [request("/v1/files/file-0", "PUT", body=b"x")], (405,))
    said = [("Authorization", "Basic " + "A" * 5000)]
    yield Hostile("a strange Authorization", [request("/nothing", headers=said)], (404,))


def images() -> Iterator[Hostile]:
    drawn = "/v1/images/generations"
    asked: dict[str, Any] = {"prompt": "x", "size": "64x64"}
    wrong: list[Any] = [
        {}, [], "x", {"prompt": 7}, {"prompt": ""}, {"prompt": "a\0b"}, {**asked, "n": 0},
        {**asked, "n": 10**9}, {**asked, "n": -1}, {**asked, "n": 1.5}, {**asked, "n": True},
        {**asked, "size": "9999999x9999999"}, {**asked, "size": "-64x64"}, {**asked, "size": "x"},
        {**asked, "size": "64x64x64"}, {**asked, "size": ["64x64"]}, {**asked, "seed": 2**64},
        {**asked, "output_format": "../png"}, {**asked, "output_format": "svg"},
        {**asked, "output_compression": 101}, {**asked, "response_format": "file"},
        {**asked, "partial_images": 99}, {**asked, "stream": "maybe"}, {**asked, "style": "vivid"},
        {**asked, "num_inference_steps": 10**9}, {**asked, "guidance_scale": 10**9},
        {**asked, "loras": [{"name": "/etc/passwd"}]}, {**asked, "loras": ["../../x"]},
        {**asked, "loras": [{"name": "x", "path": "/etc/passwd"}]}, {**asked, "lora_path": "/x"},
        {**asked, "output_path": "/etc/x"}, {**asked, "__proto__": {}},
        {**asked, "loras": "x" * 99},
    ]  # fmt: skip
    for body in wrong:
        text = posted(json.dumps(body).encode(), drawn)
        yield Hostile(f"generation {str(body)[:70]}", [text], (400,))
    for model in ("/etc/passwd", "../../x", "", "gpt-image-1\0", "a" * 2000):
        text = posted(json.dumps({**asked, "model": model}).encode(), drawn)
        yield Hostile(f"model {model[:40]!r}", [text], (400, 404))
    for path in PATHS:
        body = {"prompt": "x", "images": [{"image_url": path}]}
        text = posted(json.dumps(body).encode(), "/v1/images/edits")
        yield Hostile(f"edit of {path}", [text], (400, 404))
    for name in ("x.png", "AAAA.png", "..%2f..%2fx.png", "a" * 3000 + ".png", "%00", ".", "x"):
        yield Hostile(f"picture {name[:30]}", [request(f"/pictures/{name}")], (404,))
    for number in ("-2", "9" * 30, "1e9", "x", "%00", ""):
        for target in (f"/v1/jobs?limit={number}", f"/v1/jobs/job_0/results/{number}/content"):
            yield Hostile(f"GET {target[:50]}", [request(target)], (400, 404, 405))
    for target in ("/v1/workers/load", "/v1/workers/unload"):
        yield Hostile(f"POST {target}", [posted(b'{"kind":"os"}', target)], (400,))
    for given in (*PATHS, "", "x\0", "x" * 2000, {"path": "/x"}, None):
        for action in ("load", "unload"):
            body = json.dumps({"name": given, "action": action}).encode()
            yield Hostile(
                f"{action} of LoRA {str(given)[:40]!r}", [posted(body, "/v1/loras")], (400,)
            )
    yield Hostile("a drain of no worker", [posted(b"", "/v1/workers/%2e%2e/drain")], (404,))
    for key in ("", "a" * 300, "a b", "\xff"):
        head = [("Content-Type", "application/json"), ("Idempotency-Key", key)]
        text = request("/v1/jobs", "POST", head, b'{"tasks":[]}')
        yield Hostile(f"Idempotency-Key {key[:20]!r}", [text], (400,))
        text = request(drawn, "POST", head, json.dumps(asked).encode())
        yield Hostile(f"generation with Idempotency-Key {key[:20]!r}", [text], (400,))
