"""The command `generate_images_from_tweets.py`: arguments, run, summary, exit code."""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from loguru import logger

from apps.arguments import log_level
from apps.dry_run import print_plan_of
from apps.interrupts import Interrupts, unwrapped
from apps.json_events import print_refusal
from apps.log_lines import set_up_logging
from apps.openai_images.batch_detection import is_batch_file, means_requests
from apps.prompts.text import STDIN
from apps.run_summary import failure_lines, time_line
from apps.tweets.options import OF_TASKS, asks_for, check_source, parse_arguments
from apps.tweets.run import Run
from apps.tweets.tweets_file import TweetFile, name_of_run, read_prompts, read_tweets
from core.engine.backend import WorkerBackend
from core.errors import DeviceError, InputError, MultiGPUError, one_line
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.names import counted
from core.paths import as_text, user_path
from core.settings import Settings, load_settings
from core.store.results_table import FILE_NAME as TABLE
from core.tasks import Result

if TYPE_CHECKING:
    from apps.tweets.again import Again

ALL_DONE, SOME_FAILED, UNUSABLE_INPUT, INTERRUPTED = 0, 1, 2, 130
WHY_MOVED = (
    "Tweets stand at other places in the file than before, and default seeds and names go by the "
    "place: a tweet with a seed and an output_path of its own keeps its picture wherever it stands."
)


def main(argv: Sequence[str] | None = None, backend: WorkerBackend | None = None) -> int:
    """Run the command; returns its exit code.

    Args:
        backend: runs the workers; by default processes of this machine.
    """
    argv = sys.argv[1:] if argv is None else argv
    options = parse_arguments(argv)
    set_up_logging(log_level(options))
    with Interrupts(argv) as interrupts:
        try:
            with unwrapped():
                return _run(options, interrupts, backend)
        except MultiGPUError as error:  # input, or an output folder that cannot be used
            logger.error(str(error))
            if options.progress == "json":
                print_refusal(str(error))
            return UNUSABLE_INPUT
        except KeyboardInterrupt:  # before the first picture; nothing is lost
            interrupts.tell_how_to_continue()
            return INTERRUPTED


def _run(options: argparse.Namespace, interrupts: Interrupts, backend: WorkerBackend | None) -> int:
    check_source(options)
    if options.tweets not in (None, STDIN):
        path = user_path(options.tweets, "TWEETS")
        if is_batch_file(path):
            return _run_batch(options, interrupts, backend)
        if means_requests(path):
            from apps.tweets.two_readings import refuse_what_is_neither

            refuse_what_is_neither(path)
    settings = _settings(options)
    tweets = _read(options, settings)
    again = None if isinstance(tweets, TweetFile) else tweets
    inputs = tweets.inputs
    if again is not None:
        settings = _laid_over(settings, again.settings(settings))
    if asks_for(options, "variants"):
        from apps.tweets.task_options import multiplied  # most runs need nothing of it

        inputs, again = multiplied(options, settings, inputs), None
    if options.format or options.quality:
        again = None  # they are to be other pictures
    if options.shard is not None:
        if options.from_png:
            raise InputError("--shard: is for files of prompts and --prompt; leave it out.")
        from apps.prompts.shared_out import SharedOut

        inputs = SharedOut(inputs, options.shard, settings.seed)
        if not len(inputs):
            raise InputError(
                f"--shard {options.shard.number}/{options.shard.of}: there are fewer "
                f"{tweets.noun}s than parts; use fewer parts."
            )
    told = tweets.is_read
    if told and tweets.passed_over is not None:
        logger.warning(tweets.passed_over)
    generator = _create_generator(options, settings, tweets.name_of_run, backend)
    if options.dry_run:
        return print_plan_of(generator, inputs, [tweets.folder], f"{tweets.noun}s")
    try:
        if asks_for(options, "choice"):
            from apps.tweets.task_options import chosen_of

            inputs, again = chosen_of(options, settings, inputs, generator), None
            if not len(inputs):
                print(f"Nothing is drawn: no {tweets.noun} fits. {one_line(_place(generator))}")
                return ALL_DONE
        run = Run(generator, interrupts, options.progress, log_level(options))
        plan = generator.prepare(inputs, [tweets.folder])
        if again is not None:
            again.expect(plan)
        results = run.execute(plan, f"{tweets.noun}s", WHY_MOVED)
    finally:
        generator.stop(at_once=True)
    if not told and tweets.passed_over is not None:
        logger.warning(tweets.passed_over)
    if options.progress != "json":
        _print_summary(results, generator, tweets.noun, interrupts.command)
        if again is not None:
            print(one_line(again.compare(results)))
    if interrupts.count:
        return INTERRUPTED
    complete = all(r.success for r in results) and generator.tables_error is None
    return ALL_DONE if complete else SOME_FAILED


def _read(options: argparse.Namespace, settings: Settings) -> "TweetFile | Again":
    """What is asked for: a file, prompts of the command line, or pictures."""
    suffix = settings.workers.picture_suffix
    if options.from_png:
        from apps.tweets.again import Again

        return Again(options.from_png, options.limit, suffix if options.format else None)
    if options.prompt:
        prompts = [as_text(prompt) for prompt in options.prompt]
        return read_prompts(prompts, settings.seed, options.limit, suffix)
    return read_tweets(options.tweets, options.prompt_from, options.limit, suffix)


