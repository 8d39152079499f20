"""The first look at a batch's file: whether there is anything in it to work on."""

from dataclasses import dataclass

from apps.openai_images.batch_file import MOST_BYTES, MOST_REQUESTS, BadLine, BatchFile
from apps.server.batches.record import BatchProblem

MOST_PROBLEMS = 100  # lines that a batch tells of which failed as a whole


@dataclass(frozen=True)
class Validation:
    """What was found.

    Attributes:
        total: lines that are not blank.
        problems: why nothing can be done, as a batch tells it; empty where something can.
    """

    total: int
    problems: tuple[BatchProblem, ...] = ()


def validate(file: BatchFile) -> Validation:
    """Read a file once, line by line.

    It fails as a whole if it is too large, or if there is no request in it. Else lines that cannot
    be used fail alone.

    Raises:
        InputError: it cannot be read.
    """
    size = file.path.stat().st_size
    if size > MOST_BYTES:
        return _failed("file_too_large", f"The file has {size} bytes; {MOST_BYTES} are the most.")
    problems: list[BatchProblem] = []
    total = requests = 0
    for item in file:
        total += 1
        if total > MOST_REQUESTS:
            message = f"The file has more than {MOST_REQUESTS} requests."
            return _failed("too_many_requests", message)
        if not isinstance(item, BadLine) or item.is_request:
            requests += 1
        elif len(problems) < MOST_PROBLEMS:
            error = item.error
            problems.append(
                {
                    "code": error.code,
                    "message": error.message,
                    "param": error.param,
                    "line": item.line,
                }
            )
    if not total:
        return _failed("empty_file", "The file holds no requests.")
    return Validation(total, () if requests else tuple(problems))


def _failed(code: str, message: str) -> Validation:
    return Validation(0, ({"code": code, "message": message, "param": None, "line": None},))
