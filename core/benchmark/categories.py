"""Categories: shown, chosen and counted as the data gives them; only paths need another form."""

import hashlib
from collections.abc import Mapping
from typing import Any

from core.benchmark.rows import file_name, label_of

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
    if name == category:
        return name
    return f"{name}-{hashlib.sha256(category.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
