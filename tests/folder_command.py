"""A command that draws or edits, in the test's own process and in a folder of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from tests.inline_backend import InlineBackend
from tests.inline_command import rows


class FolderCommand:
    """The command on a simulated device.

    Attributes:
        main: runs it, from its arguments to its exit code.
        usual: settings of every run.
    """

    main: ClassVar[Callable[..., int]]
    usual: ClassVar[dict[str, Any]] = {"model": "simulated"}

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capfd = capfd

    def run(self, *arguments: str, **settings: Any) -> tuple[int, str]:
        """Exit code, and all that was said."""
        config = self.folder / "settings.yaml"
        config.write_text(yaml.safe_dump({**self.usual, **settings}), "utf-8")
        given = [] if "--config" in arguments else ["--config", str(config)]
        try:
            code = type(self).main([*arguments, *given], backend=InlineBackend())
        except SystemExit as end:  # argparse
            code = int(str(end.code))
        said = self._capfd.readouterr()
        assert "Traceback" not in said.err
        return code, said.out + said.err

    def records(self, name: str) -> list[dict[str, Any]]:
        return rows(self.folder / "outputs" / name / "results.jsonl")
