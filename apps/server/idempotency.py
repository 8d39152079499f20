"""`Idempotency-Key`: a second request with a caller's key is the first one, and makes nothing anew.

https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Header

from apps.server.errors import bad_value

NAME = "Idempotency-Key"
REPLAYED: Mapping[str, str] = {"Idempotent-Replayed": "true"}
"""Sent with the answer to a request that came before."""
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
IdempotencyKey = Annotated[
    str | None,
    Header(
        description="A second request with the same key is the first one.",
        json_schema_extra={"pattern": f"^{_KEY.pattern}$"},
    ),
]


@dataclass(frozen=True)
class RequestKey:
    """A caller's name for a request.

    Attributes:
        key: as the caller chose it; None for a request without one.
        hash: SHA-256 of what is asked for; None without a key.
    """

    key: str | None = None
    hash: str | None = None

    @classmethod
    def of(cls, key: str | None, asked: Callable[[], Any]) -> "RequestKey":
        """The key of a request.

        Args:
            asked: gives all that is asked for, as JSON has it. Where it differs, it is another
                request.

        Raises:
            ApiError: 400: it cannot be a key.
        """
        if key is None:
            return cls()
        if not _KEY.fullmatch(key):
            message = f"{NAME}: expected 1 to 255 printable characters without spaces."
            raise bad_value(NAME, message)
        canonical = json.dumps(asked(), sort_keys=True).encode()
        return cls(key, hashlib.sha256(canonical).hexdigest())


NO_KEY = RequestKey()
