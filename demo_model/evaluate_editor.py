"""Measures the demo editor and the demo judge: `python -m demo_model.evaluate_editor [--card]`.

The editor by `edit_checker`. The judge by how surely it ranks right edits above wrong ones (the
area under the ROC curve: 0.5 is chance).
"""

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image

from core.devices.edit_models import DEMO_EDITOR, DEMO_JUDGE
from demo_model.demo_workers import do_edit, editor, judge, scores
from demo_model.edit_checker import (
    edit_right,
    kept_difference,
    read_picture,
    thing_difference,
)
from demo_model.edits import CATEGORIES, Edit, untrained
from demo_model.evaluate import CARD, SECONDS, Share
from demo_model.figures import Figure, Measured, error_of_area, write_card
from demo_model.judged_edits import DEEDS, sample_judged

CARD_START, CARD_END = "<!-- editor figures -->", "<!-- end of editor figures -->"
FAILURES = "its failures"
Done = list[tuple[Edit, Image.Image]]


def do_edits(family: Any, edits: Sequence[Edit], folder: Path) -> Done:
    """What the editor makes of each edit's source."""
    return [(edit, do_edit(family, edit, n, folder)) for n, edit in enumerate(edits)]


def area_under_curve(right: Sequence[float], wrong: Sequence[float]) -> float:
    """The share of pairs (right, wrong) in which the right one scores higher; ties count half."""
    a, b = np.asarray(right)[:, None], np.asarray(wrong)[None]
    return float((a > b).mean() + 0.5 * (a == b).mean())


def editor_rows(done: Done, rights: Sequence[bool]) -> tuple[list[str], list[Figure]]:
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
    rows, figures = [], []
    for category in (*CATEGORIES, "all"):
        chosen = [rest for name, *rest in figures_of if category in (name, "all")]
        right, kept, drawn = zip(*chosen, strict=True)
        share = Share(category, sum(right), len(chosen))
        rest, worst = round(float(np.mean(kept)), 1), round(float(np.mean(drawn)), 1)
        rows.append(f"| {category} | {share} | {rest:.1f} | {worst:.1f} | {share.total} |")
        figures += [
            replace(share.figure(), name=f"{category}: right"),
            Figure(f"{category}: rest differs by", rest, "less"),
            Figure(f"{category}: worst object", worst, "less"),
        ]
        print(rows[-1], flush=True)
    return rows, figures


@dataclass(frozen=True)
class Ranking:
    """How surely the judge tells right edits from others, by the scores that it gave."""

    name: str
    right: Sequence[float]
    wrong: Sequence[float]

    @property
    def area(self) -> float:
        return area_under_curve(self.right, self.wrong)

    def row(self) -> str:
        means = f"{np.mean(self.right):.1f} | {np.mean(self.wrong):.1f}"
        count = f"{len(self.right)} + {len(self.wrong)}"
        return f"| {self.name} | {self.area:.3f} | {means} | {count} |"

    def figure(self) -> Figure:
        """Every editor has its own pictures to be judged: it may differ by its standard error."""
        slack = error_of_area(self.area, len(self.right), len(self.wrong))
        return Figure(
            f"judge, {self.name}",
            round(self.area, 3),
            "more",
            slack=slack,
            may_lack=FAILURES in self.name,
        )


def rankings(
    family: Any, done: Done, rights: Sequence[bool], samples: int, folder: Path
) -> list[Ranking]:
    """Right edits against each kind of wrong one: by the renderer, and by the editor."""
    found = [*_of_renders(family, samples, folder), *_of_edits(family, done, rights, folder)]
    print("\n".join(one.row() for one in found), flush=True)
    return found


def _of_renders(family: Any, samples: int, folder: Path) -> list[Ranking]:
    rng = random.Random(4)
    found = {}
    for deed in DEEDS:
        judged = [sample_judged(rng, deed, damaged=False) for _ in range(samples)]
        found[deed] = scores(
            family, [(j.before, j.after, j.edit.instruction) for j in judged], folder
        )
    return [
        Ranking("renders: another edit than asked for", found["right"], found["other"]),
        Ranking("renders: source unedited", found["right"], found["unedited"]),
        Ranking("renders: something else changed, too", found["right"], found["too_much"]),
    ]


def _of_edits(family: Any, done: Done, rights: Sequence[bool], folder: Path) -> list[Ranking]:
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
        f"{FAILURES}: not what was asked for": of(missed),
        f"{FAILURES}: badly drawn, or the rest not kept": of(spoilt),
    }
    if not right:
        return []
    best = of(right)
    return [Ranking(f"the editor's: {name}", best, them) for name, them in compare.items() if them]


def _first_other(words: Sequence[str], number: int) -> str:
    """The next instruction that is another one."""
    following = [*words[number + 1 :], *words[:number]]
    return next((w for w in following if w != words[number]), words[number])


def seconds_an_edit(family: Any, edit: Edit, folder: Path) -> float:
    """The fastest of five edits on one thread, in its own time on the processor."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = []
    for seed in range(6):
        started = time.process_time()
        do_edit(family, edit, seed, folder)
        times.append(time.process_time() - started)
    torch.set_num_threads(threads)
    return min(times[1:])


def measure(editor_model: Path, judge_model: Path, samples: int, seed: int) -> Measured:
    """The model card's tables of an editor and a judge."""
    rng = random.Random(seed)
    edits = [untrained(rng, CATEGORIES[i % len(CATEGORIES)]) for i in range(samples)]
    with TemporaryDirectory() as name:
        folder = Path(name)
        family = editor(editor_model)
        done = do_edits(family, edits, folder)
        seconds = round(seconds_an_edit(family, edits[0], folder), 2)
        rights = [edit_right(image, edit) for edit, image in done]
        rows, figures = editor_rows(done, rights)
        judged = rankings(judge(judge_model), done, rights, max(30, samples // 3), folder)
    weights = [f for m in (editor_model, judge_model) for f in m.rglob("*.safetensors")]
    megabytes = sum(f.stat().st_size for f in weights) / 1e6
    table = "\n".join(
        [
            "| instructions never trained | right (95 % interval) | rest differs by, of 255 "
            "| worst object | n |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
            "| the judge ranks right edits above | AUC | mean score | of these | n |",
            "| --- | --- | --- | --- | --- |",
            *(one.row() for one in judged),
            "",
            f"Editor and judge together: {megabytes:.1f} MB. One edit, 8 steps on one CPU thread: "
            f"{seconds:.2f} s.",
        ]
    )
    limit = Figure("seconds an edit", seconds, "below", SECONDS)
    return Measured(table, (*figures, *(one.figure() for one in judged), limit))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--samples", type=int, default=300, help="edits")
    parser.add_argument("--seed", type=int, default=54321)
    parser.add_argument("--card", action="store_true", help="write the figures into README.md")
    options = parser.parse_args()
    table = measure(DEMO_EDITOR, DEMO_JUDGE, options.samples, options.seed).table
    print(table)
    if options.card:
        write_card(CARD, {(CARD_START, CARD_END): table})


if __name__ == "__main__":
    main()
