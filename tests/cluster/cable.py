"""A network cable between this machine and a process that has a network of its own.

Each end has an address of its own, on its loopback interface, so that it stays its own where the
cable is cut. Only root may lay one.
"""

import os
import subprocess
import time
from itertools import count

from tests.conftest import PATIENCE

_numbers = count(os.getpid() % 8192 * 8)  # beside those of other processes that run tests


def may_lay_cables() -> bool:
    """Whether this user may make network namespaces and connect them."""
    try:
        _run("unshare", "-n", "true")
        _run("unshare", "-n", "ip", "link", "add", "rt-a", "type", "veth", "peer", "name", "rt-b")
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


class Cable:
    """Lay it, plug it in, cut and mend it, and remove it at the end.

    Args:
        here: the address of this machine's other cables; None for one of its own.

    Attributes:
        here: the address of this machine.
        there: that of the other end.
        script: commands of a shell, by which the process at the other end uses it.
    """

    def __init__(self, here: str | None = None) -> None:
        number = next(_numbers) % 65_536
        net = (
            f"198.18.{number // 64 % 256}.{number % 64 * 4}"  # of a range for such tests: RFC 2544
        )
        first, _, last = net.rpartition(".")
        self.here = here or f"{first}.{int(last) + 1}"
        self.there = f"{first}.{int(last) + 2}"
        self._name, self._other = f"rt{number}a", f"rt{number}b"
        _run("ip", "link", "add", self._name, "type", "veth", "peer", "name", self._other)
        _run("ip", "address", "replace", f"{self.here}/32", "dev", "lo")
        self.script = (
            f"until ip link show {self._other} >/dev/null 2>&1; do sleep 0.02; done && "
            f"ip link set lo up && ip address add {self.there}/32 dev lo && "
            f"ip link set {self._other} up && "
            f"ip route add {self.here}/32 dev {self._other} src {self.there} && "
            f"ip route add default via {self.here} dev {self._other} onlink src {self.there}"
        )

    def plug_into(self, process: int) -> None:
        """Give the other end to a process's network, as soon as it has one of its own."""
        own = os.readlink("/proc/self/ns/net")
        end = time.monotonic() + PATIENCE
        while os.readlink(f"/proc/{process}/ns/net") == own:
            assert time.monotonic() < end, "the process has made no network of its own"
            time.sleep(0.01)
        _run("ip", "link", "set", self._other, "netns", str(process))
        self.mend()

    def cut(self) -> None:
        """Let nothing through, and say nothing of it to anybody."""
        # Where it goes otherwise is dropped in silence, and not by another network of this machine.
        _run("ip", "route", "replace", f"{self.there}/32", "dev", "lo", "metric", "9999")
        _run("ip", "link", "set", self._name, "down")

    def mend(self) -> None:
        """Let everything through again."""
        _run("ip", "link", "set", self._name, "up")
        _run("ip", "route", "replace", f"{self.there}/32", "dev", self._name, "src", self.here)

    def remove(self) -> None:
        """Leave nothing behind."""
        for what in (
            ("link", "delete", self._name),
            ("route", "delete", f"{self.there}/32", "dev", "lo"),
            ("address", "delete", f"{self.here}/32", "dev", "lo"),
        ):
            subprocess.run(["ip", *what], capture_output=True)  # some of it may be gone


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
