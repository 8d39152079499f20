"""The command `edit_images.py`: arguments, run, summary, exit code."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from apps.edit_images.edit_list import EditList, read_edits
from apps.edit_images.options import asks_for_variants, check_source, parse_arguments
from apps.edit_images.settings import EditSettings, load_edit_settings
from apps.interrupts import Interrupts
from apps.picture_commands.command import Work, create_generator, do, run_command
from apps.picture_commands.settings import with_options
from apps.prompts.run_names import name_without_file
from apps.prompts.words import EDITS
from core.engine.backend import WorkerBackend
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.paths import as_text, user_path
from core.seeds import RANDOM
from core.settings_file import laid_over
from core.store.folder_input import NoFile

if TYPE_CHECKING:
    from apps.picture_commands.again import Again

SECTION = "editor"  # of the settings
PICTURES = NoFile("pictures of the command line")
CALLED_BEFORE = "edits"  # their folder, which may be that of a list edits.csv, too
EDITING = Work(EDITS, draws=False, why_moved="Pictures stand at other places than before.")


def main(argv: Sequence[str] | None = None, backend: WorkerBackend | None = None) -> int:
    """Run the command; returns its exit code.

    Args:
        backend: runs the workers; by default processes of this machine.
    """
    argv = sys.argv[1:] if argv is None else argv
    return run_command(argv, parse_arguments(argv), partial(_run, backend=backend))


def _run(options: argparse.Namespace, interrupts: Interrupts, backend: WorkerBackend | None) -> int:
    check_source(options)
    settings = with_options(options, load_edit_settings, SECTION)
    if settings.seed == RANDOM:  # edits have seeds that are given alone
        settings = settings.model_copy(update={"seed": 0})
    edits = _read(options, settings)
    again = None if isinstance(edits, EditList) else edits
    if again is not None:
        settings = laid_over(settings, again.settings(settings), load_edit_settings)
    source, name = _origin(edits, Path(settings.output_dir))
    work = replace(EDITING, variants=asks_for_variants(options))

    def create() -> MultiGPUImageGenerator:
        return create_generator(options, settings, name, source, backend)

    return do(work, options, interrupts, settings, edits, again, create)


def _origin(edits: "EditList | Again", output_dir: Path) -> tuple[Path | NoFile, str]:
    """What the edits come from, and the folder of the run."""
    source = edits.source or PICTURES
    name = edits.name_of_run
    if source == PICTURES:
        name = name_without_file(output_dir, PICTURES, name, CALLED_BEFORE)
    return source, name


def _read(options: argparse.Namespace, settings: EditSettings) -> "EditList | Again":
    """What is asked for: pictures and lists, or pictures that were edited before."""
    suffix = settings.workers.picture_suffix
    if options.from_png:
        from apps.picture_commands.again import Again

        return Again(options.from_png, options.limit, suffix if options.format else None, "edit")
    return read_edits(
        [as_text(path) for path in options.pictures],
        [as_text(text) for text in options.instruction or ()],
        [user_path(path, "--with") for path in options.references or ()],
        user_path(options.mask, "--mask") if options.mask else None,
        seed=settings.seed,
        limit=options.limit,
        suffix=suffix,
        left_out=Path(settings.output_dir),
    )
