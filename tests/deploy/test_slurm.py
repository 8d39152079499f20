"""The Slurm job script, with stand-ins for the commands of Slurm and Ray that note their calls."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, PROJECT, wait_until

SCRIPT = PROJECT / "deploy" / "slurm" / "generate.sbatch"
NOTE = 'echo "$(basename "$0") $*" >> "$NOTES"\n'
STAND_INS = {
    "scontrol": '[ "$1" = show ] && printf "node1\\nnode2\\nnode3\\n"\nexit 0\n',
    # Runs the command of a step here, without srun's own options.
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"\n',
    "hostname": "echo 10.0.0.1 172.17.0.1\n",
    "ray": (
        '[ "$1" = health-check ] && exit "${HEALTH:-0}"\n'
        'echo "token $RAY_AUTH_MODE $RAY_AUTH_TOKEN" >> "$NOTES"\nexec sleep 1000\n'
    ),
    "python": (
        "trap 'echo told USR1 >> \"$NOTES\"; exit 130' USR1\n"
        "trap 'echo told TERM >> \"$NOTES\"; exit 130' TERM\n"
        'while [ "$(grep -c "^srun.* start " "$NOTES")" -lt "${STARTS:-0}" ]; do sleep 0.05; done\n'
        'for i in $(seq "${TENTHS:-0}"); do sleep 0.1; done\nexit "${ENDS_WITH:-0}"\n'
    ),
}


class Job:
    """The script at work; its notes are what it has called."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.notes = folder / "notes"
        bin_ = folder / "bin"
        bin_.mkdir(exist_ok=True)
        for name, body in STAND_INS.items():
            file = bin_ / name
            file.write_text(f"#!/bin/bash\n{NOTE}{body}", "utf-8")
            file.chmod(0o755)
        self.process = subprocess.Popen(
            ["bash", str(SCRIPT), *arguments],
            env={
                "PATH": f"{bin_}:{os.environ['PATH']}",
                "BIN": str(bin_),
                "PROJECT": "/project",
                "NOTES": str(self.notes),
                "SLURM_JOB_ID": "7",
                "SLURM_JOB_NODELIST": "node[1-3]",
                "PATIENCE": "2",
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def calls(self, word: str) -> list[str]:
        lines = self.notes.read_text("utf-8").splitlines() if self.notes.exists() else []
        return [line for line in lines if word in line]

    def runs(self) -> None:
        wait_until(lambda: self.calls("python /project"), "the command")

    def end(self) -> int:
        self.output, _ = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    jobs = []

    def start(*arguments: str, **environment: str) -> Job:
        jobs.append(Job(tmp_path, *arguments, **environment))
        return jobs[-1]

    yield start
    for one in jobs:
        if one.process.poll() is None:
            os.killpg(one.process.pid, signal.SIGKILL)
            one.process.wait()


def test_a_cluster_is_started_on_every_node_and_the_command_runs_on_it(
    job: Callable[..., Job],
) -> None:
    done = job("generate_images_from_tweets.py", "my tweets.json", "--seed", "3", STARTS="3")
    assert done.end() == 0
    steps = [line for line in done.calls("ray start") if line.startswith("srun")]
    [head] = [line for line in steps if "--nodelist=node1" in line]
    assert "--head" in head and "--port 20007" in head
    for node in ("node2", "node3"):
        [step] = [line for line in steps if f"--nodelist={node}" in line]
        assert "--address 10.0.0.1:20007" in step
    assert done.calls("python /project") == [
        "python /project/generate_images_from_tweets.py my tweets.json --seed 3 --engine ray "
        "--address 10.0.0.1:20007"
    ]
    assert not done.calls("requeue")


def test_only_who_has_the_jobs_own_token_may_use_its_cluster(job: Callable[..., Job]) -> None:
    """All steps have it, and no other job has."""
    first = job("generate_images_from_tweets.py", "tweets.json", STARTS="3", TENTHS="3")
    assert first.end() == 0
    [token] = {line.split()[2] for line in first.calls("token token ")}
    assert len(token) == 64
    first.notes.unlink()
    other = job("generate_images_from_tweets.py", "tweets.json", STARTS="3", TENTHS="3")
    assert other.end() == 0 and not other.calls(token)


def test_before_the_time_limit_what_runs_is_finished_and_the_job_is_queued_again(
    job: Callable[..., Job],
) -> None:
    at_work = job("generate_images_from_tweets.py", "t.json", TENTHS="600")
    at_work.runs()
    at_work.process.send_signal(signal.SIGUSR1)
    assert at_work.end() == 130
    assert at_work.calls("told") == ["told USR1"]
    assert at_work.calls("requeue") == ["scontrol requeue 7"]
    assert "queued again" in at_work.output


def test_a_cancelled_job_finishes_what_runs_and_is_not_queued_again(
    job: Callable[..., Job],
) -> None:
    at_work = job("generate_images_from_tweets.py", "t.json", TENTHS="600")
    at_work.runs()
    at_work.process.send_signal(signal.SIGTERM)
    assert at_work.end() == 130
    assert at_work.calls("told") == ["told TERM"] and not at_work.calls("requeue")


def test_a_run_that_is_done_as_the_time_is_up_is_not_queued_again(job: Callable[..., Job]) -> None:
    failed = job("generate_images_from_tweets.py", "t.json", ENDS_WITH="1")
    assert failed.end() == 1 and not failed.calls("requeue")


def test_a_head_that_does_not_start_ends_the_job_with_a_word(job: Callable[..., Job]) -> None:
    failed = job("generate_images_from_tweets.py", "t.json", HEALTH="1")
    assert failed.end() == 1
    assert "did not start on node1 within 2 s" in failed.output
    assert not failed.calls("python /project")


def test_without_a_command_it_says_how_it_is_used(job: Callable[..., Job]) -> None:
    nothing = job()
    assert nothing.end() == 2 and "usage: sbatch" in nothing.output
