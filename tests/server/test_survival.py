"""What is accepted survives: kills of the daemon, and its end in the middle of work."""

import signal

from tests.both_engines import ALWAYS_ON_BOTH, ON_BOTH
from tests.conftest import found_below, wait_until
from tests.server.conftest import Daemon, finished

SLOW = {"seconds_per_megapixel_step": 20.0}  # 0.3 s for 128 x 128 pixels and one step
MANY = 150  # tasks: more than are done by the time that a test has looked
SMALL = {"width": 128, "height": 128, "num_inference_steps": 1}


def tasks(count: int) -> list[dict[str, object]]:
    return [{"prompt": f"house {n}", **SMALL} for n in range(count)]


@ALWAYS_ON_BOTH
def test_a_killed_daemon_carries_on_and_draws_nothing_twice(daemon: Daemon) -> None:
    daemon.settings = {"simulated": SLOW}
    daemon.start()
    with daemon.client() as client:
        jobs = [client.post("/v1/jobs", json={"tasks": tasks(4)}).json()["id"] for _ in range(3)]
        wait_until(lambda: found_below(daemon.output, "*.png"), "a picture")
    daemon.kill()
    before = {file: file.stat().st_mtime_ns for file in daemon.output.rglob("*.png")}
    daemon.settings = {}
    daemon.start()
    with daemon.client() as client:
        for job in jobs:
            assert finished(client, job)["status"] == "completed"
            results = client.get(f"/v1/jobs/{job}/results").json()["data"]
            assert [r["position"] for r in results] == [0, 1, 2, 3]
            assert all(r["success"] for r in results)
    assert len(list(daemon.output.rglob("*.png"))) == 12
    assert all(file.stat().st_mtime_ns == moment for file, moment in before.items())


@ON_BOTH
def test_what_a_stopped_daemon_had_accepted_waits_for_the_next_one(daemon: Daemon) -> None:
    daemon.settings = {"simulated": SLOW}
    daemon.start("--drain-timeout", "0")
    with daemon.client() as client:
        job = client.post("/v1/jobs", json={"tasks": tasks(MANY)}).json()["id"]
        wait_until(lambda: found_below(daemon.output, "*.png"), "a picture")
    assert daemon.stop() == 0, daemon.log
    assert 0 < len(list(daemon.output.rglob("*.png"))) < MANY
    daemon.settings = {}
    daemon.start()
    with daemon.client() as client:
        assert finished(client, job)["counts"] == {"total": MANY, "succeeded": MANY, "failed": 0}


@ON_BOTH
def test_a_second_signal_ends_it_at_once_and_quietly(daemon: Daemon) -> None:
    daemon.settings = {"simulated": {"seconds_per_megapixel_step": 2000.0}}
    daemon.start("--drain-timeout", "600")
    with daemon.client() as client:
        job = client.post("/v1/jobs", json={"tasks": tasks(3)}).json()["id"]
        wait_until(lambda: client.get(f"/v1/jobs/{job}").json()["running"], "a running task")
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "may take 600 s more" in daemon.log, "the first signal's effect")
    assert daemon.stop() == 0
    assert "Stopping at once" in daemon.log
    assert "Traceback" not in daemon.log and "ERROR" not in daemon.log
    daemon.settings = {}
    daemon.start()
    with daemon.client() as client:
        assert finished(client, job)["counts"] == {"total": 3, "succeeded": 3, "failed": 0}


@ON_BOTH
def test_a_drained_daemon_ends_with_an_empty_queue(daemon: Daemon) -> None:
    daemon.start()
    with daemon.client() as client:
        job = client.post("/v1/jobs", json={"tasks": tasks(20)}).json()["id"]
    assert daemon.stop(signal.SIGINT) == 0, daemon.log
    daemon.start()
    with daemon.client() as client:
        assert client.get(f"/v1/jobs/{job}").json()["status"] == "completed"


@ON_BOTH
def test_a_second_daemon_on_the_folder_is_refused(daemon: Daemon) -> None:
    daemon.start()
    other = Daemon(daemon.folder, daemon.workplace)
    other.settings = daemon.settings
    try:
        other.start()
    except AssertionError as error:
        assert "is in use by another run" in str(error)
    else:
        other.end()
        raise AssertionError("two daemons share a folder")
