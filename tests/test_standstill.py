"""Tasks that no worker may be given: whoever waits for them is told what they wait for."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from core.multi_gpu_image_generator import MultiGPUImageGenerator
from tests.conftest import simulated, wait_until
from tests.played_workers import PlayedWorkers

TASKS = [{"prompt": f"house {n}", "width": 32, "height": 32} for n in range(3)]


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged, from level INFO on."""
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}", level="INFO")
    yield lines
    logger.remove(sink)


def about_waiting(lines: list[str]) -> list[str]:
    return [line.strip() for line in lines if "wait" in line]


def test_tasks_say_once_that_all_workers_are_drained_and_once_that_they_go_on(
    lines: list[str], tmp_path: Path
) -> None:
    with MultiGPUImageGenerator(
        2, config=simulated(), output_dir=tmp_path / "out", backend=PlayedWorkers().backend
    ) as generator:
        generator.start()
        for name in ("cpu0", "cpu1"):
            generator.drain(name)
        job = generator.submit(TASKS)
        wait_until(lambda: about_waiting(lines), "the line")
        assert {worker.state for worker in generator.snapshot().result().workers} <= {
            "drained",
            "stopping",  # and drained soon
        }
        generator.submit(TASKS).cancel()  # others come and go meanwhile
        generator.undrain("cpu1")
        assert all(result.success for result in job.results())
    assert about_waiting(lines) == [
        "Tasks to generate wait: cpu0 and cpu1 are drained. They go on when one of them is "
        "undrained.",
        "Tasks to generate wait no longer for a drained worker.",
    ]


def test_nothing_is_said_where_one_worker_of_several_is_drained(
    lines: list[str], tmp_path: Path
) -> None:
    with MultiGPUImageGenerator(
        2, config=simulated(), output_dir=tmp_path / "out", backend=PlayedWorkers().backend
    ) as generator:
        generator.start()
        generator.drain("cpu0")
        assert all(result.success for result in generator.generate_batch(TASKS))
    assert about_waiting(lines) == []
