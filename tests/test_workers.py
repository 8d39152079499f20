"""Real worker processes on simulated devices: isolation, deaths, hangs, faults, clean stops."""

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL import Image

from core.events import Event, TaskEnded, TaskStarted, WorkerState
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.processes.fork_server import Keeper
from core.processes.forking import Forking
from core.store.provenance import read_provenance
from core.tasks import Result
from tests.both_engines import ALWAYS_ON_BOTH, ON_BOTH
from tests.conftest import (
    LOCAL,
    PATIENCE,
    PROJECT,
    PYTHONPATH,
    Workplace,
    fork_server,
    run_script,
    simulated,
    standing_still,
    wait_for_workers,
    wait_until,
    worker_processes,
    write_safetensors,
)
from tests.fault_tickets import SPAWNED, arm_in_children
from tests.played_workers import PlayedWorkers
from tests.process_tree import runs
from tests.stub_backend import StubWorker
from workers.errors import classify

Generator = MultiGPUImageGenerator
METHODS = ["spawn", "forkserver"]
SLOW = {"seconds_per_megapixel_step": 10.0}  # 0.16 s for 128 x 128 pixels and 1 step


def prompts(*texts: str, **fields: Any) -> list[dict[str, Any]]:
    return [{"prompt": text, **fields} for text in texts]


def run(
    workplace: Workplace,
    tmp_path: Path,
    tasks: list[dict[str, Any]],
    workers: int = 2,
    **settings: Any,
) -> list[Result]:
    config = workplace.simulated(**settings)
    with Generator(workers, config=config, output_dir=tmp_path) as generator:
        return generator.generate_batch(tasks)


def statuses(results: list[Result]) -> list[str]:
    return [r.status for r in results]


@pytest.fixture
def leftovers(tmp_path: Path) -> Iterator[None]:
    yield
    assert not list(tmp_path.rglob(".partial*"))


pytestmark = pytest.mark.usefixtures("leftovers")


def test_results_are_dicts_and_objects_in_input_order(tmp_path: Path) -> None:
    results = run(LOCAL, tmp_path, prompts("a", "b", "c", task_id="same id is allowed"))
    assert [r["position"] for r in results] == [0, 1, 2]
    first = results[0]
    for key in ("success", "task_id", "output_path", "elapsed", "error", "worker"):
        assert first[key] == getattr(first, key)
    assert first.success is True and first.error is None and first["worker"] in ("cpu0", "cpu1")
    assert dict(first)["success"] is True and first.get("absent", 1) == 1
    with pytest.raises(KeyError):
        first["absent"]
    with Image.open(first["output_path"]) as image:
        assert image.size == (64, 64)


def test_one_process_per_device_each_with_its_own_mask(tmp_path: Path) -> None:
    config = simulated(simulated=SLOW)
    tasks = prompts(*"abcdefgh", width=128, height=128)
    with Generator(gpu_ids=[0, 3, 5, 6], config=config, output_dir=tmp_path) as generator:
        wait_for_workers(generator)
        results = generator.generate_batch(tasks)
    seen = {}
    for result in results:
        used = read_provenance(Path(str(result.output_path)))["used"]
        seen[result.worker] = (used["visible_devices"], used["pid"])
    assert {w: mask for w, (mask, _) in seen.items()} == {
        "cpu0": "0",
        "cpu3": "3",
        "cpu5": "5",
        "cpu6": "6",
    }
    assert len({pid for _, pid in seen.values()}) == 4


@ON_BOTH
def test_workers_really_run_at_the_same_time(tmp_path: Path, workplace: Workplace) -> None:
    running: set[str] = set()
    most = 0

    def listen(event: Event) -> None:
        nonlocal most
        if isinstance(event, TaskStarted):
            running.add(event.task_id)
            most = max(most, len(running))
        elif isinstance(event, TaskEnded):
            running.discard(event.result.task_id)

    config = workplace.simulated(simulated=SLOW)
    with Generator(4, config=config, output_dir=tmp_path, listener=listen) as generator:
        wait_for_workers(generator)
        generator.generate_batch(prompts(*"abcdefgh", width=128, height=128))
    assert most >= 4


