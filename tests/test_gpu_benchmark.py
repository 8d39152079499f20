"""`benchmarks.gpu` keeps what it has, whatever happens to a part."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu_rows import Row, add, read, write_results
from tests.conftest import PROJECT


def run_benchmark(out: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--out", str(out), *options],
        cwd=PROJECT,
        text=True,
        capture_output=True,
        timeout=120,
    )


@pytest.mark.slow
def test_a_part_that_fails_or_has_no_time_left_costs_no_other_row(tmp_path: Path) -> None:
    # Without the checkpoint that z-image-make writes, the plain loop fails at once.
    assert run_benchmark(tmp_path, "--only", "machine,z-image-plain").returncode == 0
    assert run_benchmark(tmp_path, "--only", "engine", "--budget", "1").returncode == 0
    verdicts = {r.name: str(r.values["result"]) for r in read(tmp_path) if r.table == "Parts"}
    assert verdicts["machine"] == "ok"
    assert verdicts["z-image-plain"].startswith("failed: 1; there is no checkpoint at ")
    assert verdicts["z-image-plain"].endswith("have z-image-make run before.")
    assert verdicts["engine"].startswith("left out")
    assert "| diffusers | 0." in (tmp_path / "results.md").read_text()


def test_an_unknown_part_is_refused_with_the_names_that_there_are(tmp_path: Path) -> None:
    done = run_benchmark(tmp_path, "--only", "z-imag")
    assert done.returncode == 2
    assert "z-image-worker" in done.stderr


def test_a_row_that_a_kill_cut_short_is_passed_over(tmp_path: Path) -> None:
    add(tmp_path, Row("Table", "first", {"s": 1.0}))
    with (tmp_path / "rows.jsonl").open("a") as stream:
        stream.write('{"table": "Table", "na')
    write_results(tmp_path, "Title")
    assert [row.name for row in read(tmp_path)] == ["first"]
    assert "| first | 1 |" in (tmp_path / "results.md").read_text()


def test_a_checkpoint_that_is_written_in_threads_is_the_one_that_was_made(tmp_path: Path) -> None:
    from diffusers import ZImagePipeline

    from benchmarks.full_size import save, tiny_z_image

    made = tiny_z_image()
    save(made, tmp_path)
    read_back = ZImagePipeline.from_pretrained(tmp_path)
    for name in ("transformer", "text_encoder", "vae"):
        expected, found = (getattr(p, name).state_dict() for p in (made, read_back))
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected)
