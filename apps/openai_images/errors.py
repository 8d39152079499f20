"""Errors as clients of the OpenAI API know them: one envelope for whatever goes wrong.

https://platform.openai.com/docs/guides/error-codes
"""

from collections.abc import Mapping

from typing_extensions import TypedDict

INVALID = "invalid_request_error"
SERVER = "server_error"
DO_NOT_REPEAT: Mapping[str, str] = {"x-should-retry": "false"}
"""The official client goes by it; else it repeats what ended in 409, 429 or 500 and above."""
CLIENT_GONE = 499  # a status as nginx logs it; nobody reads the answer


class ErrorDetails(TypedDict):
    """What went wrong.

    Attributes:
        message: for people.
        type: the class of error, in OpenAI's words.
        param: the field that it is about.
        code: a word that programs can go by, such as `unknown_parameter`.
    """

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(TypedDict):
    """The body of every answer that reports an error."""

    error: ErrorDetails


class ApiError(Exception):
    """An answer that says what was wrong with the request.

    Args:
        status: HTTP status code.
        message: for whoever sent the request.
        code: a word that programs can go by, such as `unknown_parameter`.
        param: the field that it is about.
        type: the class of error, in OpenAI's words.
        headers: to be sent with it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        type: str = INVALID,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.type = type
        self.headers = dict(headers or {})

    @property
    def envelope(self) -> ErrorEnvelope:
        """The body of the answer."""
        return envelope(self.message, self.type, self.param, self.code)


def envelope(
    message: str, type: str = INVALID, param: str | None = None, code: str | None = None
) -> ErrorEnvelope:
    """The body of an answer that reports an error."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


def bad_value(param: str, message: str, code: str = "invalid_value") -> ApiError:
    """400: a parameter cannot be used as it stands."""
    return ApiError(400, message, code, param)


def unknown_parameter(param: str) -> ApiError:
    """400: a parameter that means nothing here; it is never passed over in silence."""
    return ApiError(400, f"Unknown parameter: '{param}'.", "unknown_parameter", param)


def not_found(what: str, code: str | None = None) -> ApiError:
    """404: there is none, or none of this caller's."""
    return ApiError(404, what, code)
