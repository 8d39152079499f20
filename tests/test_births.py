"""A worker that is being born when its program is killed does not outlive it."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.conftest import PATIENCE, PYTHONPATH, simulated, wait_until

# Who imports a module of all workers, once the program itself has, says who it is and hangs.
HANGS = """
import os, sys, time
from pathlib import Path

class Hangs:
    def find_spec(self, name, path=None, target=None):
        if name == "core.settings" and (said := os.environ.get("SAYS_WHO_IMPORTS")):
            Path(said + ".new").write_text(str(os.getpid()))
            os.replace(said + ".new", said)
            time.sleep(600)

sys.meta_path.insert(0, Hangs())
"""
PROGRAM = """
import json, os, sys
from core.multi_gpu_image_generator import MultiGPUImageGenerator

os.environ["SAYS_WHO_IMPORTS"] = os.path.abspath("importing")
with MultiGPUImageGenerator(1, config=json.loads(sys.argv[1]), output_dir="out") as generator:
    generator.generate_batch([{"prompt": "a house"}])
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_who_still_imports_as_the_program_is_killed_goes_with_it(
    tmp_path: Path, method: str
) -> None:
    settings = simulated(workers={"start_method": method})
    (tmp_path / "sitecustomize.py").write_text(HANGS)
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(settings)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), PYTHONPATH])},
        stderr=subprocess.DEVNULL,
    )
    said = tmp_path / "importing"
    try:
        wait_until(lambda: said.exists() or program.poll() is not None, "a worker's imports")
        child = psutil.Process(int(said.read_text()))
    finally:
        program.kill()
        program.wait()
    try:
        child.wait(PATIENCE)
    finally:
        with suppress(psutil.NoSuchProcess):
            child.kill()
