"""What a run looks like at 60, 80 and 200 columns: names give way, figures never do."""

from dataclasses import replace

import pytest

from apps.status_lines import ASCII_BAR, status_lines
from apps.watch.lines import look_lines
from apps.watch.look import Look
from core.status.run_status import Download, Failure, KindStatus, RunStatus, WorkerStatus
from core.status.words import duration, rate, sentence

GB = 1_000_000_000
LONG = "早安_🌅_" + "一个非常长的任务名字" * 12 + "_0013"
WORKERS = (
    WorkerStatus(
        "gpu0", "ready", "generate", "Tongyi-MAI/Z-Image-Turbo", ("ink_wash_style_v2",),
        "Mira_0012", 1, 5, 8, 3, 0, 61 * GB, 80 * GB,
    ),
    WorkerStatus(
        "gpu1", "ready", "generate", "Tongyi-MAI/Z-Image-Turbo", ("水墨画风格" * 9, "lightning"),
        LONG, 3, 12, 28, 3, 0, 79 * GB, 80 * GB,
    ),
    WorkerStatus(
        "gpu2", "loading the model", "generate", "Tongyi-MAI/Z-Image-Turbo",
        memory_used=GB, memory_total=80 * GB,
    ),
    WorkerStatus(
        "gpu10", "ready", "generate", "Tongyi-MAI/Z-Image-Turbo", (),
        "👩‍👩‍👧‍👦_family" * 20, memory_used=64 * GB, memory_total=80 * GB,
    ),
)  # fmt: skip
RUN = RunStatus(
    "running",
    "drawing",
    0.0,
    0.0,
    kinds=(KindStatus("generate", 10000, 4951, 12, 0, 4, 123.4, 10925.0),),
    seconds_left=10925.0,
    workers=WORKERS,
)
BENCHMARK = replace(
    RUN,
    phase="editing and scoring",
    kinds=(
        KindStatus("edit", 50, 49, 1, 0, 0, 12.3, 0.0),
        KindStatus("score", 49, 12, 0, 0, 4, 30.1, 76.0),
    ),
    seconds_left=76.0,
    workers=tuple(
        replace(w, model="Qwen/Qwen3-VL-8B-Instruct" if n % 2 else "Qwen/Qwen-Image-Edit-2511")
        for n, w in enumerate(WORKERS)
    ),
    downloads=(Download("Qwen/Qwen3-VL-8B-Instruct", 5_100_000_000, 20_500_000_000),),
)
WIDTHS = [60, 80, 200]


def shown(status: RunStatus, width: int) -> list[str]:
    return [line.plain for line in status_lines(status, width)]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("status", [RUN, BENCHMARK], ids=["tweets", "benchmark"])
def test_no_line_is_wider_than_the_terminal(status: RunStatus, width: int) -> None:
    """As the terminal counts, in which 早 and 🌅 take two columns each."""
    assert [line.plain for line in status_lines(status, width) if line.cell_len > width] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_figures_are_whole_however_long_the_names_are(width: int) -> None:
    head, *workers = shown(RUN, width)
    for figure in ("4963/10000", "123/min", "3:02:05 left", "12 failed"):
        assert figure in head
    for line, figures in zip(
        workers, [("5/8", "61/80 GB"), (" +2", "12/28", "79/80 GB"), ("1/80 GB",), ("64/80 GB",)],
        strict=True,
    ):  # fmt: skip
        assert all(figure in line for figure in figures), line
    assert [line.split()[0] for line in workers] == ["gpu0", "gpu1", "gpu2", "gpu10"]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_long_name_keeps_its_end_which_tells_it_from_others(width: int) -> None:
    [line] = [line for line in shown(RUN, width) if line.startswith("gpu1 ")]
    assert "…" in line and "13 +2" in line and "Mira_0012" in shown(RUN, width)[1]


def test_a_line_tells_model_lora_task_steps_and_memory() -> None:
    [_, first, *_] = shown(RUN, 200)
    words = ["gpu0", "Z-Image-Turbo", "ink_wash_style_v2", "Mira_0012", "5/8", "61/80 GB"]
    assert first.split("  ")[0] == "gpu0"
    assert [word for word in words if word not in first] == []


