"""`serve.py` on simulated workers, in a process of its own, for benchmarks."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2
import psutil
import yaml

PROJECT = Path(__file__).resolve().parents[1]


def settings(**changes: Any) -> dict[str, Any]:
    """Simulated workers, and room for all jobs of a measurement."""
    rules = {"max_waiting": 1_000_000, "max_waiting_per_key": 1_000_000}
    return {
        "model": "simulated",
        "workers": {"start_method": "forkserver"},
        **changes,
        "server": {**rules, **changes.get("server", {})},
    }


class Daemon:
    """`serve.py` on a folder.

    Args:
        options: of the command, beside those that say where.
        changes: settings.
    """

    def __init__(self, folder: Path, *options: str, **changes: Any) -> None:
        self.folder = folder
        self.output = folder / "out"
        # Its socket is not where this user's commands look; a socket's path has to be short.
        self.runtime = tempfile.mkdtemp(prefix="run-")
        self._options = options
        self._config = folder / "server.yaml"
        self._config.write_text(yaml.safe_dump(settings(**changes)), "utf-8")
        self.start()

    def start(self) -> None:
        where = ["--config", str(self._config), "--port", "0", "--output-dir", str(self.output)]
        line = [*where, *self._options, "--log-level", "WARNING"]
        with (self.folder / "log.txt").open("a") as stream:
            self.process = subprocess.Popen(
                [sys.executable, str(PROJECT / "serve.py"), *line],
                cwd=self.folder,
                env={**os.environ, "XDG_RUNTIME_DIR": self.runtime},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )
        self.url = ""
        port = wait_for(lambda: self._port(), "a port")
        self.url = f"http://127.0.0.1:{port}"
        wait_for(lambda: self._answers(), "an answer")

    def _port(self) -> int | None:
        if self.process.poll() is not None:
            raise RuntimeError(f"The daemon ended: {self.log}")
        with_listener = psutil.Process(self.process.pid).net_connections("tcp")
        return next((c.laddr.port for c in with_listener if c.status == "LISTEN"), None)

    def _answers(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/healthz", timeout=60, trust_env=False).is_success
        except httpx2.HTTPError:
            return False

    @property
    def log(self) -> str:
        """What it said so far; warnings and errors."""
        return (self.folder / "log.txt").read_text("utf-8")

    @property
    def memory(self) -> float:
        """MiB of the daemon itself."""
        return float(psutil.Process(self.process.pid).memory_info().rss) / 2**20

    def client(self) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=600, trust_env=False)

    def kill(self) -> None:
        """End it at once; its workers end by themselves."""
        self.process.kill()
        self.process.wait()


def wait_for(condition: Any, what: str, patience: float = 600.0) -> Any:
    """Ask again and again until something is true; returns it.

    Raises:
        TimeoutError: it never was, for `patience` seconds.
    """
    end = time.monotonic() + patience
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise TimeoutError(what)
