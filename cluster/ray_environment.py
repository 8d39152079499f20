"""What Ray has to be told before it is imported."""

import os
from secrets import token_hex

ADDRESS = "RAY_ADDRESS"  # the variable that names a cluster
AUTH_MODE = "RAY_AUTH_MODE"  # the variable that says whether a cluster demands a token
OBJECT_STORE_BYTES = 200 * 1024**2  # of a local cluster, whose pictures lie in a shared folder
QUICK_DETECTION = {  # of a dead node in 2.5 s in place of 14, of a stopped one in 9 in place of 64
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
}
ONE_MACHINE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # 0: Ray keeps to the loopback interface
VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    # Else workers inherit nice 15, are the first that the kernel kills for want of memory, and
    # Ray's own memory monitor kills an agent with all of its workers.
    "RAY_worker_niceness": "0",
    "RAY_worker_oom_score_adjustment": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    # Ray would set the mask of actors without GPUs to nothing, and hide the GPUs of a CPU run.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def before_import(address: str | None) -> None:
    """Set the variables that Ray reads as it is imported and as it starts a cluster.

    Args:
        address: of the cluster, where one is named.
    """
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    if address == "local" and AUTH_MODE not in os.environ:
        # Else Ray makes a token in the user's home, which has the next `ray start --head` demand it
        # of machines that have none.
        os.environ |= {AUTH_MODE: "token", "RAY_AUTH_TOKEN": token_hex()}
    if address is not None and (address == "local" or is_loopback(address)):
        # Else Ray looks for this machine's address: for minutes, where it has no network.
        os.environ.setdefault(ONE_MACHINE, "0")


def is_loopback(address: str) -> bool:
    """Whether a cluster's address is of this machine alone."""
    return address.rpartition(":")[0].startswith(("127.", "localhost"))