def _place(generator: MultiGPUImageGenerator) -> str:
    return f"pictures and results: {as_text(generator.output_folder)}"


def _run_batch(
    options: argparse.Namespace, interrupts: Interrupts, backend: WorkerBackend | None
) -> int:
    """Do the requests of a batch file; see docs/TWEETS.md."""
    from apps.openai_images.batch import LocalBatch  # tweets need nothing of it
    from apps.openai_images.rules import load_image_settings

    if options.prompt_from is not None:
        raise InputError("--prompt-from: requests of a batch file have one prompt; leave it out.")
    for name in (*OF_TASKS["variants"], *OF_TASKS["choice"], "shard"):
        if getattr(options, name):
            option = name.replace("_", "-")
            raise InputError(f"--{option}: requests of a batch file say all of it; leave it out.")
    settings = _settings(options, load_image_settings)
    path = user_path(options.tweets, "TWEETS")
    generator = _create_generator(options, settings, name_of_run(as_text(path.stem)), backend)
    if options.dry_run:
        with TemporaryDirectory() as kept:
            batch = LocalBatch(generator, path, limit=options.limit, kept_in=Path(kept))
            code = print_plan_of(generator, batch, [path.absolute().parent], "pictures")
        if batch.refusal is not None:
            logger.error(batch.refusal)
            return UNUSABLE_INPUT
        return code
    try:
        batch = LocalBatch(generator, path, limit=options.limit)
        if batch.refusal is not None:
            logger.error(batch.refusal)
        run = Run(generator, interrupts, options.progress, log_level(options))
        plan = generator.prepare(batch, [path.absolute().parent])
        results = run.execute(plan, "pictures", WHY_MOVED, draws="generate" in batch.roles)
        outcome = batch.write(results)
    finally:
        generator.stop(at_once=True)
    if options.progress != "json":
        unusable = f" ({batch.unusable} of them unusable lines)" if batch.unusable else ""
        ends = f"{outcome.completed} completed, {outcome.failed} failed{unusable}"
        print(f"{counted(batch.requests, 'request')}: {ends}")
        for what, file in (("results", outcome.output), ("errors", outcome.errors)):
            if file is not None:
                print(one_line(f"{what}: {as_text(file)}"))
        _print_end(results, generator, interrupts.command)
    if interrupts.count:
        return INTERRUPTED
    return SOME_FAILED if outcome.failed or generator.tables_error is not None else ALL_DONE


def _settings(
    options: argparse.Namespace, load: Callable[[Any], Settings] = load_settings
) -> Settings:
    """The command line over the settings file."""
    settings = load(options.config)
    names = ("model", "output_dir", "seed", "gpus_per_worker", "workers_per_gpu", "use_server")
    changes = {name: getattr(options, name) for name in (*names, "gallery")}
    given = {key: value for key, value in changes.items() if value is not None}
    # Bytes that the locale has no letters for came in as surrogates, which are no text.
    given = {k: as_text(v) if isinstance(v, str) else v for k, v in given.items()}
    of_files = {"picture_format": options.format, "picture_quality": options.quality}
    of_files = {key: value for key, value in of_files.items() if value is not None}
    if options.quality is not None and (options.format or settings.workers.picture_format) == "png":
        raise InputError("--quality: PNG is lossless; use it with --format jpeg or webp.")
    return _laid_over(settings, {**given, "workers": of_files}, load)


def _laid_over(
    settings: Settings, changes: Mapping[str, Any], load: Callable[[Any], Settings] = load_settings
) -> Settings:
    """Settings with others over them; of the section `workers` with single ones."""
    known = settings.model_dump(exclude_unset=True)
    workers = {**known["workers"], **changes.get("workers", {})}
    return load({**known, **changes, "workers": workers})


def _create_generator(
    options: argparse.Namespace,
    settings: Settings,
    name_of_run: str,
    backend: WorkerBackend | None,
) -> MultiGPUImageGenerator:
    if options.num_gpus is not None and options.gpu_ids is not None:
        raise DeviceError("Give either NUM_GPUS or --gpu-ids, not both.")
    source = "/dev/stdin" if options.tweets == STDIN else options.tweets
    name = options.name or name_of_run
    if options.shard is not None:
        name = options.shard.name_of(name)
    return MultiGPUImageGenerator(
        options.num_gpus,
        options.gpu_ids,
        settings,
        output_dir=Path(settings.output_dir) / name,
        input_file=source,
        overwrite=options.overwrite,
        retry_quarantined=options.retry_quarantined,
        backend=backend,
        dry_run=options.dry_run,
    )


def _print_summary(
    results: Sequence[Result], generator: MultiGPUImageGenerator, noun: str, command: str
) -> None:
    counts = Counter(r.status for r in results)
    parts = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    loads, switches = generator.lora_counts
    loras = f"; {counted(loads, 'LoRA load')}, {counted(switches, 'switch')}" if switches else ""
    print(f"{counted(len(results), noun)}: {parts}{loras}")
    print(one_line(_place(generator)))
    _print_end(results, generator, command)


def _print_end(results: Sequence[Result], generator: MultiGPUImageGenerator, again: str) -> None:
    """Print how long it took, what failed and why, and what to do about it."""
    elapsed = time_line(generator.status())
    if elapsed is not None:
        print(elapsed)
    for line in failure_lines(results, again, as_text(generator.output_folder / TABLE)):
        print(line)
