"""A small model hub on this machine: the HTTP that huggingface_hub asks for, and its refusals."""

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = "someone/model"
LARGE = (".safetensors", ".bin")
PIECE = 16 * 1024  # bytes


class HubServer:
    """Serves one folder as `someone/model`.

    Attributes:
        refusal: called with the number of the request and its path; status and headers to answer
            with instead, or None to serve. A status of 0 never answers.
        requests: method and path of everything that was asked for about models. The library asks
            for more of its own accord, once a day.
        commit: what every revision is now.
        ranges: whether weights are given from a byte on, as all hubs do it.
        rate: bytes of weights a second, each time they are asked for.
        ends: called with a file's name and the bytes of it that were sent in this answer; whether
            to send no more, and to leave the connection open.
        sizes: of files, where the listing shall not tell the truth.
        sent: bytes of each file that were sent, by name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[str] = []
        self.refusal: Callable[[int, str], tuple[int, dict[str, str]] | None] = lambda n, path: None
        self.commit = COMMIT
        self.ranges = True
        self.rate: float | None = None
        self.ends: Callable[[str, int], bool] = lambda name, sent: False
        self.sizes: dict[str, int] = {}
        self.sent: Counter[str] = Counter()
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def file(self, path: str) -> Path | None:
        """What a path such as `/someone/model/resolve/main/vae/config.json` names."""
        _, found, rest = path.partition("/resolve/")
        file = self.folder / rest.partition("/")[2]
        return file if found and file.is_file() else None

    def listing(self, path: str) -> Any:
        """The answer to `/api/models/someone/model...`, None for other paths."""
        files = [f for f in sorted(self.folder.rglob("*")) if f.is_file()]
        names = [f.relative_to(self.folder).as_posix() for f in files]
        if "/tree/" in path:
            return [self._entry(n, f) for n, f in zip(names, files, strict=True)]
        if path.startswith(f"/api/models/{MODEL}"):
            return {"id": MODEL, "sha": self.commit, "siblings": [{"rfilename": n} for n in names]}
        return None

    def _entry(self, name: str, file: Path) -> dict[str, Any]:
        size = self.sizes.get(name, file.stat().st_size)
        entry: dict[str, Any] = {"type": "file", "path": name, "size": size, "oid": _etag(file)}
        if file.suffix in LARGE:
            entry["lfs"] = {"oid": _etag(file), "size": size, "pointerSize": 130}
        return entry


def _etag(file: Path) -> str:
    """Large files are known by their sha256, as on a real hub."""
    algorithm = "sha256" if file.suffix in LARGE else "sha1"
    return hashlib.new(algorithm, file.read_bytes()).hexdigest()


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, with_body: bool) -> None:
            path = self.path.partition("?")[0]
            if not path.startswith("/api/models/") and "/resolve/" not in path:
                self._send(404, b"", {}, with_body)
                return
            hub.requests.append(f"{self.command} {path}")
            refusal = hub.refusal(len(hub.requests), path)
            if refusal is not None:
                status, headers = refusal
                if status == 0:
                    hub.closing.wait(120)
                    return
                self._send(status, b"", headers, with_body)
                return
            listing = hub.listing(path)
            if listing is not None:
                self._send(200, json.dumps(listing).encode(), {}, with_body)
                return
            file = hub.file(path)
            if file is None:
                self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, with_body)
                return
            headers = {"ETag": f'"{_etag(file)}"', "X-Repo-Commit": hub.commit}
            content, status, begin = file.read_bytes(), 200, 0
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if asked and hub.ranges:
                status, begin = 206, int(asked[1])
                end = f"{len(content) - 1}/{len(content)}"
                headers["Content-Range"] = f"bytes {begin}-{end}"
            name = file.relative_to(hub.folder).as_posix()
            self._send(status, content[begin:], headers, with_body, name)

        def _send(
            self,
            status: int,
            body: bytes,
            headers: dict[str, str],
            whole: bool,
            name: str = "",
        ) -> None:
            self.send_response(status)
            for header, value in headers.items():
                self.send_header(header, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if whole:
                with suppress(OSError):  # whoever asked has left
                    self._write(body, name)

        def _write(self, body: bytes, name: str) -> None:
            for begin in range(0, len(body), PIECE):
                if hub.ends(name, begin):
                    hub.closing.wait(120)
                    return
                piece = body[begin : begin + PIECE]
                self.wfile.write(piece)
                hub.sent[name] += len(piece)
                if hub.rate and name.endswith(LARGE):
                    time.sleep(PIECE / hub.rate)

    return Handler
