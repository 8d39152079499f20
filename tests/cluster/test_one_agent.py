"""A run has one agent at a time on a node, whatever Ray says of the one before."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from uuid import uuid4

from cluster.one_agent import take_place
from tests.conftest import PATIENCE, PROJECT

BEFORE = """
import sys, time
from cluster.one_agent import take_place
place = take_place(sys.argv[1], 0)
print(place is not None, flush=True)
time.sleep(1000)
"""


def test_an_agent_begins_when_the_process_of_the_one_before_is_gone() -> None:
    name = uuid4().hex
    before = subprocess.Popen(
        [sys.executable, "-c", BEFORE, name], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    assert before.stdout is not None and before.stdout.readline() == "True\n"
    with ThreadPoolExecutor(1) as executor:
        place = executor.submit(take_place, name, PATIENCE)
        assert wait([place], timeout=0.2).not_done
        before.kill()
        before.communicate()
        taken = place.result(PATIENCE)
    assert taken is not None
    taken.close()


def test_an_agent_before_that_does_not_go_is_not_waited_for_for_ever() -> None:
    name = uuid4().hex
    before = take_place(name, 0)
    assert before is not None and take_place(name, 0.1) is None
    before.close()
