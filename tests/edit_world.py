"""Edit benchmarks as tests use them: small pairs, and simulated editors and judges."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml
from PIL import Image

from apps.edit_benchmark.pair import Pair
from tests.conftest import BENCHMARK, Project, Run, forking, kind_of, merged


def settings(**changes: Any) -> dict[str, Any]:
    """Simulated editors and judges that restart without delay; sections merge."""
    values: dict[str, Any] = {
        "editor": {"model": "simulated"},
        "judge": {"model": "simulated"},
        "supervision": {"restart_backoff": 0.01},
        "bootstrap_samples": 200,
    }
    return merged(values, changes)


def pair(number: int, instruction: str = "make it night", category: str = "sky") -> dict[str, Any]:
    name = f"{number:03d}.png"
    return {"input_file_name": name, "instruction": instruction, "category": category}


def made_pair(file: Path, number: int, instruction: str = "make it night") -> Pair:
    """A pair of its own picture, for a benchmark in the test's own process."""
    Image.new("RGB", (64, 64), (number, 0, 0)).save(file)
    return Pair(f"{number:02d}", "sky", instruction, (str(file),))


class Bench:
    """A folder of pairs, and the command that edits and scores them.

    Attributes:
        newest: the run that was started last.
        line: its arguments.
    """

    newest: Run
    line: list[str]

    def __init__(self, project: Project) -> None:
        self.project = project
        self.data = project.folder / "pairs"
        self.results = project.folder / "out" / "pairs"
        self.data.mkdir()

    def write_pairs(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """metadata.jsonl, and a picture for every row that names one that is not there."""
        for i, row in enumerate(rows):
            file = self.data / str(row["input_file_name"])
            if not file.exists():
                Image.new("RGB", (64, 48), (i % 256, 80, 40)).save(file)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (self.data / "metadata.jsonl").write_text(text, "utf-8")

    def start(self, *arguments: str, **changes: Any) -> Run:
        config = self.project.folder / "bench.yaml"
        given = merged(settings(data=str(self.data), **changes), self.project.workplace.settings)
        config.write_text(yaml.safe_dump(forking(given)), "utf-8")
        out = str(self.project.folder / "out")
        self.line = ["--config", str(config), "--output-dir", out, *arguments]
        models = [given[role].get("model", "auto") for role in ("editor", "judge")]
        kind = kind_of(*models, engine=given.get("engine"))
        self.newest = self.project.execute(BENCHMARK, self.line, kind)
        return self.newest

    def workers(self) -> list[psutil.Process]:
        """Worker processes of the run that was started last."""
        return self.project.workers(self.newest)

    def run(self, *arguments: str, **changes: Any) -> Run:
        run = self.start(*arguments, **changes)
        run.finish()
        return run

    def records(self) -> list[dict[str, Any]]:
        lines = (self.results / "results.jsonl").read_text("utf-8").split("\n")
        return [json.loads(line) for line in lines if line]

    def outcomes(self) -> list[str]:
        return [r["outcome"] for r in self.records()]

    def summary(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads((self.results / "summary.json").read_text("utf-8"))
        return data

    def edits(self) -> list[Path]:
        return sorted((self.results / "edits").rglob("*.png"))

    def verdicts(self) -> list[Path]:
        return sorted((self.results / "scores").rglob("*.json"))

    def leftovers(self) -> list[Path]:
        return list(self.results.rglob(".partial*"))
