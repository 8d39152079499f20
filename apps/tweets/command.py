"""The command `generate_images_from_tweets.py`: arguments, run, summary, exit code."""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from loguru import logger

from apps.arguments import (
    LOG_LEVELS,
    add_gallery_option,
    add_server_options,
    folder_name,
    gpu_ids,
    positive,
    seed,
)
from apps.interrupts import Interrupts, unwrapped
from apps.log_lines import set_up_logging
from apps.openai_images.batch_detection import is_batch_file, means_requests
from apps.tweets.run import Run
from apps.tweets.tweets_file import PROMPT_SOURCES, name_of_run, read_tweets
from core.engine.backend import WorkerBackend
from core.errors import DeviceError, InputError, MultiGPUError, one_line
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.paths import as_text, user_path
from core.settings import Settings, load_settings
from core.tasks import Result

ALL_DONE, SOME_FAILED, UNUSABLE_INPUT, INTERRUPTED = 0, 1, 2, 130
WHY_MOVED = (
    "Tweets stand at other places in the file than before, and default seeds and names go by the "
    "place: a tweet with a seed and an output_path of its own keeps its picture wherever it stands."
)

EXAMPLES = """\
examples:
  python generate_images_from_tweets.py examples/persona_tweets.json 2
      draw the example on 2 GPUs, or on 2 CPU workers where there is no GPU
  python generate_images_from_tweets.py tweets.json --gpu-ids 0,2,4 --model Tongyi-MAI/Z-Image-Turbo
      draw on three of this machine's GPUs with a model of your choice
  python generate_images_from_tweets.py tweets.json --limit 3 --output-dir trial
      try the first three tweets
  python generate_images_from_tweets.py batch.jsonl
      do the requests of a file of OpenAI's Batch API: pictures and edits

Run the same command again to continue: what is done and unchanged is not drawn again, and what
is drawn anew because it changed is kept in .replaced, unless --overwrite is given.
exit codes: 0 all pictures and tables are there, 1 some failed, 2 unusable input, 130 interrupted
"""


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="generate_images_from_tweets.py",
        description="Draw a picture for every tweet of a file, on all GPUs of this machine.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "tweets",
        metavar="TWEETS",
        type=Path,
        help="persona tweets (JSON), a JSON list of prompts, JSONL, or OpenAI's Batch JSONL",
    )
    add(
        "num_gpus",
        metavar="NUM_GPUS",
        nargs="?",
        type=int,
        help="how many GPUs (default: every visible one); without CUDA, how many CPU workers",
    )
    add(
        "--gpu-ids",
        type=gpu_ids,
        metavar="0,2,4",
        help="which of the visible GPUs, instead of NUM_GPUS",
    )
    add(
        "--gpus-per-worker",
        type=positive,
        metavar="K",
        help="spread the model over K GPUs each, where it is too large for one (default: 1)",
    )
    add(
        "--workers-per-gpu",
        type=positive,
        metavar="K",
        help="have K workers on each GPU, for a small model (default: 1)",
    )
    add("--config", metavar="FILE", help="YAML settings that differ from config/default.yaml")
    add(
        "--model",
        metavar="ID_OR_PATH",
        help="Hugging Face id, local diffusers folder or one file (default: auto, which is "
        "Z-Image-Turbo where it fits into the GPUs' memory, else the embedded demo model)",
    )
    add(
        "--output-dir", metavar="DIR", help="pictures go to DIR/<name of TWEETS> (default: outputs)"
    )
    add(
        "--name",
        type=folder_name,
        metavar="NAME",
        help="pictures go to DIR/NAME, so that two files of one name do not share a folder",
    )
    add(
        "--overwrite",
        action="store_true",
        help="draw again what is done and keep nothing of it; also replace what another TWEETS or "
        "another program left",
    )
    add(
        "--retry-quarantined",
        action="store_true",
        help="try tweets again that crashed their workers in an earlier run",
    )
    add("--limit", type=positive, metavar="N", help="only the first N tweets")
    add(
        "--seed",
        type=seed,
        metavar="S",
        help="tweet i gets seed S + i (default: 42); -1: each one at random, kept by a rerun",
    )
    add(
        "--prompt-from",
        choices=PROMPT_SOURCES,
        help="take the prompt from this field alone (default: the first of prompt, "
        "positive_prompt and scene_hint that is not empty)",
    )
    add_gallery_option(parser)
    add_server_options(parser)
    add("--log-level", choices=LOG_LEVELS, default="INFO", type=str.upper, help="default: INFO")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, backend: WorkerBackend | None = None) -> int:
    """Run the command; returns its exit code.

    Args:
        backend: runs the workers; by default processes of this machine.
    """
    argv = sys.argv[1:] if argv is None else argv
    options = parse_arguments(argv)
    set_up_logging(options.log_level)
    with Interrupts(argv) as interrupts:
        try:
            with unwrapped():
                return _run(options, interrupts, backend)
        except MultiGPUError as error:  # input, or an output folder that cannot be used
            logger.error(str(error))
            return UNUSABLE_INPUT
        except KeyboardInterrupt:  # before the first picture; nothing is lost
            interrupts.tell_how_to_continue()
            return INTERRUPTED


