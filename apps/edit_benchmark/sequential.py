"""`stages: sequential`: every pair is edited, then the judges take the same devices."""

from typing import TYPE_CHECKING

from core.devices.device import memory_in_use

if TYPE_CHECKING:
    from apps.edit_benchmark.runner import EditBenchmark


def run_sequential(run: "EditBenchmark") -> None:
    """Edit everything, verify that the editors' memory came free, score everything."""
    before = memory_in_use(run.devices)
    if run.edit_jobs:
        run.start_pool("edit", run.devices[: len(run.edit_jobs)], run.edit_jobs)
        run.wait("edit")
        run.stop_pool("edit")
        run.wait_for_memory(run.devices, before)
    # Also after an interrupt: what an earlier run scored belongs to the results.
    run.score(run.score_jobs())
