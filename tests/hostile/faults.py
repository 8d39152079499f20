"""A disk that refuses: chosen calls of Python's file functions and of sqlite3 fail.

Production code knows nothing of it. `failing` patches this process; a command started with
`environment` patches itself and its workers when Python starts (see `startup/sitecustomize.py`).
"""

import builtins
import errno
import io
import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

VARIABLE = "STORAGE_FAULT"
STARTUP = Path(__file__).parent / "startup"
SQLITE_WORDS = {
    errno.ENOSPC: "database or disk is full",
    errno.EDQUOT: "database or disk is full",
    errno.EIO: "disk I/O error",
    errno.EROFS: "attempt to write a readonly database",
}


@dataclass(frozen=True)
class Fault:
    """From its `first` matching call on, an operation fails with `number`.

    Attributes:
        operation: open, write, fsync, replace, link, mkdir, folder (an open of one) or sqlite.
        where: a pattern of the path, or of the statement.
    """

    operation: str
    where: str
    number: int
    first: int = 1
    once: bool = False

    @property
    def words(self) -> str:
        """What the user has to be told."""
        return SQLITE_WORDS[self.number] if self.operation == "sqlite" else os.strerror(self.number)


def environment(fault: Fault) -> dict[str, str]:
    """Variables for a command whose disk refuses."""
    return {VARIABLE: json.dumps(asdict(fault)), "PYTHONPATH": str(STARTUP)}


def install_from_environment() -> None:
    if VARIABLE in os.environ:
        fault = Fault(**json.loads(os.environ[VARIABLE]))
        for module, name, replacement in _patches(fault, Counter(fault)):
            setattr(module, name, replacement)


@contextmanager
def failing(fault: Fault) -> Iterator["Counter"]:
    """This process, with the fault; gives the counter of matching calls."""
    counter = Counter(fault)
    patches = _patches(fault, counter)
    originals = [(module, name, getattr(module, name)) for module, name, _ in patches]
    try:
        for module, name, replacement in patches:
            setattr(module, name, replacement)
        yield counter
    finally:
        for module, name, original in originals:
            setattr(module, name, original)


class Counter:
    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self.calls = 0

    def hits(self, what: object) -> bool:
        text = os.fsdecode(what) if isinstance(what, bytes | os.PathLike) else str(what)
        if not re.search(self._fault.where, text):
            return False
        self.calls += 1
        first = self._fault.first
        return self.calls == first if self._fault.once else self.calls >= first

    def check(self, what: object) -> None:
        if self.hits(what):
            raise OSError(self._fault.number, os.strerror(self._fault.number))


def _is_path(what: object) -> bool:
    return isinstance(what, str | bytes | os.PathLike)


class _FullFile:
    """A file whose writes fail."""

    def __init__(self, stream: Any, counter: Counter, path: object) -> None:
        self._stream, self._counter, self._path = stream, counter, path

    def write(self, data: Any) -> int:
        self._counter.check(self._path)
        return int(self._stream.write(data))

    def writelines(self, pieces: Iterable[Any]) -> None:
        for piece in pieces:
            self.write(piece)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __enter__(self) -> "_FullFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()


def _patches(fault: Fault, counter: "Counter") -> list[tuple[Any, str, Callable[..., Any]]]:
    match fault.operation:
        case "fsync":
            real_sync = os.fsync

            def fsync(descriptor: int) -> None:
                counter.check(os.readlink(f"/proc/self/fd/{descriptor}"))
                real_sync(descriptor)

            return [(os, "fsync", fsync)]
        case "replace" | "link" | "mkdir":
            real = getattr(os, fault.operation)

            def call(*arguments: Any, **options: Any) -> Any:
                counter.check(arguments[0] if fault.operation == "mkdir" else arguments[-1])
                return real(*arguments, **options)

            return [(os, fault.operation, call)]
        case "folder":
            real_open = os.open

            def open_folder(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
                if flags & os.O_DIRECTORY:
                    counter.check(path)
                return real_open(path, flags, *arguments, **options)

            return [(os, "open", open_folder)]
        case "open" | "write":
            return [(module, "open", _opener(fault, counter)) for module in (io, builtins)]
        case _:
            return [(sqlite3, "connect", _connector(fault, counter))]


def _opener(fault: Fault, counter: Counter) -> Callable[..., Any]:
    real = io.open

    def open_file(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        writes = _is_path(file) and set(mode) & set("wax+")
        if writes and fault.operation == "open":
            counter.check(file)
        stream = real(file, mode, *arguments, **options)
        return _FullFile(stream, counter, file) if writes and fault.operation == "write" else stream

    return open_file


def _connector(fault: Fault, counter: Counter) -> Callable[..., sqlite3.Connection]:
    real = sqlite3.connect

    def refuse_if_hit(statement: str) -> None:
        if counter.hits(statement):
            error = sqlite3.OperationalError(SQLITE_WORDS[fault.number])
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error

    class Connection(sqlite3.Connection):
        def execute(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
            refuse_if_hit(statement)
            return super().execute(statement, *arguments)

        def executemany(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
            refuse_if_hit(statement)
            return super().executemany(statement, *arguments)

        def executescript(self, script: str) -> sqlite3.Cursor:
            refuse_if_hit(script)
            return super().executescript(script)

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        refuse_if_hit("connect")
        return real(*arguments, **options, factory=Connection)

    return connect
