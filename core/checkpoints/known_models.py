"""Sizes of some published models, for use where neither cache nor hub can be asked.

known_models.json is made of their public configs: `python -m benchmarks.needs --write`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from core.checkpoints.checkpoint import Checkpoint, Component
from core.checkpoints.weights import Weights

FILE = Path(__file__).with_name("known_models.json")


def known_checkpoint(hub_id: str) -> Checkpoint | None:
    """The checkpoint of a published model, or of the one whose sizes it has; None if unknown."""
    return _all().get(hub_id.lower())


def to_json(ids: list[str], checkpoint: Checkpoint) -> dict[str, Any]:
    """One entry of the file."""
    return {
        "ids": ids,
        "pipeline": checkpoint.pipeline,
        "components": [asdict(component) for component in checkpoint.components],
    }


@cache
def _all() -> Mapping[str, Checkpoint]:
    found = {}
    for entry in json.loads(FILE.read_text("utf-8")):
        components = tuple(
            Component(c["name"], c["kind"], Weights(**c["weights"]), c["config"])
            for c in entry["components"]
        )
        for hub_id in entry["ids"]:
            found[hub_id.lower()] = Checkpoint(entry["pipeline"], components)
    return found
