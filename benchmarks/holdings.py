"""What a daemon holds at one moment: memory, open files, threads, files and rows on the disk."""

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

MIB = 2**20
TABLES = {"journal.sqlite": ("jobs", "tasks"), "ledger.sqlite": ("tasks", "leases")}
DATABASES = ("journal.sqlite", "ledger.sqlite")


@dataclass(frozen=True)
class Holdings:
    """One look at a daemon.

    Attributes:
        main: MiB of its main process.
        everything: MiB of all its processes together.
        descriptors: open ones of the main process.
        threads: of the main process.
        processes: with the main process.
        files: in its output folder and below.
        folders: the same.
        journal: MiB of its databases with their logs.
        rows: of its databases.
    """

    main: float
    everything: float
    descriptors: int
    threads: int
    processes: int
    files: int
    folders: int
    journal: float
    rows: int


def held(pid: int, output: Path) -> Holdings:
    """What a daemon holds now.

    Args:
        pid: of its main process.
        output: its output folder.
    """
    main = psutil.Process(pid)
    children = [c for c in main.children(recursive=True) if c.is_running()]
    files = folders = 0
    for _, inner, names in os.walk(output):
        folders += len(inner)
        files += len(names)
    databases = [file for name in DATABASES for file in output.glob(f"{name}*")]
    return Holdings(
        pss(pid),
        pss(pid) + sum(pss(child.pid) for child in children),
        main.num_fds(),
        main.num_threads(),
        1 + len(children),
        files,
        folders,
        sum(file.stat().st_size for file in databases) / MIB,
        sum(_rows(output / name, tables) for name, tables in TABLES.items()),
    )


def pss(pid: int) -> float:
    """MiB of a process; 0 if it is gone.

    Of a page that n processes share it has 1/n. Pages of files are left out: they are shared with
    other programs of the machine, and would come and go with those.
    """
    kib = 0
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                kib += int(line.split()[1])
    return kib / 1024


def _rows(file: Path, tables: Sequence[str]) -> int:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=60)) as db:
        return sum(
            int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]) for table in tables
        )
