"""What users import from `core`, and what that costs those who need none of it."""

import subprocess
import sys

import pytest

import core
from tests.conftest import PROJECT


@pytest.mark.parametrize("name", core.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(core, name).__name__ == name
    assert name in dir(core)


def test_an_unknown_name_is_said_to_be_missing() -> None:
    with pytest.raises(AttributeError, match="'core' has no attribute 'Generator'"):
        _ = core.Generator
    with pytest.raises(ImportError):
        from core import Generator  # noqa: F401


def test_a_worker_gets_its_messages_without_the_engine() -> None:
    code = "import sys, core.messages; print(*(m for m in sys.modules if m.startswith('core.')))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    loaded = done.stdout.split()
    for package in ("engine", "intake", "devices", "store", "judges", "multi_gpu_image_generator"):
        assert not [module for module in loaded if module.startswith(f"core.{package}")]
