"""Options of every command that draws or edits pictures."""

import argparse
from argparse import _ArgumentGroup as Group

from apps.arguments import (
    add_engine_options,
    add_gallery_option,
    add_output_options,
    add_record_options,
    add_server_options,
    folder_name,
    gpu_ids,
    percent,
    positive,
)
from apps.dry_run import add_dry_run_option
from apps.prompts.shard import shard

CHOICE = ("only", "only_failed", "where")
"""Options that choose some of a run's tasks."""
VARIANTS = ("grid", "set", "lora", "seeds", "alternatives", "picture_name")
"""Options that multiply, change or name tasks."""


def add_choice_options(group: Group, things: str, condition: str) -> None:
    """`--only`, `--only-failed`, `--where`, `--limit` and `--shard`.

    Args:
        things: what inputs are called, in the plural.
        condition: an example of a condition on a text.
    """
    add = group.add_argument
    add_record_options(
        group,
        "pictures",
        "log lines and results.jsonl",
        f"status=failed, lora=ink*, seconds>30 or {condition}",
    )
    add("--limit", type=positive, metavar="N", help=f"only the first N {things}")
    add(
        "--shard",
        type=shard,
        metavar="I/N",
        help=f"only the I-th of N parts of the {things}, into a folder of its own "
        "(DIR/NAME.shard-I-of-N), where N of these commands share the work; "
        "`records.py DIR/NAME merge` makes one folder of them",
    )


def add_variant_options(group: Group, does: str, thing: str) -> None:
    """`--seeds`, `--grid`, `--set`, `--lora` and `--config`.

    Args:
        does: what is done, as a verb: draw or edit.
        thing: what one input is called.
    """
    add = group.add_argument
    add(
        "--seeds",
        metavar="0-9",
        help=f"{does} each {thing} once with each of these seeds, such as 0-9 or 0,3,7-9",
    )
    add(
        "--grid",
        action="append",
        metavar="FIELD=A,B",
        help=f"{does} each {thing} once with each value, such as cfg=1,3 or "
        "lora=a.safetensors,none; several of them give every combination, and pictures' names say "
        "which",
    )
    add(
        "--set",
        action="append",
        metavar="FIELD=VALUE",
        help=f"give every {thing} this setting, such as steps=8 or size=512x768",
    )
    add(
        "--lora",
        action="append",
        metavar="FILE[:STRENGTH]",
        help=f"{does} every {thing} with this LoRA, at strength 1 unless given, in place of its "
        "own; give it again for several at once",
    )
    add("--config", metavar="FILE", help="YAML settings that differ from config/default.yaml")


def add_file_options(group: Group) -> None:
    """`--name`, `--format` and `--quality`."""
    add = group.add_argument
    add(
        "--name",
        type=folder_name,
        metavar="NAME",
        help="pictures go to DIR/NAME, so that two inputs of one name do not share a folder",
    )
    add(
        "--format",
        type=lambda text: "jpeg" if text.lower() == "jpg" else text.lower(),
        choices=("png", "webp", "jpeg"),
        help="file format of pictures (default: png; webp is lossless, too, unless --quality is "
        "given); all of them hold the prompt and settings",
    )
    add(
        "--quality",
        type=percent,
        metavar="Q",
        help="quality of JPEG or WebP files, 1 to 100 (default: 95 for JPEG, lossless for WebP)",
    )


def add_run_options(group: Group, does: str, things: str) -> None:
    """`--overwrite`, `--retry-quarantined`, `--dry-run`, and how a run is shown.

    Args:
        does: what is done, as a verb: draw or edit.
        things: what inputs are called, in the plural.
    """
    add = group.add_argument
    add(
        "--overwrite",
        action="store_true",
        help=f"{does} again what is done and keep nothing of it; also replace what another input "
        "or another program left",
    )
    add(
        "--retry-quarantined",
        action="store_true",
        help=f"try {things} again that crashed their workers in an earlier run",
    )
    add_gallery_option(group)
    add_dry_run_option(group)
    add_output_options(group)


def add_device_options(group: Group, automatic: str, number: str) -> None:
    """Model, GPUs and daemon.

    Args:
        automatic: what the model is where none is named.
        number: the argument that says how many GPUs.
    """
    add = group.add_argument
    add(
        "--model",
        metavar="ID_OR_PATH",
        help=f"Hugging Face id, local diffusers folder or one file (default: auto, which is "
        f"{automatic})",
    )
    add(
        "--gpu-ids",
        type=gpu_ids,
        metavar="0,2,4",
        help=f"which of the visible GPUs, instead of {number}",
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
    add_engine_options(group)
    add_server_options(group)


def asks_for(options: argparse.Namespace, names: tuple[str, ...]) -> bool:
    """Whether one of several options is given."""
    return any(getattr(options, name) for name in names)
