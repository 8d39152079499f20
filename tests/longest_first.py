"""The order of test files: each process takes a file at a time, and the longest come first.

So no process is alone with a long file at the end. A file that is not named comes after those.
"""

from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
LONGEST = (
    *("test_compilation.py", "test_memory_modes.py", "test_runs_of_many.py"),
    *("server/test_openapi.py", "test_hub_download.py", "test_callers_processes.py"),
    *("test_lora_layouts.py", "server/test_page_access.py", "gallery/test_gallery_page.py"),
    *("server/test_page.py", "test_step_cache.py", "demo_model/test_editor_and_judge.py"),
    *("test_out_of_memory.py", "test_edit_benchmark.py", "test_workers.py", "test_whole_loras.py"),
    *("server/test_page_live.py", "test_lora_stacks.py", "test_memory_mode_loras.py"),
    *("test_memory_needs.py", "test_replaced.py", "test_spread.py", "test_nvidia_machine.py"),
    *("test_hub.py", "test_standard_streams.py", "test_paths.py", "test_backends.py"),
    *("test_other_pipelines.py", "test_denoising_previews.py", "test_recipes.py"),
    *("../test_multi_gpu.py", "test_extending.py", "test_large_files.py", "test_loading.py"),
    *("test_gpu_benchmark.py", "test_i2ebench.py", "test_native_image_generator.py"),
    *("server/test_commands.py", "server/test_serving_first_pictures.py", "test_lora_pins.py"),
    *("test_streaming.py", "chaos/test_fault_points.py", "hostile/test_ledger_damage.py"),
    *("demo_model/test_checkpoint.py", "test_command.py", "hostile/test_refusing_disk.py"),
    *("test_judge_models.py", "server/test_page_gallery.py", "test_long_prompts.py"),
    *("test_datasets.py", "test_mixed_jobs.py", "test_parquet_pages.py"),
    *("test_library_warnings.py", "chaos/test_kills.py", "test_fork_servers.py"),
    *("server/test_batches.py", "chaos/test_signals.py", "test_examples.py", "test_editors.py"),
    *("chaos/test_hangs.py", "demo_model/test_edits.py", "server/test_masked_edits.py"),
    *("test_memory_mode_judges.py", "server/test_page_loras.py", "chaos/test_devices.py"),
    *("test_single_files.py", "test_fair_shares.py", "demo_model/test_training.py"),
    *("test_benchmark_options.py", "test_model_loras.py", "chaos/test_jobs.py", "test_headway.py"),
)


def sort(items: list[pytest.Item]) -> None:
    """Bring tests into that order; those of a file keep theirs."""
    places = {(PROJECT / "tests" / name).resolve(): place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