@ON_BOTH
def test_batches_follow_each_other_on_the_same_processes(
    tmp_path: Path, workplace: Workplace
) -> None:
    with Generator(2, config=workplace.simulated(), output_dir=tmp_path) as generator:
        first = generator.generate_batch(prompts("a", "b"))
        pids = {p.pid for p in workplace.workers(os.getpid())}
        second = generator.generate_batch(prompts("c", "d"))
        assert {p.pid for p in workplace.workers(os.getpid())} == pids
        assert generator.generate_batch([]) == []
    paths = [r.output_path for r in (*first, *second)]
    assert len(set(paths)) == 4
    assert not workplace.workers(os.getpid())


@ON_BOTH
def test_a_bad_task_is_one_failed_record(tmp_path: Path, workplace: Workplace) -> None:
    tasks = [{"prompt": "a"}, {"prompt": "b", "width": 17}, {}, {"prompt": "d"}, 5]
    results = run(workplace, tmp_path, tasks)  # type: ignore[arg-type]
    assert statuses(results) == ["done", "failed", "failed", "done", "failed"]
    assert "width" in str(results[1].error)


@ALWAYS_ON_BOTH
def test_a_killed_worker_costs_no_record(tmp_path: Path, workplace: Workplace) -> None:
    """SIGKILL from outside, again and again, in the middle of tasks."""
    ended = kills = 0

    def listen(event: Event) -> None:
        nonlocal ended, kills
        if isinstance(event, TaskEnded):
            ended += 1
            for worker in workplace.workers(os.getpid())[:1] if ended % 3 == 0 else []:
                worker.kill()
                kills += 1

    tasks = prompts(*(f"picture {i}" for i in range(30)))
    config = workplace.simulated(simulated={"seconds_per_megapixel_step": 10.0})  # 0.04 s a picture
    with Generator(2, config=config, output_dir=tmp_path, listener=listen) as generator:
        results = generator.generate_batch(tasks)
    assert kills >= 8
    assert Counter(statuses(results)) == {"done": 30}
    assert [r.position for r in results] == list(range(30))


@ON_BOTH
def test_a_crash_is_retried(tmp_path: Path, workplace: Workplace) -> None:
    results = run(workplace, tmp_path, prompts("!crash:1", "!kill:2", "c"))
    assert statuses(results) == ["done", "done", "done"]
    # At least: a picture still being saved in a worker that dies is drawn again, too.
    assert results[0].attempts >= 2 and results[1].attempts >= 3


@ON_BOTH
def test_a_poison_task_is_quarantined_and_can_be_run_again(
    tmp_path: Path, workplace: Workplace
) -> None:
    tasks = prompts("a", "!crash", "b", "c", "!crash:4")
    results = run(workplace, tmp_path, tasks, scheduling={"speculative_copies": False})
    assert statuses(results) == ["done", "quarantined", "done", "done", "quarantined"]
    assert results[1].attempts == 4 and "--retry-quarantined" in str(results[1].error)
    again = run(workplace, tmp_path, tasks)
    assert statuses(again) == ["skipped", "quarantined", "skipped", "skipped", "quarantined"]
    config = workplace.simulated(supervision={"crashes_before_quarantine": 9})
    with Generator(2, config=config, output_dir=tmp_path, retry_quarantined=True) as generator:
        third = generator.generate_batch(tasks)
    assert statuses(third) == ["skipped", "quarantined", "skipped", "skipped", "done"]


