"""A real Ray cluster of several nodes on this machine, whose nodes can be killed and stopped.

It has logical GPUs: its workers are on CPUs. Mostly it is on the loopback interface alone; nodes in
namespaces of their own stand for other machines.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import psutil

from cluster import sweeper
from cluster.ray_environment import QUICK_DETECTION, before_import
from tests.cluster import warm_ray
from tests.cluster.cable import Cable
from tests.cluster.patient_ray import ENVIRONMENT, SET_UP_BY, patient
from tests.cluster.warm_ray_join import NAME
from tests.conftest import PATIENCE, PROJECT, wait_until
from tests.late_environment import FAULTS
from tests.process_tree import ProcessTree, words_of
from tests.warm_bridge import NAME as BRIDGE
from tests.warm_server import MARK

STORE_BYTES = 80 * 1024**2  # the least that Ray takes
GPUS = 2  # of a node
TRIES = 3  # to start one
# Of a head that does no work: a worker in reserve, the page, and who reads along in log files and
# looks whether machines are to be rented. The latter two take a second of a core each minute.
WITHOUT = {
    "num_cpus": 0,
    "include_dashboard": False,
    "include_log_monitor": False,
    "no_monitor": True,
}
LOOPBACK = "127.0.0.1"
LIFELESS = {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}  # of a raylet


class RayCluster:
    """A head without GPUs, and nodes with some. Close it: Ray leaves processes behind.

    Args:
        nodes: how many of these.
        address: of this machine, at which they are.

    Attributes:
        address: of the head, with its port.
        host: without it.
        nodes: those with GPUs that were added, in their order.
    """

    def __init__(self, nodes: int, address: str = LOOPBACK) -> None:
        self.host = address
        self._folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # sockets need short names
        # Here Ray notes the newest cluster, and not where a user's own `ray status` looks.
        Path(self._folder, "ray").mkdir()
        self._mark = uuid4().hex
        with self._starting():
            sweeper.start_sweeper(self._mark)  # ends what is left where this process is killed
            self._warm = warm_ray.start(self._mark)
        with self._starting(warm_ray.environment(self._mark)):
            from ray.cluster_utils import Cluster

            with patient():
                self._cluster: Any = Cluster(
                    initialize_head=True,
                    head_node_args={
                        **self._arguments(0),
                        "temp_dir": str(self._folder / "ray"),
                        **WITHOUT,
                        "_system_config": dict(QUICK_DETECTION),  # Ray adds to it
                    },
                )
        self.address: str = self._cluster.address
        self.nodes: list[Any] = []
        self.have(nodes)

    @contextmanager
    def _starting(self, more: Mapping[str, str] = MappingProxyType({})) -> Iterator[None]:
        """Start processes of the cluster, with their environment; this process stays as it was.

        Else no command that it starts would be a fork of a warm one.
        """
        before, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
        # What a test may have set for its own children, and what hides a machine's GPUs from it.
        for name in (*FAULTS, "CUDA_VISIBLE_DEVICES"):
            os.environ.pop(name, None)
        os.environ |= {MARK: self._mark, sweeper.MARK: self._mark, **ENVIRONMENT, **more}
        os.environ["RAY_TMPDIR"] = str(self._folder)
        before_import("127.0.0.1:0")
        try:
            yield
        finally:
            os.environ.clear()
            os.environ |= before
            signal.signal(signal.SIGTERM, handler)  # Ray's would drain a node for half a minute

    def _arguments(self, gpus: int) -> dict[str, Any]:
        return {
            "num_gpus": gpus,
            "num_cpus": 1,
            "node_ip_address": self.host,
            "object_store_memory": STORE_BYTES,
        }

    def add(
        self, name: str | None = None, environment: Mapping[str, str] = MappingProxyType({})
    ) -> Any:
        """One more node.

        Args:
            environment: of what runs on it, beyond this process's own.
        """
        given = {} if name is None else {"node_name": name}
        given["setup_worker_path"] = str(SET_UP_BY)
        with self._starting({**environment, **warm_ray.environment(self._mark)}), patient():
            node = self._started(given)
        self.nodes.append(node)
        return node

    def _started(self, given: Mapping[str, Any]) -> Any:
        """A node's processes. On a busy machine Ray may lose one while it starts it."""
        for _ in range(TRIES - 1):
            before = {*self.left()}
            try:
                return self._cluster.add_node(**self._arguments(GPUS), **given, wait=False)
            except Exception as error:
                if "timed out during startup" not in str(error):
                    raise
            for process in {*self.left()} - before:
                with suppress(psutil.Error):
                    if process.name() == "raylet":  # with which all of its node goes
                        process.kill()
        return self._cluster.add_node(**self._arguments(GPUS), **given, wait=False)

    def have(self, nodes: int) -> None:
        """Add nodes until there are so many; those that a failed test has left without life go."""
        for node in [node for node in self.nodes if not self._lives(node)]:
            self.kill(node)
        while len(self.nodes) < nodes:
            self.add()

    def _lives(self, node: Any) -> bool:
        with suppress(psutil.Error):
            return self.raylet(node).status() not in LIFELESS
        return False

    def settle(self) -> None:
        """Wait until the cluster knows of the nodes that there are, and of no others."""

        def known() -> set[str]:
            table = self._cluster.global_state.node_table()
            return {n["NodeID"] for n in table if n["Alive"] and n["Resources"].get("GPU")}

        wait_until(lambda: known() == {node.node_id for node in self.nodes}, "the nodes")

    def add_apart(self, name: str, script: str, cable: Cable | None = None) -> "Apart":
        """One more node, which has a mount namespace of its own. See `may_be_apart`.

        Args:
            script: commands of a shell that change what it sees, as `mount`.
            cable: its only connection to this machine; None if it shares this one's network.
        """
        arguments = self._arguments(GPUS) | {
            "gcs_address": self.address,
            "redis_address": self._cluster.redis_address,
            "node_name": name,
            "include_log_monitor": False,
            "node_manager_port": 0,
            "dashboard_agent_listen_port": None,
            "min_worker_port": 0,
            "max_worker_port": 0,
        }
        namespaces = ["-m"]
        if cable is not None:
            arguments["node_ip_address"] = cable.there
            namespaces.append("-n")
            script = f"{cable.script} && {script}"
        program = [sys.executable, "-m", "tests.cluster.own_namespaces", json.dumps(arguments)]
        started = subprocess.Popen(
            ["unshare", *namespaces, "sh", "-c", f'{script} && exec "$@"', "sh", *program],
            cwd=PROJECT,
            env={**os.environ, MARK: self._mark, **warm_ray.environment(self._mark)},
        )
        if cable is not None:
            cable.plug_into(started.pid)

        def has_come() -> bool:
            nodes = self._cluster.global_state.node_table()
            return any(node["NodeName"] == name and node["Alive"] for node in nodes)

        wait_until(has_come, "the node")
        return Apart(started)

    # -- what can happen to a node -----------------------------------------------------------------

    @staticmethod
    def raylet(node: Any) -> psutil.Process:
        """The process that is the node, to Ray."""
        [raylet] = node.all_processes["raylet"]
        return psutil.Process(raylet.process.pid)

    def processes(self, node: Any) -> list[psutil.Process]:
        """Everybody on a node: the raylet, the agent, its fork server and workers."""
        raylet = self.raylet(node)
        return [raylet, *_all_below(raylet)]

    def agent(self, node: Any) -> psutil.Process:
        """The agent that is on a node now, or comes."""
        agent: psutil.Process = wait_until(lambda: self.agent_now(node), "an agent")
        return agent

    def is_fork(self, agent: psutil.Process) -> bool:
        """Whether an agent is a fork, as it should be: else each imports all anew."""
        return agent.ppid() == self._warm.pid

    def agent_now(self, node: Any) -> psutil.Process | None:
        """The agent that is on a node, if there is one."""
        with suppress(psutil.Error):
            agents = [p for p in self.processes(node) if "ray::Agent" in " ".join(p.cmdline())]
            return agents[0] if agents else None
        return None

    def workers(self, node: Any) -> list[psutil.Process]:
        """Worker processes of a node's agent."""
        with suppress(psutil.Error):
            agent = self.agent_now(node)
            children = ProcessTree().below(agent.pid) if agent is not None else []
            return [p for p in children if _is_worker(p)]
        return []

    @staticmethod
    def bridge(main: psutil.Process) -> psutil.Process:
        """The bridge of a command at work."""
        [bridge] = [p for p in ProcessTree().children(main.pid) if BRIDGE in words_of(p)]
        return bridge

    def kill(self, node: Any) -> None:
        """The machine is gone: SIGKILL of the raylet and all of its processes."""
        self.nodes.remove(node)
        processes: list[psutil.Process] = []
        with suppress(psutil.Error):  # it is gone
            processes = self.processes(node)
        for process in processes:
            with suppress(psutil.Error):
                process.kill()
        self.raylet_ended(node)

    def raylet_ended(self, node: Any) -> None:
        """Fetch a dead raylet's exit code: as a zombie it would count as alive."""
        for started in node.all_processes["raylet"]:
            started.process.wait(PATIENCE)
        self._cluster.worker_nodes.discard(node)

    def drain(self, number: int) -> None:
        """A node is to go, as where its machine is about to be taken away; it is removed here."""
        from ray._raylet import GcsClient  # type: ignore[attr-defined]

        node = self.nodes.pop(number)
        preemption, deadline = 2, int(1000 * (time.time() + PATIENCE))  # of Ray's DrainNodeReason
        client = GcsClient(address=self.address)
        assert client.drain_node(node.node_id, preemption, "for a test", deadline)[0]

    def stop(self, node: Any) -> list[psutil.Process]:
        """The machine is cut off: SIGSTOP of all of its processes. Returns them."""
        stopped = self.processes(node)
        for process in stopped:
            process.suspend()
        return stopped

    # -- the end -----------------------------------------------------------------------------------

    def left(self) -> list[psutil.Process]:
        """Processes of this cluster that still run."""
        mark, found = f"{MARK}={self._mark}".encode(), []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with suppress(OSError, psutil.Error):
                    if mark in (entry / "environ").read_bytes() and int(entry.name) != os.getpid():
                        found.append(psutil.Process(int(entry.name)))
        return found

    def close(self) -> None:
        """End everything."""
        with suppress(Exception), self._starting():
            self._cluster.shutdown()
        for process in self.left():
            with suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        self._warm.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)


