"""A command that draws or edits pictures, from its arguments to its exit code."""

import argparse
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from loguru import logger

from apps.arguments import log_level
from apps.dry_run import print_plan_of
from apps.headway_view import headway_shown
from apps.interrupts import Interrupts, unwrapped
from apps.json_events import print_refusal
from apps.log_lines import set_up_logging
from apps.picture_commands.options import CHOICE, asks_for
from apps.picture_commands.run import Run
from apps.picture_commands.summary import place_of, print_summary
from apps.prompts.shard import Shard
from apps.prompts.text import STDIN
from apps.prompts.words import Words
from core.engine.backend import WorkerBackend
from core.errors import DeviceError, InputError, MultiGPUError, one_line
from core.intake.task_kinds import Inputs
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.settings import Settings
from core.store.folder_input import NoFile
from core.tasks import Result, in_input_order

if TYPE_CHECKING:
    from apps.picture_commands.again import Again

ALL_DONE, SOME_FAILED, UNUSABLE_INPUT, INTERRUPTED = 0, 1, 2, 130


class Source(Protocol):
    """What is to be done, as a command reads it."""

    @property
    def inputs(self) -> Inputs:
        """The tasks; of a large file they are made as they are asked for, which is done once."""

    @property
    def folder(self) -> Path:
        """Where relative paths of LoRAs are looked up first."""

    @property
    def name_of_run(self) -> str:
        """The folder of its pictures."""

    @property
    def noun(self) -> str:
        """What one input is called."""

    @property
    def passed_over(self) -> str | None:
        """One line about what meant nothing in what was read so far; None if there is nothing."""

    @property
    def is_read(self) -> bool:
        """All inputs have been made."""


@dataclass(frozen=True)
class Work:
    """What a command does.

    Attributes:
        words: by which it knows fields.
        draws: from prompts; edits otherwise.
        why_moved: said where inputs stand at other places than in an earlier run.
        variants: inputs are to be multiplied or changed.
    """

    words: Words
    draws: bool
    why_moved: str
    variants: bool = False


def run_command(
    argv: Sequence[str],
    options: argparse.Namespace,
    work: Callable[[argparse.Namespace, Interrupts], int],
) -> int:
    """Do a command's work with logging, Ctrl-C and errors as users expect; give its exit code."""
    set_up_logging(log_level(options))
    with Interrupts(argv) as interrupts:
        try:
            with unwrapped():
                return work(options, interrupts)
        except MultiGPUError as error:  # input, or an output folder that cannot be used
            logger.error(str(error))
            if options.progress == "json":
                print_refusal(str(error))
            return UNUSABLE_INPUT
        except KeyboardInterrupt:  # before the first picture; nothing is lost
            interrupts.tell_how_to_continue()
            return INTERRUPTED


def create_generator(
    options: argparse.Namespace,
    settings: Settings,
    name_of_run: str,
    source: Path | NoFile,
    backend: WorkerBackend | None,
) -> MultiGPUImageGenerator:
    """The generator of a run.

    Args:
        source: the one file or folder that tasks are read from, or what they come from.
    """
    if options.num_gpus is not None and options.gpu_ids is not None:
        raise DeviceError(f"Give either {options.number} or --gpu-ids, not both.")
    name = options.name or name_of_run
    if options.shard is not None:
        name = options.shard.name_of(name)
    return MultiGPUImageGenerator(
        options.num_gpus,
        options.gpu_ids,
        settings,
        output_dir=Path(settings.output_dir) / name,
        input_file="/dev/stdin" if source == STDIN else source,
        overwrite=options.overwrite,
        retry_quarantined=options.retry_quarantined,
        backend=backend,
        dry_run=options.dry_run,
    )


def headway_of(
    generator: MultiGPUImageGenerator, options: argparse.Namespace, noun: str
) -> AbstractContextManager[None]:
    """Shows how far a generator's look at its inputs has come, while it is entered."""
    headway = generator.tracker.headway
    return headway_shown(headway, options.progress, log_level(options), noun)


def do(
    work: Work,
    options: argparse.Namespace,
    interrupts: Interrupts,
    settings: Settings,
    source: Source,
    again: "Again | None",
    create: Callable[[], MultiGPUImageGenerator],
) -> int:
    """Plan or do what a source asks for; returns the exit code.

    Args:
        again: the source, where it is pictures that may come to be the same as before.
        create: makes the generator.
    """
    inputs = source.inputs
    if work.variants:
        from apps.picture_commands.task_options import multiplied  # most runs need nothing of it

        inputs, again = multiplied(options, settings, inputs, work.words), None
        if not work.draws:  # what is made as it is read is taken for prompts
            inputs = list(inputs)
    if options.shard is not None:
        if again is not None:
            raise InputError("--shard: shares out what a file asks for, and no pictures.")
        inputs = _part_of(inputs, options.shard, settings, source.noun)
    if options.format or options.quality:
        again = None  # they are to be other pictures
    told = source.is_read
    if told and source.passed_over is not None:
        logger.warning(source.passed_over)
    generator = create()
    looking = headway_of(generator, options, f"{source.noun}s")
    try:
        if asks_for(options, CHOICE):
            from apps.picture_commands.task_options import chosen_of

            inputs, again = chosen_of(options, settings, inputs, generator), None
            if not len(inputs):
                verb = "drawn" if work.draws else "edited"
                place = f" {place_of(generator)}" if generator.output_folder.is_dir() else ""
                print(one_line(f"Nothing is {verb}: no {source.noun} fits.{place}"))
                return ALL_DONE
        if options.dry_run:
            return print_plan_of(generator, inputs, [source.folder], f"{source.noun}s", looking)
        run = Run(generator, interrupts, options.progress, log_level(options))
        with looking:
            plan = generator.prepare(inputs, [source.folder])
        if again is not None:
            again.expect(plan)
        results: list[Result] = []
        take = None if again is None else results.append
        tally = run.execute(plan, f"{source.noun}s", work.why_moved, work.draws, take)
    finally:
        generator.stop(at_once=True)
    if not told and source.passed_over is not None:
        logger.warning(source.passed_over)
    if options.progress != "json":
        print_summary(tally, generator, source.noun, interrupts.command)
        if again is not None:
            print(one_line(again.compare(in_input_order(results))))
    if interrupts.count:
        return INTERRUPTED
    complete = tally.all_succeeded and generator.tables_error is None
    return ALL_DONE if complete else SOME_FAILED


def _part_of(inputs: Inputs, part: Shard, settings: Settings, noun: str) -> Inputs:
    from apps.prompts.shared_out import SharedOut  # most runs need nothing of it

    shared = SharedOut(inputs, part, settings.seed)
    if not len(shared):
        raise InputError(
            f"--shard {part.number}/{part.of}: there are fewer {noun}s than parts; use fewer parts."
        )
    return list(shared) if isinstance(inputs, Sequence) else shared
