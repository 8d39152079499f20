"""What a killed bridge had started is ended, however deep it lies."""

import subprocess
import sys

import psutil

from tests.conftest import PATIENCE, PROJECT

BRIDGE = """
import subprocess, time
from cluster.sweeper import start_sweeper
start_sweeper("test-mark")
print(subprocess.Popen(["sleep", "1000"], start_new_session=True).pid, flush=True)
time.sleep(1000)
"""


def test_what_a_killed_bridge_has_started_goes_with_it() -> None:
    bridge = subprocess.Popen(
        [sys.executable, "-c", BRIDGE], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    assert bridge.stdout is not None
    started = psutil.Process(int(bridge.stdout.readline()))
    bridge.kill()
    bridge.communicate()
    started.wait(PATIENCE)
