"""Errors as clients of the OpenAI API know them, from beside what else requests mean."""

from apps.openai_images.errors import (
    CLIENT_GONE,
    DO_NOT_REPEAT,
    INVALID,
    SERVER,
    ApiError,
    ErrorEnvelope,
    bad_value,
    envelope,
    not_found,
    unknown_parameter,
)

__all__ = [
    "CLIENT_GONE",
    "DO_NOT_REPEAT",
    "INVALID",
    "SERVER",
    "ApiError",
    "ErrorEnvelope",
    "bad_value",
    "envelope",
    "leaving",
    "not_answering",
    "not_found",
    "unknown_parameter",
]


def not_answering() -> ApiError:
    """503: the engine says nothing of itself in time."""
    return ApiError(503, "The engine does not answer.", type=SERVER)


def leaving(message: str, seconds: int = 30) -> ApiError:
    """503: the daemon is about to end; the next one may answer in so many seconds."""
    retry = {"Retry-After": str(seconds)}
    return ApiError(503, message, "draining", type=SERVER, headers=retry)
