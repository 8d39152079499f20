"""How Ray's own processes are started on the nodes of a test cluster: in time, and as forks."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

SLOWER = 2  # times
ENVIRONMENT = {"RAY_gcs_server_port_wait_time_s": "180"}
SET_UP_BY = Path(__file__).with_name("warm_ray_join.py")  # in place of Ray's script, and of Python
PYTHON = "ray._private.services._build_python_executable_command_memory_profileable"


class _SlowClock:
    """`time`, by whose clock limits last longer."""

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def monotonic(self) -> float:
        return time.monotonic() / SLOWER


@contextmanager
def patient() -> Iterator[None]:
    """Within it nodes are started. Neither is a setting of Ray's.

    Ray waits longer than half a minute for its processes: a busy machine may take as much. Its
    agents of a node are forks, where there is a process that forks them.
    """
    join = [sys.executable, "-S", str(SET_UP_BY)]
    with patch("ray._private.node.time", _SlowClock()), patch(PYTHON, lambda *_, **__: join):
        yield
