"""Imports run one way, and the main process stays free of model code."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT

HEAVY = {"torch", "diffusers", "transformers", "peft"}


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*{{m.split('.')[0] for m in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "apps.tweets.command",
        "core.multi_gpu_image_generator",
        "apps.edit_benchmark.command",
        "workers.process",
    ],
)
def test_main_and_a_booting_worker_load_no_model_library(module: str) -> None:
    assert not modules_after(f"import {module}") & HEAVY


def imports_of(file: Path) -> set[str]:
    tree = ast.parse(file.read_text("utf-8"))
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    return names | {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}


def test_core_names_workers_at_one_place() -> None:
    naming = {
        f.name: name
        for f in (PROJECT / "core").rglob("*.py")
        for name in imports_of(f)
        if name.split(".")[0] == "workers"
    }
    assert naming == {"worker_pool.py": "workers.process"}


def test_the_scheduler_is_pure() -> None:
    allowed = {"heapq", "math", "collections.abc", "dataclasses"}
    assert imports_of(PROJECT / "core" / "engine" / "scheduler.py") <= allowed
