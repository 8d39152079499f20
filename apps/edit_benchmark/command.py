"""The command `run_edit_benchmark.py`: arguments, run, table, exit code."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from loguru import logger

from apps.arguments import log_level, with_engine_options
from apps.dry_run import print_plan
from apps.edit_benchmark.agreement.command import agreement_arguments, tell_agreement
from apps.edit_benchmark.best_of import choice_summary
from apps.edit_benchmark.chosen_pairs import FIELDS
from apps.edit_benchmark.compare_command import compare_runs
from apps.edit_benchmark.drifts import with_drifts
from apps.edit_benchmark.editing import EditedBy, loras_of, settings_of
from apps.edit_benchmark.judges import Judged, read_judges
from apps.edit_benchmark.layout_folder import LayoutFolder, tell_layout
from apps.edit_benchmark.official_results import official_table
from apps.edit_benchmark.options import BY_RECORD, PROGRAM, parse_arguments, run_parser
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
from apps.headway_view import headway_shown
from apps.interrupts import Interrupts, unwrapped
from apps.json_events import print_refusal
from apps.log_lines import set_up_logging
from apps.progress import create_view
from apps.record_filter import conditions_of
from apps.run_summary import Tally, end_lines, failure_lines
from core.engine.backend import WorkerBackend
from core.errors import DeviceError, InputError, MultiGPUError, one_line
from core.events import told_both
from core.model_identity import BACKEND, BASE, Identity, loaded_as
from core.names import bounded, counted
from core.paths import as_text, on_disk, user_path
from core.settings_file import laid_over
from core.store.results_table import FILE_NAME as TABLE

ALL_SCORED, SOME_FAILED, UNUSABLE_INPUT, INTERRUPTED = 0, 1, 2, 130


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
    options = agreement_arguments(run_parser(), argv[1:], f"{PROGRAM} agreement")
    set_up_logging(log_level(options))
    folders = [user_path(folder, "a results folder") for folder in options.folders]
    code = ALL_SCORED
    pairs = None
    if not folders:
        pairs = _pairs_with_preferences(options)
        with Interrupts(argv) as interrupts:
            code = _run_interruptibly(options, interrupts, backend)
        if options.dry_run or code not in (ALL_SCORED, SOME_FAILED):
            return code
        folders = [_results_folder(_settings(options), options)]
    elif options.data is not None:
        pairs = _pairs_without_pictures(_settings(options))
    return code if tell_agreement(options, folders, pairs) else SOME_FAILED


def _pairs_with_preferences(options: argparse.Namespace) -> list[Pair]:
    """The pairs that a judge is to be compared by.

    Raises:
        InputError: there is nothing that a judge could agree with.
    """
    if options.data is None and options.config is None:
        raise InputError(
            "agreement: expected --data PATH with what people preferred, or the results folders of "
            "earlier runs (see agreement --help)."
        )
    settings = _settings(options)
    pairs = _pairs_without_pictures(settings)
    if not comparisons_of(pairs):
        raise InputError(
            f"data: {settings.data} does not say what people preferred (docs/EDIT_BENCHMARK.md, "
            "How far can the judge be trusted). To compare judges, give the results "
            "folders of their runs."
        )
    return pairs


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
    if options.num_gpus is not None and options.gpu_ids is not None:
        raise DeviceError(f"Give either {options.number} or --gpu-ids, not both.")
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
        options.num_gpus,
    ) as run:
        headway = run.tracker.headway
        shown = partial(headway_shown, headway, options.progress, log_level(options), "pairs")
        if options.dry_run:
            with TemporaryDirectory() as kept, shown():
                with headway.at("reading the data"):
                    pairs = _chosen(run, options, _pairs(settings, data, Path(kept)))
                plan = run.plan(pairs) if pairs.pairs else None
            return print_plan(plan) if plan is not None else _nothing(run)
        with shown(), headway.at("reading the data"):
            pairs = _chosen(run, options, _pairs(settings, data, run.root.folder / "sources"))
        if not pairs.pairs:
            return _nothing(run)
        gallery = LiveGallery(run.root.folder, settings.gallery)
        layout = LayoutFolder(run.root.folder, options.layout) if options.layout else None
        if layout is not None:
            layout.check(pairs.pairs)
        with shown():
            run.prepare(pairs)
        interrupts.run = run
        with gallery, create_view(run.tracker, options.progress, log_level(options)) as view:
            run.listener = told_both(view.show, gallery.hear)
            results = run.run()
        interrupts.run = None  # from here on Ctrl-C ends the statistics
        records = [record_of(result, run.root) for result in results]
        records = with_drifts(records, run.root.folder, run.drifts())
        judged = read_judges(run.root.folder, records, run.judge_name)
        summary = replace(
            _summary(run, records, judged),
            official=official_table(pairs.pairs, records, judged.others),
            best_of=choice_summary(records),
            output_size=run.output_size,
        )
        write_outputs(run.root.folder, records, summary)
        if layout is not None and not interrupts.count:
            written = layout.write(results, records, judged.others)
            for line in tell_layout(layout, written, pairs.pairs):
                logger.info(line)
        times = end_lines(run.status())
    _tell_unparsed(records, run.judge.type.varies)
    if options.progress != "json":
        _tell_end(times, results, interrupts.command, as_text(run.root.folder / TABLE))
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


def _tell_end(times: Sequence[str], results: Sequence[PairResult], again: str, table: str) -> None:
    """Say how long it took, what failed and why, and what to do about it.

    Args:
        times: lines about the run as a whole.
    """
    for line in times:
        logger.info(line)
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
    models = {
        "editor": {"model": options.model, **_shares(options)},
        "judge": {"model": options.judge_model, **_shares(options)},
    }
    changes = {"data": options.data, "output_dir": options.output_dir}
    changes |= {"use_server": options.use_server, "gallery": options.gallery}
    changes |= {"language": options.language, "subset": options.subset}
    changes |= {"categories": options.categories, "limit": options.limit}
    changes |= {"sample": options.sample, "sample_seed": options.sample_seed, "seed": options.seed}
    over = _given(changes) | {role: _given(values) for role, values in models.items()}
    return with_engine_options(options, laid_over(settings, over, load_benchmark_settings))


def _shares(options: argparse.Namespace) -> dict[str, int | None]:
    names = ("gpus_per_worker", "workers_per_gpu")
    return {name: getattr(options, name) for name in names}


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """What is given; bytes that the locale has no letters for came in as surrogates."""
    return {
        name: as_text(value) if isinstance(value, str) else value
        for name, value in values.items()
        if value is not None
    }


def _pairs(
    settings: BenchmarkSettings, data: Path, work_folder: Path, with_pictures: bool = True
) -> PairSet:
    read = settings.choice, settings.fields, settings.seed_by
    return read_pairs(data, work_folder, *read, with_pictures)


def _chosen(run: EditBenchmark, options: argparse.Namespace, pairs: PairSet) -> PairSet:
    """The pairs that --only, --only-failed and --where leave."""
    if not any(getattr(options, name) for name in BY_RECORD):
        return pairs
    fields = (*FIELDS, *run.judge.prompts.score_names)
    only = dict.fromkeys(as_text(id) for id in options.only or ())
    found = run.chosen(pairs, only, conditions_of(options, fields))
    if found.pairs:
        logger.info(
            f"{counted(len(found.pairs), 'pair')} of {len(pairs.pairs)} fit, and the table is of "
            "them: the same command without --only, --only-failed and --where makes it of all."
        )
    return found


def _nothing(run: EditBenchmark) -> int:
    place = f" Results: {as_text(run.root.folder)}" if run.root.folder.is_dir() else ""
    print(one_line(f"Nothing is edited or scored: no pair fits.{place}"))
    return ALL_SCORED


def _summary(run: EditBenchmark, records: Sequence[Record], judged: Judged) -> Summary:
    judge, model, name = run.judge, run.judge_model.identity, run.judge_name
    names = judge.prompts.score_names
    if not judge.type.chats:  # which of them there are depends on its model and on the data
        given = {name for record in records for name in record.scores or ()}
        names = [name for name in names if name in given] or names
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
