"""The options of `generate_images_from_tweets.py`, and what is drawn by them."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from apps.arguments import command_parser, positive, seed
from apps.picture_commands.options import (
    VARIANTS,
    add_choice_options,
    add_device_options,
    add_file_options,
    add_run_options,
    add_variant_options,
    asks_for,
)
from apps.tweets.tweets_file import PROMPT_SOURCES
from core.errors import InputError

EXAMPLES = """\
examples:
  python generate_images_from_tweets.py --prompt "a red house" --seeds 0-3
      draw one prompt four times
  python generate_images_from_tweets.py prompts.txt --lora style.safetensors:0.8
      draw a text file, one prompt on each line, with a LoRA at strength 0.8
  python generate_images_from_tweets.py prompts.csv --grid cfg=1,3 --grid steps=4,8
      draw every row of a table in all four combinations
  python generate_images_from_tweets.py examples/persona_tweets.json 2
      draw the example persona's tweets on 2 GPUs, or on 2 CPU workers where there is no GPU
  python generate_images_from_tweets.py tweets.json --gpu-ids 0,2,4 --model Tongyi-MAI/Z-Image-Turbo
      draw on three of this machine's GPUs with a model of your choice
  python generate_images_from_tweets.py tweets.json --limit 3 --output-dir trial
      try the first three tweets
  python generate_images_from_tweets.py --from-png outputs/tweets/Mira_00.png --seeds 0-9
      draw a picture again with ten other seeds
  python generate_images_from_tweets.py batch.jsonl
      do the requests of a file of OpenAI's Batch API: pictures and edits

Run the same command again to continue: what is done and unchanged is not drawn again, and what
is drawn anew because it changed is kept in .replaced, unless --overwrite is given.
docs/TWEETS.md lists the forms of files and all fields, with their names, units and defaults.
exit codes: 0 all pictures and tables are there, 1 some failed, 2 unusable input, 130 interrupted
"""


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = command_parser(
        "generate_images_from_tweets.py",
        "Draw a picture for every prompt of a file, on all GPUs of this machine.",
        EXAMPLES,
    )
    parser.add_argument(
        "tweets",
        metavar="TWEETS",
        nargs="?",
        type=Path,
        help="a file of prompts: text with one prompt on each line, CSV or TSV with a header, "
        "YAML, JSON or JSONL, persona tweets, or OpenAI's Batch JSONL; - reads standard input",
    )
    parser.add_argument(
        "num_gpus",
        metavar="NUM_GPUS",
        nargs="?",
        type=int,
        help="how many GPUs (default: every visible one); without CUDA, how many CPU workers",
    )
    _add_what(parser.add_argument_group("what is drawn"))
    _add_how(parser.add_argument_group("how it is drawn (over what files and settings say)"))
    _add_where(parser.add_argument_group("where pictures go, and which are drawn again"))
    devices = parser.add_argument_group("model and devices")
    devices.add_argument(
        "--num-gpus",
        dest="gpus_by_name",
        type=positive,
        metavar="N",
        help="how many GPUs, as NUM_GPUS says it; give one of the two",
    )
    add_device_options(
        devices,
        "Z-Image-Turbo where it fits into the GPUs' memory, else the embedded demo model",
        "--num-gpus",
    )
    parser.set_defaults(number="NUM_GPUS")
    # Intermixed: NUM_GPUS may stand anywhere, and not only beside TWEETS.
    options = _with_prompts(parser.parse_intermixed_args(argv))
    if options.gpus_by_name is not None:
        if options.num_gpus is not None:
            parser.error("give either NUM_GPUS or --num-gpus, not both")
        options.num_gpus, options.number = options.gpus_by_name, "--num-gpus"
    return options


def _with_prompts(options: argparse.Namespace) -> argparse.Namespace:
    """Without a file, a number in its place, or behind the last picture, is NUM_GPUS."""
    if options.num_gpus is not None or not (options.prompt or options.from_png):
        return options
    last = options.from_png[-1] if options.from_png and len(options.from_png) > 1 else ""
    if _is_number(options.tweets):
        options.tweets, options.num_gpus = None, int(str(options.tweets))
    elif options.tweets is None and _is_number(last):
        options.num_gpus = int(options.from_png.pop())
    return options


def _is_number(given: object) -> bool:
    """Whether it is a number, and no file."""
    return str(given).isdecimal() and not os.path.exists(str(given))


def asks_for_variants(options: argparse.Namespace) -> bool:
    """Whether tasks are to be multiplied or changed; by a seed for pictures, too."""
    return bool(options.from_png and options.seed is not None) or asks_for(options, VARIANTS)


def check_source(options: argparse.Namespace) -> None:
    """See that there is one thing to draw.

    Raises:
        InputError: there is none, or two.
    """
    given = [f"a file of prompts ({options.tweets})"] if options.tweets is not None else []
    given += ["--prompt"] if options.prompt else []
    given += ["--from-png"] if options.from_png else []
    if not given:
        raise InputError(
            'Give a file of prompts, --prompt "…", or pictures with --from-png; --help shows '
            "examples."
        )
    if len(given) > 1:
        raise InputError(f"Give either {' or '.join(given)}, not both.")
    if not all(prompt.strip() for prompt in options.prompt or ()):
        raise InputError('--prompt: is empty; write what to draw, as in --prompt "a red house".')
    if options.prompt_from and not options.tweets:
        raise InputError("--prompt-from: is for files; leave it out.")


def _add_what(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--prompt",
        action="append",
        metavar='"…"',
        help="draw this prompt, in place of a file; give it again for more prompts",
    )
    add(
        "--from-png",
        action="extend",
        nargs="+",
        metavar="FILE",
        help="draw pictures of this program again from what they say of themselves (PNG, WebP, "
        "JPEG, a folder of them, or its metadata.jsonl), and say whether they became the same; "
        "--seeds or --set draw them in another way",
    )
    add(
        "--prompt-from",
        choices=PROMPT_SOURCES,
        help="take the prompt from this field alone (default: the first of prompt, "
        "positive_prompt and scene_hint that is not empty)",
    )
    add_choice_options(group, "prompts of the file", "prompt~house")
    add(
        "--alternatives",
        action="store_true",
        help="read {a|b} in a prompt as two prompts, one with a and one with b",
    )


def _add_how(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--seed",
        type=seed,
        metavar="S",
        help="prompt i of a file (from 0) gets seed S + i, each --prompt gets S (default: 42); "
        "-1: each one at random, kept when the command runs again",
    )
    add_variant_options(group, "draw", "prompt")


def _add_where(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--output-dir",
        metavar="DIR",
        help="pictures go to the folder DIR/<name of TWEETS>, or DIR/drawn (default: outputs)",
    )
    add_file_options(group)
    add(
        "--picture-name",
        metavar="PATTERN",
        help="call pictures by this pattern of fields, such as {prompt}_{seed} or {lora}/{id}; "
        "also {index}, any setting, and what a tweet says of itself (default: {id})",
    )
    add_run_options(group, "draw", "prompts")
