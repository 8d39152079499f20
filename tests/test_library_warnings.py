"""What libraries say in workers reaches the log: once, by whom and about which task."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from loguru import logger

from core.engine.worker_log import MOST_REMEMBERED, MOST_WARNINGS, WorkerLog
from core.messages import LibraryWarning, PromptCut
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from tests.conftest import PATIENCE, PROJECT, Project, run_script, simulated, submitted
from tests.stub_backend import StubBackend
from tests.test_native_image_generator import SMALL


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Main's log at INFO and above."""
    found: list[str] = []
    sink = logger.add(
        lambda line: found.append(line.rstrip("\n")), level="INFO", format="{message}"
    )
    yield found
    logger.remove(sink)


def test_a_warning_comes_once_for_a_whole_run_with_worker_and_task(
    tmp_path: Path, executor: ThreadPoolExecutor, lines: list[str]
) -> None:
    backend = StubBackend()
    config = simulated(scheduling={"speculative_copies": False})
    generator = MultiGPUImageGenerator(1, config=config, output_dir=tmp_path, backend=backend)
    with generator:
        batch = submitted(executor, generator, 2)
        worker = backend.worker().serve()
        for number in range(2):
            lease = worker.hear_lease()
            text = f"peft: 16 keys of 0x{number}ff at step {number} do not fit\x1b[2J"
            worker.say(LibraryWarning("WARNING", text, lease.task_name))
            worker.say(LibraryWarning("DEBUG", f"torch: old {number}", lease.task_name))
            worker.finish(lease)
        worker.leave_when_asked()
        batch.result(PATIENCE)
    said = [line for line in lines if "peft" in line or "torch" in line]
    assert said == ["cpu0, 0: peft: 16 keys of 0x0ff at step 0 do not fit\\x1b[2J (shown once)"]


def test_two_workers_do_not_say_the_same(lines: list[str]) -> None:
    log = WorkerLog()
    for worker in ("gpu0", "gpu1"):
        log.write(worker, LibraryWarning("WARNING", "diffusers: slow", f"task of {worker}"))
    assert lines == ["gpu0, task of gpu0: diffusers: slow (shown once)"]


def test_a_library_that_never_stops_warning_fills_no_log(lines: list[str]) -> None:
    log = WorkerLog()
    for n in range(500):
        name = "".join(chr(ord("a") + int(digit)) for digit in f"{n:03}")
        log.write("gpu0", LibraryWarning("WARNING", f"diffusers: about {name}"))
    log.close()
    assert len(lines) == MOST_WARNINGS + 1
    assert lines[-1].startswith(f"{500 - MOST_WARNINGS} more warnings of libraries")


def test_a_retried_task_says_once_that_its_prompt_is_cut(lines: list[str]) -> None:
    log = WorkerLog()
    for worker in ("gpu0", "gpu1"):
        log.write(worker, PromptCut("prompt has 90 tokens", "a"))
    log.close()
    assert lines == ["gpu0, a: prompt has 90 tokens"]


def test_a_daemon_that_cuts_many_prompts_keeps_no_more_of_them_than_of_some(
    lines: list[str],
) -> None:
    log = WorkerLog()

    def cut(first: int, count: int) -> int:
        """Have prompts of so many tasks cut; returns how many objects there are then."""
        for number in range(first, first + count):
            log.write("gpu0", PromptCut("prompt has 90 tokens", f"task {number}"))
        return sys.getallocatedblocks()

    some = cut(0, 2 * MOST_REMEMBERED)
    many = cut(2 * MOST_REMEMBERED, 4 * MOST_REMEMBERED)
    assert many - some < 500, f"{many - some} objects more for {4 * MOST_REMEMBERED} tasks"
    log.close()
    assert lines[-1].startswith(f"Prompts of {6 * MOST_REMEMBERED - 1} more tasks were longer")
    assert "task 1, task 2, " in lines[-1]


SCRIPT = """
import logging, sys, warnings
import diffusers, transformers, huggingface_hub, torch
from workers import library_warnings
from workers.channel import work_on

library_warnings.collect()
warnings.warn("early", UserWarning)
said = []
library_warnings.pass_on(said.append)
work_on(["Mira_03", "Mira_04"])
warnings.warn("an ignored\\nLoRA key", UserWarning)
warnings.warn("an old name", FutureWarning)
diffusers.utils.logging.get_logger("diffusers.loaders").warning("no keys fit")
transformers.utils.logging.get_logger("transformers.x").warning("`torch_dtype` is deprecated!")
huggingface_hub.logging.get_logger("huggingface_hub.x").warning("HTTP Error 503")
logging.getLogger("peft.tuners").warning("a layer is missing")
logging.getLogger("accelerate").warning("offloaded")
logging.getLogger("torch._dynamo").warning("recompiled")
print("a library's print")
print("an error's print", file=sys.stderr)
sys.stderr.write("\\rLoading:  50%|#####     | 1/2\\n")
for message in said:
    sys.__stdout__.write(f"{message.level} {message.task!r} {message.text}\\n")
"""


CARELESS = """
import logging, sys
from workers import library_warnings

said = []
library_warnings.pass_on(said.append)
logging.getLogger("transformers.x").warning("`x` is gone", FutureWarning)
logging.getLogger("peft.x").warning("%d of %d layers", 3)
for _ in range(5000):
    sys.stderr.write("no end of line, ever ")
assert all(len(message.text) < 3000 for message in said)
for message in said[:3]:
    sys.__stdout__.write(message.text[:40] + "\\n")
"""


def test_careless_words_of_a_library_end_no_task() -> None:
    """transformers gives a category to `logger.warning`, which takes it for an argument."""
    done = subprocess.run(
        [sys.executable, "-c", CARELESS], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "transformers: `x` is gone",
        "peft: %d of %d layers",
        "no end of line, ever no end of line, eve",
    ]


@pytest.mark.slow
def test_a_worker_prints_nothing_and_sends_everything(tmp_path: Path) -> None:
    done = run_script(SCRIPT, tmp_path, "models")
    assert (done.returncode, done.stderr) == (0, "")
    whose = "'Mira_03 and 1 more'"
    assert done.stdout.splitlines() == [
        "WARNING '' script: early",
        f"WARNING {whose} script: an ignored LoRA key",
        f"DEBUG {whose} script: an old name (FutureWarning, line 13)",
        f"WARNING {whose} diffusers: no keys fit",
        f"DEBUG {whose} transformers: `torch_dtype` is deprecated!",
        f"WARNING {whose} huggingface_hub: HTTP Error 503",
        f"WARNING {whose} peft: a layer is missing",
        f"WARNING {whose} accelerate: offloaded",
        f"WARNING {whose} torch: recompiled",
        f"DEBUG {whose} a library's print",
        f"WARNING {whose} an error's print",
        f"DEBUG {whose} Loading: 50%|##### | 1/2",
    ]


def test_a_healthy_run_with_loras_warns_of_nothing(
    project: Project, tiny_model: Path, tiny_loras: list[Path]
) -> None:
    tweets = project.write_tweets(
        [{"prompt": f"house {n}", "lora_path": str(tiny_loras[n % 2])} for n in range(4)]
    )
    run = project.run([tweets, 1], {"model": str(tiny_model), "defaults": SMALL})
    assert run.process.returncode == 0, run.errors
    assert [line for line in run.errors.splitlines() if "INFO" not in line] == []