def may_be_apart() -> bool:
    """Whether this user may make a mount namespace."""
    return subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


def hides(folder: Path) -> str:
    """Commands that show a node an empty folder in place of one of this machine's."""
    return f"mount -t tmpfs none {shlex.quote(str(folder))}"


def has_in_place_of(file: Path, other: Path) -> str:
    """Commands that show a node another file in place of one of this machine's."""
    return f"mount --bind {shlex.quote(str(other))} {shlex.quote(str(file))}"


class Apart:
    """A node that stands for another machine."""

    def __init__(self, started: "subprocess.Popen[bytes]") -> None:
        self._started = started

    def workers(self) -> list[psutil.Process]:
        """Worker processes of its agent."""
        with suppress(psutil.Error):
            return [p for p in ProcessTree().below(self._started.pid) if _is_worker(p)]
        return []

    def end(self) -> None:
        """Kill all of it: a node may wait for a head that it cannot reach."""
        with suppress(psutil.Error):
            node = psutil.Process(self._started.pid)
            for process in [*node.children(recursive=True), node]:
                with suppress(psutil.Error):
                    process.kill()
        self._started.wait(PATIENCE)


def _all_below(process: psutil.Process) -> list[psutil.Process]:
    """Its children and theirs; what one of them has asked to be forked for it is a child, too."""
    tree = ProcessTree()
    found = tree.below(process.pid)
    for child in list(found):
        with suppress(psutil.NoSuchProcess):
            if child.name().startswith(NAME):
                fork = psutil.Process(int(child.name().removeprefix(NAME)))
                found += [fork, *tree.below(fork.pid)]
    return found


def _is_worker(process: psutil.Process) -> bool:
    """Whether it is a worker, and not a fork server or multiprocessing's own helper."""
    line = words_of(process)
    if "spawn_main" in line:
        return "resource_tracker" not in line
    parent = process.parent()
    return "forkserver" in line and parent is not None and "forkserver" in words_of(parent)
