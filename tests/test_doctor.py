"""`doctor.py`: what a machine has, what a run would use, and what is missing."""

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from apps.doctor import daemon, gpus, host, software, storage
from apps.doctor.command import main
from apps.doctor.finding import Finding
from core.devices.gpu import Gpu, Unlisted
from core.remote.socket_place import socket_place
from test_multi_gpu import NotMeasured, speed_up
from tests.conftest import PROJECT

GIB = 1024**3
CPU_TORCH = {"version": "2.13.0+cpu", "cuda": None, "available": False, "devices": 0}
GPU_TORCH = {"version": "2.13.0+cu130", "cuda": "13.0", "available": True, "devices": 2}
GPUS = [
    Gpu(0, "GPU-0", "NVIDIA H100", 80 * GIB, free=79 * GIB, capability=(9, 0)),
    Gpu(1, "GPU-1", "NVIDIA H100", 80 * GIB, free=10 * GIB, capability=(9, 0)),
]


def looked(*arguments: str, torch: dict[str, Any] = CPU_TORCH) -> tuple[int, dict[str, Any]]:
    """Exit code, and the findings by name."""
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("builtins.print", lambda text: printed.append(text))
        code = main(["--json", *arguments], ask=lambda: torch)
    told = json.loads(printed[0])
    assert told["ready"] is (code == 0)
    return code, {f["name"]: f for found in told["findings"].values() for f in found}


@pytest.fixture
def with_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.devices.nvml.list_gpus", lambda: GPUS)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_machine_without_a_gpu_is_ready_with_the_demo_models() -> None:
    code, found = looked()
    assert code == 0
    assert found["GPUs"]["level"] == "note" and "demo models" in found["GPUs"]["text"]
    assert "the embedded demo model" in found["generate"]["text"]
    assert "the embedded demo editor" in found["edit"]["text"]
    assert "the embedded demo judge" in found["score"]["text"]
    assert found["generate"]["facts"]["workers"] == ["cpu0"]
    assert found["torch"]["text"] == "2.13.0+cpu, built for CPUs alone."


def test_gpus_their_memory_and_what_fits_are_told(
    with_gpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.checkpoints.hub_index.checkpoint_of_hub", lambda *a, **k: None)
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: True)
    config = tmp_path / "mine.yaml"
    config.write_text("model: Tongyi-MAI/Z-Image-Turbo\n")
    code, found = looked("--config", str(config), torch=GPU_TORCH)
    assert found["GPU 0"]["text"] == "NVIDIA H100, 79.0 of 80.0 GiB free, compute capability 9.0."
    assert found["GPU 1"]["level"] == "note" and "nvidia-smi" in found["GPU 1"]["advice"]
    assert found["torch"]["text"].endswith("it sees 2 GPUs.")
    assert code == 1  # the model is neither in the cache nor to be fetched
    assert "HF_HUB_OFFLINE is set" in found["generate"]["text"]
    needs, facts = found["generate"]["facts"]["needs"], found["generate"]["facts"]
    assert facts["workers"] == ["gpu0", "gpu1"] and needs["full"] > 10 * GIB


def level_and_text(finding: Finding) -> tuple[str, str]:
    return finding.level, finding.text


def test_a_torch_that_does_not_see_the_gpus_is_a_problem() -> None:
    [cpu] = software.torch(2, lambda: CPU_TORCH)
    assert cpu.level == "note" and "are not used" in cpu.text and "pytorch.org" in cpu.advice
    [blind] = software.torch(2, lambda: {**GPU_TORCH, "available": False, "devices": 0})
    assert blind.level == "problem" and "driver is older" in blind.advice
    [broken] = software.torch(0, lambda: {"error": "ImportError: libcudart"})
    assert level_and_text(broken) == ("problem", "It cannot be imported: ImportError: libcudart")


