"""Errors as clients of the OpenAI API know them, from beside what else requests mean."""

from apps.openai_images.errors import (
    CLIENT_GONE,
    INVALID,
    ApiError,
    bad_value,
    envelope,
    not_found,
    unknown_parameter,
)

__all__ = [
    "CLIENT_GONE",
    "INVALID",
    "ApiError",
    "bad_value",
    "envelope",
    "not_found",
    "unknown_parameter",
]
