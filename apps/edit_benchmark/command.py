"""The command `run_edit_benchmark.py`: arguments, run, table, exit code."""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from loguru import logger

from apps.arguments import (
    add_engine_options,
    add_gallery_option,
    add_output_options,
    add_server_options,
    categories,
    folder_name,
    gpu_ids,
    log_level,
    positive,
    seed,
    with_engine_options,
)
from apps.dry_run import add_dry_run_option, print_plan
from apps.edit_benchmark.agreement.command import agreement_arguments, tell_agreement
from apps.edit_benchmark.best_of import choice_summary
from apps.edit_benchmark.compare_command import compare_runs
from apps.edit_benchmark.drifts import with_drifts
from apps.edit_benchmark.editing import EditedBy, loras_of, settings_of
from apps.edit_benchmark.judges import read_judges
from apps.edit_benchmark.layout import official_names
from apps.edit_benchmark.layout_folder import LayoutFolder, tell_layout
from apps.edit_benchmark.official_results import official_table
from apps.edit_benchmark.outputs import write_outputs
from apps.edit_benchmark.pair import Pair
from apps.edit_benchmark.pair_result import PairResult
from apps.edit_benchmark.pairs import PairSet, find_data, read_pairs
from apps.edit_benchmark.preferences import comparisons_of
from apps.edit_benchmark.records import Record, record_of
from apps.edit_benchmark.runner import EditBenchmark
from apps.edit_benchmark.settings import BenchmarkSettings, load_benchmark_settings
from apps.edit_benchmark.summary import JudgedBy, Summary, summarise
from apps.edit_benchmark.table import print_summary
from apps.gallery.live import LiveGallery
from apps.interrupts import Interrupts, unwrapped
from apps.json_events import print_refusal
from apps.log_lines import set_up_logging
from apps.progress import create_view
from apps.run_summary import Tally, failure_lines, time_line
from core.engine.backend import WorkerBackend
from core.errors import InputError, MultiGPUError
from core.events import told_both
from core.model_identity import BACKEND, BASE, Identity, loaded_as
from core.names import bounded, counted
from core.paths import as_text, on_disk, user_path
from core.store.results_table import FILE_NAME as TABLE

ALL_SCORED, SOME_FAILED, UNUSABLE_INPUT, INTERRUPTED = 0, 1, 2, 130
PROGRAM = "run_edit_benchmark.py"

EXAMPLES = """\
examples:
  python run_edit_benchmark.py --config config/edit_benchmark.yaml
      edit and score what the file names: as shipped, 50 small pairs
  python run_edit_benchmark.py --config config/edit_benchmark.yaml --dry-run
      check everything first, and see how long it will take and on which devices
  python run_edit_benchmark.py --config my.yaml --categories physical,causal --limit 20
  python run_edit_benchmark.py compare outputs/run_a outputs/run_b
      paired differences of two or more runs on the same pairs, and which of them are real;
      --html FILE shows the first two side by side

  python run_edit_benchmark.py agreement --data EditReward-Bench --config my.yaml
      how often the judge prefers what people prefer; see agreement --help

Run the same command again to continue: what is done and unchanged is not done again, and
another judge scores the same edits. Edits and verdicts that are made anew because something
changed are kept in .replaced, unless --overwrite is given.
exit codes: 0 every pair has a score, 1 some have none, 2 unusable input, 130 interrupted
"""


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    return _run_parser().parse_args(argv)


def _run_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Edit pictures by instruction on all GPUs, then have a judge score them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--config", metavar="FILE", help="YAML settings over config/edit_benchmark.yaml")
    add(
        "--categories",
        type=categories,
        metavar="A,B",
        help='only these categories of the data; one with a comma stands in "quotes"',
    )
    add("--limit", type=positive, metavar="N", help="only the first N pairs")
    add(
        "--language",
        type=categories,
        metavar="en",
        help="only instructions in this language, such as en or cn",
    )
    add(
        "--subset",
        action="append",
        metavar="NAME",
        help="only this part of the data set, such as intersection, dev or multi-turn (see "
        "docs/EDIT_BENCHMARK.md); A,B is either, and each --subset narrows further",
    )
    add("--sample", type=positive, metavar="N", help="N pairs drawn at random")
    add("--sample-seed", type=seed, metavar="S", help="decides which; by default --seed does")
    add("--seed", type=seed, metavar="S", help="the base seed of edits, instead of `seed`")
    add("--gpu-ids", type=gpu_ids, metavar="0,2,4", help="which of the visible GPUs")
    add("--data", metavar="PATH", help="the pairs, instead of `data` in the settings")
    add("--output-dir", metavar="DIR", help="results go to DIR/<name of the data>")
    add(
        "--name",
        type=folder_name,
        metavar="NAME",
        help="results go to DIR/NAME, so that two data sets of one name do not share a folder",
    )
    add(
        "--overwrite",
        action="store_true",
        help="edit and score again what is done and keep nothing of it; also replace what other "
        "data left",
    )
    add(
        "--retry-quarantined",
        action="store_true",
        help="try pairs again that crashed their workers in an earlier run",
    )
    add(
        "--retry-unparsed",
        action="store_true",
        help="have the judge asked again, once more than before, where it gave no readable score",
    )
    add(
        "--score-only",
        metavar="FOLDER",
        type=Path,
        help="score the edits in FOLDER and load no editor; they may be named as GEdit-Bench, "
        "ImgEdit, KRIS-Bench, RISEBench or this program name them. Results go to "
        "DIR/<name of the data>-<name of FOLDER>",
    )
    add(
        "--layout",
        choices=official_names(),
        help="also write the edits as this benchmark's official scorer wants them, into a folder "
        "beside the results",
    )
    add_dry_run_option(parser)
    add_gallery_option(parser)
    add_engine_options(parser)
    add_server_options(parser)
    add_output_options(parser)
    return parser


