"""The command `run_edit_benchmark.py agreement`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from loguru import logger

from apps.arguments import positive
from apps.edit_benchmark.agreement.orders import nothing_shared
from apps.edit_benchmark.agreement.report import agreement, print_agreement
from apps.edit_benchmark.agreement.verdicts import read_runs
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.plain_table import letters_of
from apps.edit_benchmark.preferences import comparisons_of
from core.paths import user_path
from core.store.outputs import write_atomically

EXAMPLES = """\
examples:
  python run_edit_benchmark.py agreement --data EditReward-Bench --config my.yaml
      score the candidates of the data with the judge of my.yaml, and compare it with people
  python run_edit_benchmark.py agreement --data EditReward-Bench outputs/EditReward-Bench
      the same of all judges that scored them, without scoring
  python run_edit_benchmark.py agreement outputs/seed_1 outputs/seed_2 outputs/seed_3
      whether one judge says the same again, and whether judges agree; needs the same edits
exit codes: as of a run; where only folders are read 0, or 1 if nothing in them can be compared
"""


def agreement_arguments(
    parser: argparse.ArgumentParser, argv: Sequence[str], program: str
) -> argparse.Namespace:
    """The arguments of the command.

    Args:
        parser: of a run, which it adds to.
    """
    parser.prog = program
    parser.description = (
        "How far judges can be trusted: how often they prefer what people prefer, and whether they "
        "agree with each other and with themselves. Without a FOLDER, the edits that the data "
        "brings along are scored first."
    )
    parser.epilog = EXAMPLES
    add = parser.add_argument
    add("folders", metavar="FOLDER", type=Path, nargs="*", help="results folders of earlier runs")
    add(
        "--judge",
        metavar="NAME",
        action="append",
        default=[],
        help="only this judge of the folders; may be given several times (default: all)",
    )
    add(
        "--score",
        metavar="DIMENSION=NAME",
        type=_score_of_dimension,
        action="append",
        default=[],
        help="the score by which candidates are compared, such as overall=PQ or "
        "consistency=SC.over_editing (default: by name; overall is the last score)",
    )
    add(
        "--samples",
        type=positive,
        default=2_000,
        metavar="N",
        help="resamplings behind the intervals (default: 2000)",
    )
    add("--report", metavar="FILE", type=Path, help="also write all figures as JSON")
    return parser.parse_args(argv)


def _score_of_dimension(text: str) -> tuple[str, str]:
    dimension, _, name = text.partition("=")
    if not dimension or not name:
        raise argparse.ArgumentTypeError(f"{text!r}: expected DIMENSION=NAME, such as overall=PQ")
    return dimension, name


def tell_agreement(
    options: argparse.Namespace, folders: Sequence[Path], pairs: Sequence[Pair] | None
) -> bool:
    """Print how far the judges of the folders can be trusted, and write it where asked for.

    Args:
        pairs: they say what people preferred; None: judges are compared with each other alone.

    Returns:
        Whether there was anything to compare.

    Raises:
        InputError: the folders have no verdicts, or what people preferred is not in form.
        StorageError: the report cannot be written.
    """
    comparisons = comparisons_of(pairs or ())
    names = None if pairs is None else [pair.name for pair in pairs]
    runs = [run for folder in folders for run in read_runs(folder, options.judge, names)]
    found = agreement(runs, comparisons, dict(options.score), options.samples)
    if not comparisons and pairs is not None:
        logger.warning(
            "The data does not say what people preferred (docs/EDIT_BENCHMARK.md): judges are "
            "compared with each other alone."
        )
    print_agreement(found)
    if found.is_empty:
        logger.error(nothing_shared(runs, letters_of(len(runs))))
    report = user_path(options.report, "--report") if options.report else None
    if report is None and not options.folders:
        report = folders[0] / "agreement.json"
    if report is not None:
        write_atomically(report, found.as_json())
    return not found.is_empty
