"""Python runs this at its start where this folder is on PYTHONPATH."""

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location(
    "faults", Path(__file__).resolve().parent.parent / "faults.py"
)
assert _spec is not None and _spec.loader is not None
_faults = importlib.util.module_from_spec(_spec)
import sys  # noqa: E402

sys.modules["faults"] = _faults
_spec.loader.exec_module(_faults)
_faults.install_from_environment()
