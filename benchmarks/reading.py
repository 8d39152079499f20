"""How long a data set takes to be read, and what main holds: `python -m benchmarks.reading
[--kilobytes N]`.

1,212 pairs, as many as GEdit-Bench has: 606 pictures of N kB of noise, each with an instruction in
two languages. Every reading is a process of its own, first with an empty work folder and then
again. The time is that of `read_pairs`, wall and CPU, without that of looking at the memory; the
memory is the most that was held at once beyond what the imports took, without pages of files that
the system may drop (RssAnon).
"""

import argparse
import base64
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

PICTURES = 606
LANGUAGES = ("en", "cn")
ROWS_IN_GROUP = 100  # as `datasets` writes tables with pictures
LOOK_EVERY = 0.002  # seconds


def rows(kilobytes: int) -> Iterator[dict[str, Any]]:
    """GEdit-Bench's rows; pictures of one key are the same."""
    rng = random.Random(0)
    for number in range(PICTURES):
        data = rng.randbytes(kilobytes * 1000)
        for language in LANGUAGES:
            yield {
                "task_type": f"type_{number % 11}",
                "key": f"{number:032x}",
                "instruction": f"change the sky of picture {number} to night",
                "instruction_language": language,
                "input_image": {"bytes": data, "path": None},
                "Intersection_exist": number % 2 == 0,
            }


def batches(kilobytes: int) -> Iterator[Any]:
    import pyarrow

    group: list[dict[str, Any]] = []
    for row in rows(kilobytes):
        group.append(row)
        if len(group) == ROWS_IN_GROUP:
            yield pyarrow.Table.from_pylist(group)
            group.clear()
    yield pyarrow.Table.from_pylist(group)


def gedit_parquet(folder: Path, kilobytes: int) -> Path:
    import pyarrow.parquet

    writer = None
    for table in batches(kilobytes):
        writer = writer or pyarrow.parquet.ParquetWriter(folder / "train.parquet", table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()
    return folder


def gedit_one_group(folder: Path, kilobytes: int) -> Path:
    """As pandas and `pyarrow.parquet.write_table` write a table: all rows are one group."""
    import pyarrow.parquet

    whole = pyarrow.concat_tables(batches(kilobytes)).combine_chunks()
    pyarrow.parquet.write_table(whole, folder / "train.parquet")
    return folder


def gedit_arrow(folder: Path, kilobytes: int) -> Path:
    import pyarrow

    writer = None
    with pyarrow.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink:
        for table in batches(kilobytes):
            writer = writer or pyarrow.ipc.new_stream(sink, table.schema)
            writer.write_table(table)
        assert writer is not None
        writer.close()
    return folder


def re_edit_rows(kilobytes: int) -> Iterator[str]:
    for row in rows(kilobytes):
        value = {
            "subset": row["task_type"],
            "src_img_b64": base64.b64encode(row["input_image"]["bytes"]).decode(),
            "edit_instruction_en": row["instruction"],
        }
        yield json.dumps(value)


def re_edit_json(folder: Path, kilobytes: int) -> Path:
    file = folder / "re_edit.json"
    with file.open("w") as stream:
        stream.write("[")
        for number, row in enumerate(re_edit_rows(kilobytes)):
            stream.write(("," if number else "") + row)
        stream.write("]")
    return file


def re_edit_lines(folder: Path, kilobytes: int) -> Path:
    file = folder / "re_edit.jsonl"
    with file.open("w") as stream:
        stream.writelines(f"{row}\n" for row in re_edit_rows(kilobytes))
    return file


def _beside(folder: Path) -> list[str]:
    """Small pictures beside a table: their contents are not read."""
    names = [f"{number:04d}.png" for number in range(PICTURES * len(LANGUAGES))]
    for name in names:
        (folder / name).write_bytes(b"")
    return names


def imgedit_json(folder: Path, kilobytes: int) -> Path:
    values = {
        str(n): {"id": name, "prompt": "make it night", "edit_type": "background"}
        for n, name in enumerate(_beside(folder))
    }
    (folder / "basic_edit.json").write_text(json.dumps(values))
    return folder


def imagefolder(folder: Path, kilobytes: int) -> Path:
    lines = [{"file_name": name, "instruction": "make it night"} for name in _beside(folder)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


FORMS: dict[str, Callable[[Path, int], Path]] = {
    "GEdit-Bench, parquet": gedit_parquet,
    "GEdit-Bench, parquet of one row group": gedit_one_group,
    "GEdit-Bench, arrow": gedit_arrow,
    "RE-Edit, JSON with base64": re_edit_json,
    "RE-Edit, JSONL with base64": re_edit_lines,
    "ImgEdit, JSON": imgedit_json,
    "imagefolder, JSONL": imagefolder,
}


def anonymous_megabytes() -> float:
    text = Path("/proc/self/status").read_text()
    line = next(line for line in text.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def read(data: str, work: str) -> dict[str, float]:
    """One reading in this process."""
    import pyarrow.parquet  # noqa: F401

    from apps.edit_benchmark.pairs import read_pairs

    before, most, looking, done = anonymous_megabytes(), 0.0, 0.0, threading.Event()

    def watch() -> None:
        nonlocal most, looking
        while not done.wait(LOOK_EVERY):
            most = max(most, anonymous_megabytes())
        looking = time.thread_time()

    watcher = threading.Thread(target=watch)
    watcher.start()
    wall, cpu = time.perf_counter(), time.process_time()
    pairs = read_pairs(data, Path(work)).pairs
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    done.set()
    watcher.join()
    assert len(pairs) == PICTURES * len(LANGUAGES) and not any(pair.problem for pair in pairs)
    return {"wall": wall, "cpu": cpu - looking, "megabytes": most - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--kilobytes", type=int, default=1000, help="of a picture")
    parser.add_argument("--only", help="forms whose names hold this")
    parser.add_argument("--read", nargs=2, metavar=("DATA", "WORK"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read(*options.read)))
        return
    print("| form | reading | s | CPU s | MB held |\n| --- | --- | --- | --- | --- |")
    for name, build in FORMS.items():
        if options.only and options.only.casefold() not in name.casefold():
            continue
        with TemporaryDirectory() as folder:
            data, work = Path(folder) / "data", Path(folder) / "work"
            data.mkdir()
            path = build(data, options.kilobytes)
            for reading in ("first", "again"):
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.reading",
                    "--read",
                    str(path),
                    str(work),
                ]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found = json.loads(done.stdout)
                figures = (
                    f"{found['wall']:.2f}",
                    f"{found['cpu']:.2f}",
                    f"{found['megabytes']:.0f}",
                )
                print(f"| {name} | {reading} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main()
