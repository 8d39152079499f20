"""Errors as clients of the OpenAI API know them, from beside what else requests mean."""

from apps.openai_images.errors import (
    INVALID,
    ApiError,
    bad_value,
    envelope,
    not_found,
    unknown_parameter,
)

__all__ = ["INVALID", "ApiError", "bad_value", "envelope", "not_found", "unknown_parameter"]
