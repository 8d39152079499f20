"""Starts the bridge, and gives the engine its workers on a cluster."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import Pipe
from pathlib import Path
from typing import Literal

from loguru import logger

from cluster.backend import ClusterBackend, devices_of
from cluster.protocol import Connect, Connected, Refused
from cluster.reachable import check_reachable
from core.devices.device import Device
from core.errors import DeviceError, InputError
from core.settings import PROJECT_DIR, RaySettings, SupervisionSettings

WANTED = "2.60.0"
CONNECTING = 120.0  # seconds until the bridge has to have said something
ENDING = 20.0  # seconds for the bridge to end by itself
LOG_PREFIX = "ray-bridge-"
KEPT = 7 * 86_400.0  # seconds for which the log of a failed run stays
CODE = "from cluster.bridge import main; main({})"


class Connections:
    """Connections to one Ray cluster, or to a local one where there is none: one for each engine.

    The first is there from the beginning, as it tells which devices there are.

    Args:
        num_gpus: how many at the most; None for all.

    Attributes:
        devices: of all nodes at the beginning, one each.

    Raises:
        InputError: Ray is missing here, or the cluster cannot be used.
        DeviceError: it has fewer GPUs than are asked for.
    """

    def __init__(
        self,
        settings: RaySettings,
        supervision: SupervisionSettings,
        start_method: str,
        device: Literal["auto", "cuda", "cpu"],
        num_gpus: int | None,
    ) -> None:
        check_installed()
        check_reachable(settings.address)
        self._told = Connect(settings, supervision, start_method, device, num_gpus)
        self._open: ClusterBackend | None
        self._open, self.devices = _connect(self._told)

    def backend(self) -> ClusterBackend:
        """The connection that is open, or a new one; it is the engine's to close."""
        backend, self._open = self._open, None
        if backend is None:
            backend, _ = _connect(self._told)
            backend.expect({device.node for device in self.devices})
        return backend

    def close(self) -> None:
        """Close the connection that no engine has taken."""
        if self._open is not None:
            self._open.close()
            self._open = None


def _connect(told: Connect) -> tuple[ClusterBackend, list[Device]]:
    settings, num_gpus = told.settings, told.most
    log = _Log()
    ours, theirs = Pipe()
    bridge = _start(theirs.fileno(), log.path)
    theirs.close()
    timeout = settings.node_timeout
    backend = ClusterBackend(ours, told, timeout, on_close=lambda: _end(bridge, log))
    answer = backend.connected(CONNECTING)
    if not isinstance(answer, Connected):
        backend.close()
        place = settings.address or "auto"
        said = f" Ray's last words: {log.last_line}" if log.last_line else ""
        silent = f"it did not answer within {CONNECTING:.0f} s.{said}"
        why = answer.why if isinstance(answer, Refused) else silent
        raise InputError(f"ray.address: the cluster ({place}) cannot be used: {why}")
    devices = devices_of(answer.nodes)
    if num_gpus is not None and len(devices) < num_gpus:
        backend.close()
        raise DeviceError(
            f"{num_gpus} GPUs were asked for, but {answer.cluster} has {len(devices)} free."
        )
    names = ", ".join(f"{node.name} ({len(node.devices)})" for node in answer.nodes)
    logger.info(f"Ray: {answer.cluster}: {names}.")
    return backend, devices


def check_installed() -> None:
    """
    Raises:
        InputError: Ray is not installed here, or in another version than this program is for.
    """
    try:
        found = version("ray")
    except PackageNotFoundError:
        raise InputError(
            f"engine: ray needs Ray, which is not installed here: pip install ray=={WANTED}"
        ) from None
    if found.split(".")[:2] != WANTED.split(".")[:2]:
        raise InputError(
            f"engine: ray needs Ray {WANTED}, and {found} is installed: pip install ray=={WANTED}"
        )


class _Log:
    """A file for what Ray prints, which is removed where all went well."""

    def __init__(self) -> None:
        for old in Path(tempfile.gettempdir()).glob(f"{LOG_PREFIX}*"):  # of programs that died
            with suppress(OSError):
                if time.time() - old.stat().st_mtime > KEPT:
                    old.unlink()
        descriptor, name = tempfile.mkstemp(prefix=LOG_PREFIX, suffix=".log")
        os.close(descriptor)
        self.path = Path(name)

    @property
    def last_line(self) -> str:
        with suppress(OSError):
            lines = self.path.read_text("utf-8", errors="replace").split("\n")
            return next((line.strip() for line in reversed(lines) if line.strip()), "")
        return ""


def _start(descriptor: int, log: Path) -> "subprocess.Popen[bytes]":
    """Start the bridge from a thread that lives as long as this program.

    The kernel ends the bridge with the thread that started it.
    """
    started: list[subprocess.Popen[bytes] | OSError] = []
    ready = threading.Event()

    def keep() -> None:
        try:
            started.append(_popen(descriptor, log))
        except OSError as error:
            started.append(error)
        ready.set()
        if isinstance(started[0], subprocess.Popen):
            started[0].wait()

    threading.Thread(target=keep, name="cluster-bridge", daemon=True).start()
    ready.wait()
    if isinstance(started[0], OSError):
        raise InputError(f"engine: ray cannot be started here: {started[0].strerror}.")
    return started[0]


def _popen(descriptor: int, log: Path) -> "subprocess.Popen[bytes]":
    known = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT_DIR), *known])}
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-c", CODE.format(descriptor)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=PROJECT_DIR,  # Ray's processes look for modules in the current folder
            env=environment,
            pass_fds=[descriptor],
            start_new_session=True,  # a terminal's Ctrl-C is for main, which decides what it means
        )


def _end(bridge: "subprocess.Popen[bytes]", log: _Log) -> None:
    try:
        failed = bridge.wait(ENDING) != 0
    except subprocess.TimeoutExpired:
        bridge.kill()
        failed = True
    if failed:
        logger.debug(f"Ray's own log of this run: {log.path}")
    else:
        log.path.unlink(missing_ok=True)
