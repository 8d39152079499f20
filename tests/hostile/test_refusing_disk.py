"""Every write, sync and rename of a run, refused: said in a line, nothing torn, then continued."""

import errno
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from apps.tweets.command import main
from core.store.provenance import read_provenance
from tests.conftest import Project
from tests.hostile.faults import Fault, environment, failing
from tests.hostile.world import FULL, folder_in_memory
from tests.inline_backend import InlineBackend

ERRNOS = [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT]
LEASED = r"\.partial-[0-9a-f]{16}$"
FOLDER = r"/tweets$"
TWEETS = [{"prompt": f"p{i}", "output_path": f"{'sub/' * (i > 2)}{i}.png"} for i in range(5)]

POINTS: dict[str, tuple[str, str]] = {
    "worker opens the picture": ("open", LEASED),
    "worker writes the picture": ("write", LEASED),
    "worker syncs the picture": ("fsync", LEASED),
    "main makes the output folder": ("mkdir", FOLDER),
    "main makes a picture's folder": ("mkdir", r"/sub$"),
    "main opens the lock": ("open", r"ledger\.lock$"),
    "main signs the lock": ("write", r"ledger\.lock$"),
    "main renames the picture": ("replace", r"\.png$"),
    "main opens the picture's folder": ("folder", FOLDER),
    "main syncs the picture's folder": ("fsync", FOLDER),
    **{
        f"main {operation}s {name}": (
            operation,
            rf"\.partial-{name}$" if operation != "replace" else rf"/{name}$",
        )
        for name in ("metadata.jsonl", "results.jsonl")
        for operation in ("open", "write", "fsync", "replace")
    },
    "ledger is opened": ("sqlite", "connect"),
    "ledger is created": ("sqlite", "CREATE TABLE"),
    "ledger turns to WAL": ("sqlite", "journal_mode"),
    "ledger begins": ("sqlite", "^BEGIN IMMEDIATE"),
    "ledger plans": ("sqlite", "^INSERT INTO tasks"),
    "ledger leases": ("sqlite", "^INSERT INTO leases"),
    "ledger marks a lease": ("sqlite", "^UPDATE tasks SET state = 'leased'"),
    "ledger ends a lease": ("sqlite", "^UPDATE leases SET ended = ., outcome = . WHERE"),
    "ledger commits": ("sqlite", "^COMMIT"),
    "ledger is read": ("sqlite", "^SELECT \\* FROM tasks"),
}


REPLACING: dict[str, tuple[str, str]] = {
    "main makes the folder": ("mkdir", r"/\.replaced$"),
    "main makes a batch's folder": ("mkdir", r"/\.replaced/[^/]*$"),
    "main makes a folder in it": ("mkdir", r"/\.replaced/.*/sub$"),
    "main syncs the batch's folder": ("fsync", r"/\.replaced/[^/]*$"),
    "main links the old picture": ("link", r"/\.replaced/"),
    "main renames the new picture": ("replace", r"tweets/(sub/)?\d\.png$"),
    "main writes the table": ("write", r"/\.replaced/.*\.partial-metadata\.jsonl$"),
    "ledger ends a lease": ("sqlite", "^UPDATE leases SET ended = ., outcome = . WHERE"),
    "main renames the table": ("replace", r"/\.replaced/.*/metadata\.jsonl$"),
}


def cases() -> Iterator[Fault]:
    """The first call, and later ones in the middle of the run, where there are as many."""
    for place, (operation, where) in enumerate(POINTS.values()):
        calls = (1, 2, 3, 4, 7) if FULL else (1, 4)
        for first in calls[:1] if operation in ("open", "mkdir") else calls:
            for number in ERRNOS if FULL else [ERRNOS[(place + first) % len(ERRNOS)]]:
                for once in (False, True) if FULL else (False,):
                    yield Fault(operation, where, number, first, once)


def name_of(fault: Fault) -> str:
    point = next(n for n, p in POINTS.items() if p == (fault.operation, fault.where))
    return f"{point}-{fault.first}{'-once' * fault.once}-{errno.errorcode[fault.number]}"


@pytest.fixture
def inline() -> Iterator[Path]:
    """A folder where `main` runs with the saver of a worker and no processes."""
    with folder_in_memory() as folder:
        (folder / "settings.yaml").write_text("model: simulated\n")
        (folder / "tweets.json").write_text(json.dumps(TWEETS))
        yield folder


def command(folder: Path) -> int:
    arguments = ["--config", str(folder / "settings.yaml"), "--output-dir", str(folder / "out")]
    return main([str(folder / "tweets.json"), "1", *arguments], backend=InlineBackend())


