"""A judge whose model cannot be had is told by a dry run; a run warns, and edits meanwhile."""

from pathlib import Path

import pytest
import yaml

from apps.edit_benchmark.command import main as benchmark
from core.checkpoints import hub_state
from core.settings import PROJECT_DIR


def test_a_dry_run_tells_of_a_judge_that_cannot_be_fetched(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub_state, "REQUEST_TIMEOUT", 1.0)
    config = {
        "data": str(PROJECT_DIR / "examples" / "edit_pairs"),
        "output_dir": str(tmp_path / "out"),
        "use_server": "never",
        "device": "cpu",
        "gallery": False,
        "editor": {"model": "simulated"},
        "judge": {"type": "clip", "model": "nobody/no-such-clip"},
    }
    file = tmp_path / "bench.yaml"
    file.write_text(yaml.safe_dump(config), "utf-8")
    command = ["--config", str(file), "--limit", "1", "--dry-run"]
    assert benchmark(command) == 2
    shown = capfd.readouterr().out
    assert "judge.model: nobody/no-such-clip is not in the cache, and the hub does not" in shown
    assert "The run should not start as it is." in shown
    assert not list((tmp_path / "out").rglob("*.png"))
