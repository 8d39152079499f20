"""`--dry-run` of the commands: the plan of a run on standard output, and its exit code."""

import argparse
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from core.dry_run.run_plan import RunPlan
from core.intake.task_kinds import Inputs
from core.multi_gpu_image_generator import MultiGPUImageGenerator

VALID, INVALID = 0, 2


def add_dry_run_option(parser: argparse._ActionsContainer) -> None:
    """`--dry-run`."""
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything and show what would be done, with what, how long it takes and how "
        "much disk; touch nothing. Exit code 0, or 2 if something is wrong",
    )


def print_plan(plan: RunPlan) -> int:
    """Print a plan; returns the command's exit code."""
    print(plan)
    return VALID if plan.is_valid else INVALID


def print_plan_of(
    generator: MultiGPUImageGenerator,
    inputs: Inputs,
    lora_folders: Sequence[Path],
    noun: str,
    looking: AbstractContextManager[None],
) -> int:
    """Print the plan of a generator's inputs; returns the command's exit code.

    Args:
        noun: what the inputs are called, in the plural.
        looking: entered while they are looked at.
    """
    with looking:
        plan = generator.plan(inputs, lora_folders)
    return print_plan(replace(plan, noun=noun))