@ON_BOTH
@pytest.mark.parametrize("workers", [1, 2])
def test_a_picture_that_crashes_its_saver_is_found_among_innocents(
    tmp_path: Path, workers: int, workplace: Workplace
) -> None:
    """Each time another task runs meanwhile, and might be the culprit as well."""
    tasks = prompts("!save-crash", *(f"picture {i}" for i in range(12)), width=128, height=128)
    times = {"seconds_per_megapixel_step": 20.0}  # 0.3 s: longer than the saver lives
    rules = {"restarts_before_retirement": 20}
    config = workplace.simulated(simulated=times, supervision=rules)
    with Generator(workers, config=config, output_dir=tmp_path) as generator:
        results = generator.generate_batch(tasks, timeout=2 * PATIENCE)
    assert statuses(results) == ["quarantined"] + ["done"] * 12
    assert results[0].attempts <= 4
    assert "alone" in str(results[0].error)


@ALWAYS_ON_BOTH
@pytest.mark.parametrize("fault", ["!hang:1", "!stop:1"])
def test_a_hanging_worker_is_replaced(tmp_path: Path, fault: str, workplace: Workplace) -> None:
    results = run(workplace, tmp_path, prompts(fault, "b"), supervision={"task_timeout": 1.0})
    assert statuses(results) == ["done", "done"]
    assert results[0].attempts >= 2


@ON_BOTH
def test_a_task_that_always_hangs_fails_and_says_so(tmp_path: Path, workplace: Workplace) -> None:
    rules = {"task_timeout": 1.0, "max_attempts": 2}
    results = run(workplace, tmp_path, prompts("!hang", "b"), supervision=rules)
    assert statuses(results) == ["failed", "done"]
    assert "took longer than allowed" in str(results[0].error)


@ON_BOTH
def test_passing_failures_are_retried_lasting_ones_are_not(
    tmp_path: Path, workplace: Workplace
) -> None:
    tasks = prompts("!error:1", "!error", "!nan", "!cuda:1", "!oom:1", "f")
    results = run(workplace, tmp_path, tasks, scheduling={"speculative_copies": False})
    assert statuses(results) == ["done", "failed", "failed", "done", "done", "done"]
    attempts = [r.attempts for r in results]
    assert attempts[1:3] == [3, 1] and min(attempts[0], *attempts[3:5]) >= 2
    assert "a simulated failure (after 3 attempts)" in str(results[1].error)


@ON_BOTH
def test_a_full_disk_stops_the_batch_and_says_why(tmp_path: Path, workplace: Workplace) -> None:
    tasks = prompts("!disk-full", *"bcdefgh", width=128, height=128)
    results = run(workplace, tmp_path, tasks, workers=1, simulated=SLOW)
    assert "No space left on device" in str(results[0].error)
    assert Counter(statuses(results))["failed"] >= 6
    tasks[0]["prompt"] = "a"
    assert Counter(statuses(run(workplace, tmp_path, tasks)))["failed"] == 0


@ON_BOTH
def test_a_timeout_gives_records_and_warm_workers_go_on(
    tmp_path: Path, workplace: Workplace
) -> None:
    config = workplace.simulated(simulated=SLOW)
    tasks = prompts("a", "b", "c", width=256, height=256)
    with Generator(1, config=config, output_dir=tmp_path) as generator:
        started = time.monotonic()
        results = generator.generate_batch(tasks, timeout=0.01)
        assert statuses(results) == ["timeout"] * 3 and "0.01 s" in str(results[0].error)
        assert time.monotonic() - started < 30
        assert statuses(generator.generate_batch(tasks)) == ["done"] * 3


@ON_BOTH
def test_when_no_worker_is_left_every_task_has_its_record(
    tmp_path: Path, workplace: Workplace
) -> None:
    rules = {"restarts_before_retirement": 1, "crashes_before_quarantine": 50}
    results = run(workplace, tmp_path, prompts("!crash", "!crash", "!crash"), supervision=rules)
    assert statuses(results) == ["failed"] * 3
    assert "No worker is left" in str(results[0].error)


