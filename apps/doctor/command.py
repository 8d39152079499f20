"""The command `doctor.py`: arguments, the findings as text or JSON, exit code."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from loguru import logger

from apps.arguments import command_parser
from apps.doctor.examination import Findings, examine
from apps.doctor.finding import Finding
from apps.doctor.software import ask_torch
from apps.log_lines import set_up_logging
from core.errors import MultiGPUError, one_line
from core.settings import load_settings

READY, NOT_READY, UNUSABLE_INPUT = 0, 1, 2
NAME_WIDTH = 18

EXAMPLES = """\
examples:
  python doctor.py                    what this machine has, and what a run would use
  python doctor.py --config my.yaml   the same for settings of your own
  python doctor.py --json             for programs

exit codes: 0 runs can start, 1 something would stop them, 2 unusable settings
"""


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = command_parser(
        "doctor.py",
        "Look at this machine: what it has, what a run would use, what is missing and "
        "how to get it. Nothing is changed.",
        EXAMPLES,
    )
    parser.add_argument(
        "--config", metavar="FILE", help="YAML settings that differ from config/default.yaml"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, ask: Callable[[], dict[str, Any]] = ask_torch) -> int:
    """Run the command; returns its exit code.

    Args:
        ask: asks torch about itself.
    """
    options = parse_arguments(sys.argv[1:] if argv is None else argv)
    set_up_logging("ERROR")  # what would be warned of is found
    try:
        findings = examine(load_settings(options.config), ask)
    except MultiGPUError as error:
        logger.error(str(error))
        return UNUSABLE_INPUT
    problems = [f for found in findings.values() for f in found if f.level == "problem"]
    if options.json:
        shown = {topic: [f.as_json() for f in found] for topic, found in findings.items()}
        print(json.dumps({"ready": not problems, "findings": shown}, indent=1))
    else:
        print("\n".join(_lines(findings, len(problems))))
    return NOT_READY if problems else READY


def _lines(findings: Findings, problems: int) -> Iterator[str]:
    for topic, found in findings.items():
        yield topic
        for finding in found:
            yield from _of(finding)
    yield ""
    if problems:
        yield f"{problems} problem{'s' * (problems > 1)}: runs will not work before that is mended."
    else:
        yield "This machine is ready. `--dry-run` of a command checks a run of yours."


def _of(finding: Finding) -> Iterator[str]:
    yield one_line(f"  {finding.level:<8} {finding.name + ':':<{NAME_WIDTH}} {finding.text}")
    if finding.advice and finding.level != "ok":
        yield one_line(f"  {'':<8} {'':<{NAME_WIDTH}} -> {finding.advice}")
