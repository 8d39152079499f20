"""Whoever names the folder above a run is told which one may have been meant."""

import os
from pathlib import Path

import pytest

from apps.edit_benchmark.records import read_records
from apps.edit_benchmark.summary import read_makers
from apps.gallery.reading import read_folder
from core.errors import InputError


def run_folder(folder: Path, name: str, age: float) -> None:
    (folder / name).mkdir()
    for file in ("ledger.sqlite", "summary.json", "results.jsonl"):
        (folder / name / file).write_text("")
        os.utime(folder / name / file, (age, age))


@pytest.mark.parametrize("read", [read_makers, read_records, read_folder])
def test_the_newest_runs_below_are_named(tmp_path: Path, read: object) -> None:
    assert callable(read)
    with pytest.raises(InputError) as nothing:
        read(tmp_path)
    assert "Did you mean" not in str(nothing.value)
    for age, name in enumerate(("old", "b", "a", "new")):
        run_folder(tmp_path, name, 1e9 + age)
    with pytest.raises(InputError) as several:
        read(tmp_path)
    assert str(several.value).endswith(
        f"Did you mean {tmp_path}/new or {tmp_path}/a or {tmp_path}/b? There are 4 such folders."
    )
