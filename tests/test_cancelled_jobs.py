"""A job that is cancelled ends, and takes neither workers nor other jobs with it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.engine.job import Job
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.store.provenance import read_provenance
from tests.both_engines import ALWAYS_ON_BOTH, ON_BOTH
from tests.conftest import PATIENCE, Workplace

SECONDS = {"seconds_per_megapixel_step": 12.2}  # 0.05 s for 64 x 64 pixels and one step
MANY = 400  # tasks that would take 10 s


def pictures(name: str, count: int) -> list[dict[str, Any]]:
    return [{"prompt": name, "output_path": f"{name}{i:03}.png"} for i in range(count)]


@pytest.fixture
def generator(tmp_path: Path, workplace: Workplace) -> Iterator[MultiGPUImageGenerator]:
    config = workplace.simulated(simulated=SECONDS)
    with MultiGPUImageGenerator(2, config=config, output_dir=tmp_path) as generator:
        yield generator


def cancel_in_the_middle(job: Job, at_once: bool) -> None:
    next(job.as_completed(PATIENCE))
    job.cancel(at_once)


@ON_BOTH
@pytest.mark.parametrize("at_once", [False, True])
def test_none_of_its_waiting_tasks_is_started_any_more(
    generator: MultiGPUImageGenerator, at_once: bool
) -> None:
    job = generator.submit(pictures("a", MANY))
    cancel_in_the_middle(job, at_once)
    results = job.results(PATIENCE)
    assert [r.position for r in results] == list(range(MANY))
    assert job.progress.ended["interrupted"] > MANY / 2
    assert job.progress.ended["interrupted"] + job.progress.ended["done"] == MANY


@ALWAYS_ON_BOTH
@pytest.mark.parametrize("at_once", [False, True])
def test_other_jobs_and_the_next_batch_run_on_the_same_workers(
    generator: MultiGPUImageGenerator, at_once: bool
) -> None:
    job, other = generator.submit(pictures("a", MANY)), generator.submit(pictures("b", 20))
    cancel_in_the_middle(job, at_once)
    assert {r.status for r in other.results(PATIENCE)} == {"done"}
    later = generator.generate_batch(pictures("c", 5), PATIENCE)
    assert {r.status for r in later} == {"done"}
    drawn_by = {read_provenance(f)["used"]["pid"] for f in generator.output_folder.glob("*.png")}
    assert len(drawn_by) <= 2


@ON_BOTH
def test_what_runs_is_finished_and_kept_unless_it_is_cancelled_at_once(
    generator: MultiGPUImageGenerator,
) -> None:
    job = generator.submit(pictures("a", MANY))
    cancel_in_the_middle(job, at_once=False)
    results = job.results(PATIENCE)
    assert all(r.status == "done" for r in results if r.attempts)  # those that had begun


@ON_BOTH
def test_the_same_tasks_can_be_asked_for_again(generator: MultiGPUImageGenerator) -> None:
    job = generator.submit(pictures("a", 30))
    cancel_in_the_middle(job, at_once=True)
    done = {r.position for r in job.results(PATIENCE) if r.success}
    again = generator.generate_batch(pictures("a", 30), PATIENCE)
    assert all(r.success for r in again)
    assert done <= {r.position for r in again if r.status == "skipped"}
