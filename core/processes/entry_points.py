"""What worker processes run: the one place where `core` names the code of workers."""

from workers.boot import bind_to_parent, call
from workers.process import run_fetch, run_worker

__all__ = ["bind_to_parent", "call", "run_fetch", "run_worker"]