def test_figures_stand_below_each_other() -> None:
    for width in WIDTHS:
        lines = status_lines(RUN, width)[1:]
        assert len({line.cell_len for line in lines}) == 1, "memory ends in one column"


def test_a_benchmark_shows_editing_and_scoring_and_calls_neither_pictures() -> None:
    edits, scores, download, *_ = shown(BENCHMARK, 80)
    assert edits.startswith("editing ") and "50/50" in edits and "1 failed" in edits
    assert scores.startswith("scoring ") and "12/49" in scores and "1:16 left" in scores
    assert "Qwen3-VL" in download and "5.1 GB/20.5 GB" in download and "24 %" in download
    assert "picture" not in "".join(shown(BENCHMARK, 200))


def test_an_interrupted_run_does_not_end_in_a_full_bar() -> None:
    kind = KindStatus("generate", 100, 49, 2, 49)
    ended = replace(RUN, state="interrupted", started=0.0, ended=125.0, kinds=(kind,))
    [line] = shown(ended, 80)
    assert line.startswith("interrupted ") and "51/100" in line and "in 2:05" in line
    assert "left" not in line and "/min" not in line
    full, rest = line.count("━"), line.count("─")
    assert full == pytest.approx((full + rest) / 2, abs=1.5)


def test_nothing_is_said_of_what_nobody_knows_yet() -> None:
    kinds = (KindStatus("generate", 100),)
    start = replace(RUN, phase="loading", kinds=kinds, seconds_left=None, workers=())
    [line] = shown(start, 80)
    assert line.startswith("loading ") and line.endswith("0/100")


def test_more_workers_than_lines_are_counted() -> None:
    many = replace(RUN, workers=tuple(replace(WORKERS[0], name=f"gpu{n}") for n in range(64)))
    lines = [line.plain for line in status_lines(many, 80, most=10)]
    assert len(lines) == 10 and lines[-1] == "and 56 workers more"


def test_a_terminal_without_unicode_has_bars_of_its_own_letters() -> None:
    [line, *_] = status_lines(RUN, 80, bar=ASCII_BAR)
    assert "#####" in line.plain and "----" in line.plain and line.plain[:20].isascii()


def test_names_move_no_cursor() -> None:
    evil = replace(WORKERS[0], task="a\x1b[2Jb\nc\r", model="x/\x07y", loras=("\x9b31m",))
    text = "".join(shown(replace(RUN, workers=(evil,)), 200))
    assert text.isprintable()


def test_who_watches_sees_place_run_and_newest_failures() -> None:
    failures = tuple(Failure(f"t{n}", "failed", "input", f"reason {n}") for n in range(20))
    look = Look("outputs/tweets", "running", replace(RUN, failures=failures), "Nothing new.")
    lines = [line.plain for line in look_lines(look, 80, 40, ASCII_BAR)]
    assert lines[0] == "outputs/tweets" and lines[1] == "Nothing new."
    assert lines[2].startswith("drawing ") and lines[-1] == "t19: reason 19"
    assert len(look_lines(look, 80, 10, ASCII_BAR)) <= 10


def test_a_run_in_one_line() -> None:
    assert sentence(RUN) == "drawing 4963/10000, 123/min, 3:02:05 left, 12 failed"
    assert sentence(BENCHMARK) == "editing 50/50, scoring 12/49, 42.4/min, 1:16 left, 1 failed"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (3661, "1:01:01"), (90_000, "1 d 1:00 h"), (0.4, "0:00")],
)
def test_times_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_speeds_in_words() -> None:
    assert [rate(x) for x in (1234.5, 99.9, 1.0, 0.25)] == [
        "1234/min",
        "99.9/min",
        "1.0/min",
        "15/h",
    ]


def test_what_tasks_wait_for_stands_whole_between_the_bars_and_the_workers() -> None:
    why = "Tasks to generate wait: gpu0 and gpu1 are drained. They go on when one is undrained."
    lines = [line.plain for line in status_lines(replace(RUN, waiting_for=why), 40)]
    first = next(i for i, line in enumerate(lines) if line.startswith("gpu0"))
    assert " ".join(lines[1:first]) == why
    assert f"waiting ({why[:-1]})" in sentence(replace(RUN, waiting_for=why))
    assert RunStatus.from_json(replace(RUN, waiting_for=why).as_json()).waiting_for == why
