"""A small model hub on this machine: the HTTP that huggingface_hub asks for, and its refusals."""

import hashlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = "someone/model"


class HubServer:
    """Serves one folder as `someone/model`.

    Attributes:
        refusal: called with the number of the request and its path; status and headers to answer
            with instead, or None to serve. A status of 0 never answers.
        requests: method and path of everything that was asked for.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[str] = []
        self.refusal: Callable[[int, str], tuple[int, dict[str, str]] | None] = lambda n, path: None
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
            return [
                {"type": "file", "path": n, "size": f.stat().st_size, "oid": _etag(f)}
                for n, f in zip(names, files, strict=True)
            ]
        if path.startswith(f"/api/models/{MODEL}"):
            return {"id": MODEL, "sha": COMMIT, "siblings": [{"rfilename": n} for n in names]}
        return None


def _etag(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


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
            headers = {"ETag": f'"{_etag(file)}"', "X-Repo-Commit": COMMIT}
            self._send(200, file.read_bytes(), headers, with_body)

        def _send(self, status: int, body: bytes, headers: dict[str, str], whole: bool) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if whole:
                self.wfile.write(body)

    return Handler
