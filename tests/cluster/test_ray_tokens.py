"""Clusters that demand Ray's token, which `ray start` does by itself where a user has one."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from cluster.ray_environment import ONE_MACHINE
from tests.both_engines import IN_FULL
from tests.cluster.ray_cluster import LOOPBACK
from tests.conftest import PATIENCE, Project, simulated

TASK = '[{"prompt": "a red house", "width": 64, "height": 64, "num_inference_steps": 1}]'
SHOWN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "5" * 64}


@pytest.fixture
def folder() -> Iterator[str]:
    """For Ray's files: its sockets need short names."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as name:
        yield name
        end_all_of(name)


@pytest.fixture
def head(folder: str) -> str:
    """The address of one that was started by Ray's own command; who calls shows a token."""
    port = 20_000 + os.getpid() % 10_000
    line = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--num-gpus", "1"]
    line += ["--port", str(port), "--node-ip-address", LOOPBACK, "--include-dashboard", "false"]
    environment = {"RAY_TMPDIR": folder, ONE_MACHINE: "0", **SHOWN}
    subprocess.run(line, env={**os.environ, **environment}, check=True, timeout=PATIENCE)
    return f"{LOOPBACK}:{port}"


def end_all_of(folder: str) -> None:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("RAY_TMPDIR") == folder:
                process.kill()


@IN_FULL
def test_a_cluster_that_demands_a_token_is_used_with_it_and_says_so_without(
    head: str, project: Project
) -> None:
    file = project.write_tweets(TASK)
    settings = simulated(engine="ray", ray={"address": head})
    run = project.start([file], settings)
    assert run.finish() == 2
    [line] = [line for line in run.errors.splitlines() if "cannot be used" in line]
    assert "it demands a token" in line and "export RAY_AUTH_MODE=token" in line
    project.environment |= SHOWN
    run = project.start([file], settings)
    assert run.finish() == 0, run.errors


@IN_FULL
def test_a_cluster_that_is_started_for_a_run_leaves_no_token_in_the_users_home(
    folder: str, project: Project
) -> None:
    """Where there is one, the next `ray start --head` demands it of all other machines."""
    home = project.folder / "home"
    home.mkdir()
    project.environment |= {"HOME": str(home), "RAY_TMPDIR": folder}
    run = project.start([project.write_tweets(TASK)], simulated(engine="ray"))
    assert run.finish() == 0, run.errors
    assert "a local cluster, started for this run" in run.errors
    assert not (home / ".ray").exists()
