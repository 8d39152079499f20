"""An output folder and its neighbours: forks, other users, file systems without locks."""

import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from apps.tweets.command import main
from core.errors import StorageError
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.store.ledger import Ledger
from tests.conftest import Project, run_script, simulated
from tests.inline_backend import InlineBackend

GROUP = 54321
ALICE, BOB = 54322, 54323
TWEETS = '[{"prompt": "a"}, {"prompt": "b", "output_path": "below/b.png"}]'


def in_fork(act: Callable[[], object]) -> int:
    """The exit code of a fork of this process in which `act` ran: 0, or 1 after an exception."""
    pid = os.fork()
    if not pid:
        try:
            act()
            os._exit(0)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@contextmanager
def sleeping_fork() -> Iterator[None]:
    """A helper that the caller's code forked, and that lives on."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    try:
        yield
    finally:
        os.close(writer)
        os.waitpid(pid, 0)
        os.close(reader)


def is_free(folder: Path) -> bool:
    """Whether another process could begin a run there."""
    return in_fork(lambda: Ledger.open(folder).close()) == 0


def test_a_forked_helper_does_not_keep_the_folder(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path)
    with sleeping_fork():
        assert not is_free(tmp_path)
        ledger.close()
        assert is_free(tmp_path)


def test_a_forked_helper_that_outlives_a_killed_run_does_not_keep_the_folder(
    tmp_path: Path,
) -> None:
    script = """
        import os, signal, sys
        from pathlib import Path
        from core.store.ledger import Ledger

        ledger = Ledger.open(Path("run"))
        reader, writer = os.pipe()
        helper = os.fork()
        if not helper:
            os.close(writer)
            for number in (1, 2):
                os.close(number)
            os.read(0, 1)
            os._exit(0)
        print(helper, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    reader, writer = os.pipe()
    kept = os.dup(0)
    os.dup2(reader, 0)  # which the helper waits for
    try:
        done = run_script(script, tmp_path)
        os.kill(int(done.stdout), 0)
        assert is_free(tmp_path / "run")
    finally:
        os.dup2(kept, 0)
        for number in (reader, writer, kept):
            os.close(number)


@pytest.mark.parametrize("end", ["exit", "close", "with"])
def test_a_fork_cannot_give_its_parents_folder_away(tmp_path: Path, end: str) -> None:
    config = simulated()
    with MultiGPUImageGenerator(1, config=config, output_dir=tmp_path) as generator:
        generator.prepare([], [])

        def leave() -> None:
            if end == "close":
                generator.stop()
            elif end == "with":
                generator.__exit__(None, None, None)

        assert in_fork(leave) == 0
        assert not is_free(tmp_path)
        assert generator.generate_batch([{"prompt": "a", "output_path": "a.png"}])[0].success
    assert is_free(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StorageError) as refusal:
        Ledger.open(tmp_path)
    message = str(refusal.value)
    assert str(tmp_path) in message and "file system of type " in message
    assert "output folder on a local disk" in message


@pytest.mark.slow
def test_a_ledger_lives_where_files_cannot_be_mapped(tmp_path: Path) -> None:
    """As on 9p and some network file systems: SQLite's index of a WAL cannot be shared there."""
    script = """
        import os
        from pathlib import Path
        from core.store.ledger import Ledger
        from tests.unmappable import refuse_mapping

        refuse_mapping()
        ledger = Ledger.open(Path("run"))
        if Path("said").read_text() == "die":
            ledger.lease("l", "k", 1, "w", "below/partial")
            os._exit(0)
        print(ledger.open_leases())
        ledger.close()
        """
    (tmp_path / "run").mkdir()
    for said, expected in (("die", ""), ("look", "['below/partial']\n"), ("look", "['below/")):
        (tmp_path / "said").write_text(said)
        done = run_script(script, tmp_path, "simulated")
        assert done.returncode == 0 and done.stdout.startswith(expected), done.stderr


@pytest.mark.parametrize(
    ("mask", "file_mode", "folder_mode"), [(0o002, 0o664, 0o775), (0o022, 0o644, 0o755)]
)
def test_all_that_a_run_leaves_has_the_umasks_permissions(
    project: Project, mask: int, file_mode: int, folder_mode: int
) -> None:
    before = os.umask(mask)
    try:
        run = project.run([project.write_tweets(TWEETS), 1])
        left = Ledger.open(project.pictures)
    finally:
        os.umask(before)
    assert run.process.returncode == 0, run.errors
    modes = {
        file.relative_to(project.pictures).as_posix(): stat.S_IMODE(file.stat().st_mode)
        for file in project.pictures.rglob("*")
    }
    left.close()
    assert {"ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm", "below/b.png"} <= set(modes)
    assert modes.pop("below") == modes.pop(".gallery") == folder_mode
    assert set(modes.values()) == {file_mode}, modes


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: only root can become two other users")
def test_another_user_of_the_group_continues_a_run() -> None:
    """Under umask 0002, after a kill that left SQLite's files behind."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        os.chown(folder, 0, GROUP)
        folder.chmod(0o2775)
        tweets, config = folder / "tweets.json", folder / "settings.yaml"
        tweets.write_text(TWEETS)
        # Without a look for GPUs, which asks for torch: it may lie where only root can read.
        config.write_text("model: simulated\ndevice: cpu\n")
        line = [str(tweets), "1", "--config", str(config), "--output-dir", str(folder / "out")]

        # What is imported on the way may lie where only root can read.
        assert main([*line[:-1], str(folder / "warm")], backend=InlineBackend()) == 0

        def draw_and_die() -> None:
            become(ALICE)
            assert main(line, backend=InlineBackend()) == 0
            Ledger.open(folder / "out" / "tweets").lease("l", "a", 1, "w", "p")

        def continue_it() -> None:
            become(BOB)
            assert main(line, backend=InlineBackend()) == 0
            assert main([*line, "--overwrite"], backend=InlineBackend()) == 0

        assert in_fork(draw_and_die) == 0
        assert (folder / "out" / "tweets" / "ledger.sqlite-wal").stat().st_uid == ALICE
        assert in_fork(continue_it) == 0
        assert (folder / "out" / "tweets" / "below" / "b.png").stat().st_uid == BOB
    finally:
        shutil.rmtree(folder)


def become(user: int) -> None:
    os.setgroups([GROUP])
    os.setgid(user)
    os.setuid(user)
    os.umask(0o002)
