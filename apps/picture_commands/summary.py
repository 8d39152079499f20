"""The last lines of a run: what became of its inputs, where they lie, what to do about failures."""

from apps.run_summary import Tally, end_lines, failure_lines
from core.errors import one_line
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.names import counted
from core.paths import as_text
from core.store.results_table import FILE_NAME as TABLE


def print_summary(tally: Tally, generator: MultiGPUImageGenerator, noun: str, command: str) -> None:
    """Print counts, the folder, and what `print_end` prints.

    Args:
        noun: what one input is called.
        command: that goes on with what failed.
    """
    parts = ", ".join(f"{count} {status}" for status, count in sorted(tally.counts.items()))
    loads, switches = generator.lora_counts
    loras = f"; {counted(loads, 'LoRA load')}, {counted(switches, 'switch')}" if switches else ""
    print(f"{counted(tally.total, noun)}: {parts}{loras}")
    print(one_line(place_of(generator)))
    print_end(tally, generator, command)


def print_end(tally: Tally, generator: MultiGPUImageGenerator, command: str) -> None:
    """Print how long it took, what was not used, what failed and why, and what to do about it."""
    for line in end_lines(generator.status()):
        print(line)
    for line in failure_lines(tally, command, as_text(generator.output_folder / TABLE)):
        print(line)


def place_of(generator: MultiGPUImageGenerator) -> str:
    """Where pictures lie, as a line."""
    return f"pictures and results: {as_text(generator.output_folder)}"
