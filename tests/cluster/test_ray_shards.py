"""Several commands share one input, and one cluster: each has GPUs and a record of its own.

They are started at once, so that each may be late for the GPUs that it has seen free.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image

from apps.gallery.records import command as records
from tests.both_engines import IN_FULL
from tests.cluster.ray_cluster import GPUS, RayCluster
from tests.conftest import PROJECT, Project, simulated

PROMPTS = 2_400  # more than are read ahead, and more than one portion of a merge


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "results.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def settings_on(cluster: RayCluster, **more: Any) -> dict[str, Any]:
    return simulated(engine="ray", ray={"address": cluster.address}, gallery=False, **more)


@IN_FULL
def test_two_commands_stream_a_file_of_thousands_through_one_cluster(
    ray_cluster: RayCluster, project: Project
) -> None:
    size = {"width": 16, "height": 16, "num_inference_steps": 1}
    lines = "".join(json.dumps({"prompt": f"p{n}", **size}) + "\n" for n in range(PROMPTS))
    file = project.write_tweets(lines, "prompts.jsonl")
    settings = settings_on(ray_cluster)
    runs = [project.start([file, GPUS, "--shard", part], settings) for part in ("1/2", "2/2")]
    assert [run.finish() for run in runs] == [0, 0], "\n".join(run.errors for run in runs)
    out = project.folder / "out"
    assert records.main([str(out / "prompts"), "merge"]) == 0
    found = rows(out / "prompts")
    assert [row["position"] for row in found] == list(range(PROMPTS))
    assert {row["status"] for row in found} == {"done"}
    assert len(list((out / "prompts").glob("*.png"))) == PROMPTS
    assert project.leftovers() == []


def test_parts_of_edits_are_made_on_the_nodes(ray_cluster: RayCluster, project: Project) -> None:
    for n in range(6):
        Image.new("RGB", (64, 64), (40 * n, 90, 40)).save(project.folder / f"{n}.png")
    config = project.write_settings(settings_on(ray_cluster, editor={"model": "simulated"}))
    line = [*(f"{n}.png" for n in range(6)), "--instruction", "make it night"]
    line += ["--config", str(config), "--output-dir", str(project.folder / "out")]
    line += ["--num-gpus", str(GPUS), "--name", "edits"]
    script = PROJECT / "edit_images.py"
    runs = [project.execute(script, [*line, "--shard", part], "ray") for part in ("1/2", "2/2")]
    assert [run.finish() for run in runs] == [0, 0], "\n".join(run.errors for run in runs)
    folder = project.folder / "out" / "edits"
    assert records.main([str(folder), "merge"]) == 0
    assert Counter(row["status"] for row in rows(folder)) == {"done": 6}
    assert len(list(folder.glob("*.png"))) == 6 and project.leftovers() == []
