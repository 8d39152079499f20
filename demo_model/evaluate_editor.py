"""Measures the demo editor and the demo judge: `python -m demo_model.evaluate_editor [--card]`.

The editor by the objective check of `edits`: the picture shows the scene that the instruction
asks for, and what the edit does not touch is as it was. The judge by how surely it ranks right
edits above wrong ones (the area under the ROC curve: 0.5 is chance).
"""

import argparse
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image

from core.benchmark.models import DEMO_EDITOR, DEMO_JUDGE
from core.benchmark.settings import load_benchmark_settings
from core.devices import choose_devices
from core.judge import load_judge
from core.messages import Lease
from core.model_choice import ModelChoice
from core.settings import best_match
from core.tasks import EditTask, ScoreTask
from core.worker_spec import WorkerSpec, spec_for
from demo_model.edits import CATEGORIES, Edit, edit_right, kept_difference, untrained
from demo_model.evaluate import Share, write_card
from demo_model.judged_edits import DEEDS, JudgedEdit, sample_judged

CARD_START, CARD_END = "<!-- editor figures -->", "<!-- end of editor figures -->"
GROUP = 16  # edits that the judge sees at once
Done = list[tuple[Edit, Image.Image]]


def editor() -> Any:
    """The shipped editor, as a worker loads it."""
    from workers.models.native_image_editor import NativeImageEditor

    family = NativeImageEditor(_spec(DEMO_EDITOR, "edit"), lambda level, text: None)
    family.load()
    return family


def judge() -> Any:
    """The shipped judge, as a worker loads it."""
    from workers.judges.vlm import VlmJudge

    settings = load_benchmark_settings().judge.model_copy(
        update={"prompts": "demo.yaml", "max_new_tokens": 96}
    )
    spec = replace(_spec(DEMO_JUDGE, "score"), judge=load_judge(settings))
    family = VlmJudge(spec, lambda level, text: None)
    family.load()
    return family


def _spec(model: Path, role: Any) -> WorkerSpec:
    [device] = choose_devices(1, None, "cpu")
    chosen = ModelChoice(str(model), model.name, "to be measured")
    settings = load_benchmark_settings()
    return spec_for(device, role, chosen, settings, threads=torch.get_num_threads())


def do_edits(family: Any, edits: Sequence[Edit], folder: Path) -> Done:
    """What the editor makes of each edit's source."""
    defaults = best_match(load_benchmark_settings().editor.model_defaults, str(DEMO_EDITOR))
    assert defaults is not None
    fields = {k: v for k, v in defaults.model_dump(exclude={"match"}).items() if v is not None}
    done = []
    for number, edit in enumerate(edits):
        source = folder / f"{number}.png"
        edit.before().save(source)
        sized = {"width": 128, "height": 128, **fields}
        task = EditTask(edit.instruction, (str(source),), seed=number, **sized)
        picture = family.run([Lease("-", 1, task, None, "-", "-")])[0]
        done.append((edit, picture.image))
    return done


def scores(
    family: Any, shown: Sequence[tuple[Image.Image, Image.Image, str]], folder: Path
) -> list[float]:
    """The judge's overall score of (before, after, instruction); -1 where it gave none."""
    leases = []
    for number, (before, after, words) in enumerate(shown):
        files = [str(folder / f"judged-{number}-{name}.png") for name in ("before", "after")]
        before.save(files[0])
        after.save(files[1])
        leases.append(Lease("-", 1, ScoreTask(words, (files[0],), files[1]), None, "-", "-"))
    values: list[float] = []
    for start in range(0, len(leases), GROUP):
        for verdict in family.run(leases[start : start + GROUP]):
            found = verdict.used["scores"]
            values.append(-1.0 if found is None else found["O"])
    return values


def area_under_curve(right: Sequence[float], wrong: Sequence[float]) -> float:
    """The share of pairs (right, wrong) in which the right one scores higher; ties count half."""
    a, b = np.asarray(right)[:, None], np.asarray(wrong)[None]
    return float((a > b).mean() + 0.5 * (a == b).mean())


def editor_rows(done: Done) -> list[str]:
    """Share of right edits per category and over all, and how much of the rest was kept."""
    rows = []
    for category in (*CATEGORIES, "all"):
        chosen = [(e, i) for e, i in done if category in (e.category, "all")]
        share = Share(category, sum(edit_right(i, e) for e, i in chosen), len(chosen))
        kept = np.mean([kept_difference(i, e) for e, i in chosen])
        rows.append(f"| {category} | {share} | {kept:.1f} | {share.total} |")
        print(rows[-1], flush=True)
    return rows


def judge_rows(family: Any, done: Done, samples: int, folder: Path) -> list[str]:
    """Right edits against each kind of wrong one: by the renderer, and by the editor."""
    rng = random.Random(4)
    by_deed = {
        deed: [sample_judged(rng, deed, damaged=False) for _ in range(samples)] for deed in DEEDS
    }
    rendered = {
        deed: scores(family, [_shown(j) for j in judged], folder)
        for deed, judged in by_deed.items()
    }
    edited = [(e, i) for e, i in done if edit_right(i, e)]
    right = scores(family, [(e.before(), i, e.instruction) for e, i in edited], folder)
    unedited = scores(family, [(e.before(), e.before(), e.instruction) for e, _ in edited], folder)
    words = [e.instruction for e, _ in edited]
    moved = [_first_other(words, n) for n in range(len(words))]
    shuffled = scores(
        family,
        [(e.before(), i, w) for (e, i), w in zip(edited, moved, strict=True)],
        folder,
    )
    wrong = [(e, i) for e, i in done if not edit_right(i, e)]
    failed = scores(family, [(e.before(), i, e.instruction) for e, i in wrong], folder)
    compare: list[tuple[str, list[float], list[float]]] = [
        ("renders: another edit than asked for", rendered["right"], rendered["other"]),
        ("renders: source unedited", rendered["right"], rendered["unedited"]),
        ("renders: something else changed, too", rendered["right"], rendered["too_much"]),
        ("the editor's: source unedited", right, unedited),
        ("the editor's: instructions shuffled", right, shuffled),
        ("the editor's: its failures", right, failed),
    ]
    rows = [
        f"| {name} | {area_under_curve(a, b):.3f} | {len(a)} + {len(b)} |"
        for name, a, b in compare
        if a and b
    ]
    print("\n".join(rows), flush=True)
    return rows


def _shown(judged: JudgedEdit) -> tuple[Image.Image, Image.Image, str]:
    return judged.before, judged.after, judged.edit.instruction


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
        edit_rows = editor_rows(done)
        scored = judge_rows(judge(), done, max(30, samples // 3), folder)
    weights = [f for m in (DEMO_EDITOR, DEMO_JUDGE) for f in m.rglob("*.safetensors")]
    megabytes = sum(f.stat().st_size for f in weights) / 1e6
    return "\n".join(
        [
            "| instructions never trained | right (95 % interval) | rest differs by, of 255 | n |",
            "| --- | --- | --- | --- |",
            *edit_rows,
            "",
            "| the judge ranks right edits above | AUC | n |",
            "| --- | --- | --- |",
            *scored,
            "",
            f"Editor and judge together: {megabytes:.1f} MB.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
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
