"""A command of a part of `benchmarks.gpu`."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence

from core.settings import PROJECT_DIR


class Command:
    """A command whose lines are seen as they come: a part that is ended keeps those before.

    Args:
        environment: None for this process's own.
    """

    def __init__(self, line: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            line,
            cwd=PROJECT_DIR,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def lines(self) -> Iterator[str]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            print(line, end="", flush=True)
            yield line.strip()
        self._process.wait()

    @property
    def code(self) -> int:
        """Its exit code, once it has ended."""
        return self._process.wait()
