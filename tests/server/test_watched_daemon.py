"""A daemon that is watched from outside: its workers and the caller's jobs."""

import json
from pathlib import Path

import httpx2
import pytest

from apps.watch.command import main
from tests.server.in_process import Application


def test_a_daemon_says_how_its_workers_and_my_jobs_stand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Application(tmp_path) as application:
        url = application.url
        assert main([url, "--once"]) == 0
        shown = capsys.readouterr().out
        assert "cpu0" in shown and "cpu1" in shown and "idle" in shown
        assert "0 of your jobs running, 0 waiting." in shown
        asked = {"tasks": [{"prompt": "a"}]}
        assert httpx2.post(f"{url}/v1/jobs", json=asked).status_code == 202
        assert main([url, "--once", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["state"] == "running" and told["server"] == told["place"] == url
        assert [worker["name"] for worker in told["workers"]] == ["cpu0", "cpu1"]
        assert main([f"{url}/elsewhere", "--once"]) == 2, "something else answers there"
    assert main([url, "--once"]) == 1
    assert "does not answer" in capsys.readouterr().out
