"""A generator inside of processes that other libraries started: their ways are not its workers'."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import run_script

# What a caller runs in its processes, and what it gets back.
DRAW = """
import tempfile
from core.multi_gpu_image_generator import MultiGPUImageGenerator


def draw(method):
    config = {"model": "simulated", "workers": {"start_method": method}}
    folder = tempfile.mkdtemp(dir=".")
    with MultiGPUImageGenerator(1, config=config, output_dir=folder) as generator:
        tasks = [{"prompt": "a", "output_path": "a.png"}, {"prompt": "b", "output_path": "b.png"}]
        return [result.as_dict() for result in generator.generate_batch(tasks)]
"""
METHODS = ["spawn", "forkserver"]


def run_caller(folder: Path, script: str) -> list[list[dict[str, Any]]]:
    """The results of each call that `script` printed. The caller has imported what it needs."""
    (folder / "drawing.py").write_text(DRAW)
    done = run_script(f"import json, sys\n{script}", folder, "simulated")
    assert done.returncode == 0 and "fork server" not in done.stderr, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_drawn(batches: list[list[dict[str, Any]]], count: int) -> None:
    found = [(r["status"], r["error"]) for results in batches for r in results]
    assert found == [("done", None)] * 2 * count


@pytest.mark.slow
def test_in_workers_of_joblib_every_process_is_born(tmp_path: Path) -> None:
    """Their start method is `loky`, which only they know."""
    script = f"""
from joblib.externals.loky import get_reusable_executor
from drawing import draw
for results in get_reusable_executor(max_workers=1).map(draw, {METHODS}):
    print(json.dumps(results))
"""
    assert_drawn(run_caller(tmp_path, script), 2)


@pytest.mark.slow
def test_in_an_executor_of_any_kind_every_process_is_born(tmp_path: Path) -> None:
    script = f"""
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from drawing import draw

if __name__ == "__main__":
    for context in ("fork", "spawn", "forkserver"):
        multiprocessing.set_start_method(context, force=True)
        with ProcessPoolExecutor(1) as executor:
            for results in executor.map(draw, {METHODS}):
                print(json.dumps(results))
"""
    assert_drawn(run_caller(tmp_path, script), 6)


@pytest.mark.slow
def test_in_a_daemonic_process_every_process_is_born(tmp_path: Path) -> None:
    """multiprocessing allows such a process no children, for a reason that is none here."""
    script = f"""
import multiprocessing
from drawing import draw
with multiprocessing.Pool(1) as pool:
    for results in pool.map(draw, {METHODS}):
        print(json.dumps(results))
"""
    assert_drawn(run_caller(tmp_path, script), 2)


@pytest.mark.slow
def test_in_a_fork_of_a_process_that_has_drawn_every_process_is_born(tmp_path: Path) -> None:
    """The fork has neither the thread nor the server that its parent started workers with."""
    script = f"""
import multiprocessing
from drawing import draw
for method in {METHODS}:
    print(json.dumps(draw(method)), flush=True)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        print(json.dumps(pool.map(draw, [method])[0]), flush=True)
        print(json.dumps(pool.apply(draw, [method])), flush=True)
"""
    assert_drawn(run_caller(tmp_path, script), 6)


@pytest.mark.slow
def test_a_caller_may_choose_its_start_method_after_a_batch(tmp_path: Path) -> None:
    script = f"""
import multiprocessing
from drawing import draw
for method in {METHODS}:
    print(json.dumps(draw(method)))
multiprocessing.set_start_method("spawn")
"""
    assert_drawn(run_caller(tmp_path, script), 2)


@pytest.mark.slow
def test_a_callers_full_standard_output_keeps_no_worker_from_its_start(tmp_path: Path) -> None:
    """What the caller printed waits in a buffer that cannot be written."""
    script = f"""
import os
from drawing import draw
kept = os.dup(1)
os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
sys.stdout.reconfigure(line_buffering=False, write_through=False)
print("[]")
found = [draw(method) for method in {METHODS}]
os.dup2(kept, 1)
for results in found:
    print(json.dumps(results))
"""
    assert_drawn(run_caller(tmp_path, script)[1:], 2)


def test_a_fork_leaves_an_open_generator_to_its_parent(tmp_path: Path) -> None:
    """As helpers of a caller do, which leave by its `with` or use what they were forked with."""
    script = """
import os, threading
from core.errors import LedgerError
from core.multi_gpu_image_generator import MultiGPUImageGenerator


def in_fork(act):
    child = os.fork()
    if not child:
        try:
            code = act()
        except LedgerError as error:
            code = 5 if f"in use by process {os.getppid()}" in str(error) else 6
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def leave():
    generator.stop(at_once=True)
    return 4


config = {"model": "simulated", "simulated": {"seconds_per_megapixel_step": 5.0}}
tasks = [{"prompt": str(i), "output_path": f"{i}.png", "width": 512, "height": 512} for i in (1, 2)]
with MultiGPUImageGenerator(1, config=config, output_dir="out") as generator:
    codes = []
    helper = threading.Timer(0.5, lambda: codes.append(in_fork(leave)))  # in the midst of a batch
    helper.start()
    results = generator.generate_batch(tasks)
    helper.join()
    codes.append(in_fork(leave))
    codes.append(in_fork(lambda: len(generator.generate_batch(tasks))))
    results += generator.generate_batch([{"prompt": "more", "output_path": "more.png"}])
print(codes, [result.status for result in results])
"""
    done = run_script(script, tmp_path, "simulated")
    assert done.stdout == "[4, 4, 5] ['done', 'done', 'done']\n", done.stderr


@pytest.mark.slow
def test_pictures_have_the_permissions_that_the_caller_asks_for_now(tmp_path: Path) -> None:
    """The fork server is started once, and a caller may come to ask for others later."""
    script = f"""
import os
from drawing import draw
for umask in (0o022, 0o077, 0o002):
    os.umask(umask)
    for method in {METHODS}:
        results = draw(method)
        print(json.dumps(results))
        assert os.stat(results[0]["output_path"]).st_mode & 0o777 == 0o666 & ~umask
"""
    assert_drawn(run_caller(tmp_path, script), 6)
