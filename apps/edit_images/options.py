"""The options of `edit_images.py`, and what is edited by them."""

import argparse
from collections.abc import Sequence

from apps.arguments import command_parser, fixed_seed, positive
from apps.picture_commands.options import (
    VARIANTS,
    add_choice_options,
    add_device_options,
    add_file_options,
    add_run_options,
    add_variant_options,
    asks_for,
)
from core.errors import InputError

EXAMPLES = """\
examples:
  python edit_images.py house.png --instruction "change the sky to night"
      change one picture
  python edit_images.py photos --instruction "make it winter" --instruction "make it night"
      change all pictures of a folder, and of the folders in it, in two ways
  python edit_images.py "photos/*.jpg" --instruction "add the hat" --with hat.png
      show the model a second picture beside each (for models that look at several)
  python edit_images.py edits.csv
      a table with the columns picture and instruction, and perhaps mask, seed, steps, lora, …
  find photos -name "*.jpg" | python edit_images.py - --instruction "remove the car"
      pictures from another program, one on each line
  python edit_images.py house.png --instruction "make it night" --seeds 0-3 --grid steps=4,8
      eight versions of one edit, called by their seeds and steps
  python edit_images.py --from-png outputs/edited/house_make_it_night.png
      make an edit again from what it says of itself

Run the same command again to continue: what is done and unchanged is not edited again, and what
is edited anew because it changed is kept in .replaced, unless --overwrite is given.
docs/EDITING.md lists the forms of files and all fields, with their names, units and defaults.
exit codes: 0 all pictures and tables are there, 1 some failed, 2 unusable input, 130 interrupted
"""


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = command_parser(
        "edit_images.py",
        "Change pictures as an instruction says, on all GPUs of this machine.",
        EXAMPLES,
    )
    parser.add_argument(
        "pictures",
        metavar="PICTURES",
        nargs="*",
        help="picture files, folders of pictures, patterns such as 'photos/*.jpg', and lists of "
        "edits (CSV, TSV, JSON, JSONL, YAML, or text with a picture on each line); - reads such a "
        "list from standard input",
    )
    _add_what(parser.add_argument_group("what is changed"))
    _add_how(parser.add_argument_group("how it is changed (over what files and settings say)"))
    _add_where(parser.add_argument_group("where pictures go, and which are edited again"))
    devices = parser.add_argument_group("model and devices")
    devices.add_argument(
        "--num-gpus",
        type=positive,
        metavar="N",
        help="how many GPUs (default: every visible one); without CUDA, how many CPU workers",
    )
    add_device_options(
        devices,
        "Qwen-Image-Edit-2511 where it fits into the GPUs' memory, else the embedded demo editor",
        "--num-gpus",
    )
    parser.set_defaults(number="--num-gpus")
    # Intermixed: pictures may stand anywhere between options.
    return parser.parse_intermixed_args(argv)


def asks_for_variants(options: argparse.Namespace) -> bool:
    """Whether edits are to be multiplied or changed; by a seed for pictures, too."""
    return bool(options.from_png and options.seed is not None) or asks_for(options, VARIANTS)


def check_source(options: argparse.Namespace) -> None:
    """See that there is one thing to edit.

    Raises:
        InputError: there is none, or two.
    """
    if not options.pictures and not options.from_png:
        raise InputError(
            "Give pictures, a folder of them, or a list of edits; --help shows examples."
        )
    if not options.from_png:
        return
    if options.pictures:
        raise InputError("Give either PICTURES or --from-png, not both.")
    for option in ("instruction", "references", "mask"):
        if getattr(options, option):
            name = "with" if option == "references" else option
            raise InputError(
                f"--{name}: the pictures of --from-png say it themselves; leave it out."
            )


def _add_what(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--instruction",
        action="append",
        metavar='"…"',
        help="what is to change in each picture that has no instruction in its list; give it again "
        "to change each picture in several ways",
    )
    add(
        "--with",
        dest="references",
        action="append",
        metavar="REFERENCE",
        help="a further picture that the model is shown with each one, such as a person, a thing "
        "or a style; give it again for several (only some models look at more than one picture)",
    )
    add(
        "--mask",
        metavar="FILE",
        help="a picture that is white where others may change and black where they must not; or a "
        "folder with a mask of the same name for each picture (only some models take masks)",
    )
    add(
        "--from-png",
        action="extend",
        nargs="+",
        metavar="FILE",
        help="make edits of this program again from what they say of themselves (PNG, WebP, JPEG, "
        "a folder of them, or its metadata.jsonl), and say whether they became the same; --seeds "
        "or --set make them in another way",
    )
    add_choice_options(group, "pictures, or entries of a list", "instruction~night")
    add(
        "--alternatives",
        action="store_true",
        help="read {a|b} in an instruction as two instructions, one with a and one with b",
    )


def _add_how(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--seed",
        type=fixed_seed,
        metavar="S",
        help="the seed of every edit that has none of its own (default: 42)",
    )
    add_variant_options(group, "edit", "picture")


def _add_where(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--output-dir",
        metavar="DIR",
        help="pictures go to a folder in DIR: <folder>_edited for one folder, <list> for one list, "
        "else edited (default: outputs)",
    )
    add_file_options(group)
    add(
        "--picture-name",
        metavar="PATTERN",
        help="call pictures by this pattern of fields, such as {picture} or {instruction}/{id}; "
        "also {index}, {seed}, {lora}, any setting, and what a list says of a picture (default: "
        "the picture's name and the instruction)",
    )
    add_run_options(group, "edit", "pictures")
