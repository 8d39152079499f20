"""Lists as callers of OpenAI's API page through them: the last id of a page is `after` the next."""

from collections.abc import Sequence
from typing import Any


def listed(page: Sequence[dict[str, Any]], has_more: bool) -> dict[str, Any]:
    """One page of a list of objects that each have an `id`.

    Args:
        has_more: another page follows.
    """
    return {
        "object": "list",
        "data": list(page),
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": has_more,
    }
