"""Categories: shown, chosen and counted as the data gives them; only paths need another form."""

from collections.abc import Mapping
from typing import Any

from apps.edit_benchmark.rows import file_name, label_of
from core.names import distinct
from core.paths import MAX_NAME_BYTES

UNSORTED = "unsorted"  # the category of a pair that names none
MAX_FOLDER = 60  # characters


def category_of(row: Mapping[str, Any], field: str) -> str:
    """The category that a row names.

    Raises:
        InputError: neither text nor a number.
    """
    return label_of(row, field, "").strip() or UNSORTED


def category_folder(category: str) -> str:
    """`category` as one path component; two categories never share one.

    What is fit for a path stays as it is, the rest gets a hash of what was lost.
    """
    name = file_name(category, MAX_FOLDER)
    return name if name == category else distinct(category, name, MAX_NAME_BYTES)