def _run(options: argparse.Namespace, interrupts: Interrupts, backend: WorkerBackend | None) -> int:
    path = user_path(options.tweets, "TWEETS")
    if is_batch_file(path):
        return _run_batch(options, interrupts, backend)
    if means_requests(path):
        from apps.tweets.two_readings import refuse_what_is_neither

        refuse_what_is_neither(path)
    settings = _settings(options)
    suffix = settings.workers.picture_suffix
    tweets = read_tweets(options.tweets, options.prompt_from, options.limit, suffix)
    told = tweets.is_read
    if told and tweets.passed_over is not None:
        logger.warning(tweets.passed_over)
    generator = _create_generator(options, settings, tweets.name_of_run, backend)
    try:
        run = Run(generator, interrupts, options.log_level)
        plan = generator.prepare(tweets.inputs, [tweets.folder])
        results = run.execute(plan, "tweets", WHY_MOVED)
    finally:
        generator.stop(at_once=True)
    if not told and tweets.passed_over is not None:
        logger.warning(tweets.passed_over)
    _print_summary(results, generator)
    if interrupts.count:
        return INTERRUPTED
    complete = all(r.success for r in results) and generator.tables_error is None
    return ALL_DONE if complete else SOME_FAILED


def _run_batch(
    options: argparse.Namespace, interrupts: Interrupts, backend: WorkerBackend | None
) -> int:
    """Do the requests of a batch file; see docs/TWEETS.md."""
    from apps.openai_images.batch import LocalBatch  # tweets need nothing of it
    from apps.openai_images.rules import load_image_settings

    if options.prompt_from is not None:
        raise InputError("--prompt-from: requests of a batch file have one prompt; leave it out.")
    settings = _settings(options, load_image_settings)
    path = user_path(options.tweets, "TWEETS")
    generator = _create_generator(options, settings, name_of_run(as_text(path.stem)), backend)
    try:
        batch = LocalBatch(generator, path, limit=options.limit)
        if batch.refusal is not None:
            logger.error(batch.refusal)
        run = Run(generator, interrupts, options.log_level)
        plan = generator.prepare(batch, [path.absolute().parent])
        results = run.execute(plan, "pictures", WHY_MOVED, draws="generate" in batch.roles)
        outcome = batch.write(results)
    finally:
        generator.stop(at_once=True)
    unusable = f" ({batch.unusable} of them unusable lines)" if batch.unusable else ""
    ends = f"{outcome.completed} completed, {outcome.failed} failed{unusable}"
    print(f"{batch.requests} requests: {ends}")
    for what, file in (("results", outcome.output), ("errors", outcome.errors)):
        if file is not None:
            print(one_line(f"{what}: {as_text(file)}"))
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
    return load({**settings.model_dump(exclude_unset=True), **given})


def _create_generator(
    options: argparse.Namespace,
    settings: Settings,
    name_of_run: str,
    backend: WorkerBackend | None,
) -> MultiGPUImageGenerator:
    if options.num_gpus is not None and options.gpu_ids is not None:
        raise DeviceError("Give either NUM_GPUS or --gpu-ids, not both.")
    return MultiGPUImageGenerator(
        options.num_gpus,
        options.gpu_ids,
        settings,
        output_dir=Path(settings.output_dir) / (options.name or name_of_run),
        input_file=options.tweets,
        overwrite=options.overwrite,
        retry_quarantined=options.retry_quarantined,
        backend=backend,
    )


def _print_summary(results: Sequence[Result], generator: MultiGPUImageGenerator) -> None:
    counts = Counter(r.status for r in results)
    parts = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    loads, switches = generator.lora_counts
    loras = f"; {loads} LoRA loads, {switches} switches" if switches else ""
    print(f"{len(results)} tweets: {parts}{loras}")
    print(one_line(f"pictures and results: {as_text(generator.output_folder)}"))
