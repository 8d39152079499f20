"""A daemon in a process of its own, as its users run it."""

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import psutil
import pytest
import yaml

from core.remote.socket_place import FOLDER, NAME, answers
from tests.conftest import LOCAL, PATIENCE, PROJECT, WARM, Workplace, forking, kind_of, wait_until
from tests.server.in_process import Application, client_of
from tests.server.sketching import Sketching
from tests.warm_commands import WarmCommand

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.server.browser import Watched

SCRIPT = PROJECT / "serve.py"
ADDRESS = re.compile(r"Serving on (http://\S+)")
STARTS = itertools.count(1)


class Daemon:
    """`serve.py` on a folder; it may be started again after its end."""

    def __init__(self, folder: Path, workplace: Workplace = LOCAL, /, **settings: Any) -> None:
        self.folder = folder
        self.workplace = workplace
        self.output = folder / "out"
        self.settings = settings
        self.process: subprocess.Popen[bytes] | WarmCommand | None = None
        self.url = ""
        self.runtime = Path(tempfile.mkdtemp(prefix="run-"))  # short, as a socket's path has to be
        self._log: Path | None = None

    @property
    def log(self) -> str:
        """What the newest process said so far."""
        return self._log.read_text("utf-8") if self._log is not None else ""

    def start(self, *arguments: str) -> "Daemon":
        """Start the process and wait until it listens."""
        config = self.folder / "server.yaml"
        settings = forking(self.workplace.simulated(**self.settings))
        config.write_text(yaml.safe_dump(settings), "utf-8")
        others = [settings[role] for role in ("editor", "judge") if role in settings]
        models = [role["model"] for role in (settings, *others)]
        kind = kind_of(*models, engine=settings.get("engine"))
        line = ["--config", str(config), "--port", "0"]
        self._log = self.folder / f"log-{next(STARTS)}.txt"  # another daemon may be in the folder
        with self._log.open("w") as log:
            runtime = {"XDG_RUNTIME_DIR": str(self.runtime)}
            line += ["--output-dir", str(self.output), *arguments]
            self.process = WARM.start(SCRIPT, line, self.folder, log, runtime, log, kind)
            if self.process is None:  # it would not be as a process of its own
                self.process = subprocess.Popen(
                    [sys.executable, str(SCRIPT), *line],
                    cwd=self.folder,
                    env={**os.environ, **runtime},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        found = wait_until(lambda: ADDRESS.search(self.log) or self._gone(), "the address")
        assert isinstance(found, re.Match), self.log
        self.url = found[1]
        return self

    def found(self) -> "Daemon":
        """Wait until commands find it by its socket."""
        place = self.runtime / FOLDER / NAME
        wait_until(lambda: answers(place) or self._gone(), "the socket")
        return self

    def _gone(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def client(self, **options: Any) -> httpx2.Client:
        """A client of its address."""
        return client_of(self.url, **options)

    def workers(self) -> list[psutil.Process]:
        """Its worker processes."""
        assert self.process is not None
        return self.workplace.workers(self.process.pid)

    def kill(self) -> None:
        """SIGKILL, as a machine that runs out of memory does it: workers end by themselves."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end and wait; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def end(self) -> None:
        """Leave nothing behind."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        shutil.rmtree(self.runtime, ignore_errors=True)


@pytest.fixture
def daemon(tmp_path: Path, workplace: Workplace) -> Iterator[Daemon]:
    """One that is not started yet, on simulated devices."""
    daemon = Daemon(tmp_path, workplace)
    yield daemon
    daemon.end()


@pytest.fixture
def sketching(tmp_path: Path) -> Iterator[tuple[Sketching, Application, httpx2.Client]]:
    """One worker that shows what it draws, in an application, and a client of that."""
    played = Sketching()
    with Application(tmp_path, 1, played.workers.backend) as application:
        with application.client() as client:
            yield played, application, client
        played.turns.release(1000)


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Chromium, or a skip."""
    from tests.server.browser import chromium  # most tests here have no need of playwright

    with chromium() as browser:
        yield browser


@pytest.fixture
def pages(browser: "Browser") -> Iterator["Watched"]:
    """Opens pages, and fails the test in which something was wrong in one."""
    from tests.server.browser import Watched

    watched = Watched(browser)
    yield watched
    watched.close()
    assert watched.problems == []


def finished(client: httpx2.Client, job: str) -> dict[str, Any]:
    """Wait until a job has ended."""

    def ended() -> Any:
        seen = client.get(f"/v1/jobs/{job}").raise_for_status().json()
        return seen if seen["status"] in ("completed", "cancelled", "failed") else None

    found: dict[str, Any] = wait_until(ended, f"the end of {job}")
    return found
