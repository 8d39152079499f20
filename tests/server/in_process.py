"""The daemon's application in the test's own process, on a real socket, on workers that take no
time: for what requests get, and not for what survives."""

import asyncio
import base64
import hashlib
import threading
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx2
import uvicorn
from PIL import Image

from apps.server.app import create_app
from apps.server.context import LOCAL, _caller
from apps.server.errors import bad_value
from apps.server.journal import Journal
from apps.server.service import Service
from apps.server.settings import load_server_settings
from core import MultiGPUImageGenerator
from core.engine.backend import WorkerBackend
from core.store.outputs import write_atomically
from core.worker_spec import Role
from tests.conftest import PATIENCE, simulated, wait_until
from tests.inline_backend import InlineBackend

OTHERS = {"editor": {"model": "simulated"}, "judge": {"model": "simulated"}}


def client_of(url: str, **options: Any) -> httpx2.Client:
    """A client of a server here; to read all certificates, for nothing, would take it 25 ms."""
    return httpx2.Client(base_url=url, timeout=PATIENCE, trust_env=False, verify=False, **options)


class Application:
    """A daemon's application from its entering to its leaving.

    Args:
        workers: how many; each takes a task at a time.
        settings: as in a configuration file.
    """

    def __init__(
        self,
        folder: Path,
        workers: int = 2,
        backend: WorkerBackend | None = None,
        **settings: Any,
    ) -> None:
        self.folder = folder
        self._workers = workers
        self._backend = backend or InlineBackend()
        self._given = settings
        self._settings = load_server_settings(simulated(**{**OTHERS, **settings}))
        self._caller = LOCAL
        self.service: Service
        self.url = ""

    def __enter__(self) -> "Application":
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        wait_until(lambda: self.url or not self._thread.is_alive(), "the application")
        assert self.url
        return self

    async def _serve(self) -> None:
        journal = Journal(self.folder)
        generator = MultiGPUImageGenerator(
            self._workers,
            config=self._settings,
            output_dir=self.folder,
            backend=self._backend,
            tables=False,
        )
        self.service = Service(generator, journal, self._settings.server)
        app = create_app(self.service)
        app.state.inbox = Pictures(self.folder / "inbox")
        if "lora_dir" not in self._given:
            app.state.loras = NoLoras()
        app.dependency_overrides[_caller] = lambda: self._caller
        config = uvicorn.Config(app, log_config=None, port=0, lifespan="on")
        self._server = uvicorn.Server(config)
        self._loop = asyncio.get_running_loop()
        serving = asyncio.create_task(self._server.serve())
        while not self._server.started and not serving.done():
            await asyncio.sleep(0.005)
        if self._server.started:
            host, port = self._server.servers[0].sockets[0].getsockname()[:2]
            self.url = f"http://{host}:{port}"
        await serving

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def client(self, headers: Mapping[str, str] | None = None) -> httpx2.Client:
        """A client of its address."""
        return client_of(self.url, headers=headers or {})

    def be_called_by(self, caller: str) -> None:
        """Take further requests for those of another API key."""
        self._caller = caller

    def call(self, coroutine: Any) -> Any:
        """Run a coroutine of the service where it lives."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)


class Pictures:
    """Takes data URLs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def resolve(self, caller: str, reference: str, param: str) -> str:
        head, _, data = reference.partition(",")
        if head != "data:image/png;base64":
            raise bad_value(param, f"{param}: expected a picture as a data URL.")
        content = base64.b64decode(data)
        self.folder.mkdir(exist_ok=True)
        file = self.folder / f"{hashlib.sha256(content).hexdigest()}.png"
        write_atomically(file, content)  # a job that came before may be reading it
        return str(file)


class NoLoras:
    """Knows no LoRA."""

    def entries(self) -> Mapping[str, Any]:
        return {}

    def gone(self, paths: Sequence[str]) -> Mapping[str, Any]:
        return {}

    def resolve(self, name: str, param: str, kind: Role) -> str:
        raise bad_value(param, f"{param}: there is no LoRA {name!r}.")


def data_url(colour: str = "red") -> str:
    """A small picture as callers send one."""
    stream = BytesIO()
    Image.new("RGB", (32, 32), colour).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