def test_a_model_that_cannot_be_loaded_ends_the_batch(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model_index.json").write_text('{"_class_name": "NoSuchPipeline"}')
    config = {"model": str(folder)}
    with Generator(1, config=config, output_dir=tmp_path / "out") as generator:
        results = generator.generate_batch(prompts("a", "b"))
    assert statuses(results) == ["failed"] * 2
    assert "the model could not be loaded" in str(results[0].error)


@ON_BOTH
def test_a_passing_error_while_loading_costs_one_process_not_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workplace: Workplace
) -> None:
    folder = arm_in_children(monkeypatch, tmp_path, "worker.load:1:error", 3, workplace)
    states: list[tuple[str, str]] = []

    def listen(event: Event) -> None:
        if isinstance(event, WorkerState):
            states.append((event.worker, event.state))

    config = workplace.simulated(workers=SPAWNED)
    with Generator(2, config=config, output_dir=tmp_path, listener=listen) as generator:
        assert statuses(generator.generate_batch(prompts("a", "b"))) == ["done"] * 2
        wait_until(lambda: len({w for w, state in states if state == "ready"}) == 2, "both")
    assert not any(folder.iterdir())
    assert not any(state == "given up" for _, state in states)


@ON_BOTH
def test_an_error_while_loading_that_stays_ends_the_batch_by_the_breaker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workplace: Workplace
) -> None:
    arm_in_children(monkeypatch, tmp_path, "worker.load:1:error", 50, workplace)
    rules = {"restarts_before_retirement": 1, "restart_backoff_maximum": 0.1}
    config = workplace.simulated(supervision=rules, workers=SPAWNED)
    with Generator(2, config=config, output_dir=tmp_path) as generator:
        results = generator.generate_batch(prompts("a", "b"))
    assert statuses(results) == ["failed"] * 2
    assert "dies again and again" in str(results[0].error)
    assert "Input/output error" in str(results[0].error)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.EIO, "Input/output error"), "error"),
        (LocalEntryNotFoundError("The hub answered with 503"), "error"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"), "device"),
        (OSError("a/b does not appear to have a file named model_index.json."), "exception"),
        (OSError("a/b is not a local folder and is not a valid model identifier"), "exception"),
        (FileNotFoundError(errno.ENOENT, "No such file"), "exception"),
        (OSError("Error no file named model.safetensors found in directory"), "exception"),
        (AttributeError("module diffusers has no attribute NoSuchPipeline"), "exception"),
    ],
)
def test_what_no_other_try_would_change_is_told_from_what_may_pass(
    error: Exception, kind: str
) -> None:
    assert classify(error)[0] == kind


def test_a_hub_that_is_out_of_reach_is_said_to_be() -> None:
    """diffusers says then that the model has no such file."""
    try:
        try:
            raise LocalEntryNotFoundError("cannot find it") from ConnectionError("no route")
        except LocalEntryNotFoundError as error:
            raise OSError("a/b does not appear to have a file named model_index.json.") from error
    except OSError as error:
        kind, text = classify(error)
    assert kind == "error" and text.startswith("The hub cannot be reached (no route): a/b")


@ALWAYS_ON_BOTH
def test_loras_are_loaded_once_and_their_tasks_kept_together(
    tmp_path: Path, workplace: Workplace
) -> None:
    files = [str(write_safetensors(tmp_path / f"{n}.st", f"{n}.lora_A.weight")) for n in "abc"]
    tasks = [{"prompt": f"{i}", "lora_path": files[i % 3]} for i in range(30)]
    with Generator(1, config=workplace.simulated(), output_dir=tmp_path / "out") as generator:
        assert all(r.success for r in generator.generate_batch(tasks))
        assert generator.lora_counts == (3, 3)


