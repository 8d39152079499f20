"""What worker processes run: the one place where `core` names the code of workers."""

from workers.process import run_fetch, run_worker

__all__ = ["run_fetch", "run_worker"]
