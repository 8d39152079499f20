"""Nodes that are machines of their own: with another address, other files, other software."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.software import other_software, software_here
from tests.cluster.cable import Cable, may_lay_cables
from tests.cluster.conftest import ClusterRun
from tests.cluster.ray_cluster import (
    RayCluster,
    has_in_place_of,
    hides,
    may_be_apart,
)
from tests.conftest import PATIENCE, PROJECT, Project, going_on, wait_until


@pytest.fixture
def ends() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.skipif(not may_lay_cables(), reason="needs network namespaces (root, and ip)")
def test_a_machine_whose_cable_is_cut_ends_its_workers_and_its_tasks_are_done_elsewhere(
    project: Project, tmp_path: Path, ends: ExitStack
) -> None:
    """It has an address of its own, and sees nothing of this machine's folders."""
    cache = tempfile.mkdtemp(prefix="cache-", dir="/tmp")
    ends.callback(shutil.rmtree, cache, ignore_errors=True)
    cable = Cable()
    ends.callback(cable.remove)
    cluster = RayCluster(1, cable.here)
    ends.callback(cluster.close)
    apart = cluster.add_apart("apart", hides(tmp_path), cable)
    ends.callback(apart.end)
    rules: dict[str, Any] = {
        "ray": {"fence_timeout": 3, "cache_dir": cache},
        "scheduling": {"speculative_copies": False},
    }
    at_work = ClusterRun(project, cluster, 80, 0.2, held=True, **rules).start()
    workers = wait_until(apart.workers, "its workers")
    wait_until(lambda: at_work.reaches(1) and at_work.workers_by_node()["apart"], "its pictures")
    cable.cut()
    _, left = psutil.wait_procs(workers, timeout=PATIENCE)
    assert left == []
    wait_until(lambda: "apart was lost" in at_work.run.errors, "the loss")
    with going_on(lambda: [w for node in cluster.nodes for w in cluster.workers(node)]):
        at_work.check()
    assert at_work.workers_by_node()["apart"] > 0
    cable.mend()


def changed(file: Path, folder: Path, old: str, new: str) -> Path:
    """A copy of a file with other words in it."""
    copy = folder / file.name
    text = file.read_text("utf-8")
    assert old in text
    copy.write_text(text.replace(old, new, 1), "utf-8")
    return copy


@pytest.mark.skipif(not may_be_apart(), reason="needs a mount namespace (root)")
def test_a_node_with_other_software_is_not_used_and_one_line_says_what_to_do(
    project: Project, tmp_path: Path, ends: ExitStack
) -> None:
    here = software_here()
    own = PROJECT / "core" / "names.py"
    metadata = Path(str(distribution("diffusers").locate_file("")), "")
    [metadata] = metadata.glob("diffusers-*.dist-info/METADATA")
    version = f"Version: {here['diffusers']}"
    code = changed(own, tmp_path, '"""', '"""Another version. ')
    package = changed(metadata, tmp_path, version, "Version: 0.1.2")
    cluster = RayCluster(0)
    ends.callback(cluster.close)
    script = f"{has_in_place_of(own, code)} && {has_in_place_of(metadata, package)}"
    ends.callback(cluster.add_apart("other", script).end)

    at_work = ClusterRun(project, cluster, 8, 0.05).start()
    assert at_work.run.finish() == 2
    [line] = [line for line in at_work.run.errors.splitlines() if "cannot be used" in line]
    assert "other: it has other software" in line
    assert f"(here {here['this program']}), diffusers 0.1.2 (here {here['diffusers']})" in line
    assert "install requirements.txt of this program there" in line

    cluster.add()
    at_work = ClusterRun(project, cluster, 8, 0.05).start()
    at_work.check()
    assert "other" not in at_work.workers_by_node()
    lines = [line for line in at_work.run.errors.splitlines() if "has other software" in line]
    assert len(lines) == 1 and "not used: other: " in lines[0]
    [again] = [line for line in at_work.run.output.splitlines() if "has other software" in line]
    assert again.startswith("not used: other: it has other software"), "the summary says it, too"
    status = json.loads((project.pictures / "status.json").read_text("utf-8"))
    assert [f"not used: {why}" for why in status["not_used"]] == [again]


def test_the_same_software_is_no_other_and_devices_do_not_count() -> None:
    here = software_here()
    assert {"this program", "Python", "torch", "diffusers"} <= here.keys()
    assert not [version for version in here.values() if "+" in version]
    assert other_software(here, here) is None


def test_what_is_missing_or_of_another_version_on_a_node_is_named_with_both_versions() -> None:
    here = {"this program": "aaaa", "Python": "3.11", "torch": "2.13.0", "peft": "1"}
    told = other_software(here, {"this program": "bbbb", "Python": "3.12", "torch": "2.12.0"})
    assert told is not None
    for part in (
        "this program bbbb (here aaaa)",
        "Python 3.12 (here 3.11)",
        "torch 2.12.0 (here 2.13.0)",
        "no peft (here 1)",
    ):
        assert part in told
    assert other_software(here, {**here, "gguf": "1"}) is None
