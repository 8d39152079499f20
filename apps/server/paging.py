"""Lists as callers of OpenAI's API page through them: the last id of a page is `after` the next."""

from collections.abc import Sequence
from typing import Generic, Literal, TypeVar

from typing_extensions import TypedDict

T = TypeVar("T")


class _Named(TypedDict):
    id: str


N = TypeVar("N", bound=_Named)


class Listing(TypedDict, Generic[T]):
    """All objects of a kind."""

    object: Literal["list"]
    data: list[T]


class Page(Listing[T], Generic[T]):
    """One page of a list of objects that each have an id.

    Attributes:
        has_more: another page follows; `last_id` is its `after`.
    """

    first_id: str | None
    last_id: str | None
    has_more: bool


def listed(page: Sequence[N], has_more: bool) -> Page[N]:
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