@ALWAYS_ON_BOTH
def test_a_lora_that_changes_after_it_was_checked_fails_its_own_tasks_alone(
    tmp_path: Path, workplace: Workplace
) -> None:
    lora = write_safetensors(tmp_path / "ink.safetensors", "1.lora_A.weight")
    tasks = [{"prompt": "a"}, {"prompt": "b", "lora_path": str(lora)}, {"prompt": "c"}]
    config, out = workplace.simulated(), tmp_path / "out"
    with Generator(1, config=config, output_dir=out) as generator:
        plan = generator.prepare(tasks, [])
        write_safetensors(lora, "2.lora_A.weight")
        results = generator.execute(plan)
    assert statuses(results) == ["done", "failed", "done"]
    assert "ink.safetensors" in str(results[1].error)


@ON_BOTH
def test_a_stack_costs_the_loads_of_what_is_missing_and_is_recorded_whole(
    tmp_path: Path, workplace: Workplace
) -> None:
    for name in ("fast", "ink", "snow", "oil"):
        write_safetensors(tmp_path / f"{name}.st", f"{name}.lora_A.weight")
    fast = [str(tmp_path / "fast.st"), 1.0]
    tasks: list[dict[str, Any]] = [
        {
            "prompt": f"{i}",
            "output_path": f"{i:02d}.png",
            "loras": [fast, [str(tmp_path / f"{style}.st"), 0.5]],
        }
        for i, style in enumerate(["ink", "snow", "oil"] * 8)
    ]
    out = tmp_path / "out"
    # Fewer than a stack has: it is kept whole all the same.
    settings = workplace.simulated(workers={"max_resident_loras": 1})
    with Generator(1, config=settings, output_dir=out) as generator:
        assert all(r.status == "done" for r in generator.generate_batch(tasks))
        assert generator.lora_counts == (4, 3)
        swapped = [{**task, "loras": list(reversed(task["loras"]))} for task in tasks]
        assert all(r.status == "skipped" for r in generator.generate_batch(swapped))
        tasks_and_bad = [*tasks[:4], {**tasks[4], "lora_path": fast[0]}]
        results = generator.generate_batch(tasks_and_bad)
        assert [r.success for r in results] == [True] * 4 + [False]
    (out / "ledger.sqlite").unlink()  # pictures are recognised by what they say themselves
    with Generator(1, config=settings, output_dir=out) as generator:
        assert all(r.status == "skipped" for r in generator.generate_batch(tasks))
    rows = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
    assert rows[0]["lora"] == "fast.st + ink.st" and rows[0]["lora_strength"] is None
    assert json.loads(rows[1]["loras"]) == [
        {"lora": "fast.st", "strength": 1.0}, {"lora": "snow.st", "strength": 0.5},
    ]  # fmt: skip


