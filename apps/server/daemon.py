"""The daemon's process: its sockets, its signals, and its end."""

import argparse
import asyncio
import errno
import logging
import resource
import signal
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from loguru import logger
from pydantic.warnings import UnsupportedFieldAttributeWarning

from apps.server import garbage, service_manager
from apps.server.app import create_app
from apps.server.journal import Journal
from apps.server.own_socket import OwnSocket
from apps.server.safety.connections import connection_class
from apps.server.safety.hosts import only_this_machine
from apps.server.safety.keys import ApiKeys
from apps.server.service import Service
from apps.server.settings import ServerSettings
from core import MultiGPUImageGenerator
from core.devices.device import choose_devices
from core.engine.backend import WorkerBackend
from core.errors import InputError
from core.names import counted
from core.remote.socket_place import socket_place

SIGNALS = (signal.SIGINT, signal.SIGTERM)
BACKLOG = 2048
OTHER_FILES = 512  # workers' pipes, databases, pictures
TURN = 0.0005  # seconds: the loop waits ten times as long for each busy thread by default
GRACE = 5  # seconds for answers that are under way when the workers stop


def serve(
    settings: ServerSettings, options: argparse.Namespace, backend: WorkerBackend | None
) -> None:
    """Serve until the process is told to stop.

    Args:
        options: of the command line: devices.
        backend: runs the workers; by default processes of this machine.

    Raises:
        InputError, LedgerError, StorageError: settings, address or folder cannot be used.
    """
    rules = settings.server
    folder = Path(rules.output_dir)
    keys = ApiKeys(rules.keys_place())
    if not keys.needed and not only_this_machine(rules.host):
        raise InputError(
            f"host: {rules.host} can be reached from other machines, and there are no API keys in "
            f"{rules.keys_place()}: make one with `python serve.py keys add NAME`, or listen on "
            "127.0.0.1."
        )
    _take_room_for(rules.limits.connections)
    # FastAPI ignores it itself, but for the process: a thread that does the same can undo that.
    warnings.simplefilter("ignore", UnsupportedFieldAttributeWarning)
    with _listening(rules.host, rules.port) as listener:
        journal = Journal(folder)  # also says whether another daemon has the folder
        generator = MultiGPUImageGenerator(
            _cpu_workers(settings, options),
            options.gpu_ids,
            config=settings.model_copy(update={"use_server": "never"}),
            output_dir=folder,
            backend=backend,
            tables=False,
        )
        service = Service(generator, journal, rules)
        sys.setswitchinterval(TURN)
        garbage.set_up()
        service.sweepers.append(lambda: garbage.sweep(service.open_jobs))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(service, keys, listener))


def _cpu_workers(settings: ServerSettings, options: argparse.Namespace) -> int | None:
    """How many CPU workers are asked for; None where there are GPUs, or devices are named."""
    if options.cpu_workers is None or options.gpu_ids is not None:
        return None
    if settings.engine != "local":
        raise InputError("--cpu-workers: is of this machine's, and a cluster's nodes have theirs.")
    kind = choose_devices(kind=settings.device)[0].kind
    return int(options.cpu_workers) if kind == "cpu" else None


async def _run(service: Service, keys: ApiKeys, listener: socket.socket) -> None:
    drain_timeout = service.rules.drain_timeout
    for library in ("uvicorn.error", "python_multipart"):
        logging.getLogger(library).setLevel(logging.ERROR)  # whoever sends nonsense fills no disk
    config = uvicorn.Config(
        create_app(service, keys, str(socket_place())),
        http=connection_class(service.rules.limits.of_connections),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        backlog=BACKLOG,
        timeout_graceful_shutdown=GRACE,
    )
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    server = _Server(config, address)
    loop = asyncio.get_running_loop()
    leaving: asyncio.Task[None] | None = None

    async def leave() -> None:
        waiting = service.waiting()
        rest = f": {counted(waiting, 'task')} may take {drain_timeout:g} s more" if waiting else ""
        logger.info(f"Stopping{rest}.")
        service_manager.stopping(drain_timeout)
        await service.drain(drain_timeout)
        server.should_exit = True

    def asked_to_stop() -> None:
        nonlocal leaving
        if leaving is None:
            leaving = loop.create_task(leave())
        else:
            logger.info("Stopping at once: what is left waits for the next start.")
            server.should_exit = server.force_exit = True

    for number in SIGNALS:
        loop.add_signal_handler(number, asked_to_stop)
    logger.info(f"Serving on {address}")
    logger.info(
        f"For browsers there is a page, for OpenAI's clients {address}/v1; queue and pictures are "
        f"in {service.folder}."
    )
    await server.serve(sockets=[listener])
    left = service.waiting()
    logger.info(f"Stopped; {counted(left, 'task')} for the next start." if left else "Stopped.")


def _take_room_for(connections: int) -> None:
    """Have this process allowed as many open files as connections may need, where it can be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + OTHER_FILES  # an upload is a file beside its connection
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


class _Server(uvicorn.Server):
    """One that leaves signals to its caller, and listens at this user's own socket, too."""

    def __init__(self, config: uvicorn.Config, address: str) -> None:
        super().__init__(config)
        self._address = address
        self._own = OwnSocket(self._connection, BACKLOG)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._own.start()
            service_manager.ready(self._address)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._own.stop()
        await super().shutdown(sockets)
        if self.force_exit:  # left out above, and then cut off with a traceback by the loop's end
            await self.lifespan.shutdown()

    def _connection(self) -> asyncio.Protocol:
        kind: Any = self.config.http_protocol_class
        made: asyncio.Protocol = kind(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        return made

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = error.strerror or error
        if error.errno == errno.EADDRINUSE:
            reason = "something else listens there; end it, or choose another one with --port"
        raise InputError(f"{host}:{port}: cannot listen there: {reason}.") from None
    with listener:
        # Connections inherit it. asyncio sets it only for sockets that name their protocol, and
        # without it an answer's body waits 40 ms for the acknowledgement of its headers.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listener
