"""`results.jsonl` as it grows: a killed run has its table, and batches side by side share one."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import StorageError
from core.store.results_table import ResultsTable
from core.tasks import Result
from tests.conftest import Project, simulated, wait_until


def result(name: str, position: int = 0) -> Result:
    return Result(position, name, "done", f"{name}.png", worker="gpu0", attempts=1)


def listed(folder: Path) -> list[str]:
    """Task ids, line by line."""
    lines = (folder / "results.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["task_id"] for line in lines]


@pytest.fixture
def table(tmp_path: Path) -> ResultsTable:
    return ResultsTable(tmp_path)


def test_records_come_as_tasks_end_and_are_in_input_order_at_the_end(
    tmp_path: Path, table: ResultsTable
) -> None:
    table.begin(1, [result("bad", 1)])
    assert listed(tmp_path) == ["bad"]
    table.add(1, [result("c", 2)])
    table.add(1, [result("a", 0)])
    assert listed(tmp_path) == ["bad", "c", "a"]
    table.end(1, [result("a", 0), result("bad", 1), result("c", 2), result("never tried", 3)])
    assert listed(tmp_path) == ["a", "bad", "c", "never tried"]


def test_a_new_batch_takes_the_place_of_those_that_have_ended(
    tmp_path: Path, table: ResultsTable
) -> None:
    for batch in (1, 2):
        table.begin(batch, [])
        table.end(batch, [result(f"of {batch}")])
    assert listed(tmp_path) == ["of 2"]


def test_batches_side_by_side_are_all_in_the_table(tmp_path: Path, table: ResultsTable) -> None:
    table.begin(1, [])
    table.begin(2, [result("2 settled", 0)])
    table.add(2, [result("2 early", 2)])
    table.add(1, [result("1 late", 1)])
    table.add(1, [result("1 first", 0)])
    table.end(2, [result("2 settled", 0), result("2 stopped", 1), result("2 early", 2)])
    assert listed(tmp_path) == ["2 settled", "2 early", "1 late", "1 first", "2 stopped"]
    table.end(1, [result("1 first", 0), result("1 late", 1)])
    assert listed(tmp_path) == ["1 first", "1 late", "2 settled", "2 stopped", "2 early"]


def test_a_batch_leaves_with_the_last_of_those_that_ran_beside_it(
    tmp_path: Path, table: ResultsTable
) -> None:
    table.begin(1, [])
    table.begin(2, [])
    table.end(1, [result("1")])
    table.begin(3, [])  # beside 2, which ran beside 1
    assert listed(tmp_path) == ["1"]
    table.end(2, [result("2")])
    table.begin(4, [])  # beside 3, which ran beside 2 and not beside 1
    assert listed(tmp_path) == ["2"]
    table.end(4, [result("4")])
    table.end(3, [result("3")])
    assert listed(tmp_path) == ["2", "3", "4"]


def test_a_record_that_turns_out_otherwise_has_one_line(
    tmp_path: Path, table: ResultsTable
) -> None:
    table.begin(1, [])
    table.begin(2, [])
    table.add(2, [result("a")])
    table.end(2, [replace(result("a"), attempts=2)])
    [line] = (tmp_path / "results.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["attempts"] == 2


def edit(file: Path) -> None:
    """An editor saves the file in place, with a line more at its top."""
    file.write_bytes(b"# mine\n" + file.read_bytes())


def test_a_table_that_somebody_edits_meanwhile_has_what_is_recorded_and_what_came_since(
    tmp_path: Path,
) -> None:
    recorded = [result("b", 1), result("a", 0)]
    table = ResultsTable(tmp_path, lambda batch: recorded if batch == 1 else [])
    table.begin(1, [])
    table.add(1, [result("b", 1)])
    table.add(1, [result("a", 0)])
    edit(tmp_path / "results.jsonl")
    table.add(1, [result("d", 3)])
    table.end(1, [result("b", 1), result("c", 2)])
    assert listed(tmp_path) == ["a", "b", "c", "d"]


def test_lines_that_are_lost_for_good_cost_no_others(tmp_path: Path, table: ResultsTable) -> None:
    table.begin(1, [])
    table.add(1, [result("a", 0)])
    edit(tmp_path / "results.jsonl")
    table.add(1, [result("b", 1)])
    with pytest.raises(StorageError, match="lines of it are lost"):
        table.end(1)
    assert listed(tmp_path) == ["b"]


def test_a_record_that_comes_after_its_batch_has_ended_adds_no_line(
    tmp_path: Path, table: ResultsTable
) -> None:
    table.begin(1, [])
    table.begin(2, [])
    table.add(1, [result("a")])
    table.end(1, [result("a")])
    table.add(1, [result("late", 1)])
    assert listed(tmp_path) == ["a"]
    table.end(2, [result("b")])
    assert listed(tmp_path) == ["a", "b"]
    table.begin(3, [])
    table.end(3, [result("c")])
    assert listed(tmp_path) == ["c"]


def test_a_torn_line_of_a_dead_run_goes_with_the_next_one(
    tmp_path: Path, table: ResultsTable
) -> None:
    (tmp_path / "results.jsonl").write_text('{"task_id": "whole"}\n{"task_i')
    table.begin(1, [])
    table.add(1, [result("a")])
    assert listed(tmp_path) == ["a"]


def test_a_table_that_cannot_be_written_stops_no_task_and_is_told_at_the_end(
    tmp_path: Path, table: ResultsTable
) -> None:
    in_the_way = tmp_path / "results.jsonl"
    in_the_way.mkdir()
    table.begin(1, [result("bad", 1)])
    table.add(1, [result("a")])
    with pytest.raises(StorageError, match=r"results\.jsonl"):
        table.end(1, [result("a"), result("bad", 1)])
    in_the_way.rmdir()
    table.begin(2, [])
    assert listed(tmp_path) == []


def test_records_are_not_added_to_the_table_of_an_earlier_run(
    tmp_path: Path, table: ResultsTable
) -> None:
    earlier = '{"task_id": "earlier"}\n'
    (tmp_path / "results.jsonl").write_text(earlier)
    in_the_way = tmp_path / ".partial-results.jsonl"
    in_the_way.mkdir()  # so the file cannot be replaced
    table.begin(1, [])
    table.add(1, [result("a")])
    assert (tmp_path / "results.jsonl").read_text() == earlier
    in_the_way.rmdir()
    table.end(1, [result("a")])
    assert listed(tmp_path) == ["a"]


def test_a_killed_run_has_its_table(project: Project) -> None:
    tweets = project.write_tweets(
        [{"prompt": f"p{i}", "task_id": f"t{i}"} for i in range(300)] + [{"promt": "misspelt"}]
    )
    slow = {"seconds_per_megapixel_step": 25.0}  # half a minute for all of them
    run = project.start([tweets, 1], simulated(simulated=slow))
    table = project.pictures / "results.jsonl"
    wait_until(lambda: table.exists() and table.read_text().count("\n") > 5, "some records")
    run.process.send_signal(signal.SIGKILL)
    run.finish()
    records = [json.loads(line) for line in table.read_text("utf-8").split("\n")[:-1]]
    assert records[0]["status"] == "failed" and records[0]["position"] == 300
    done = [r for r in records[1:] if r["success"]]
    assert 5 <= len(done) == len(records) - 1 < 300
    assert all(Path(r["output_path"]).is_file() for r in done)
    project.run([tweets, 1], simulated(simulated={"seconds_per_megapixel_step": 0.002}))
    assert [r["position"] for r in project.records()] == list(range(301))
