"""The tweets command in the test's own process: a run takes milliseconds, with real files."""

import itertools
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from apps.tweets.command import main
from core.store.provenance import read_provenance
from tests.inline_backend import InlineBackend

DIED = 9  # exit code


class InlineCommand:
    """A folder with tweets files and outputs, and the command to run there."""

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.out = folder / "out"
        self._capfd = capfd

    def write(self, name: str, tweets: Any) -> Path:
        """A tweets file below the folder."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(tweets), "utf-8")
        return file

    def run(self, file: Path, *arguments: str, **settings: Any) -> tuple[int, str]:
        """Exit code, and what was said on standard error."""
        config = self.folder / "settings.yaml"
        # Without the page of the results, which other tests are about.
        values = {"model": "simulated", "gallery": False, **settings}
        config.write_text(yaml.safe_dump(values), "utf-8")
        line = [str(file), "1", "--config", str(config), "--output-dir", str(self.out)]
        try:
            code = main([*line, *arguments], backend=InlineBackend())
        except SystemExit as end:  # argparse
            code = int(str(end.code))
        return code, self._capfd.readouterr().err

    def run_until(self, point: str, passage: int, file: Path, **settings: Any) -> bool:
        """Run in a process of its own that dies there, as by SIGKILL; False if it lived on."""
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                passages = itertools.count(1)

                def die(name: str, tear: object = None) -> None:
                    if name == point and next(passages) == passage:
                        os._exit(DIED)

                with pytest.MonkeyPatch.context() as patch:
                    for module in ("outputs", "replaced", "ledger"):
                        patch.setattr(f"core.store.{module}.fault_point", die)
                    self.run(file, **settings)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        self._capfd.readouterr()
        return os.waitstatus_to_exitcode(status) == DIED

    def plan(self, file: Path, *arguments: str, **settings: Any) -> str:
        """What a run that comes to its end says of its plan."""
        code, errors = self.run(file, *arguments, **settings)
        assert code == 0, errors
        [line] = [line for line in errors.splitlines() if "Plan: " in line]
        return line.partition("Plan: ")[2]


def prompts(folder: Path) -> dict[str, str]:
    """What pictures show, by their path below `folder`; those in hidden folders are left out."""
    return {
        str(file.relative_to(folder)): read_provenance(file)["task"]["prompt"]
        for file in sorted(folder.rglob("*.png"))
        if ".replaced" not in file.relative_to(folder).parts
    }


def rows(file: Path) -> list[dict[str, Any]]:
    """The lines of a table."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def steps_of(file: Path) -> Any:
    """How many steps a picture was drawn in."""
    task: Mapping[str, Any] = read_provenance(file)["task"]
    return task["num_inference_steps"]