def main(argv: Sequence[str] | None = None, backend: WorkerBackend | None = None) -> int:
    """Run the command; returns its exit code.

    Args:
        backend: runs the workers; by default processes of this machine.
    """
    argv = sys.argv[1:] if argv is None else argv
    told_as = "auto"
    try:
        if argv[:1] == ["compare"]:
            return compare_runs(argv[1:], PROGRAM)
        if argv[:1] == ["agreement"]:
            return _agreement(argv, backend)
        options = parse_arguments(argv)
        told_as = options.progress
        set_up_logging(log_level(options))
        with Interrupts(argv) as interrupts:
            return _run_interruptibly(options, interrupts, backend)
    except MultiGPUError as error:  # input, or an output folder that cannot be used
        logger.error(str(error))
        if told_as == "json":
            print_refusal(str(error))
        return UNUSABLE_INPUT


def _agreement(argv: Sequence[str], backend: WorkerBackend | None) -> int:
    """Score what is to be scored, then tell how far the judges can be trusted."""
    options = agreement_arguments(_run_parser(), argv[1:], f"{PROGRAM} agreement")
    set_up_logging(log_level(options))
    folders = [user_path(folder, "a results folder") for folder in options.folders]
    code = ALL_SCORED
    if not folders:
        _check_preferences(options)
        with Interrupts(argv) as interrupts:
            code = _run_interruptibly(options, interrupts, backend)
        if options.dry_run or code not in (ALL_SCORED, SOME_FAILED):
            return code
        folders = [_results_folder(_settings(options), options)]
    pairs = None
    if options.data is not None or not options.folders:
        pairs = _pairs_without_pictures(_settings(options))
    return code if tell_agreement(options, folders, pairs) else SOME_FAILED


def _check_preferences(options: argparse.Namespace) -> None:
    """Raise InputError where there is nothing that a judge could agree with, before any work."""
    if options.data is None and options.config is None:
        raise InputError(
            "agreement: expected --data PATH with what people preferred, or the results folders of "
            "earlier runs (see agreement --help)."
        )
    settings = _settings(options)
    if not comparisons_of(_pairs_without_pictures(settings)):
        raise InputError(
            f"data: {settings.data} does not say what people preferred (docs/EDIT_BENCHMARK.md, "
            "How far can the judge be trusted). To compare judges, give the results "
            "folders of their runs."
        )


def _pairs_without_pictures(settings: BenchmarkSettings) -> list[Pair]:
    with TemporaryDirectory() as kept:
        return _pairs(settings, find_data(settings.data), Path(kept), with_pictures=False).pairs


def _run_interruptibly(
    options: argparse.Namespace, interrupts: Interrupts, backend: WorkerBackend | None
) -> int:
    try:
        with unwrapped():
            return _run(options, interrupts, backend)
    except KeyboardInterrupt:  # before the first edit; nothing is lost
        interrupts.tell_how_to_continue()
        return INTERRUPTED


def _run(options: argparse.Namespace, interrupts: Interrupts, backend: WorkerBackend | None) -> int:
    settings = _settings(options)
    data = find_data(settings.data)
    folder = _results_folder(settings, options)
    config_folder = user_path(options.config, "config").parent if options.config else None
    with EditBenchmark(
        settings,
        folder,
        options.gpu_ids,
        config_folder,
        options.overwrite,
        options.retry_quarantined,
        options.retry_unparsed,
        data,
        backend,
        options.dry_run,
        options.score_only,
    ) as run:
        if options.dry_run:
            with TemporaryDirectory() as kept:
                return print_plan(run.plan(_pairs(settings, data, Path(kept))))
        gallery = LiveGallery(run.root.folder, settings.gallery)
        pairs = _pairs(settings, data, run.root.folder / "sources")
        layout = LayoutFolder(run.root.folder, options.layout) if options.layout else None
        if layout is not None:
            layout.check(pairs.pairs)
        run.prepare(pairs)
        interrupts.run = run
        with gallery, create_view(run.tracker, options.progress, log_level(options)) as view:
            run.listener = told_both(view.show, gallery.hear)
            results = run.run()
        interrupts.run = None  # from here on Ctrl-C ends the statistics
        records = [record_of(result, run.root) for result in results]
        records = with_drifts(records, run.root.folder)
        summary = replace(
            _summary(run, records),
            official=official_table(pairs.pairs, records),
            best_of=choice_summary(records),
            output_size=run.output_size,
        )
        write_outputs(run.root.folder, records, summary)
        if layout is not None and not interrupts.count:
            written = layout.write(results, records)
            for line in tell_layout(layout, written, pairs.pairs):
                logger.info(line)
        elapsed = time_line(run.status())
    _tell_unparsed(records, run.judge.type.varies)
    if options.progress != "json":
        _tell_end(elapsed, results, interrupts.command, as_text(run.root.folder / TABLE))
        print_summary(summary, run.root.folder)
    if interrupts.count:
        return INTERRUPTED
    return ALL_SCORED if all(r.outcome == "scored" for r in records) else SOME_FAILED


