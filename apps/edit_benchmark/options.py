"""The options of `run_edit_benchmark.py`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from apps.arguments import (
    add_engine_options,
    add_gallery_option,
    add_output_options,
    add_record_options,
    add_server_options,
    categories,
    command_parser,
    folder_name,
    gpu_ids,
    positive,
    seed,
)
from apps.dry_run import add_dry_run_option
from apps.edit_benchmark.layout import official_names

PROGRAM = "run_edit_benchmark.py"
BY_RECORD = ("only", "only_failed", "where")
"""Options that choose by what the output folder has on record."""

EXAMPLES = """\
examples:
  python run_edit_benchmark.py --config config/edit_benchmark.yaml
      edit and score what the file names: as shipped, 50 small pairs
  python run_edit_benchmark.py --config config/edit_benchmark.yaml --dry-run
      check everything first, and see how long it will take and on which devices
  python run_edit_benchmark.py --config my.yaml --categories physical,causal --limit 20
  python run_edit_benchmark.py compare outputs/run_a outputs/run_b
      paired differences of two or more runs on the same pairs, and which of them are real;
      --html FILE shows the first two side by side

  python run_edit_benchmark.py agreement --data EditReward-Bench --config my.yaml
      how often the judge prefers what people prefer; see agreement --help

Run the same command again to continue: what is done and unchanged is not done again, and
another judge scores the same edits. Edits and verdicts that are made anew because something
changed are kept in .replaced, unless --overwrite is given.
exit codes: 0 every pair has a score, 1 some have none, 2 unusable input, 130 interrupted
"""


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The options of a run."""
    parser = run_parser()
    parser.add_argument(
        "gpus_by_place",
        metavar="NUM_GPUS",
        nargs="?",
        help="how many GPUs (default: every visible one); without CUDA, how many CPU workers",
    )
    # Intermixed: NUM_GPUS may stand anywhere between options.
    options = parser.parse_intermixed_args(argv)
    if options.gpus_by_place is not None:
        if options.num_gpus is not None:
            parser.error("give either NUM_GPUS or --num-gpus, not both")
        try:  # not earlier: an option that is unknown is told of before its value
            options.num_gpus, options.number = _gpus(options.gpus_by_place), "NUM_GPUS"
        except argparse.ArgumentTypeError as error:
            parser.error(f"argument NUM_GPUS: {error}")
    return options


def _gpus(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(
            f"expected a number of GPUs, or compare or agreement before all options, found {text!r}"
        )
    return positive(text)


def run_parser() -> argparse.ArgumentParser:
    """The options of all that edits and scores; `agreement` adds its own."""
    parser = command_parser(
        PROGRAM, "Edit pictures by instruction on all GPUs, then have a judge score them.", EXAMPLES
    )
    parser.set_defaults(number="--num-gpus")
    _add_pairs(parser.add_argument_group("which pairs"))
    _add_where(parser.add_argument_group("where results go, and what is made again"))
    _add_devices(parser.add_argument_group("models and devices"))
    return parser


def _add_pairs(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--config", metavar="FILE", help="YAML settings over config/edit_benchmark.yaml")
    add(
        "--categories",
        type=categories,
        metavar="A,B",
        help='only these categories of the data; one with a comma stands in "quotes"',
    )
    add("--limit", type=positive, metavar="N", help="only the first N pairs")
    add(
        "--language",
        type=categories,
        metavar="en",
        help="only instructions in this language, such as en or cn",
    )
    add(
        "--subset",
        action="append",
        metavar="NAME",
        help="only this part of the data set, such as intersection, dev or multi-turn (see "
        "docs/EDIT_BENCHMARK.md); A,B is either, and each --subset narrows further",
    )
    add("--sample", type=positive, metavar="N", help="N pairs drawn at random")
    add("--sample-seed", type=seed, metavar="S", help="decides which; by default --seed does")
    add("--seed", type=seed, metavar="S", help="the base seed of edits, instead of `seed`")
    add("--data", metavar="PATH", help="the pairs, instead of `data` in the settings")
    add_record_options(
        group, "pairs", "results.jsonl and log lines", "outcome=unparsed, category=sky or O<3"
    )


def _add_where(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--output-dir", metavar="DIR", help="results go to DIR/<name of the data>")
    add(
        "--name",
        type=folder_name,
        metavar="NAME",
        help="results go to DIR/NAME, so that two data sets of one name do not share a folder",
    )
    add(
        "--overwrite",
        action="store_true",
        help="edit and score again what is done and keep nothing of it; also replace what other "
        "data left",
    )
    add(
        "--retry-quarantined",
        action="store_true",
        help="try pairs again that crashed their workers in an earlier run",
    )
    add(
        "--retry-unparsed",
        action="store_true",
        help="have the judge asked again, once more than before, where it gave no readable score",
    )
    add(
        "--score-only",
        metavar="FOLDER",
        type=Path,
        help="score the edits in FOLDER and load no editor; they may be named as GEdit-Bench, "
        "ImgEdit, KRIS-Bench, RISEBench or this program name them. Results go to "
        "DIR/<name of the data>-<name of FOLDER>",
    )
    add(
        "--layout",
        choices=official_names(),
        help="also write the edits as this benchmark's official scorer wants them, into a folder "
        "beside the results",
    )
    add_gallery_option(group)
    add_dry_run_option(group)
    add_output_options(group)


def _add_devices(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--model",
        metavar="ID_OR_PATH",
        help="what edits: Hugging Face id, local diffusers folder or one file, instead of "
        "`editor.model`",
    )
    add(
        "--judge-model",
        metavar="ID_OR_PATH",
        help="what scores, instead of `judge.model`",
    )
    add(
        "--num-gpus",
        type=positive,
        metavar="N",
        help="how many GPUs, as NUM_GPUS says it; give one of the two",
    )
    add(
        "--gpu-ids",
        type=gpu_ids,
        metavar="0,2,4",
        help="which of the visible GPUs, instead of --num-gpus",
    )
    add(
        "--gpus-per-worker",
        type=positive,
        metavar="K",
        help="spread each model over K GPUs, where it is too large for one (default: 1)",
    )
    add(
        "--workers-per-gpu",
        type=positive,
        metavar="K",
        help="have K workers on each GPU, for small models (default: 1)",
    )
    add_engine_options(group)
    add_server_options(group)
