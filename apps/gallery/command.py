"""The command `gallery.py`: builds the page of an output folder, whenever it was made."""

import sys
from collections.abc import Sequence
from pathlib import Path

from loguru import logger

from apps.arguments import command_parser
from apps.gallery.build import build_page
from apps.gallery.places import INDEX
from apps.log_lines import set_up_logging
from core.errors import MultiGPUError, one_line
from core.names import counted
from core.paths import as_text, user_path

DONE, UNUSABLE, INTERRUPTED = 0, 2, 130

EXAMPLES = """\
examples:
  python gallery.py outputs/persona_tweets
      write outputs/persona_tweets/index.html; open it in any browser, no server is needed

A run writes this page by itself (gallery: false in the settings, or --no-gallery, switches that
off). This command makes it for folders of older and of killed runs, and changes nothing else.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = command_parser(
        "gallery.py",
        "Write a page (index.html) that shows all pictures of an output folder.",
        EXAMPLES,
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="the output folder of a run")
    parser.add_argument(
        "--no-thumbnails",
        action="store_true",
        help="make no small copies: the page then loads whole pictures",
    )
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    set_up_logging("INFO")
    try:
        folder = user_path(options.folder, "FOLDER")
        shown, made = build_page(folder, not options.no_thumbnails)
        if made:
            logger.info(f"Small copies made: {made}.")
    except MultiGPUError as error:
        logger.error(str(error))
        return UNUSABLE
    except KeyboardInterrupt:
        return INTERRUPTED
    print(one_line(f"{counted(shown, 'picture')}: {as_text(folder / INDEX)}"))
    return DONE
