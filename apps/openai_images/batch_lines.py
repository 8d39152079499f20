"""The lines that a batch ends with: one for each request, as OpenAI's Batch API writes them."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from apps.openai_images.answer import Wanted, body_parts, compact
from apps.openai_images.batch_file import BadLine, BatchRequest
from apps.openai_images.encoding import Read
from apps.openai_images.errors import SERVER, ApiError
from apps.openai_images.outcome import failure

GONE = ApiError(
    500, "The picture was drawn, and is gone or damaged now.", "picture_gone", type=SERVER
)


@dataclass(frozen=True, slots=True)
class BatchRow:
    """What is remembered of a line until its result is written.

    Attributes:
        line: of the batch file, from 1.
        first: position of its first picture among those of its job.
        wanted: None for a line that was refused.
        error: why it was, as it is written; None for one that was not.
        refusal: the answer, where it was refused as a request.
    """

    line: int
    custom_id: str | None
    first: int = 0
    wanted: Wanted | None = None
    error: Mapping[str, Any] | None = None
    refusal: Mapping[str, Any] | None = None

    @property
    def pictures(self) -> int:
        """How many are drawn for it."""
        return self.wanted.n if self.wanted else 0

    @classmethod
    def of_request(cls, request: BatchRequest, first: int) -> "BatchRow":
        """That of a line that is worked on."""
        return cls(request.line, request.custom_id, first, Wanted.by(request.asked))

    @classmethod
    def of_bad_line(cls, bad: BadLine) -> "BatchRow":
        """That of a line that cannot be used."""
        if bad.is_request:
            return cls.refused(bad.line, bad.custom_id, bad.error)
        error = bad.error
        said = {"code": error.code, "message": error.message, "param": error.param}
        return cls(bad.line, bad.custom_id, error={**said, "line": bad.line})

    @classmethod
    def refused(cls, line: int, custom_id: str | None, error: ApiError) -> "BatchRow":
        """That of a request that the API answers with an error."""
        answer = {"status_code": error.status, "body": error.envelope}
        return cls(line, custom_id, refusal=answer)

    @classmethod
    def not_tried(cls, line: int, custom_id: str, code: str, message: str) -> "BatchRow":
        """That of a request that nobody looks at any more."""
        return cls(line, custom_id, error={"code": code, "message": message})

    def as_json(self) -> dict[str, Any]:
        """What `from_json` makes the row of again."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "BatchRow":
        wanted = data["wanted"]
        return cls(**{**data, "wanted": None if wanted is None else Wanted(**wanted)})


@dataclass
class BatchLines:
    """Writes lines, each to one of two files.

    Attributes:
        output: gets what has pictures.
        errors: gets the rest.
        batch: a name that makes the lines' ids other than those of other batches.
        hidden: what callers read in place of folders of this machine.
        completed: how many lines went to `output` so far.
        failed: how many to `errors`.
        read: gives the content of a picture's file.
    """

    output: BinaryIO
    errors: BinaryIO
    batch: str
    hidden: Mapping[str, str]
    completed: int = 0
    failed: int = 0
    read: Read = Path.read_bytes

    def write(
        self,
        row: BatchRow,
        created: int,
        results: Sequence[Mapping[str, Any]],
        file_of: Callable[[Mapping[str, Any]], Path],
        url: Callable[[Path, Wanted, Mapping[str, Any]], str],
    ) -> None:
        """Write the line of a row.

        Args:
            created: Unix time of the answer.
            results: of its pictures, as `core.tasks.Result.as_dict`; empty for a refused line.
            file_of: the file of a result's picture.
            url: the address of a picture, for requests that want one.

        Raises:
            OSError: a file of lines cannot be written.
        """
        wanted = row.wanted
        if wanted is None:
            self._write_error(row, row.refusal, row.error)
            return
        for result in results:
            if not result["success"]:
                self._write_failure(row, failure(result, self.hidden))
                return
        files = [file_of(result) for result in results]
        parts = body_parts(
            wanted,
            created,
            files,
            [result["seed"] for result in results],
            lambda place: url(files[place], wanted, results[place]),
            self.read,
        )
        start = self.output.tell()
        self.output.write(self._head(row) + self._answer_head(row, 200))
        while True:
            try:
                part = next(parts, None)
            except (OSError, SyntaxError):  # which Pillow makes of a damaged PNG
                self.output.seek(start)
                self.output.truncate()
                self._write_failure(row, GONE)
                return
            if part is None:
                break
            self.output.write(part)
        self.output.write(b'},"error":null}\n')
        self.completed += 1

    def _write_failure(self, row: BatchRow, error: ApiError) -> None:
        self._write_error(row, {"status_code": error.status, "body": error.envelope}, None)

    def _write_error(
        self, row: BatchRow, answer: Mapping[str, Any] | None, error: Mapping[str, Any] | None
    ) -> None:
        line = self._head(row)
        if answer is None:
            line += b"null"
        else:
            line += self._answer_head(row, answer["status_code"]) + compact(answer["body"]) + b"}"
        line += b',"error":' + (b"null" if error is None else compact(error)) + b"}\n"
        self.errors.write(line)
        self.failed += 1

    def _head(self, row: BatchRow) -> bytes:
        said = {"id": f"batch_req_{self._digest(row)}", "custom_id": row.custom_id}
        return compact(said)[:-1] + b',"response":'

    def _answer_head(self, row: BatchRow, status: int) -> bytes:
        said = {"status_code": status, "request_id": f"req_{self._digest(row)}"}
        return compact(said)[:-1] + b',"body":'

    def _digest(self, row: BatchRow) -> str:
        """The same however often a line is written, as after a crash."""
        return hashlib.sha256(f"{self.batch}/{row.line}".encode()).hexdigest()[:24]