def whole_pictures(out: Path) -> dict[Path, int]:
    """Every picture under a final name, which has to be whole; with the time of its making."""
    found = sorted(out.rglob("*.png"))
    for picture in found:
        read_provenance(picture)
    return {picture: picture.stat().st_mtime_ns for picture in found}


def check_tables(out: Path) -> None:
    """Each is absent or whole."""
    for name in ("metadata.jsonl", "results.jsonl"):
        if (out / name).exists():
            lines = (out / name).read_text().splitlines()
            assert len([json.loads(line) for line in lines]) <= len(TWEETS)
            assert name != "results.jsonl" or len(lines) == len(TWEETS)


@pytest.mark.parametrize("fault", list(cases()), ids=name_of)
def test_a_refused_call_is_told_once_and_the_next_run_continues(
    inline: Path, fault: Fault, capfd: pytest.CaptureFixture[str]
) -> None:
    with failing(fault) as counter:
        code = command(inline)
    errors = capfd.readouterr().err
    if counter.calls < fault.first:  # the run has fewer of them
        assert code == 0 and fault.first > 1, errors
        return
    assert fault.words in errors
    assert code in (1, 2), errors
    assert "Traceback" not in errors and "Exception ignored" not in errors
    assert len(errors.splitlines()) <= 2 * len(TWEETS), errors
    out = inline / "out" / "tweets"
    before = whole_pictures(out)
    check_tables(out)
    assert command(inline) == 0, capfd.readouterr().err
    after = whole_pictures(out)
    assert len(after) == len(TWEETS)
    assert before.items() <= after.items()  # nothing that was there is drawn again
    assert not list(out.rglob(".partial*"))
    assert len((out / "metadata.jsonl").read_text().splitlines()) == len(TWEETS)
    check_tables(out)


@pytest.mark.parametrize("first", [1, 3])
@pytest.mark.parametrize("point", REPLACING)
def test_a_refusal_while_results_are_replaced_loses_none(
    inline: Path, point: str, first: int, capfd: pytest.CaptureFixture[str]
) -> None:
    out = inline / "out" / "tweets"
    assert command(inline) == 0
    old = {read_provenance(p)["fingerprint"] for p in whole_pictures(out)}
    (inline / "tweets.json").write_text(json.dumps([{**t, "seed": 7} for t in TWEETS]))
    fault = Fault(*REPLACING[point], ERRNOS[first % len(ERRNOS)], first)
    with failing(fault) as counter:
        code = command(inline)
    errors = capfd.readouterr().err
    if counter.calls >= first:
        assert code == 1 and fault.words in errors and "Traceback" not in errors, errors
        assert len(errors.splitlines()) <= 3 * len(TWEETS) + 2, errors
    names = {p.relative_to(out) for p in out.rglob("*.png") if ".replaced" not in p.parts}
    assert names == {Path(t["output_path"]) for t in TWEETS}, "there is one under every name"
    for row in map(json.loads, (out / "metadata.jsonl").read_text().splitlines()):
        made = read_provenance(out / row["file_name"])
        assert row["fingerprint"] == made["fingerprint"], "the table says what lies there"
    assert old <= {read_provenance(p)["fingerprint"] for p in out.rglob("*.png")}
    assert command(inline) == 0, capfd.readouterr().err
    kept = [read_provenance(p)["fingerprint"] for p in (out / ".replaced").rglob("*.png")]
    assert sorted(kept) == sorted(old), "each is kept once"
    tables = [table.read_text() for table in (out / ".replaced").rglob("metadata.jsonl")]
    assert sum(len(table.splitlines()) for table in tables) == len(old)
    assert not list(out.rglob(".partial*"))


END_TO_END = {
    "worker writes the picture": errno.ENOSPC,
    "main syncs the picture's folder": errno.EIO,
    "ledger commits": errno.EDQUOT,
    "main signs the lock": errno.EROFS,
}


@pytest.mark.parametrize("point", POINTS if FULL else END_TO_END)
def test_the_same_with_processes(
    project: Project, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = Fault(*POINTS[point], END_TO_END.get(point, errno.ENOSPC))
    file = project.write_tweets(TWEETS)
    with monkeypatch.context() as patch:
        for name, value in environment(fault).items():
            patch.setenv(name, value)
        refused = project.run([file, 2])
    assert refused.process.returncode in (1, 2), refused.errors
    assert fault.words in refused.errors and "Traceback" not in refused.errors
    before = whole_pictures(project.pictures)
    resumed = project.run([file, 2])
    assert resumed.process.returncode == 0, resumed.errors
    after = whole_pictures(project.pictures)
    assert len(after) == len(TWEETS) and before.items() <= after.items()
    assert not project.leftovers()
