"""What the fork server is told in its environment. Apart, as it reads this before all else."""

PRELOAD_ROLE = "WORKER_PRELOAD_ROLE"  # what it shall import
PRELOAD_PARENT = "WORKER_PRELOAD_PARENT"  # the process with which it shall end
