"""Whose devices do the work: what is asked for, and what cannot be meant."""

import socket
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from apps.tweets.command import main
from core.errors import LedgerError
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.store.ledger_file import LOCK_NAME
from core.store.run_lock import RunLock
from tests.conftest import simulated

TWEETS = '[{"prompt": "a red house"}]'


def refused(folder: Path, capfd: pytest.CaptureFixture[str], *options: str) -> str:
    """What the command says to options that it does not take."""
    file = folder / "t.json"
    file.write_text(TWEETS)
    assert main([str(file), "--output-dir", str(folder / "out"), *options]) == 2
    assert not (folder / "out").exists()
    return capfd.readouterr().err


def test_without_ray_one_line_says_how_to_install_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr("cluster.connect.version", missing)
    said = refused(tmp_path, capfd, "--engine", "ray")
    assert "pip install ray==2.60.0" in said and len(said.splitlines()) == 1


def test_another_version_of_ray_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.connect.version", lambda package: "2.9.3")
    assert "2.9.3 is installed" in refused(tmp_path, capfd, "--engine", "ray")


@pytest.mark.parametrize(
    "options, word",
    [
        (("--engine", "local", "--address", "auto"), "--address"),
        (("--engine", "ray", "--gpu-ids", "0,1"), "Ray chooses the GPUs"),
        (("--engine", "ray", "--server", "http://127.0.0.1:1"), "exclude each other"),
        (("--address", "auto", "0"), "must be 1 or more"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_started(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], options: tuple[str, ...], word: str
) -> None:
    assert word in refused(tmp_path, capfd, *options)


def test_an_address_at_which_nobody_listens_is_told_at_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = refused(tmp_path, capfd, "--engine", "ray", "--address", address)
    assert f"no cluster answers at {address} (Connection refused)" in said
    assert "ray start --head" in said
    said = refused(tmp_path, capfd, "--engine", "ray", "--address", "no-such-host.invalid:6379")
    assert "no cluster answers at no-such-host.invalid:6379" in said


def test_a_folder_in_use_is_told_before_a_cluster_is_looked_for(tmp_path: Path) -> None:
    lock = RunLock(tmp_path / LOCK_NAME)
    try:
        with pytest.raises(LedgerError, match="in use by another run"):
            MultiGPUImageGenerator(
                config=simulated(engine="ray", ray={"address": "127.0.0.1:1"}), output_dir=tmp_path
            )
    finally:
        lock.release()


@pytest.mark.parametrize("key, value", [("engine", "spark"), ("ray", {"adress": "auto"})])
def test_a_setting_that_is_none_is_named(key: str, value: Any) -> None:
    with pytest.raises(Exception, match=key):
        MultiGPUImageGenerator(config={**simulated(), key: value})


def test_python_names_an_engine_that_there_is_not() -> None:
    with pytest.raises(Exception, match="expected one of local, ray, found 'spark'"):
        MultiGPUImageGenerator(config=simulated(), engine="spark")  # type: ignore[arg-type]


def test_a_folder_too_long_for_rays_sockets_is_told_before_anything_is_started(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: Any) -> None:
        raise AssertionError("a bridge was started")

    monkeypatch.setattr("cluster.connect.BridgeProcess", start)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    said = refused(tmp_path, capfd, "--engine", "ray")
    assert len(said.splitlines()) == 1
    assert f"TMPDIR: {long} has {len(str(long))} bytes" in said and "at most 39" in said
    assert "export RAY_TMPDIR=/tmp" in said
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    with pytest.raises(AssertionError, match="a bridge was started"):
        main([str(tmp_path / "t.json"), "--output-dir", str(tmp_path / "out"), "--engine", "ray"])
