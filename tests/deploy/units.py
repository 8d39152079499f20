"""A service manager of the tests' own: it starts what a unit says and listens to what that tells.

It has of systemd what a unit of the daemon needs: specifiers, a clean environment, NOTIFY_SOCKET,
and the signal and the time with which a service is stopped.
https://www.freedesktop.org/software/systemd/man/latest/systemd.service.html
"""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from tests.conftest import PROJECT

DEPLOY = PROJECT / "deploy"
UNITS = ("imagegen.service", "imagegen-user.service")
PATIENCE = 60.0  # seconds
_UNITS_OF_TIME = {"s": 1, "min": 60, "h": 3600}


def seconds(text: str) -> float:
    """A span of time such as 2min or 90s."""
    parts = re.findall(r"(\d+)\s*([a-z]*)", text)
    return float(sum(int(number) * _UNITS_OF_TIME[unit or "s"] for number, unit in parts))


class Unit:
    """A unit as it would be installed below a folder.

    Args:
        root: holds what is below `/` in the unit.
    """

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.root = root
        home = root / "home"
        places = {
            "/opt/imagegen": root / "opt",
            "/etc/imagegen": root / "etc",
            "%S": root / "state",
            "%C": root / "cache",
            "%t": root / "run",
            "%h/.config/imagegen": root / "etc",
            "%h/imagegen/outputs/server": root / "state" / "imagegen",
            "%h/imagegen": root / "opt",
            "%h": home,
        }
        self.text = (DEPLOY / name).read_text("utf-8")
        for place, stand_in in places.items():
            self.text = self.text.replace(place, str(stand_in))
        self.settings: dict[str, list[str]] = defaultdict(list)
        for line in self.text.splitlines():
            key, is_setting, value = line.partition("=")
            if is_setting and not line.startswith("#"):
                self.settings[key].append(value)
        self.state = root / "state" / "imagegen"
        self.config = root / "etc" / "server.yaml"
        for folder in (self.state, root / "etc", root / "opt", root / "run" / "imagegen", home):
            folder.mkdir(parents=True)
        (root / "opt" / ".venv").symlink_to(sys.prefix)
        (root / "opt" / "serve.py").symlink_to(PROJECT / "serve.py")

    def one(self, key: str) -> str:
        """A setting that the unit has once."""
        (value,) = self.settings[key]
        return value


class Manager:
    """Runs a unit's service.

    Args:
        is_abstract: NOTIFY_SOCKET is a name and no file.
    """

    def __init__(self, unit: Unit, is_abstract: bool = False) -> None:
        self.unit = unit
        self._folder = Path(tempfile.mkdtemp(prefix="sd-"))  # short, as a socket's path has to be
        self._place = str(self._folder / "notify")
        if is_abstract:
            self._place = f"@{self._place[1:]}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._place.replace("@", "\0", 1))
        self._socket.settimeout(seconds(unit.one("TimeoutStartSec")))
        self.process: subprocess.Popen[bytes] | None = None
        self.told: dict[str, str] = {}

    @property
    def log(self) -> str:
        """What the service wrote."""
        return (self.unit.root / "log.txt").read_text("utf-8")

    def start(self) -> None:
        """Run ExecStart."""
        given = [pair.partition("=") for pair in self.unit.settings["Environment"]]
        with (self.unit.root / "log.txt").open("w") as log:
            self.process = subprocess.Popen(
                shlex.split(self.unit.one("ExecStart")),
                cwd=self.unit.state,
                env={
                    "PATH": os.defpath,
                    "HOME": str(self.unit.root / "home"),
                    "NOTIFY_SOCKET": self._place,
                    **{name: value for name, _, value in given},
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def hear(self, wanted: str) -> None:
        """Wait until the service tells a fact; all facts so far are in `told`."""
        while wanted not in self.told:
            for line in self._socket.recv(4096).decode().splitlines():
                name, _, value = line.partition("=")
                self.told[name] = value

    def stop(self) -> int:
        """Send KillSignal and wait as long as a service manager would; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(getattr(signal, self.unit.one("KillSignal")))
        self.hear("STOPPING")
        granted = int(self.told.get("EXTEND_TIMEOUT_USEC", "0")) / 1e6
        return self.process.wait(max(seconds(self.unit.one("TimeoutStopSec")), granted))

    def end(self) -> None:
        """Leave nothing behind."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._socket.close()
        shutil.rmtree(self._folder)