def test_gpus_that_cannot_be_listed_or_used_are_told_with_what_to_do() -> None:
    def missing() -> list[Gpu]:
        raise ImportError("No module named 'pynvml'")

    count, [finding] = gpus.gpus(missing)
    assert count == 0 and finding.level == "problem" and "nvidia-ml-py" in finding.text
    hidden = Unlisted("there are GPUs (/dev/nvidia0), but NVML is missing", usable=True)
    _, [finding] = gpus.gpus(list, lambda: hidden)
    assert level_and_text(finding) == (
        "problem",
        "There are GPUs (/dev/nvidia0), but NVML is missing.",
    )
    _, [finding] = gpus.gpus(list, lambda: Unlisted("this torch is built for CPUs", usable=False))
    assert finding.level == "note"
    faulty = [Gpu(0, "", "", 0, fault="GPU is lost")]
    told = {"driver": "580.1", "cuda": "13.0"}
    count, found = gpus.gpus(lambda: faulty, probe_driver=lambda: told)
    assert count == 1 and found[0].text == "580.1, for CUDA up to 13.0."
    assert level_and_text(found[1]) == ("note", "It cannot be used: GPU is lost.")


def test_without_the_package_that_lists_gpus_the_doctor_still_looks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.delitem(sys.modules, "core.devices.nvml", raising=False)
    monkeypatch.delattr("core.devices.nvml", raising=False)
    code, found = looked()
    assert code == 1 and "nvidia-ml-py is missing" in found["GPUs"]["text"]
    assert found["generate"]["level"] == "problem"


def test_packages_that_are_missing_or_of_another_version_are_named(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("loguru==0.0.1  # logs\nnot-a-package==1.0\n")
    (tmp_path / "requirements-extra.txt").write_text("neither-this==2.0  # wonders\n")
    missing, other, extra = software.packages(tmp_path)
    assert level_and_text(missing) == ("problem", "Missing: not-a-package.")
    assert other.level == "note" and "loguru" in other.text and "for 0.0.1" in other.text
    assert level_and_text(extra) == ("note", "Not installed; only for wonders.")
    assert extra.advice == "pip install neither-this==2.0"


def test_a_home_that_cannot_be_written_is_told_and_no_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    really = os.access
    refused = str(home)
    monkeypatch.setattr(
        os, "access", lambda p, mode: not str(p).startswith(refused) and really(p, mode)
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / ".cache" / "hub"))
    code, found = looked()
    assert code == 0  # the demo model needs no cache
    assert found["models' cache"]["level"] == "note"
    assert "cannot be written by this user" in found["models' cache"]["text"]
    [results] = storage.results(home / "outputs")
    assert results.level == "problem" and "--output-dir" in results.advice


def test_models_of_the_cache_are_listed_known_ones_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name in ("a--model", "Qwen--Qwen-Image"):
        (tmp_path / f"models--{name}" / "blobs").mkdir(parents=True)
        (tmp_path / f"models--{name}" / "blobs" / "1").write_bytes(bytes(2000))
    _, there = storage.models()
    assert there.text == "Qwen/Qwen-Image (2.0 kB), a/model (2.0 kB)."


def test_small_limits_are_noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 4096))
    [files] = host.open_files()
    assert files.level == "note" and "ulimit -n 1024" in files.advice
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("apps.doctor.host.shutil.disk_usage", lambda place: usage)
    [shared] = host.shared_memory(tmp_path)
    assert shared.level == "note" and "--shm-size" in shared.advice


def test_a_socket_that_was_left_behind_is_told_from_a_daemon() -> None:
    [none] = daemon.daemon()
    assert none.text.startswith("None runs")
    place = socket_place()
    place.parent.mkdir(mode=0o700)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(place))
        [left] = daemon.daemon()
        assert left.level == "note" and "Nobody listens" in left.text
    finally:
        shutil.rmtree(place.parent)


def test_settings_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("modl: x\n")
    assert main(["--config", str(tmp_path / "mine.yaml")], ask=lambda: CPU_TORCH) == 2


def test_a_speed_up_that_cannot_be_is_called_an_error_of_measurement() -> None:
    told = speed_up(together=10.0, alone=18.0, workers=2, cores=2)
    assert told == "1.80 times as fast as one worker (this machine has 2 cores)"
    with pytest.raises(NotMeasured, match=r"2 workers took 1\.0 s and one worker 14\.0 s"):
        speed_up(together=1.0, alone=14.0, workers=2, cores=2)
    with pytest.raises(NotMeasured, match="or they are too few"):
        speed_up(together=10.0, alone=7.0, workers=2, cores=2)


@pytest.mark.slow
def test_the_script_prints_a_report_that_people_read(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, PROJECT / "doctor.py"], cwd=PROJECT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "Software" and "  ok       Python:" in lines[1]
    assert lines[-1].startswith("This machine is ready.")
