"""Writes the shipped benchmark: `python -m demo_model.write_pairs`.

Fifty pairs in five categories, none of them trained: scenes from a seed of their own, and
where a category has combinations that are never trained, only those.
"""

import argparse
import json
import random
from pathlib import Path

from core.store.outputs import write_atomically
from demo_model.edits import CATEGORIES, Edit, untrained

HERE = Path(__file__).resolve().parent
PAIRS = HERE.parent / "examples" / "edit_pairs"
EACH = 10
SEED = 20_000


def sample_pairs(seed: int = SEED, each: int = EACH) -> list[Edit]:
    """`each` edits per category."""
    rng = random.Random(seed)
    return [
        edit for category in CATEGORIES for edit in (untrained(rng, category) for _ in range(each))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=PAIRS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, edit in enumerate(sample_pairs()):
        name = f"{number:02d}_{edit.category}.png"
        edit.before().save(options.out / name, optimize=True)
        row = {
            "input_file_name": name,
            "instruction": edit.instruction,
            "category": edit.category,
            "pair_id": f"{number:02d}",
        }
        rows.append(json.dumps(row) + "\n")
    write_atomically(options.out / "metadata.jsonl", "".join(rows))


if __name__ == "__main__":
    main()
