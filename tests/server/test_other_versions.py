"""Commands and Python where the daemon is of another version, or something else listens there."""

import json
import shutil
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Self

import pytest
from loguru import logger

from core.errors import InputError
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.remote.protocol import ENGINE_ROUTE, PROTOCOL
from core.remote.socket_place import FOLDER, NAME
from tests.conftest import Project, simulated
from tests.inline_backend import InlineBackend
from tests.server.in_process import Application

TASK = {"prompt": "a house", "width": 32, "height": 32, "num_inference_steps": 1}
UNKNOWN = {"message": "Invalid URL", "type": "invalid_request_error", "param": None, "code": None}
OTHERS = {
    "a newer version": (200, json.dumps({"object": "engine", "protocol": PROTOCOL + 1})),
    "a version before there were numbers": (200, json.dumps({"object": "engine"})),
    "the same number, and other fields": (200, json.dumps({"protocol": PROTOCOL, "max_tasks": 9})),
    "a version without the route": (404, json.dumps({"error": UNKNOWN})),
    "a list": (200, "[1]"),
    "a web page": (200, "<html>Welcome!</html>"),
}


class _TcpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True


class _SocketServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    """Answers requests, and keeps no log."""

    def answer(self, status: int, kind: str, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class _Listening:
    """Something that listens at a port of its own, until its context is left.

    Attributes:
        url: of the port.
    """

    def __init__(self, handler: type[_Handler]) -> None:
        by_port = _TcpServer(("127.0.0.1", 0), handler)
        self.servers: list[socketserver.BaseServer] = [by_port]
        self.url = f"http://127.0.0.1:{by_port.server_address[1]}"

    def __enter__(self) -> Self:
        for server in self.servers:
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()


class Stranger(_Listening):
    """Listens at a port and at the socket of a user's daemon, and answers everything in one way.

    Attributes:
        runtime: the folder in which the socket's is.
        asked: paths of the requests that came.
    """

    def __init__(self, status: int, body: str) -> None:
        asked: list[str] = []

        class Handler(_Handler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.answer(
                    status, "text/html" if body.startswith("<") else "application/json", body
                )

            do_POST = do_GET

        super().__init__(Handler)
        self.asked = asked
        self.runtime = Path(tempfile.mkdtemp(prefix="run-"))  # short, as a socket's path has to be
        place = self.runtime / FOLDER / NAME
        place.parent.mkdir(mode=0o700)
        self.servers.append(_SocketServer(str(place), Handler))

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        shutil.rmtree(self.runtime)


@pytest.fixture(params=list(OTHERS.values()), ids=list(OTHERS))
def stranger(request: pytest.FixtureRequest) -> Iterator[Stranger]:
    with Stranger(*request.param) as stranger:
        yield stranger


def test_a_command_goes_on_without_a_daemon_of_another_version(
    stranger: Stranger, project: Project
) -> None:
    project.write_tweets([TASK])
    project.environment = {"XDG_RUNTIME_DIR": str(stranger.runtime)}
    started = project.run(["tweets.json"])
    assert started.process.wait() == 0, started.errors
    said = [line for line in started.errors.splitlines() if "server" in line]
    assert len(said) == 1 and "The server of yours that runs is not used: " in said[0]
    assert "Traceback" not in started.errors
    assert stranger.asked == [f"{ENGINE_ROUTE}?kind=generate"]
    assert len(list(project.pictures.glob("*.png"))) == 1


def test_a_named_server_of_another_version_is_refused_in_a_line(
    stranger: Stranger, project: Project
) -> None:
    project.write_tweets([TASK])
    refused = project.run(["tweets.json", "--server", stranger.url])
    assert refused.process.wait() == 2
    (line,) = refused.errors.splitlines()
    assert f"use_server: the server at {stranger.url} " in line
    assert not project.pictures.exists()


def test_python_is_told_of_a_server_of_another_version(tmp_path: Path) -> None:
    with (
        Stranger(*OTHERS["a newer version"]) as stranger,
        pytest.raises(InputError, match=f"{stranger.url} is of another version"),
    ):
        MultiGPUImageGenerator(
            config=simulated(use_server=stranger.url), output_dir=tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


class Replaced(_Listening):
    """A server that is of this version when it is first asked, and of another one afterwards."""

    def __init__(
        self,
        engine: str,
        event: str,
        job: tuple[int, str] = (202, json.dumps({"id": "job_1"})),
    ) -> None:
        class Handler(_Handler):
            def do_GET(self) -> None:
                if self.path.startswith(ENGINE_ROUTE):
                    self.answer(200, "application/json", engine)
                else:
                    self.answer(200, "text/event-stream", event)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.answer(job[0], "application/json", job[1])

            def do_DELETE(self) -> None:
                self.answer(404, "application/json", json.dumps({"error": UNKNOWN}))

        super().__init__(Handler)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a daemon of this version says of itself."""
    with Application(tmp_path_factory.mktemp("served")) as served, served.client() as client:
        return client.get(f"{ENGINE_ROUTE}?kind=generate").raise_for_status().text


VIEW = {"worker": "cpu0", "status": "done", "success": True, "error": None, "cause": None}
VIEW |= {"attempts": 1, "elapsed": 0.1}


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("task", {"place": 0}),
        ("task", [1]),
        ("task", {**VIEW, "position": 7}),
        ("task", {**VIEW, "position": "first"}),
        ("step", {"task": "0", "done": 1}),
    ],
    ids=str,
)
def test_a_server_that_is_replaced_by_another_version_leaves_tasks_for_the_next_run(
    engine: str, kind: str, data: Any, tmp_path: Path
) -> None:
    event = f"event: {kind}\ndata: {json.dumps(data)}\nid: 1\n\n"
    with Replaced(engine, event) as server:
        config = simulated(use_server=server.url)
        with MultiGPUImageGenerator(config=config, output_dir=tmp_path / "out") as generator:
            (result,) = generator.generate_batch([TASK])
    assert result.status == "interrupted"
    assert str(result.error).startswith("Not finished: the server is of another version")


UNKNOWN_FIELD = {
    **UNKNOWN,
    "message": "Unknown parameter: 'suffixes'.",
    "code": "unknown_parameter",
}


@pytest.mark.parametrize(("status", "error"), [(400, UNKNOWN_FIELD), (404, UNKNOWN)], ids=str)
def test_a_server_that_refuses_what_commands_of_this_version_ask_is_told_of_once(
    engine: str, status: int, error: dict[str, Any], tmp_path: Path
) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, format="{level} {message}", level="WARNING")
    with Replaced(engine, "", (status, json.dumps({"error": error}))) as server:
        config = simulated(use_server=server.url)
        with MultiGPUImageGenerator(config=config, output_dir=tmp_path / "out") as generator:
            results = generator.generate_batch([{**TASK, "seed": n} for n in range(40)])
    logger.remove(sink)
    assert {result.status for result in results} == {"interrupted"}
    [line] = [line for line in lines if line.startswith("ERROR")]
    assert f"The server at {server.url} is of another version" in line
    assert error["message"] in line and "--no-server" in line

    own = simulated(use_server="never")
    with MultiGPUImageGenerator(
        config=own, output_dir=tmp_path / "out", backend=InlineBackend()
    ) as generator:
        results = generator.generate_batch([{**TASK, "seed": n} for n in range(40)])
    assert {result.status for result in results} == {"done"}
