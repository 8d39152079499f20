"""Measures the demo editor and the demo judge: `python -m demo_model.evaluate_editor [--card]`.

The editor by `edit_checker`. The judge by how surely it ranks right edits above wrong ones (the
area under the ROC curve: 0.5 is chance).
"""

import argparse
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from core.benchmark.models import DEMO_EDITOR, DEMO_JUDGE
from demo_model.demo_workers import do_edit, editor, judge, scores
from demo_model.edit_checker import (
    edit_right,
    kept_difference,
    read_picture,
    thing_difference,
)
from demo_model.edits import CATEGORIES, Edit, untrained
from demo_model.evaluate import Share, write_card
from demo_model.judged_edits import DEEDS, sample_judged

CARD_START, CARD_END = "<!-- editor figures -->", "<!-- end of editor figures -->"
Done = list[tuple[Edit, Image.Image]]


def do_edits(family: Any, edits: Sequence[Edit], folder: Path) -> Done:
    """What the editor makes of each edit's source."""
    return [(edit, do_edit(family, edit, n, folder)) for n, edit in enumerate(edits)]


def area_under_curve(right: Sequence[float], wrong: Sequence[float]) -> float:
    """The share of pairs (right, wrong) in which the right one scores higher; ties count half."""
    a, b = np.asarray(right)[:, None], np.asarray(wrong)[None]
    return float((a > b).mean() + 0.5 * (a == b).mean())


def editor_rows(done: Done, rights: Sequence[bool]) -> list[str]:
    """Share of right edits per category and over all, and how much of the rest was kept."""
    figures_of = [
        (
            edit.category,
            is_right,
            kept_difference(image, edit),
            thing_difference(image, (edit.target, edit.target_shifts)),
        )
        for (edit, image), is_right in zip(done, rights, strict=True)
    ]
    rows = []
    for category in (*CATEGORIES, "all"):
        chosen = [rest for name, *rest in figures_of if category in (name, "all")]
        right, kept, drawn = zip(*chosen, strict=True)
        share = Share(category, sum(right), len(chosen))
        rows.append(
            f"| {category} | {share} | {np.mean(kept):.1f} | {np.mean(drawn):.1f} | {share.total} |"
        )
        print(rows[-1], flush=True)
    return rows


def judge_rows(
    family: Any, done: Done, rights: Sequence[bool], samples: int, folder: Path
) -> list[str]:
    """Right edits against each kind of wrong one: by the renderer, and by the editor."""
    rows = [*_render_rows(family, samples, folder), *_edited_rows(family, done, rights, folder)]
    print("\n".join(rows), flush=True)
    return rows


def _render_rows(family: Any, samples: int, folder: Path) -> list[str]:
    rng = random.Random(4)
    found = {}
    for deed in DEEDS:
        judged = [sample_judged(rng, deed, damaged=False) for _ in range(samples)]
        found[deed] = scores(
            family, [(j.before, j.after, j.edit.instruction) for j in judged], folder
        )
    return [
        _row("renders: another edit than asked for", found["right"], found["other"]),
        _row("renders: source unedited", found["right"], found["unedited"]),
        _row("renders: something else changed, too", found["right"], found["too_much"]),
    ]


def _edited_rows(family: Any, done: Done, rights: Sequence[bool], folder: Path) -> list[str]:
    right: Done = []
    missed: Done = []
    spoilt: Done = []
    for (e, i), is_right in zip(done, rights, strict=True):
        if is_right:
            right.append((e, i))
        elif read_picture(i, e)[0] == e.target:
            spoilt.append((e, i))
        else:
            missed.append((e, i))
    words = [e.instruction for e, _ in right]

    def of(edits: Done) -> list[float]:
        return scores(family, [(e.before(), i, e.instruction) for e, i in edits], folder)

    unedited = of([(e, e.before()) for e, _ in right])
    others = [(replace(e, instruction=_first_other(words, n)), i) for n, (e, i) in enumerate(right)]
    compare = {
        "source unedited": unedited,
        "instructions shuffled": of(others),
        "its failures: not what was asked for": of(missed),
        "its failures: badly drawn, or the rest not kept": of(spoilt),
    }
    best = of(right)
    return [_row(f"the editor's: {name}", best, them) for name, them in compare.items() if them]


def _row(name: str, right: Sequence[float], wrong: Sequence[float]) -> str:
    means = f"{np.mean(right):.1f} | {np.mean(wrong):.1f}"
    return (
        f"| {name} | {area_under_curve(right, wrong):.3f} | {means} | {len(right)} + {len(wrong)} |"
    )


def _first_other(words: Sequence[str], number: int) -> str:
    """The next instruction that is another one."""
    following = [*words[number + 1 :], *words[:number]]
    return next((w for w in following if w != words[number]), words[number])


def figures(samples: int, seed: int) -> str:
    """The model card's tables."""
    rng = random.Random(seed)
    edits = [untrained(rng, CATEGORIES[i % len(CATEGORIES)]) for i in range(samples)]
    with TemporaryDirectory() as name:
        folder = Path(name)
        done = do_edits(editor(), edits, folder)
        rights = [edit_right(image, edit) for edit, image in done]
        edit_rows = editor_rows(done, rights)
        scored = judge_rows(judge(), done, rights, max(30, samples // 3), folder)
    weights = [f for m in (DEMO_EDITOR, DEMO_JUDGE) for f in m.rglob("*.safetensors")]
    megabytes = sum(f.stat().st_size for f in weights) / 1e6
    return "\n".join(
        [
            "| instructions never trained | right (95 % interval) | rest differs by, of 255 "
            "| worst object | n |",
            "| --- | --- | --- | --- | --- |",
            *edit_rows,
            "",
            "| the judge ranks right edits above | AUC | mean score | of these | n |",
            "| --- | --- | --- | --- | --- |",
            *scored,
            "",
            f"Editor and judge together: {megabytes:.1f} MB.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--samples", type=int, default=300, help="edits")
    parser.add_argument("--seed", type=int, default=54321)
    parser.add_argument("--card", action="store_true", help="write the figures into README.md")
    options = parser.parse_args()
    table = figures(options.samples, options.seed)
    print(table)
    if options.card:
        write_card(table, CARD_START, CARD_END)


if __name__ == "__main__":
    main()
