"""The command `generate_images_from_tweets.py`: arguments, run, summary, exit code."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from loguru import logger

from apps.arguments import log_level
from apps.dry_run import print_plan_of
from apps.interrupts import Interrupts
from apps.openai_images.batch_detection import is_batch_file, means_requests
from apps.picture_commands.command import (
    ALL_DONE,
    INTERRUPTED,
    SOME_FAILED,
    UNUSABLE_INPUT,
    Work,
    create_generator,
    do,
    headway_of,
    run_command,
)
from apps.picture_commands.options import CHOICE, VARIANTS
from apps.picture_commands.run import Run
from apps.picture_commands.settings import with_options
from apps.picture_commands.summary import print_end
from apps.prompts.run_names import name_of_run, name_without_file
from apps.prompts.text import STDIN
from apps.prompts.words import PICTURES
from apps.tweets.options import asks_for_variants, check_source, parse_arguments
from apps.tweets.tweets_file import TweetFile, read_prompts, read_tweets
from core.engine.backend import WorkerBackend
from core.errors import InputError, one_line
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.names import counted
from core.paths import as_text, user_path
from core.settings import Settings, load_settings
from core.settings_file import laid_over
from core.store.folder_input import NoFile
from core.tasks import Result, in_input_order

if TYPE_CHECKING:
    from apps.picture_commands.again import Again

WHY_MOVED = (
    "Tweets stand at other places in the file than before, and default seeds and names go by the "
    "place: a tweet with a seed and an output_path of its own keeps its picture wherever it stands."
)
PROMPTS = NoFile("prompts of the command line")
CALLED_BEFORE = "prompts"  # their folder, which may be that of a file prompts.txt, too
DRAWING = Work(PICTURES, draws=True, why_moved=WHY_MOVED)


def main(argv: Sequence[str] | None = None, backend: WorkerBackend | None = None) -> int:
    """Run the command; returns its exit code.

    Args:
        backend: runs the workers; by default processes of this machine.
    """
    argv = sys.argv[1:] if argv is None else argv
    return run_command(argv, parse_arguments(argv), partial(_run, backend=backend))


def _run(options: argparse.Namespace, interrupts: Interrupts, backend: WorkerBackend | None) -> int:
    check_source(options)
    if options.tweets not in (None, STDIN):
        path = user_path(options.tweets, "TWEETS")
        if is_batch_file(path):
            return _run_batch(options, interrupts, backend)
        if means_requests(path):
            from apps.tweets.two_readings import refuse_what_is_neither

            refuse_what_is_neither(path)
    settings = with_options(options, load_settings)
    tweets = _read(options, settings)
    again = None if isinstance(tweets, TweetFile) else tweets
    if again is not None:
        settings = laid_over(settings, again.settings(settings), load_settings)
    work = replace(DRAWING, variants=asks_for_variants(options))
    source, name = options.tweets, tweets.name_of_run
    if again is not None:
        source = again.source
    elif source is None:
        source = PROMPTS
        name = name_without_file(Path(settings.output_dir), PROMPTS, name, CALLED_BEFORE)

    def create() -> MultiGPUImageGenerator:
        return create_generator(options, settings, name, source, backend)

    return do(work, options, interrupts, settings, tweets, again, create)


def _read(options: argparse.Namespace, settings: Settings) -> "TweetFile | Again":
    """What is asked for: a file, prompts of the command line, or pictures."""
    suffix = settings.workers.picture_suffix
    if options.from_png:
        from apps.picture_commands.again import Again

        return Again(options.from_png, options.limit, suffix if options.format else None)
    if options.prompt:
        prompts = [as_text(prompt) for prompt in options.prompt]
        return read_prompts(prompts, settings.seed, options.limit, suffix)
    return read_tweets(options.tweets, options.prompt_from, options.limit, suffix)


def _run_batch(
    options: argparse.Namespace, interrupts: Interrupts, backend: WorkerBackend | None
) -> int:
    """Do the requests of a batch file; see docs/TWEETS.md."""
    from apps.openai_images.batch import LocalBatch  # tweets need nothing of it
    from apps.openai_images.rules import load_image_settings

    if options.prompt_from is not None:
        raise InputError("--prompt-from: requests of a batch file have one prompt; leave it out.")
    for name in (*VARIANTS, *CHOICE, "shard"):
        if getattr(options, name):
            option = name.replace("_", "-")
            raise InputError(f"--{option}: requests of a batch file say all of it; leave it out.")
    settings = with_options(options, load_image_settings)
    path = user_path(options.tweets, "TWEETS")
    name = name_of_run(as_text(path.stem))
    generator = create_generator(options, settings, name, options.tweets, backend)
    looking, lora_folders = headway_of(generator, options, "requests"), [path.absolute().parent]
    if options.dry_run:
        with TemporaryDirectory() as kept:
            batch = LocalBatch(generator, path, limit=options.limit, kept_in=Path(kept))
            code = print_plan_of(generator, batch, lora_folders, "pictures", looking)
        if batch.refusal is not None:
            logger.error(batch.refusal)
            return UNUSABLE_INPUT
        return code
    try:
        batch = LocalBatch(generator, path, limit=options.limit)
        if batch.refusal is not None:
            logger.error(batch.refusal)
        run = Run(generator, interrupts, options.progress, log_level(options))
        with looking:
            plan = generator.prepare(batch, lora_folders)
        results: list[Result] = []
        draws = "generate" in batch.roles
        tally = run.execute(plan, "pictures", WHY_MOVED, draws, results.append)
        outcome = batch.write(in_input_order(results))
    finally:
        generator.stop(at_once=True)
    if options.progress != "json":
        unusable = f" ({batch.unusable} of them unusable lines)" if batch.unusable else ""
        ends = f"{outcome.completed} completed, {outcome.failed} failed{unusable}"
        print(f"{counted(batch.requests, 'request')}: {ends}")
        for what, file in (("results", outcome.output), ("errors", outcome.errors)):
            if file is not None:
                print(one_line(f"{what}: {as_text(file)}"))
        print_end(tally, generator, interrupts.command)
    if interrupts.count:
        return INTERRUPTED
    return SOME_FAILED if outcome.failed or generator.tables_error is not None else ALL_DONE
