"""Imports run one way, and the main process stays free of model code."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.longest_first import LONGEST

HEAVY = {"torch", "diffusers", "transformers", "peft"}


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*{{m.split('.')[0] for m in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


OF_MAIN = {"asyncio", "loguru", "yaml"}  # a fifth of what a worker would import as it starts


@pytest.mark.parametrize(
    ("module", "others"),
    [
        ("apps.tweets.command", set()),
        ("core.multi_gpu_image_generator", set()),
        ("apps.edit_benchmark.command", set()),
        ("workers.process", OF_MAIN),
    ],
)
def test_main_and_a_booting_worker_load_no_model_library(module: str, others: set[str]) -> None:
    assert not modules_after(f"import {module}") & (HEAVY | others)


def test_a_command_that_has_a_daemon_starts_without_what_devices_of_its_own_need() -> None:
    """Each takes 10 to 20 ms of the half second within which the first picture should be there."""
    found = modules_after("import apps.tweets.command")
    assert not found & {"psutil", "pynvml", "regex", "numpy", "fastapi", "uvicorn"}


def test_main_never_imports_ray_even_where_a_cluster_does_the_work() -> None:
    assert "ray" not in modules_after("import cluster.connect, apps.tweets.command")


def test_what_registers_with_main_loads_no_model_library() -> None:
    found = modules_after(
        "from apps.edit_benchmark.data_set import DATA_SETS; from core.judge_type import JUDGES; "
        "from core.tasks import TASKS; [each.load() for each in (DATA_SETS, JUDGES, TASKS)]"
    )
    assert not found & HEAVY


@cache
def imports_of(file: Path) -> frozenset[str]:
    """What a file imports, in functions, too."""
    tree = ast.parse(file.read_text("utf-8"))
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}  # perhaps a module
    return frozenset(names)


# Packages that each may import, beside itself. A package that is not named here fails the test.
GROUND = {"core"}
ALLOWED: dict[str, set[str]] = {
    "core": set(),
    "core.judges": GROUND,
    "core.checkpoints": GROUND,
    "core.pictures": GROUND,
    "core.store": GROUND | {"core.checkpoints"},
    "core.intake": GROUND | {"core.checkpoints", "core.pictures", "core.store"},
    "core.devices": GROUND | {"core.checkpoints", "core.store", "core.intake"},
}
ALLOWED["core.intake.kinds"] = ALLOWED["core.intake"] | {"core.intake"}
BELOW = {*ALLOWED}
# Where the engine and what runs its workers meet: modules that neither side's rest stands behind.
ALLOWED["core.engine.fetch"] = GROUND
ALLOWED["core.engine.backend"] = BELOW | {"core.engine.fetch"}
SEAM = {"core.engine.fetch", "core.engine.backend"}
ALLOWED["core.engine"] = BELOW | SEAM
ALLOWED["core.processes"] = BELOW | SEAM
ALLOWED["core.remote"] = BELOW | SEAM | {"core.engine"}
ALLOWED["core.status"] = GROUND | {"core.devices", "core.store"}
ALLOWED["core.dry_run"] = BELOW | SEAM | {"core.engine", "core.remote"}
EVERYTHING = {*ALLOWED}
ALLOWED["workers"] = (
    EVERYTHING - SEAM - {"core.intake", "core.engine", "core.remote", "core.status", "core.dry_run"}
)
ALLOWED["apps"] = EVERYTHING - {"core.processes"}
ALLOWED["apps.openai_images"] = {"apps", *EVERYTHING}
ALLOWED["apps.doctor"] = {"apps", *EVERYTHING}
ALLOWED["apps.gallery"] = {"apps", "apps.page_parts", *EVERYTHING}
ALLOWED["apps.page_parts"] = set()
ALLOWED["apps.prompts"] = {"apps", *EVERYTHING}
ALLOWED["apps.picture_commands"] = {
    "apps",
    "apps.gallery",
    "apps.prompts",
    "demo_model",
    *EVERYTHING,
}
COMMAND = {"apps", "apps.picture_commands", "apps.prompts", *EVERYTHING}
ALLOWED["apps.tweets"] = {"apps.openai_images", *COMMAND}
ALLOWED["apps.edit_images"] = COMMAND
ALLOWED["apps.watch"] = {"apps", *EVERYTHING}
ALLOWED["apps.edit_benchmark"] = {"apps", "apps.gallery", *EVERYTHING}
ALLOWED["apps.server"] = {"apps", "apps.openai_images", "apps.page_parts", *EVERYTHING}
# Below the seam, as core.processes is; main's side of it imports no Ray.
ALLOWED["cluster"] = EVERYTHING
MODULES = {  # that may import more than their packages
    "core.multi_gpu_image_generator": EVERYTHING,
    "core.batches": EVERYTHING,
    "core.warm_models": EVERYTHING,
    "core.processes.entry_points": {"workers"},
    "core.engine_choice": {*ALLOWED["core.engine"], "core.processes", "cluster"},
    "core.feeding": EVERYTHING,
    "core.session": EVERYTHING,
    "core.role_model": EVERYTHING,
    "core.roles": EVERYTHING,
    "core.edit_roles": EVERYTHING,
    "core.batch_intake": EVERYTHING,
}


def package_of(module: str) -> str | None:
    """The package of ours, or the seam, that a module belongs to; None for others' modules."""
    parts = module.split(".")
    if parts[0] not in ("core", "apps", "workers", "cluster", "demo_model"):
        return None
    prefixes = [".".join(parts[:length]) for length in (3, 2)]
    return next((prefix for prefix in prefixes if prefix in ALLOWED), parts[0])


@pytest.mark.slow
def test_imports_run_one_way() -> None:
    wrong = []
    for folder in ("core", "apps", "workers", "cluster"):
        for file in sorted((PROJECT / folder).rglob("*.py")):
            module = ".".join(file.relative_to(PROJECT).with_suffix("").parts)
            package = package_of(module)
            allowed = MODULES.get(module, ALLOWED[str(package)])
            for name in sorted(imports_of(file)):
                found = package_of(name)
                if found is not None and found != package and found not in allowed:
                    wrong.append(f"{module} imports {name}")
    assert wrong == []


def test_modules_form_no_circle() -> None:
    files = {
        ".".join(f.relative_to(PROJECT).with_suffix("").parts): f
        for folder in ("core", "apps", "workers", "cluster")
        for f in (PROJECT / folder).rglob("*.py")
    }
    graph = {module: imports_of(file) & files.keys() for module, file in files.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


PURE = ("pending", "task_queue", "owner_queue", "fair_share", "priority_level", "tail", "scheduler")


@pytest.mark.parametrize("name", PURE)
def test_the_scheduler_is_pure(name: str) -> None:
    allowed = {"heapq", "math", "collections", "collections.abc", "dataclasses", "itertools"}
    allowed |= {"typing", *(f"core.engine.{other}" for other in PURE)}
    found = imports_of(PROJECT / "core" / "engine" / f"{name}.py")
    assert {name for name in found if name.rpartition(".")[0] not in allowed} <= allowed


def test_test_files_that_are_named_to_come_first_are_there() -> None:
    folder = PROJECT / "tests"
    assert not [name for name in LONGEST if not (folder / name).is_file()]