def script(tmp_path: Path, text: str) -> "subprocess.Popen[str]":
    file = tmp_path / "script.py"
    file.write_text(textwrap.dedent(text))
    return subprocess.Popen(
        [sys.executable, str(file)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("method", METHODS)
def test_workers_know_their_device_and_never_import_the_main_script(
    tmp_path: Path, method: str
) -> None:
    """So a script needs no main guard, and cannot look at CUDA before the mask is set."""
    process = script(
        tmp_path,
        f"""
        import os
        from loguru import logger
        from core.multi_gpu_image_generator import MultiGPUImageGenerator
        print("imported", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
        logger.enable("core.details")
        config = {{"model": "simulated", "workers": {{"start_method": "{method}"}}}}
        with MultiGPUImageGenerator(gpu_ids=[3], config=config) as generator:
            print(generator.generate_batch([{{"prompt": "a"}}])[0].success)
        """,
    )
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert output.splitlines() == ["imported None", "True"]
    assert "CUDA_VISIBLE_DEVICES='3'" in errors


@pytest.mark.parametrize("method", METHODS)
def test_nobody_outlives_a_killed_parent(tmp_path: Path, method: str) -> None:
    process = script(
        tmp_path,
        f"""
        from core.multi_gpu_image_generator import MultiGPUImageGenerator
        config = {{"model": "simulated", "workers": {{"start_method": "{method}"}}}}
        with MultiGPUImageGenerator(2, config=config) as generator:
            generator.generate_batch([{{"prompt": "!hang"}}, {{"prompt": "!stop"}}])
        """,
    )
    workers = wait_until(lambda: len(w := worker_processes(process.pid)) == 2 and w, "two workers")
    # One is stopped; the other has left the cores to others before it began to spin.
    wait_until(lambda: standing_still(workers) and any(w.nice() == 19 for w in workers), "both")
    server = fork_server(process.pid)
    assert (server is not None) == (method == "forkserver")
    process.kill()
    process.communicate()
    left = [*workers, server] if server else workers
    wait_until(lambda: not any(runs(p) for p in left), "everybody's end")


@ON_BOTH
def test_a_killed_fork_server_costs_only_what_was_under_way(
    tmp_path: Path, workplace: Workplace
) -> None:
    forked = workplace.simulated(workers={"start_method": "forkserver"}, simulated=SLOW)
    killed: list[int] = []

    def kill_the_server(event: Event) -> None:
        server = workplace.fork_server(os.getpid())
        if isinstance(event, TaskEnded) and server and not killed:
            killed.append(server.pid)
            server.kill()

    tasks = prompts(*"abcdefgh", width=128, height=128)
    with Generator(2, config=forked, output_dir=tmp_path, listener=kill_the_server) as generator:
        results = generator.generate_batch(tasks)
        assert statuses(results) == ["done"] * 8
        server = workplace.fork_server(os.getpid())
        assert server is not None and server.pid not in killed


def test_forks_come_from_any_folder(tmp_path: Path) -> None:
    """And the project's modules, not the current folder's, are in them."""
    (tmp_path / "workers.py").write_text("raise RuntimeError")
    code = f"""
        import sys
        sys.path.insert(0, {str(PROJECT)!r})
        from core.multi_gpu_image_generator import MultiGPUImageGenerator
        config = {{"model": "simulated", "workers": {{"start_method": "forkserver"}}}}
        with MultiGPUImageGenerator(1, config=config) as generator:
            print(generator.generate_batch([{{"prompt": "a"}}])[0].success)
        """
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    line = [sys.executable, "-P", "-c", textwrap.dedent(code)]
    done = subprocess.run(
        line, cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=PATIENCE
    )
    assert done.stdout.strip() == "True", done.stderr
    assert "fork server" not in done.stderr


def test_workers_are_spawned_when_the_fork_server_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(keeper: Keeper, role: str) -> "Future[None]":
        return Future()  # what it imports never ends

    class Impatient(Forking):
        def __init__(self, role: str, patience: float, *rest: Any, **more: Any) -> None:
            super().__init__(role, 0.1, *rest, **more)

    monkeypatch.setattr(Keeper, "server", hang)
    monkeypatch.setattr("core.processes.starters.Forking", Impatient)
    config = simulated(workers={"start_method": "forkserver"})
    with Generator(1, config=config, output_dir=tmp_path) as generator:
        assert statuses(generator.generate_batch(prompts("a"))) == ["done"]


@pytest.mark.slow
def test_a_fork_server_of_the_callers_own_runs_beside_that_of_the_workers(tmp_path: Path) -> None:
    process = script(
        tmp_path,
        """
        import multiprocessing
        from core.multi_gpu_image_generator import MultiGPUImageGenerator

        def other(text):
            process = multiprocessing.get_context("forkserver").Process(target=print, args=(text,))
            process.start()
            process.join()

        if __name__ == "__main__":
            other("before")
            config = {"model": "simulated", "workers": {"start_method": "forkserver"}}
            with MultiGPUImageGenerator(1, config=config) as generator:
                print(generator.generate_batch([{"prompt": "a"}])[0].success, flush=True)
                other("meanwhile")
            other("afterwards")
        """,
    )
    output, errors = process.communicate(timeout=PATIENCE)
    assert output.splitlines() == ["before", "True", "meanwhile", "afterwards"], errors
    assert "fork server" not in errors


@ON_BOTH
def test_restarts_leave_no_file_descriptors_behind(tmp_path: Path, workplace: Workplace) -> None:
    me = psutil.Process()
    with Generator(2, config=workplace.simulated(), output_dir=tmp_path) as generator:
        generator.generate_batch(prompts("a", "b"))
        wait_until(lambda: len(workplace.workers(me.pid)) == 2, "both workers")
        before = me.num_fds()
        generator.generate_batch(prompts(*(f"!kill:1 {i}" for i in range(8))))
        # The last restart may still be under way, with a pipe's both ends open.
        wait_until(lambda: len(workplace.workers(me.pid)) == 2, "both workers")
        wait_until(lambda: me.num_fds() <= before + 2, "the number of open files to settle")
    assert not [c for c in me.children() if c.status() == psutil.STATUS_ZOMBIE]


@ON_BOTH
def test_a_worker_ignores_the_terminals_signals(tmp_path: Path, workplace: Workplace) -> None:
    """Ctrl-C reaches the whole group; only main decides what it means."""
    config = workplace.simulated(simulated=SLOW)
    with Generator(1, config=config, output_dir=tmp_path) as generator:
        generator.generate_batch(prompts("a"))
        [worker] = workplace.workers(os.getpid())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            worker.send_signal(number)
        assert statuses(generator.generate_batch(prompts("b"))) == ["done"]
        assert [w.pid for w in workplace.workers(os.getpid())] == [worker.pid]


def test_a_worker_owns_no_semaphore_that_would_outlive_it(tiny_model: Path, tmp_path: Path) -> None:
    """Python would speak of leaked ones at main's end; progress bars make one."""
    script = f"""
        from core.multi_gpu_image_generator import MultiGPUImageGenerator

        config = {{"model": {str(tiny_model)!r}, "device": "cpu"}}
        generator = MultiGPUImageGenerator(1, config=config)
        task = {{"prompt": "a", "width": 64, "height": 64, "num_inference_steps": 2}}
        print(generator.generate_batch([task])[0].status)
        generator.stop(at_once=True)
        """
    done = run_script(script, tmp_path, "models")
    assert done.stdout == "done\n" and "leaked" not in done.stderr, done.stderr


@ON_BOTH
def test_saving_happens_behind_the_next_task(tmp_path: Path, workplace: Workplace) -> None:
    """The device gets its next task before the picture of the last one is published."""
    events: list[Event] = []
    config = workplace.simulated(simulated=SLOW)
    with Generator(1, config=config, output_dir=tmp_path, listener=events.append) as generator:
        generator.generate_batch(prompts("a", "b", "c", width=128, height=128))
    order = [
        ("start", e.task_id) if isinstance(e, TaskStarted) else ("end", e.result.task_id)
        for e in events
        if isinstance(e, TaskStarted | TaskEnded)
    ]
    ids = [f"image_{i:04d}" for i in range(3)]
    for last, following in pairwise(ids):
        assert order.index(("start", following)) < order.index(("end", last))


@pytest.mark.parametrize("at_once", [1, 2])
def test_models_load_no_more_than_so_many_at_once(tmp_path: Path, at_once: int) -> None:
    """A load ends here when as many are under way as may be, and all workers ask for theirs."""
    loading: set[str] = set()
    started: set[str] = set()
    most = 0

    def listen(event: Event) -> None:
        nonlocal most
        if isinstance(event, WorkerState):
            started.add(event.worker)
            (loading.add if event.state == "loading the model" else loading.discard)(event.worker)
            most = max(most, len(loading))

    def loads(worker: StubWorker) -> bool:
        wait_until(lambda: most >= at_once and len(started) == 3, "loads side by side")
        return True

    played = PlayedWorkers(loads=loads)
    config = simulated(workers={"concurrent_loads": at_once})
    with Generator(
        3, config=config, output_dir=tmp_path, listener=listen, backend=played.backend
    ) as generator:
        wait_for_workers(generator)
    assert most == at_once
