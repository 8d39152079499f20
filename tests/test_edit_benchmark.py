"""The benchmark as a user runs it: real processes, simulated editors and judges."""

import csv
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from tests.both_engines import ALWAYS_ON_BOTH, ON_BOTH
from tests.conftest import BENCHMARK, HELD, Project, going_on, standing_still, wait_until
from tests.edit_world import Bench, pair
from tests.lease_records import lease_records

NAMED = ("viescore", "yes-no")  # prompt files, as they stand in the names of judges
NO_COPIES = {"scheduling": {"speculative_copies": False}}  # of a task that stands still
SLOW: dict[str, Any] = {"seconds_per_megapixel_step": 30.0, "score_seconds": 0.1}


@pytest.fixture
def bench(project: Project) -> Bench:
    return Bench(project)


@ON_BOTH
def test_every_pair_is_edited_and_scored_and_the_table_is_printed_last(bench: Bench) -> None:
    bench.write_pairs([pair(i, category=["sky", "颜色"][i % 2]) for i in range(6)])
    run = bench.run()
    assert run.process.returncode == 0, run.errors
    assert bench.outcomes() == ["scored"] * 6
    assert len(bench.edits()) == len(bench.verdicts()) == 6
    assert [c["category"] for c in bench.summary()["categories"]] == ["sky", "颜色"]
    where, editor, judge, *table = run.output.splitlines()
    assert str(bench.results) in where
    assert editor.startswith("editor: simulated, num_inference_steps 1, ")
    assert bench.summary()["judged_by"]["prompt_hash"] in judge and "seed 42" in judge
    columns = ["category", "n", "scored", "failed", "unparsed", "SC", "PQ", "O"]
    assert table[0].split()[:8] == columns
    assert [line.split()[0] for line in table[1:4]] == ["sky", "颜色", "overall"]
    assert [line.partition(":")[0] for line in table[4:]] == ["SC", "PQ", "O", "overall"]
    record = bench.records()[0]
    assert record["scores"].keys() == {"SC", "PQ", "O"} and record["seed"] == 42


def test_scores_come_in_the_columns_of_gedit_bench(bench: Bench) -> None:
    bench.write_pairs([pair(0), pair(1, "!unparsed")])
    bench.run()
    with (bench.results / "scores.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0][:7] == [
        "source_image", "edited_image", "instruction", "sementics_score", "quality_score",
        "intersection_exist", "instruction_language",
    ]  # fmt: skip
    # An empty score would spoil the means of GEdit-Bench's own statistics.
    assert len(rows) == 2 and float(rows[1][3]) >= 0 and rows[1][6] == "en"


