"""What a benchmark leaves beside its pictures and verdicts."""

import csv
import json
import os
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from apps.edit_benchmark.categories import category_folder
from apps.edit_benchmark.judges import keep_tables_of_another, tables_of
from apps.edit_benchmark.records import FILE_NAME as RECORDS
from apps.edit_benchmark.records import Record, categories_of, lines
from apps.edit_benchmark.summary import FILE_NAME as SUMMARY
from apps.edit_benchmark.summary import Summary, to_json
from core.names import bounded
from core.paths import as_text, on_disk
from core.store.dataset_folder import settle, with_exact_seeds
from core.store.outputs import json_lines, make_folder, remove, write_atomically

# GEdit-Bench's columns, as its calculate_statistics reads them, its spelling included.
GEDIT_COLUMNS = (
    "source_image", "edited_image", "instruction", "sementics_score", "quality_score",
    "intersection_exist", "instruction_language",
)  # fmt: skip
OUR_COLUMNS = ("overall_score", "category", "pair_id")
SCORES = "scores.csv"
GEDIT_FOLDER = "gedit"
GEDIT_SUFFIX = "_gpt_score.csv"
MAX_TABLE_BYTES = 232  # of a table's name: it gets that suffix and, while it is written, a prefix


def write_outputs(folder: Path, records: Sequence[Record], summary: Summary) -> None:
    """Write results.jsonl, scores.csv (also per category, for GEdit-Bench) and summary.json.

    They are of the judge of this run, and lie in `tables/JUDGE/` once more, where no other
    judge's run writes. One that has other settings under the same name keeps its own.

    Raises:
        StorageError: the disk refuses.
    """
    write_atomically(folder / "metadata.jsonl", _imagefolder(records))
    run = as_text(folder.name)
    keep_tables_of_another(folder, summary.judged_by)
    for place in (tables_of(folder, summary.judged_by.judge), folder):
        make_folder(place)
        _write_tables(place, run, records, summary)
    settle(folder, interrupted=any(r.outcome == "not_tried" for r in records))


def _write_tables(place: Path, run: str, records: Sequence[Record], summary: Summary) -> None:
    write_atomically(place / RECORDS, lines(records))
    scored = [r for r in records if r.scores and {"SC", "PQ"} <= r.scores.keys()]
    write_atomically(place / SCORES, scores_csv(scored))
    _write_gedit(place / GEDIT_FOLDER, run, categories_of(records), scored)
    write_atomically(place / SUMMARY, to_json(summary))


def _write_gedit(
    folder: Path, run: str, categories: Sequence[str], scored: Sequence[Record]
) -> None:
    """One table per category of this run, also for those without a score, and no others.

    GEdit-Bench's statistics read whatever lies there.
    """
    tables = {
        on_disk(
            f"{bounded(f'{run}_{category_folder(category)}', MAX_TABLE_BYTES)}{GEDIT_SUFFIX}"
        ): [r for r in scored if r.category == category]
        for category in categories
    }
    make_folder(folder)
    for file in folder.glob(f"*{GEDIT_SUFFIX}"):
        if file.name not in tables:
            remove(file)
    for name, records in tables.items():
        write_atomically(folder / name, scores_csv(records))


def scores_csv(records: Sequence[Record]) -> str:
    """One row per scored pair: pairs without a score are in results.jsonl and the summary.

    GEdit-Bench's statistics would take an empty score for a number and spoil every mean. All texts
    are quoted: a carriage return in one would end its row otherwise.
    """
    stream = StringIO()
    writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow([*GEDIT_COLUMNS, *OUR_COLUMNS])
    for r in records:
        assert r.scores is not None
        writer.writerow(
            [
                r.source_images[0],
                r.edited_image,
                r.instruction,
                r.scores["SC"],
                r.scores["PQ"],
                r.intersection_exist is not False,
                r.language,
                r.scores["O"],
                r.category,
                r.pair_id,
            ]
        )
    return stream.getvalue()


def _imagefolder(records: Sequence[Record]) -> str:
    """The text of metadata.jsonl, which makes the edits a Hugging Face imagefolder.

    Edits that lie elsewhere can be no part of it.
    """
    rows = [
        {
            "file_name": r.edited_image,
            "pair_id": r.pair_id,
            "category": r.category,
            "instruction": r.instruction,
            "seed": r.seed,
            "scores": json.dumps(r.scores),
        }
        for r in records
        if r.edited_image is not None and not os.path.isabs(on_disk(r.edited_image))
    ]
    return json_lines(with_exact_seeds(rows))
