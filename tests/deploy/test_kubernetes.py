"""The KubeRay manifest: against the schema of its kind, and against what the program takes."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from apps.tweets.options import parse_arguments
from cluster.connect import WANTED
from cluster.ray_environment import QUICK_DETECTION
from tests.conftest import PROJECT

MANIFEST = PROJECT / "deploy" / "kubernetes" / "rayjob.yaml"
# KubeRay v1.7.0's definition of RayJob v1, in full where the manifest says something, by the names
# of its fields elsewhere.
SCHEMA = Path(__file__).with_name("rayjob_schema.json")


@pytest.fixture(scope="module")
def manifest() -> Any:
    return yaml.safe_load(MANIFEST.read_text("utf-8"))


def problems(manifest: Any) -> list[str]:
    schema = json.loads(SCHEMA.read_text("utf-8"))
    return [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(manifest)]


def test_kuberay_takes_the_manifest(manifest: Any) -> None:
    assert problems(manifest) == []


@pytest.mark.parametrize("change", [{"replica": 3}, {"replicas": "two"}])
def test_the_schema_refuses_what_kuberay_would(manifest: Any, change: dict[str, Any]) -> None:
    wrong = json.loads(json.dumps(manifest))
    wrong["spec"]["rayClusterSpec"]["workerGroupSpecs"][0].update(change)
    assert len(problems(wrong)) == 1


def test_its_command_is_one_of_ours(manifest: Any) -> None:
    python, script, *line = manifest["spec"]["entrypoint"].split()
    assert python == "python" and (PROJECT / Path(script).name).is_file()
    options = parse_arguments(line)
    assert (options.engine, options.address) == ("ray", "auto")


def test_its_cluster_is_of_the_version_that_the_program_is_for_and_looks_often(
    manifest: Any,
) -> None:
    cluster = manifest["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == WANTED
    given = cluster["headGroupSpec"]["rayStartParams"]["system-config"]
    assert json.loads(given.strip("'")) == QUICK_DETECTION
