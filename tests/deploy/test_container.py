"""The Containerfile of deploy/: what can be said of it without a builder of containers.

Its steps are done by hand: what it copies is copied into an empty folder, and from there its own
commands make a key, start the daemon, ask for its health and stop it.
"""

import fnmatch
import json
import os
import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from dockerfile_parse import DockerfileParser

from tests.chaos.scale import FULL
from tests.conftest import PATIENCE, PROJECT, forking, simulated, wait_until
from tests.server.conftest import ADDRESS

FILE = PROJECT / "deploy" / "Containerfile"
IGNORED = PROJECT / ".containerignore"


class Container:
    """What the Containerfile makes, without its borders.

    Args:
        folder: empty.
    """

    def __init__(self, folder: Path) -> None:
        self.app = folder / "app"
        self.outputs = folder / "outputs"
        parser = DockerfileParser(fileobj=FILE.open("rb"))
        self.steps = [(step["instruction"], step["value"]) for step in parser.structure]
        self.app.mkdir()
        self.outputs.mkdir()
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
            "HOME": str(folder),
            "HF_HOME": str(folder / "models"),
        }

    def values(self, instruction: str) -> list[str]:
        """All that the file says in instructions of a kind."""
        return [value for name, value in self.steps if name == instruction]

    def words(self, instruction: str) -> list[str]:
        """The words of an instruction in exec form."""
        (value,) = self.values(instruction)
        words: list[str] = json.loads(value)
        return words

    def copy(self) -> None:
        """Do what COPY does, without what a builder is told to ignore."""
        leave = shutil.ignore_patterns("__pycache__", "*.pyc")
        for value in self.values("COPY"):
            source, target = value.split()
            if (PROJECT / source).is_dir():
                shutil.copytree(PROJECT / source, self.app / target, ignore=leave)
            else:
                shutil.copy(PROJECT / source, self.app / target)

    def command(self, words: Sequence[str]) -> list[str]:
        """A command of the file with places of this machine."""
        places = {"/outputs": str(self.outputs), "8000": "0"}
        return [places.get(word, word) for word in words]


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path)


def test_the_linter_has_nothing_to_say() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    run = subprocess.run([linter, FILE], capture_output=True, text=True, timeout=PATIENCE)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_the_builder_gets_what_is_copied_and_nothing_else(container: Container) -> None:
    patterns = [line for line in IGNORED.read_text("utf-8").splitlines() if line and line[0] != "#"]
    assert patterns[0] == "*"
    let_in = {pattern[1:] for pattern in patterns if pattern.startswith("!")}
    copied = {value.split()[0].rstrip("/") for value in container.values("COPY")}
    assert let_in == copied
    assert all((PROJECT / name).exists() for name in copied)
    assert {"**/__pycache__", "**/*.pyc"} <= set(patterns)
    assert (PROJECT / ".dockerignore").resolve() == IGNORED  # docker has another name for it


def test_its_user_is_nobody_special_and_its_folders_are_that_users(container: Container) -> None:
    (user,) = container.values("USER")
    assert int(user.partition(":")[0]) > 1000
    (preparation,) = (value for value in container.values("RUN") if "useradd" in value)
    for folder in container.words("VOLUME"):
        assert f"mkdir {folder}" in preparation or f" {folder} " in preparation
    assert f"--uid {user.partition(':')[0]}" in preparation


@pytest.fixture
def running(container: Container) -> Iterator[dict[str, Any]]:
    """The daemon, started from what was copied, with a key that its own command made."""
    container.copy()
    entry = container.words("ENTRYPOINT")
    made = subprocess.run(
        container.command([*entry, "keys", "add", "alice", "--output-dir", "/outputs"]),
        cwd=container.app,
        env=container.environment,
        text=True,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert made.returncode == 0, made.stderr
    settings = container.app.parent / "server.yaml"
    settings.write_text(yaml.safe_dump(forking(simulated())), "utf-8")
    log = container.app.parent / "log.txt"
    words = container.command([*entry, *container.words("CMD")])
    with log.open("w") as file:
        process = subprocess.Popen(
            [*words, "--config", str(settings)],
            cwd=container.app,
            env=container.environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield {"process": process, "log": log, "key": made.stdout}
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.slow
def test_what_is_copied_is_enough_to_serve_be_healthy_and_stop(
    container: Container, running: dict[str, Any]
) -> None:
    process, log = running["process"], running["log"]
    found = wait_until(
        lambda: ADDRESS.search(log.read_text("utf-8")) or process.poll() is not None, "the address"
    )
    assert process.poll() is None, log.read_text("utf-8")
    port = found[1].rpartition(":")[2]
    assert "0.0.0.0" in found[1]  # from outside of the container, too: that takes a key
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        assert client.get("/v1/jobs").status_code == 401
        with_key = {"Authorization": f"Bearer {running['key'].strip()}"}
        assert client.get("/v1/jobs", headers=with_key).status_code == 200

    (check,) = container.values("HEALTHCHECK")
    words = json.loads(check[check.index("[") :])
    healthy = subprocess.run(
        [word.replace(":8000/", f":{port}/") for word in words],
        env=container.environment,
        text=True,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert healthy.returncode == 0, healthy.stderr

    (name,) = container.values("STOPSIGNAL")
    process.send_signal(getattr(signal, name))
    assert process.wait(PATIENCE) == 0, log.read_text("utf-8")
    written = [str(file.relative_to(container.app)) for file in container.app.rglob("*")]
    assert not fnmatch.filter(written, "outputs*")  # all that it keeps is in its volume
    assert list(container.outputs.iterdir())


@pytest.mark.skipif(not FULL, reason="installs all requirements anew; CHAOS=full")
def test_its_requirements_can_be_installed(container: Container, tmp_path: Path) -> None:
    container.copy()
    venv.create(tmp_path / "venv", with_pip=True)
    (line,) = (value for value in container.values("RUN") if value.startswith("pip install"))
    path = f"{tmp_path / 'venv' / 'bin'}:{os.defpath}"
    environment = {**os.environ, **container.environment, "PATH": path}
    subprocess.run(["sh", "-c", line], cwd=container.app, env=environment, check=True)
    help_of_it = [*container.words("ENTRYPOINT"), "--help"]
    subprocess.run(help_of_it, cwd=container.app, env=environment, check=True)
