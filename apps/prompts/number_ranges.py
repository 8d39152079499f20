"""Numbers as one writes them in an option: 3, 0-9, or 0,3,7-9."""

import re

from core.errors import InputError
from core.seeds import MAX_SEED
from core.validation import shown

MOST = 100_000
_PART = re.compile(r"\s*([0-9]{1,20})\s*(?:-\s*([0-9]{1,20})\s*)?")


def read_seeds(text: str) -> list[int]:
    """Seeds from such as `0-9` or `0,3,7-9`, each once and in this order.

    Raises:
        InputError: it is something else, or more than 100,000 seeds.
    """
    found: dict[int, None] = {}
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise InputError(f"expected seeds like 0-9 or 0,3,7-9, found {shown(text)}.")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise InputError(
                f"the range {part.strip()} ends before it begins; write {last}-{first}."
            )
        if last > MAX_SEED:
            raise InputError(f"the largest seed is {MAX_SEED}, found {last}.")
        if last - first >= MOST or len(found) + last - first >= MOST:
            raise InputError(f"{shown(text)} is more than {MOST} seeds.")
        found |= dict.fromkeys(range(first, last + 1))
    return list(found)
