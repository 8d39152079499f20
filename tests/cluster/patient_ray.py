"""Has Ray wait longer than half a minute for its own processes: a busy machine may take as much."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

SLOWER = 2  # times
ENVIRONMENT = {"RAY_gcs_server_port_wait_time_s": "180"}


class _SlowClock:
    """`time`, by whose clock limits last longer."""

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def monotonic(self) -> float:
        return time.monotonic() / SLOWER


@contextmanager
def patient() -> Iterator[None]:
    """Within it nodes are started; their 30 s are no setting of Ray's."""
    with patch("ray._private.node.time", _SlowClock()):
        yield
