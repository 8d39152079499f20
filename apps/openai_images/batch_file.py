"""Batch files: a request of the Images API on each line, in the form of OpenAI's Batch API.

https://platform.openai.com/docs/guides/batch

A line is `{"custom_id": …, "method": "POST", "url": "/v1/images/generations", "body": {…}}`. One
that cannot be used fails alone. Files are read line by line, and never held as a whole.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.openai_images.batch_detection import MOST_LINE, lines_of
from apps.openai_images.edits import check_pictures, edit_in_json
from apps.openai_images.errors import ApiError, bad_value, unknown_parameter
from apps.openai_images.json_bodies import NotJson, read_json
from apps.openai_images.parameters import GenerationParameters, ImageParameters
from apps.openai_images.refusals import checked, missing
from apps.openai_images.rules import ImagesSection
from apps.openai_images.tasks import check_together
from core.errors import InputError
from core.validation import shown
from core.worker_spec import Role

ENDPOINTS: dict[str, Role] = {"/v1/images/generations": "generate", "/v1/images/edits": "edit"}
MOST_REQUESTS = 50_000  # of a file that is sent, as at OpenAI
MOST_BYTES = 200_000_000  # as at OpenAI
MOST_ID = 512  # characters
METHOD = "POST"
_FIELDS = ("custom_id", "method", "url", "body")


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """A line that asks for pictures.

    Attributes:
        line: from 1.
        pictures: references of an edit.
        mask: a reference to its mask, if it has one.
    """

    line: int
    custom_id: str
    role: Role
    asked: ImageParameters
    pictures: Sequence[str] = ()
    mask: str | None = None


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that cannot be used.

    Attributes:
        custom_id: None where the line has none of its own.
        is_request: it is a request, and refused as the API refuses it; else it is none.
    """

    line: int
    custom_id: str | None
    error: ApiError
    is_request: bool


class BatchFile:
    """Reads a batch file, as often as it is iterated over.

    Args:
        endpoint: all requests must be for this one; by default each may be for any.
        limit: only the first so many requests.
    """

    def __init__(
        self,
        path: Path,
        rules: ImagesSection,
        endpoint: str | None = None,
        limit: int | None = None,
    ) -> None:
        self.path = path
        self._rules = rules
        self._endpoints = (endpoint,) if endpoint else tuple(ENDPOINTS)
        self._limit = limit

    def __iter__(self) -> Iterator[BatchRequest | BadLine]:
        """Each line that is not blank.

        Raises:
            InputError: the file cannot be read.
        """
        lines: dict[str, int] = {}  # by custom_id
        try:
            with self.path.open("rb") as stream:
                for count, (number, raw) in enumerate(lines_of(stream)):
                    if count == self._limit:
                        return
                    yield self._read(number, raw, lines)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read: {error.strerror}.") from None

    def _read(
        self, number: int, raw: bytes | None, lines: dict[str, int]
    ) -> BatchRequest | BadLine:
        custom_id = None
        try:
            fields = _fields(raw)
            custom_id = _custom_id(fields, lines)
            lines[custom_id] = number
            url = self._check(fields)
        except ApiError as error:
            return BadLine(number, custom_id, error, False)
        try:
            return self._request(number, custom_id, ENDPOINTS[url], fields["body"])
        except ApiError as error:
            return BadLine(number, custom_id, error, True)

    def _check(self, fields: Mapping[str, Any]) -> str:
        """The endpoint of a request."""
        for name in fields:
            if name not in _FIELDS:
                raise unknown_parameter(name[:100])
        for name in _FIELDS:
            if fields.get(name) is None:
                raise missing(name)
        if fields["method"] != METHOD:
            message = f"method: must be '{METHOD}' (found {shown(fields['method'])})."
            raise bad_value("method", message, "invalid_method")
        url = fields["url"]
        if url not in self._endpoints:
            expected = " or ".join(f"'{known}'" for known in self._endpoints)
            raise bad_value("url", f"url: must be {expected} (found {shown(url)}).", "invalid_url")
        if not isinstance(fields["body"], dict):
            raise bad_value("body", "body: must be a JSON object.", "invalid_type")
        return str(url)

    def _request(
        self, line: int, custom_id: str, role: Role, body: Mapping[str, Any]
    ) -> BatchRequest:
        if role == "edit":
            edit = edit_in_json(body)
            check_pictures(edit, "images")
            asked: ImageParameters = edit.asked
            pictures = [str(picture) for picture in edit.pictures]
            mask = None if edit.mask is None else str(edit.mask)
            request = BatchRequest(line, custom_id, role, asked, pictures, mask)
        else:
            asked = checked(GenerationParameters, body)
            request = BatchRequest(line, custom_id, role, asked)
        if asked.stream or asked.partial_images:
            name = "stream" if asked.stream else "partial_images"
            raise bad_value(name, f"Invalid value for '{name}': a batch has no streams.")
        check_together(asked, self._rules)
        return request


def _fields(raw: bytes | None) -> dict[str, Any]:
    if raw is None:
        message = f"The line is longer than {MOST_LINE // 1024**2} MiB."
        raise ApiError(400, message, "line_too_long")
    try:
        found = read_json(raw)
    except NotJson as error:
        raise ApiError(400, f"The line is not valid JSON: {error}.", "invalid_json_line") from None
    if not isinstance(found, dict):
        raise ApiError(400, "The line must be a JSON object.", "invalid_json_line")
    return found


def _custom_id(fields: Mapping[str, Any], lines: Mapping[str, int]) -> str:
    found = fields.get("custom_id")
    if found is None:
        raise missing("custom_id")
    if not isinstance(found, str) or not 0 < len(found) <= MOST_ID:
        message = f"custom_id: must be a text of 1 to {MOST_ID} characters (found {shown(found)})."
        raise bad_value("custom_id", message)
    if found in lines:
        message = f"custom_id: {shown(found)} is that of line {lines[found]}; each needs its own."
        raise bad_value("custom_id", message, "duplicate_custom_id")
    return found
