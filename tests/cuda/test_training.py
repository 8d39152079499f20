"""The demo's models are trained on a GPU; `CUDA_TESTS_ON_CPU=1` tries this itself on a CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.devices.edit_models import DEMO_JUDGE
from tests.conftest import PYTHONPATH
from tests.cuda.test_real_gpu import DEVICE, HAS_GPU, ON_CPU

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not (HAS_GPU or ON_CPU), reason="needs a GPU"),
]
# One process for all of them, and not this one, which opens no GPU.
ALL_STAGES = """
import importlib, sys
for line in sys.stdin.read().splitlines():
    module, *options = line.split()
    sys.argv = [module, *options]
    importlib.import_module(f"demo_model.{module}").main()
"""


def test_every_stage_of_the_training_runs_on_a_gpu(tmp_path: Path) -> None:
    few = "--steps 1 --pictures 40 --decoder-steps 1"
    lines = [
        f"train_generator_vae --out vae {few}",
        "train_transformer --out transformer --vae vae --steps 1 --more-steps 1 --scenes 40",
        "train_loras --out lora --model transformer --style snow --steps 1 --scenes 40",
        f"train_editor_vae --out editor_vae {few}",
        "train_editor --out editor --vae editor_vae --steps 1 --edits 40",
        f"train_judge --out judge --vae editor_vae --first {DEMO_JUDGE} --steps 1 --examples 40",
    ]
    done = subprocess.run(
        [sys.executable, "-c", ALL_STAGES],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": PYTHONPATH, "TORCHDYNAMO_DISABLE": "1"},
        input="\n".join(f"{line} --device {DEVICE} --threads 2" for line in lines),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "lora" / "snow.safetensors").exists()
    for model in ("transformer", "editor"):
        assert (tmp_path / model / "model_index.json").exists()
    assert (tmp_path / "judge" / "model.safetensors").exists()
