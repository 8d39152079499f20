"""Python runs this at its start where this folder is on PYTHONPATH: a test's faults, installed."""

import importlib.util
import os
import sys
import time
from pathlib import Path

JUMPING_CLOCK = "JUMPING_CLOCK"  # seconds by which the wall clock jumps, there and back
_spec = importlib.util.spec_from_file_location(
    "faults", Path(__file__).resolve().parent.parent / "faults.py"
)
assert _spec is not None and _spec.loader is not None
_faults = importlib.util.module_from_spec(_spec)
sys.modules["faults"] = _faults
_spec.loader.exec_module(_faults)
_faults.install_from_environment()


def _jump(seconds: float) -> None:
    real, start = time.time, time.monotonic()

    def jumping() -> float:
        """Ahead or behind in every other tenth of a second."""
        return real() + seconds * (int((time.monotonic() - start) * 10) % 2)

    time.time = jumping


if JUMPING_CLOCK in os.environ:
    _jump(float(os.environ[JUMPING_CLOCK]))
