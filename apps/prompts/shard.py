"""Which part of a file's prompts is one driver's, where several share the file."""

import argparse
import re
from dataclasses import dataclass

_PATTERN = re.compile(r"(\d{1,6})/(\d{1,6})")


@dataclass(frozen=True)
class Shard:
    """Which part: the prompts at places `number - 1`, `number - 1 + of`, and so on, from 0."""

    number: int
    of: int

    def name_of(self, folder: str) -> str:
        """The name of the output folder of this part of a run."""
        return f"{folder}.shard-{self.number}-of-{self.of}"


def shard(text: str) -> Shard:
    """Read a part such as 2/8."""
    found = _PATTERN.fullmatch(text.strip())
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(
            f"expected a part such as 2/8 (the second of eight), found {text!r}"
        )
    return Shard(int(found[1]), int(found[2]))
