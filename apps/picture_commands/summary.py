"""The last lines of a run: what became of its inputs, where they lie, what to do about failures."""

from collections import Counter
from collections.abc import Sequence

from apps.run_summary import failure_lines, time_line
from core.errors import one_line
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.names import counted
from core.paths import as_text
from core.store.results_table import FILE_NAME as TABLE
from core.tasks import Result


def print_summary(
    results: Sequence[Result], generator: MultiGPUImageGenerator, noun: str, command: str
) -> None:
    """Print counts, the folder, and what `print_end` prints.

    Args:
        noun: what one input is called.
        command: that goes on with what failed.
    """
    counts = Counter(r.status for r in results)
    parts = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    loads, switches = generator.lora_counts
    loras = f"; {counted(loads, 'LoRA load')}, {counted(switches, 'switch')}" if switches else ""
    print(f"{counted(len(results), noun)}: {parts}{loras}")
    print(one_line(place_of(generator)))
    print_end(results, generator, command)


def print_end(results: Sequence[Result], generator: MultiGPUImageGenerator, command: str) -> None:
    """Print how long it took, what failed and why, and what to do about it."""
    elapsed = time_line(generator.status())
    if elapsed is not None:
        print(elapsed)
    for line in failure_lines(results, command, as_text(generator.output_folder / TABLE)):
        print(line)


def place_of(generator: MultiGPUImageGenerator) -> str:
    """Where pictures lie, as a line."""
    return f"pictures and results: {as_text(generator.output_folder)}"
