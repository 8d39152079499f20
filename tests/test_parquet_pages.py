"""Pictures of parquet tables with large row groups are read one at a time, whoever wrote them."""

import random
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from apps.edit_benchmark import arrow_tables, parquet_pages
from apps.edit_benchmark.arrow_tables import pictures
from core.errors import InputError

ROWS = 300


def contents(kind: str) -> list[bytes | None]:
    """Pictures: of noise, of one colour, each twice, or with empty cells among them."""
    rng = random.Random(0)
    sizes = [rng.randrange(1, 3000) for _ in range(ROWS)]
    match kind:
        case "noise":
            return [rng.randbytes(size) for size in sizes]
        case "of one colour":
            return [bytes([size % 256]) * size for size in sizes]
        case "each twice":
            return [data for size in sizes[: ROWS // 2] for data in [rng.randbytes(size)] * 2]
        case "larger than a part":
            return [rng.randbytes(6_000_000), b"", rng.randbytes(9_000_000), b"x"]
        case _:
            return [None if i % 7 == 3 else rng.randbytes(size) for i, size in enumerate(sizes)]


def table_of(cells: list[bytes | None], form: str) -> pyarrow.Table:
    if form == "bytes":
        return pyarrow.table({"n": range(len(cells)), "image": pyarrow.array(cells)})
    if form == "list":
        listed = [[None if c is None else {"bytes": c, "path": None}, None] for c in cells]
        return pyarrow.table({"image": listed})
    rows: list[Any] = [
        None if c is None and i % 2 else {"bytes": c, "path": f"{i}.png"}
        for i, c in enumerate(cells)
    ]
    return pyarrow.table({"image": rows, "n": range(len(cells))})


def read(file: Path, rows: list[int]) -> dict[int, Any]:
    def plain(value: Any) -> Any:
        return value if value is None or isinstance(value, str | bytes) else value.to_pybytes()

    return {row: [plain(v) for v in found] for row, found in pictures(file, "image", rows)}


@pytest.fixture(autouse=True)
def every_row_group_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_pages, "LARGE", 1)


def streamed(file: Path, rows: list[int]) -> bool:
    """Whether all of them came without pyarrow's batches."""
    try:
        found = dict(parquet_pages.streamed_values(file, "image", rows))
    except parquet_pages.NotStreamed:
        return False
    return set(found) == set(rows)


@pytest.mark.parametrize("kind", ["noise", "of one colour", "each twice", "with empty cells"])
@pytest.mark.parametrize("form", ["struct", "bytes", "list"])
@pytest.mark.parametrize(
    "options",
    [
        {"compression": "snappy"},
        {"compression": "snappy", "use_dictionary": False},
        {"compression": "zstd", "data_page_version": "2.0"},
        {"compression": "gzip", "use_dictionary": False, "data_page_version": "2.0"},
        {"compression": "brotli"},
        {"compression": "none"},
        {"compression": "lz4"},
        {"compression": "snappy", "row_group_size": 70, "write_batch_size": 16},
    ],
)
def test_pictures_are_what_was_written(
    options: dict[str, Any], form: str, kind: str, tmp_path: Path
) -> None:
    cells = contents(kind)
    file = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(table_of(cells, form), file, data_page_size=4096, **options)
    every = list(range(len(cells)))
    expected: dict[int, Any] = {i: [c] for i, c in enumerate(cells)}
    if form == "list":
        expected = {i: [c, None] for i, c in enumerate(cells)}
    if form == "struct":  # the name stands where there are no bytes
        expected |= {i: [None if i % 2 else f"{i}.png"] for i, c in enumerate(cells) if c is None}
    assert read(file, every) == expected
    some = every[5::11]
    assert read(file, some) == {row: expected[row] for row in some}
    known = form != "list" and options["compression"] != "lz4"
    if kind in ("noise", "each twice"):
        assert streamed(file, some) == known, "else nothing was shown here"


def test_pictures_larger_than_what_is_decompressed_at_once(tmp_path: Path) -> None:
    cells = contents("larger than a part")
    ways: list[dict[str, Any]] = [{}, {"use_dictionary": False}, {"compression": "zstd"}]
    for number, options in enumerate(ways):
        file = tmp_path / f"{number}.parquet"
        pyarrow.parquet.write_table(table_of(cells, "struct"), file, **options)
        assert streamed(file, [0, 1, 2, 3])
        assert read(file, [3, 0, 2]) == {i: [cells[i]] for i in (0, 2, 3)}


def test_a_page_is_not_held_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what is decompressed at once; what the process holds is measured by benchmarks.reading."""
    rng = random.Random(1)
    cells: list[bytes | None] = [rng.randbytes(500_000) for _ in range(60)]
    file = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(table_of(cells, "struct"), file)
    monkeypatch.setattr(arrow_tables, "_parquet_batches", lambda *_: pytest.fail("whole pages"))
    before = pyarrow.total_allocated_bytes()
    for row, [value] in pictures(file, "image", range(60)):
        assert value == cells[row]
        assert pyarrow.total_allocated_bytes() - before < 10_000_000


@pytest.mark.parametrize("place", range(4, 2500, 7))
def test_a_damaged_page_is_values_or_one_error(place: int, tmp_path: Path) -> None:
    cells: list[bytes | None] = [bytes([i]) * 40 for i in range(50)]
    file = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(table_of(cells, "struct"), file, compression="none")
    data = bytearray(file.read_bytes())
    if place >= len(data) - 8:
        return
    data[place] ^= 0xFF
    file.write_bytes(data)
    try:
        found = read(file, list(range(50)))
    except InputError as error:
        assert str(error).startswith(f"{file}: cannot be read as parquet")
    else:
        assert len(found) <= 50
