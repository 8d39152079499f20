"""The command `run_edit_benchmark.py compare`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from apps.arguments import command_parser, positive
from apps.edit_benchmark.compare import compare
from apps.edit_benchmark.comparison_table import comparison_page, print_comparison
from apps.edit_benchmark.plain_table import letters_of
from apps.gallery.two_runs import write_comparison
from apps.log_lines import set_up_logging
from core.errors import one_line
from core.paths import as_text, user_path


def _arguments(argv: Sequence[str], program: str) -> argparse.Namespace:
    parser = command_parser(
        f"{program} compare",
        "Paired differences of result folders, each less the ones before it, and which of them are "
        "real.",
    )
    parser.add_argument("a", metavar="A", type=Path, help="results folder of one run")
    parser.add_argument(
        "others", metavar="B", type=Path, nargs="+", help="results folders of other runs"
    )
    parser.add_argument(
        "--judge", metavar="NAME", help="whose scores (default: the judge of each one's last run)"
    )
    parser.add_argument(
        "--score",
        metavar="NAME",
        help="which score (default: the judge's main one, the last of its table: O of judges that "
        "are asked, such as lpips_source of LPIPS)",
    )
    parser.add_argument(
        "--samples",
        type=positive,
        default=10_000,
        metavar="N",
        help="resamplings behind the intervals (default: 10000)",
    )
    parser.add_argument(
        "--html",
        metavar="FILE",
        type=Path,
        help="also write a page that shows A and B side by side, with all their pictures",
    )
    return parser.parse_args(argv)


def compare_runs(argv: Sequence[str], program: str) -> int:
    """Run the command; returns its exit code.

    Raises:
        InputError: the folders cannot be compared.
    """
    options = _arguments(argv, program)
    set_up_logging("INFO")
    folders = [user_path(folder, "a results folder") for folder in (options.a, *options.others)]
    comparison = compare(folders, options.score, options.samples, options.judge)
    print_comparison(comparison)
    for letter, folder in zip(letters_of(len(folders)), folders, strict=True):
        print(one_line(f"{letter}: {as_text(folder)}"))
    if options.html is not None:
        page = user_path(options.html, "--html")
        judge = comparison.runs[0].judged_by.judge
        write_comparison(folders[0], folders[1], page, comparison_page(comparison), judge)
        print(one_line(f"side by side: {as_text(page)}"))
    return 0
