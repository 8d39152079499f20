"""Keeps what a judge's server has answered about an edit, until the edit has its verdict.

An answer is paid for when it comes; a verdict may take many. So each is written down at once beside
the place of the verdict, and whoever is given the edit after a kill asks only what is missing. Main
removes the file when the verdict is recorded (`core.store.folder_recorder`).
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from core.messages import Lease
from core.store.outputs import answers_of
from workers.judges.endpoint import Reply


class KeptAnswers:
    """The answers about one edit, by question.

    Args:
        file: where they lie. Lines of other fingerprints are answers to other questions.
    """

    def __init__(self, file: Path, fingerprint: str) -> None:
        self._file, self._fingerprint = file, fingerprint
        self._known = _read(file, fingerprint)

    @classmethod
    def about(cls, lease: Lease) -> "KeptAnswers":
        """Those about the edit of a lease, of earlier attempts, too."""
        file = answers_of(lease.at(lease.partial_path), lease.task)
        return cls(Path(file), lease.fingerprint)

    def get(self, question: str) -> Reply | None:
        """The answer to a question, if it was answered before."""
        return self._known.get(question)

    def keep(self, question: str, reply: Reply) -> None:
        """Write an answer down; where the disk refuses, it is asked for again after a kill."""
        line = json.dumps([self._fingerprint, question, asdict(reply)])
        with suppress(OSError), self._file.open("ab") as stream:
            # A line that a kill has cut short is ended by the next one's beginning.
            stream.write(f"\n{line}".encode())
            stream.flush()
            os.fsync(stream.fileno())


def _read(file: Path, fingerprint: str) -> Mapping[str, Reply]:
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError:
        return {}
    known: dict[str, Reply] = {}
    for line in lines:
        with suppress(ValueError, TypeError):  # empty, or cut short
            of, question, reply = json.loads(line)
            if of == fingerprint:
                known[question] = Reply(**reply)
    return known