@pytest.mark.slow
def test_a_run_in_two_languages_has_figures_for_each_and_says_how_it_edited(bench: Bench) -> None:
    data = bench.project.folder / "gedit"
    rows = []
    for number in range(8):
        language, task_type = ["en", "cn"][number % 2], ["color_alter", "ps_human"][number // 4]
        file = data / "fullset" / task_type / language / f"{number}_SRCIMG.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48), (number, 0, 0)).save(file)
        rows.append(
            {
                "key": number, "task_type": task_type, "instruction_language": language,
                "instruction": f"line one\rline {number}", "scores": float("nan"),
                "Intersection_exist": "False" if number < 2 else "True",
            }
        )  # fmt: skip
    (data / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    bench.results = bench.project.folder / "out" / "gedit"
    for steps in (8, 1):
        run = bench.run("--data", str(data), editor={"defaults": {"num_inference_steps": steps}})
        assert run.process.returncode == 0, run.errors
        _, editor, _, *table = run.output.splitlines()
        assert f"num_inference_steps {steps}, " in editor and "seed 42" in editor
        assert bench.summary()["edited_by"]["settings"]["num_inference_steps"] == steps
    ends = [line.split()[:3] for line in table if line.startswith("overall")]
    assert ends[:4] == [
        ["overall", "en", "4"], ["overall", "en,", "intersection"],
        ["overall", "cn", "4"], ["overall", "cn,", "intersection"],
    ]  # fmt: skip
    parts = bench.summary()["parts"]
    assert [(p["language"], p["subset"], p["overall"]["n"]) for p in parts] == [
        ("en", "full", 4), ("en", "intersection", 3), ("cn", "full", 4), ("cn", "intersection", 3),
    ]  # fmt: skip
    with (bench.results / "scores.csv").open(newline="") as stream:
        read = list(csv.DictReader(stream))
    assert [r["instruction"] for r in read] == [row["instruction"] for row in rows]
    assert [r["intersection_exist"] for r in read] == ["False"] * 2 + ["True"] * 6


@ON_BOTH
def test_what_cannot_be_edited_is_a_failed_record_and_is_counted(bench: Bench) -> None:
    rows = [pair(i) for i in range(7)]
    bench.write_pairs(rows)
    (bench.data / "000.png").unlink()
    (bench.data / "001.png").write_bytes((bench.data / "002.png").read_bytes()[:40])
    (bench.data / "003.png").write_bytes(b"no picture at all")
    Image.new("1", (20_000, 10_000)).save(bench.data / "004.png")
    with (bench.data / "metadata.jsonl").open("a") as stream:
        stream.write("{not json\n" + json.dumps({"input_file_name": "../secret.png"}) + "\n")
    run = bench.run()
    assert run.process.returncode == 1
    assert "Traceback" not in run.errors
    records = bench.records()
    reasons = {r["pair_id"]: r["error"] for r in records if r["outcome"] == "edit_failed"}
    assert "is not a file" in reasons["000"]
    assert "001.png" in reasons["001"]
    assert "is no picture" in reasons["003"]
    assert "megapixels" in reasons["004"]
    assert "not valid JSON" in reasons["pair_0007"]
    assert "leads out" in reasons["secret"]
    assert [r["outcome"] for r in records].count("scored") == 3
    assert "[12/12]" in run.errors, "what is not edited is not waited for"
    assert all(r["scores"] is None for r in records if r["outcome"] != "scored")
    overall = bench.summary()["overall"]
    assert (overall["n"], overall["failed"], overall["scored"]) == (9, 6, 3)


@ON_BOTH
def test_a_picture_cut_short_fails_alone(bench: Bench) -> None:
    Image.effect_noise((200, 200), 60).convert("RGB").save(bench.data / "000.png")
    whole = (bench.data / "000.png").read_bytes()
    (bench.data / "000.png").write_bytes(whole[: len(whole) // 2])
    bench.write_pairs([pair(0), pair(1)])
    bench.run()
    assert bench.outcomes() == ["edit_failed", "scored"]
    assert "damaged or cut short" in bench.records()[0]["error"]


@ON_BOTH
def test_an_answer_out_of_form_is_no_score(bench: Bench) -> None:
    bench.write_pairs([pair(0), pair(1, "!unparsed"), pair(2, "!unparsed", "ground")])
    run = bench.run()
    assert run.process.returncode == 1
    assert bench.outcomes() == ["scored", "unparsed", "unparsed"]
    summary = bench.summary()
    sky, ground = summary["categories"]
    assert (sky["n"], sky["scored"], sky["unparsed"]) == (2, 1, 1)
    assert sky["scores"]["O"]["mean"] == pytest.approx(bench.records()[0]["scores"]["O"])
    assert ground["scores"] == {} and summary["overall"]["unparsed"] == 2
    verdict = json.loads(
        Path(bench.results / "scores/vlm-viescore-simulated/sky/001.json").read_text()
    )
    assert verdict["calls"][0]["raw"] == "no idea"


@ON_BOTH
def test_a_failed_edit_is_not_scored(bench: Bench) -> None:
    bench.write_pairs([pair(0, "!nan"), pair(1)])
    bench.run()
    assert bench.outcomes() == ["edit_failed", "scored"]
    assert len(bench.verdicts()) == 1


def test_categories_and_limit_choose_pairs(bench: Bench) -> None:
    names = ["Mix & match 🌧", "ground", "物理"]
    bench.write_pairs([pair(i, category=names[i % 3]) for i in range(9)])
    run = bench.run("--categories", "物理,Mix & match 🌧", "--limit", "3")
    assert run.process.returncode == 0, run.errors
    assert [r["category"] for r in bench.records()] == [names[0], names[2], names[0]]
    assert [c["category"] for c in bench.summary()["categories"]] == [names[0], names[2]]
    assert "\nMix & match 🌧 " in run.output
    seeds = {r["pair_id"]: r["seed"] for r in bench.records()}
    assert seeds == {"000": 42, "002": 44, "003": 45}  # a pair's own, whatever else is run
    run = bench.run("--categories", "causal")
    assert run.process.returncode == 2
    assert "'causal' is not in pairs; there are Mix & match 🌧, ground, 物理" in run.errors


@pytest.mark.slow
@ON_BOTH
@pytest.mark.parametrize("stage", ["edit", "score"])
def test_a_killed_run_resumes_in_either_stage(bench: Bench, stage: str) -> None:
    bench.write_pairs([pair(i) for i in range(12)])
    run = bench.start(simulated=SLOW)
    ready = bench.edits if stage == "edit" else bench.verdicts
    wait_until(lambda: len(ready()) >= 3, f"three files of stage {stage}")
    workers = bench.project.workers(run)
    run.process.kill()
    run.finish()
    wait_until(lambda: not any(w.is_running() for w in workers), "the workers' end")
    before = {file: file.stat().st_ino for file in [*bench.edits(), *bench.verdicts()]}
    again = bench.run(simulated=SLOW)
    assert again.process.returncode == 0, again.errors
    assert bench.outcomes() == ["scored"] * 12
    assert {file: file.stat().st_ino for file in before} == before
    assert bench.leftovers() == []


@ALWAYS_ON_BOTH
@pytest.mark.parametrize("stage", ["edit", "score"])
def test_a_killed_worker_costs_no_pair(bench: Bench, stage: str) -> None:
    bench.write_pairs([pair(i) for i in range(10)])
    # As slow as finding a worker among all processes of a busy machine is at most.
    slow = {**SLOW, "score_seconds": 0.5} if stage == "score" else SLOW
    ready = bench.edits if stage == "edit" else bench.verdicts

    def kill_one() -> str:
        for worker in bench.workers():
            with suppress(psutil.NoSuchProcess):  # one that is done leaves
                worker.kill()
                return "killed"
        return "" if bench.newest.process.poll() is None else "done before"

    for _ in range(5):
        run = bench.start(simulated=slow, judge={"batch_size": 2})
        wait_until(lambda: len(ready()) >= 2, f"two files of stage {stage}")
        found = wait_until(kill_one, "a worker")
        assert run.finish() == 0, run.errors
        assert bench.outcomes() == ["scored"] * 10
        if found == "killed":
            return
        shutil.rmtree(bench.results)
    raise AssertionError("five runs were done before a worker could be killed")


@ON_BOTH
def test_another_judge_scores_the_same_edits(bench: Bench) -> None:
    bench.write_pairs([pair(i) for i in range(4)])
    bench.run()
    edits = {file: file.stat().st_ino for file in bench.edits()}
    run = bench.run(judge={"prompts": "yes_no.yaml"})
    assert run.process.returncode == 0, run.errors
    assert "4 of 4 edits are there already" in run.errors
    assert {file: file.stat().st_ino for file in bench.edits()} == edits
    assert {file.parent.parent.name for file in bench.verdicts()} == {
        "vlm-viescore-simulated", "vlm-yes-no-simulated",
    }  # fmt: skip
    assert bench.summary()["judged_by"]["judge"] == "vlm-yes-no-simulated"
    tables = {name: bench.results / "tables" / f"vlm-{name}-simulated" for name in NAMED}
    for name, folder in tables.items():
        own = json.loads((folder / "summary.json").read_text("utf-8"))
        assert own["judged_by"]["judge"] == folder.name, name
        assert (folder / "results.jsonl").read_text("utf-8").count("\n") == 4
    assert (tables["viescore"] / "scores.csv").read_text("utf-8").count("\n") == 5
    beside = {j["judged_by"]["judge"]: j for j in bench.summary()["judges"]}
    assert {name: j["overall"]["scored"] for name, j in beside.items()} == {
        "vlm-viescore-simulated": 4, "vlm-yes-no-simulated": 4,
    }  # fmt: skip
    shown = run.output.partition("judges side by side:")[2]
    assert "A scored" in shown and "B: vlm-viescore-simulated (" in shown


@pytest.mark.slow
def test_two_judges_of_one_kind_are_correlated(bench: Bench) -> None:
    bench.write_pairs([pair(i, category="Mix & match") for i in range(8)])
    bench.run()
    run = bench.run(judge={"type": "vlm_logits", "prompts": "viescore_logits.yaml"})
    assert "rank correlation with vlm-viescore-simulated:" in run.output
    assert -1 <= bench.summary()["rank_correlations"]["vlm-viescore-simulated"] <= 1


@pytest.mark.slow
@ON_BOTH
def test_a_changed_source_is_edited_again(bench: Bench) -> None:
    bench.write_pairs([pair(0), pair(1)])
    bench.run()
    first, second = (file.read_bytes() for file in bench.edits())
    Image.new("RGB", (64, 48), "white").save(bench.data / "000.png")
    bench.run()
    assert bench.edits()[0].read_bytes() != first
    assert bench.edits()[1].read_bytes() == second


@pytest.mark.slow
@ON_BOTH
@pytest.mark.parametrize("stages", ["overlapped", "auto"])
def test_other_stages_give_the_same_scores(bench: Bench, stages: str) -> None:
    bench.write_pairs([pair(i, "!unparsed" if i == 3 else "add snow") for i in range(12)])
    bench.run()
    apart = [r["scores"] for r in bench.records()]
    run = bench.run("--overwrite", stages=stages, cpu_workers=3, simulated=SLOW)
    assert "editing," in run.errors and "scoring." in run.errors
    assert [r["scores"] for r in bench.records()] == apart


@pytest.mark.slow
@ON_BOTH
def test_an_edit_is_scored_while_others_are_edited(bench: Bench) -> None:
    bench.write_pairs([pair(i) for i in range(12)])
    loads = {**SLOW, "load_seconds": 1.5}  # so long that a judge is loaded while edits go on
    run = bench.start(stages="overlapped", simulated=loads)
    assert run.finish() == 0, run.errors
    assert bench.outcomes() == ["scored"] * 12
    keys = [lease.key for lease in lease_records(bench.results) if lease.outcome == "done"]
    is_edit = [key.endswith(".png") for key in keys]
    assert is_edit.index(False) < 12, "the first score came when all was edited"


@ON_BOTH
def test_a_barrier_per_batch_says_what_it_cost(bench: Bench) -> None:
    bench.write_pairs([pair(i) for i in range(6)])
    times = {**SLOW, "jitter": 0.5}
    run = bench.run(enable_batch_sync=True, simulated=times)
    assert run.process.returncode == 0, run.errors
    assert "enable_batch_sync: workers waited" in run.errors


@pytest.mark.slow
@ON_BOTH
@pytest.mark.parametrize("stages", ["sequential", "auto"])
def test_one_ctrl_c_finishes_what_runs_and_the_same_command_goes_on(
    bench: Bench, stages: str
) -> None:
    bench.write_pairs([*(pair(i) for i in range(9)), pair(9, f"{HELD} make it night")])
    run = bench.start(stages=stages, simulated=SLOW, **NO_COPIES)
    wait_until(lambda: bench.edits() and standing_still(bench.workers()), "what is to be finished")
    run.interrupt()
    with going_on(bench.workers):
        assert run.finish() == 130
    assert "Continue later with:" in run.errors and "Traceback" not in run.errors
    assert "not_tried" in bench.outcomes() and len(bench.records()) == 10
    again = bench.start(stages=stages, simulated=SLOW)
    with going_on(bench.workers):
        assert again.finish() == 0
    assert bench.outcomes() == ["scored"] * 10


@ON_BOTH
def test_an_interrupt_while_editing_keeps_the_scores_of_an_earlier_run(bench: Bench) -> None:
    bench.write_pairs([pair(i) for i in range(4)])
    bench.run()
    scored = bench.records()
    bench.write_pairs([*(pair(i) for i in range(11)), pair(11, f"{HELD} make it night")])
    run = bench.start(simulated=SLOW, **NO_COPIES)
    wait_until(lambda: len(bench.edits()) > 4 and standing_still(bench.workers()), "a new edit")
    run.interrupt()
    with going_on(bench.workers):
        assert run.finish() == 130
    assert [r["scores"] for r in bench.records()[:4]] == [r["scores"] for r in scored]
    assert len((bench.results / "scores.csv").read_text().splitlines()) == 1 + 4
    assert len(bench.verdicts()) == 4, "no new scores after an interrupt"
    table = run.output.splitlines()[3:]
    assert table[0].split()[:7] == ["category", "n", "scored", "not", "tried", "failed", "unparsed"]
    assert ["overall", "12", "4", "8", "0"] in [line.split()[:5] for line in table]


@ON_BOTH
def test_poison_is_quarantined_and_the_rest_goes_on(bench: Bench) -> None:
    bench.write_pairs([pair(0, "!crash"), *(pair(i) for i in range(1, 5))])
    run = bench.run()
    assert run.process.returncode == 1
    assert bench.outcomes() == ["edit_failed", *["scored"] * 4]
    assert "--retry-quarantined" in bench.records()[0]["error"]


@pytest.mark.slow
def test_runs_are_compared_pair_by_pair(bench: Bench) -> None:
    bench.write_pairs([pair(i, category=["sky", "ground"][i % 2]) for i in range(8)])
    bench.run()
    first = bench.results.rename(bench.results.with_name("a"))
    bench.run(seed=7)
    second = bench.results.rename(bench.results.with_name("b"))
    lines = _compare(bench, first, second)[0].splitlines()
    assert lines[0].split() == ["category", "pairs", "A", "B", "B", "-", "A", "95", "%"]
    assert [line.split()[0] for line in lines[1:4]] == ["sky", "ground", "overall"]
    same, _ = _compare(bench, first, first)
    assert "+0.00 to +0.00" in same


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"prompts": "yes_no.yaml"}, {"temperature": 0.5}])
def test_scores_of_different_judges_are_not_compared(bench: Bench, change: dict[str, Any]) -> None:
    bench.write_pairs([pair(i) for i in range(3)])
    bench.run()
    first = bench.results.rename(bench.results.with_name("a"))
    bench.run(judge=change)
    _, errors = _compare(bench, first, bench.results)
    assert "different judges cannot be compared" in errors
    _, errors = _compare(bench, first, bench.data)
    assert "cannot be read" in errors


def _compare(bench: Bench, a: Path, b: Path) -> tuple[str, str]:
    run = bench.project.execute(BENCHMARK, ["compare", str(a), str(b)])
    run.finish()
    return run.output, run.errors


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": "both"}, "stages"),
        ({"judge": {"batch_size": 0}}, "judge.batch_size"),
        ({"judge": {"prompts": "mine.yaml"}}, "'mine.yaml' is no file"),
        ({"judge": {"type": "oracle"}}, "judge.type"),
        ({"editor": {"model": "no/such/model/at/all"}}, "neither an existing folder nor a hub id"),
        ({"gpus_per_worker": 2}, "needs parallel_mode: model_parallel"),
        ({"editor": {"models": "x"}}, "editor.models"),
    ],
)
def test_bad_settings_are_one_clear_error(
    bench: Bench, changes: dict[str, Any], message: str
) -> None:
    bench.write_pairs([pair(0)])
    run = bench.run(**changes)
    assert run.process.returncode == 2
    assert message in run.errors and "Traceback" not in run.errors


@pytest.mark.slow
def test_a_folder_in_use_is_left_alone(bench: Bench) -> None:
    bench.write_pairs([*(pair(i) for i in range(3)), pair(3, f"{HELD} make it night")])
    run = bench.start(simulated=SLOW, **NO_COPIES)
    wait_until(lambda: bench.edits() and standing_still(bench.workers()), "an edit")
    other = bench.project.execute(BENCHMARK, bench.line)  # while the first one does not end
    assert other.finish() == 2 and "in use" in other.errors
    with going_on(bench.workers):
        assert run.finish() == 0, run.errors


def test_a_prompt_file_beside_the_settings_is_found(bench: Bench) -> None:
    bench.write_pairs([pair(0)])
    text = (
        "name: mine\ncalls:\n  - name: SC\n    sees: [edited]\n    text: '{instruction}. Good?'\n"
    )
    (bench.project.folder / "mine.yaml").write_text(text)
    assert bench.run(judge={"prompts": "mine.yaml"}).process.returncode == 0
    assert os.listdir(bench.results / "scores") == ["vlm-mine-simulated"]
