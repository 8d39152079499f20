"""The command `run_edit_benchmark.py`: arguments, run, table, exit code."""

import argparse
import sys
from collections.abc import Sequence
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
    with_engine_options,
)
from apps.dry_run import add_dry_run_option, print_plan
from apps.edit_benchmark.compare import compare, comparison_table
from apps.edit_benchmark.editing import EditedBy, loras_of, settings_of
from apps.edit_benchmark.outputs import correlations, write_outputs
from apps.edit_benchmark.pairs import find_data, read_pairs
from apps.edit_benchmark.records import Record, record_of
from apps.edit_benchmark.runner import EditBenchmark, PairResult
from apps.edit_benchmark.settings import BenchmarkSettings, load_benchmark_settings
from apps.edit_benchmark.summary import JudgedBy, Summary, read_makers, summarise
from apps.edit_benchmark.table import print_comparison, print_summary
from apps.gallery.live import LiveGallery
from apps.gallery.two_runs import write_comparison
from apps.interrupts import Interrupts, unwrapped
from apps.json_events import print_refusal
from apps.log_lines import set_up_logging
from apps.progress import create_view
from apps.run_summary import failure_lines, time_line
from core.engine.backend import WorkerBackend
from core.errors import MultiGPUError, one_line
from core.events import told_both
from core.judge_calls import OVERALL
from core.model_identity import BACKEND, BASE, Identity, loaded_as
from core.paths import as_text, user_path
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
      paired differences of two runs on the same pairs; --html FILE shows both side by side

Run the same command again to continue: what is done and unchanged is not done again, and
another judge scores the same edits. Edits and verdicts that are made anew because something
changed are kept in .replaced, unless --overwrite is given.
exit codes: 0 every pair has a score, 1 some have none, 2 unusable input, 130 interrupted
"""


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
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
    add_dry_run_option(parser)
    add_gallery_option(parser)
    add_engine_options(parser)
    add_server_options(parser)
    add_output_options(parser)
    return parser.parse_args(argv)


def parse_compare_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} compare",
        description="Paired differences of two result folders, B - A.",
        allow_abbrev=False,
    )
    parser.add_argument("a", metavar="A", type=Path, help="results folder of one run")
    parser.add_argument("b", metavar="B", type=Path, help="results folder of another run")
    parser.add_argument("--score", default="O", help="which score (default: O, the overall one)")
    parser.add_argument(
        "--samples",
        type=positive,
        default=10_000,
        metavar="N",
        help="resamplings behind the intervals (default: 10000)",
    )
    parser.add_argument(
        "--html",
        metavar="FILE",
        type=Path,
        help="also write a page that shows both runs side by side, with all their pictures",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, backend: WorkerBackend | None = None) -> int:
    """Run the command; returns its exit code.

    Args:
        backend: runs the workers; by default processes of this machine.
    """
    argv = sys.argv[1:] if argv is None else argv
    told_as = "auto"
    try:
        if argv[:1] == ["compare"]:
            return _compare(parse_compare_arguments(argv[1:]))
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


def _compare(options: argparse.Namespace) -> int:
    set_up_logging("INFO")
    a, b = user_path(options.a, "A"), user_path(options.b, "B")
    comparison = compare(a, b, options.score, options.samples)
    print_comparison(comparison)
    if options.html is not None:
        page = user_path(options.html, "--html")
        judge = read_makers(a).judged_by.judge
        write_comparison(a, b, page, comparison_table(comparison, options.score), judge)
        print(one_line(f"side by side: {as_text(page)}"))
    return ALL_SCORED


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
    name = options.name or (data.stem if data.is_file() else data.name)
    folder = Path(settings.output_dir) / name
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
    ) as run:
        if options.dry_run:
            with TemporaryDirectory() as kept:
                pairs = read_pairs(data, Path(kept))
                return print_plan(run.plan(pairs.selected(options.categories, options.limit)))
        gallery = LiveGallery(run.root.folder, settings.gallery)
        pairs = read_pairs(data, run.root.folder / "sources").selected(
            options.categories, options.limit
        )
        run.prepare(pairs)
        interrupts.run = run
        with gallery, create_view(run.tracker, options.progress, log_level(options)) as view:
            run.listener = told_both(view.show, gallery.hear)
            results = run.run()
        interrupts.run = None  # from here on Ctrl-C ends the statistics
        records = [record_of(result, run.root) for result in results]
        summary = _summary(run, records)
        write_outputs(run.root.folder, records, summary)
        elapsed = time_line(run.status())
    _tell_unparsed(records, run.judge.type.varies)
    if options.progress != "json":
        _tell_end(elapsed, results, interrupts.command, as_text(run.root.folder / TABLE))
        print_summary(summary, run.root.folder)
    if interrupts.count:
        return INTERRUPTED
    return ALL_SCORED if all(r.outcome == "scored" for r in records) else SOME_FAILED


def _tell_end(elapsed: str | None, results: Sequence[PairResult], again: str, table: str) -> None:
    """Say how long it took, what failed and why, and what to do about it."""
    if elapsed is not None:
        logger.info(elapsed)
    ends = [result.score or result.edit for result in results]
    for line in failure_lines(ends, again, table):
        logger.info(line)


def _tell_unparsed(records: Sequence[Record], may_differ: bool) -> None:
    """Say how many answers gave no score. `may_differ`: another ask may give another answer."""
    unparsed = [r for r in records if r.outcome == "unparsed"]
    if unparsed:
        first = unparsed[0]
        way_out = "; --retry-unparsed asks for them alone again" if may_differ else ""
        logger.warning(
            f"{len(unparsed)} edits have no score because of the judge's answers{way_out}. The "
            f"reasons are in results.jsonl; the first, {first.category}/{first.pair_id}: "
            f"{first.error}"
        )


def _settings(options: argparse.Namespace) -> BenchmarkSettings:
    settings = load_benchmark_settings(options.config)
    changes = {"data": options.data, "output_dir": options.output_dir}
    changes |= {"use_server": options.use_server, "gallery": options.gallery}
    given = {key: value for key, value in changes.items() if value is not None}
    return with_engine_options(options, settings.model_copy(update=given))


def _summary(run: EditBenchmark, records: Sequence[Record]) -> Summary:
    judge, model, name = run.judge, run.judge_model.identity, run.judge_name
    names = [call.name for call in judge.prompts.calls]
    if judge.type.chats and len(names) > 1:
        names.append(OVERALL)
    return summarise(
        records,
        names,
        JudgedBy(name, model, judge.prompt_hash, _judge_settings(run), run.settings.seed),
        run.editor.identity,
        run.settings.bootstrap_samples,
        correlations(run.root.folder, records, name),
        edited_by(run),
    )


def _judge_settings(run: EditBenchmark) -> dict[str, Any]:
    """All that decide scores, how its model is loaded included."""
    return {**run.judge.deciding, **Identity.read(run.judge_model.deciding).others}


def edited_by(run: EditBenchmark) -> EditedBy:
    """How the edits of a run were made."""
    edits, settings = run.edits_made(), run.settings
    attention, cache = settings.workers.attention_backend, settings.workers.chosen_cache
    how = loaded_as(run.editor.variant, run.editor.memory)
    how |= {BASE: run.editor.base_identity} if run.editor.base_identity else {}
    how |= {} if attention == "auto" else {BACKEND: attention}
    how |= {"step_cache": str(cache)} if cache else {}
    return EditedBy(
        run.editor.identity,
        settings.editor.dtype,
        settings.seed,
        how,
        settings_of(edits),
        loras_of(edits),
        [lora.record for lora in run.editor.loras],
        dict(run.editor.scheduler),
    )