def _results_folder(settings: BenchmarkSettings, options: argparse.Namespace) -> Path:
    data = find_data(settings.data)
    return Path(settings.output_dir) / (options.name or _folder_name(data, options.score_only))


def _folder_name(data: Path, edits: Path | None) -> str:
    """What the results' folder is called: the name of the data, and of edits that are there."""
    name = data.stem if data.is_file() else data.name
    if edits is None:
        return name
    made = Path(os.path.abspath(user_path(edits, "--score-only"))).name
    return on_disk(bounded(as_text(f"{name}-{made}")))


def _tell_end(elapsed: str | None, results: Sequence[PairResult], again: str, table: str) -> None:
    """Say how long it took, what failed and why, and what to do about it."""
    if elapsed is not None:
        logger.info(elapsed)
    ends = [result.score or result.edit for result in results]
    for line in failure_lines(Tally.of(ends), again, table):
        logger.info(line)


def _tell_unparsed(records: Sequence[Record], may_differ: bool) -> None:
    """Say how many answers gave no score. `may_differ`: another ask may give another answer."""
    unparsed = [r for r in records if r.outcome == "unparsed"]
    if unparsed:
        first = unparsed[0]
        way_out = "; --retry-unparsed asks for them alone again" if may_differ else ""
        logger.warning(
            f"{counted(len(unparsed), 'edit')} without a score because of the judge's answers"
            f"{way_out}. The reasons are in results.jsonl; the first, "
            f"{first.category}/{first.pair_id}: {first.error}"
        )


def _settings(options: argparse.Namespace) -> BenchmarkSettings:
    settings = load_benchmark_settings(options.config)
    changes = {"data": options.data, "output_dir": options.output_dir}
    changes |= {"use_server": options.use_server, "gallery": options.gallery}
    changes |= {"language": options.language, "subset": options.subset}
    changes |= {"categories": options.categories, "limit": options.limit}
    changes |= {"sample": options.sample, "sample_seed": options.sample_seed, "seed": options.seed}
    given = {key: value for key, value in changes.items() if value is not None}
    return with_engine_options(options, settings.model_copy(update=given))


def _pairs(
    settings: BenchmarkSettings, data: Path, work_folder: Path, with_pictures: bool = True
) -> PairSet:
    read = settings.choice, settings.fields, settings.seed_by
    return read_pairs(data, work_folder, *read, with_pictures)


def _summary(run: EditBenchmark, records: Sequence[Record]) -> Summary:
    judge, model, name = run.judge, run.judge_model.identity, run.judge_name
    names = judge.prompts.score_names
    if not judge.type.chats:  # which of them there are depends on its model and on the data
        given = {name for record in records for name in record.scores or ()}
        names = [name for name in names if name in given] or names
    judged = read_judges(run.root.folder, records, name)
    return summarise(
        records,
        names,
        JudgedBy(
            name,
            model,
            judge.prompt_hash,
            _judge_settings(run),
            run.settings.seed,
            judge.settings.batch_size if judge.type.loads else None,
            judged.libraries,
            judged.usage,
        ),
        run.editor_identity,
        run.settings.bootstrap_samples,
        judged.others,
        edited_by(run),
    )


def _judge_settings(run: EditBenchmark) -> dict[str, Any]:
    """All that decide scores, how its model is loaded included."""
    model = Identity.read(run.judge_model.deciding)
    loras = {"lora": ", ".join(model.loras)} if model.loras else {}
    return {**run.judge.deciding, **model.others, **loras}


def edited_by(run: EditBenchmark) -> EditedBy:
    """How the edits of a run were made."""
    edits, settings, editor = run.edits_made(), run.settings, run.editor
    if editor is None or run.editor_identity != editor.identity:
        return EditedBy(run.editor_identity)
    attention, cache = settings.workers.attention_backend, settings.workers.chosen_cache
    how = loaded_as(editor.variant, editor.memory)
    how |= {BASE: editor.base_identity} if editor.base_identity else {}
    how |= {} if attention == "auto" else {BACKEND: attention}
    how |= {"step_cache": str(cache)} if cache else {}
    return EditedBy(
        editor.identity,
        settings.editor.dtype,
        settings.seed,
        how,
        settings_of(edits),
        loras_of(edits),
        [lora.record for lora in editor.loras],
        dict(editor.scheduler),
    )
