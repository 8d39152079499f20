"""The units of deploy/: systemd reads them, and the daemon behaves as they count on."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from tests.conftest import PATIENCE, forking, simulated
from tests.deploy.units import DEPLOY, UNITS, Manager, Unit, seconds

MOST_EXPOSED = 25  # tenths, as `systemd-analyze security` counts; 20 as shipped
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(
    ANALYZE is None, reason="systemd-analyze is not installed (apt-get install systemd)"
)


@pytest.fixture(params=UNITS)
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(Unit(request.param, tmp_path), is_abstract="user" in request.param)
    yield manager
    manager.end()


def configure(unit: Unit, **settings: Any) -> None:
    unit.config.write_text(yaml.safe_dump(forking(simulated(**settings))), "utf-8")


@pytest.mark.slow
def test_it_says_when_it_can_be_asked_and_works_on_when_it_is_told_to_stop(
    manager: Manager,
) -> None:
    server = {"port": 0, "drain_timeout": 240.0}
    simulation = {"seconds_per_megapixel_step": 60.0}  # 0.25 s for the picture below
    configure(manager.unit, server=server, simulated=simulation)
    manager.start()
    manager.hear("READY")
    address = manager.told["STATUS"].removeprefix("Serving on ")
    task = {"prompt": "a red house", "width": 64, "height": 64, "num_inference_steps": 1}
    with httpx2.Client(base_url=address, trust_env=False) as client:
        assert client.get("/healthz").text == "ok\n"
        accepted = client.post("/v1/jobs", json={"tasks": [task] * 3}).raise_for_status().json()

    assert manager.stop() == 0, manager.log

    assert float(manager.told["EXTEND_TIMEOUT_USEC"]) / 1e6 > server["drain_timeout"]
    pictures = (manager.unit.state / "jobs" / accepted["id"]).glob("*.png")
    assert len(list(pictures)) == 3  # what was accepted, was drawn before it ended


def test_settings_that_cannot_be_used_end_it_for_good(manager: Manager) -> None:
    configure(manager.unit, server={"port": "eight thousand"})
    manager.start()
    assert manager.process is not None
    code = manager.process.wait(seconds(manager.unit.one("TimeoutStartSec")))
    assert str(code) in manager.unit.one("RestartPreventExitStatus").split()
    assert "server.port" in manager.log and "Traceback" not in manager.log


@pytest.mark.parametrize("name", UNITS)
@needs_systemd
def test_systemd_understands_the_unit(name: str, tmp_path: Path) -> None:
    unit = Unit(name, tmp_path / "root")
    file = tmp_path / "imagegen.service"
    file.write_text(unit.text, "utf-8")
    options = ["--user"] if "user" in name else []
    run = analyze("verify", "--man=no", *options, str(file), runtime=tmp_path)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


@needs_systemd
def test_the_system_service_may_do_little_else(tmp_path: Path) -> None:
    file = str(DEPLOY / "imagegen.service")
    run = analyze(
        "security", "--offline=yes", f"--threshold={MOST_EXPOSED}", file, runtime=tmp_path
    )
    assert run.returncode == 0, run.stdout


# Of NVIDIA's driver and PyTorch; CUDA fails at once without memfd_create, and is slower, or warns,
# without those that place memory and threads. See deploy/README.md.
CALLED_WITH_GPUS = (
    *("clone3", "eventfd2", "get_mempolicy", "ioctl", "madvise", "mbind", "memfd_create"),
    *("mincore", "mlock", "mmap", "move_pages", "mprotect", "mremap", "poll", "process_vm_readv"),
    *("sched_setaffinity", "sched_setscheduler", "set_mempolicy", "set_robust_list", "shmget"),
    *("socketpair", "timerfd_create", "userfaultfd"),
)


@pytest.mark.parametrize("name", UNITS)
@needs_systemd
def test_what_drivers_of_gpus_ask_of_the_kernel_is_let_through(name: str, tmp_path: Path) -> None:
    told = analyze("syscall-filter", runtime=tmp_path).stdout.splitlines()
    sets: dict[str, set[str]] = {}
    for line in told:
        if line.startswith("@"):
            members = sets[line] = set()
        elif line.startswith("    ") and not line.startswith("    #"):
            members.add(line.strip())

    def calls(names: Iterable[str]) -> set[str]:
        return set().union(*(calls(sets[n]) if n in sets else {n} for n in names))

    allowed = calls(Unit(name, tmp_path).one("SystemCallFilter").split())
    assert not set(CALLED_WITH_GPUS) - allowed
    assert not allowed & {"ptrace", "bpf", "mount", "kexec_load", "init_module", "reboot"}


def analyze(*arguments: str, runtime: Path) -> "subprocess.CompletedProcess[str]":
    assert ANALYZE is not None
    return subprocess.run(
        [ANALYZE, *arguments],
        env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
        text=True,
        capture_output=True,
        timeout=PATIENCE,
    )


def test_both_units_run_the_daemon_in_the_same_way(tmp_path: Path) -> None:
    """What only one has is about the user, the folders and the rights of that one."""
    system, user = (Unit(name, tmp_path / name).settings for name in UNITS)
    own = {"ExecStart", "WantedBy", "Environment", "EnvironmentFile"}
    assert {key: user[key] for key in user if key not in own} == {
        key: system[key] for key in user if key not in own
    }
