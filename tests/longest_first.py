"""The order of test files: each process takes a file at a time, and the longest come first.

So no process is alone with a long file at the end. A file that is not named comes after those.
"""

from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
LONGEST = (
    *("test_nvidia_machine.py", "test_step_cache.py", "test_compilation.py", "test_hub.py"),
    *("test_lora_stacks.py", "test_recipes.py", "test_memory_modes.py", "test_workers.py"),
    *("test_hub_download.py", "server/test_commands.py", "demo_model/test_training.py"),
    *("test_memory_mode_loras.py", "server/test_page.py", "test_gpu_benchmark.py"),
    *("test_callers_processes.py", "../test_multi_gpu.py", "test_lora_layouts.py"),
    *("server/test_serving_first_pictures.py", "test_edit_benchmark.py", "test_whole_loras.py"),
    *("chaos/test_fault_points.py", "server/test_batches.py", "test_out_of_memory.py"),
    *("test_standard_streams.py", "test_spread.py", "server/test_survival.py", "test_paths.py"),
    *("demo_model/test_editor_and_judge.py", "chaos/test_kills.py", "test_steps.py"),
    *("test_denoising_previews.py", "test_backends.py", "test_extending.py", "test_pauses.py"),
    *("test_replaced.py", "demo_model/test_scenes.py", "chaos/test_devices.py"),
    *("demo_model/test_edits.py", "test_text_encoder_loras.py", "test_other_pipelines.py"),
    *("hostile/test_places_and_clocks.py", "test_stragglers.py", "test_mixed_jobs.py"),
    *("demo_model/test_checkpoint.py", "test_streaming.py", "server/test_images.py"),
    *("test_command.py", "test_native_image_generator.py", "test_survival.py"),
    *("chaos/test_daemon.py", "test_examples.py", "chaos/test_switches.py"),
)


def sort(items: list[pytest.Item]) -> None:
    """Bring tests into that order; those of a file keep theirs."""
    places = {(PROJECT / "tests" / name).resolve(): place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
