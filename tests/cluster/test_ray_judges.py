"""A judge that is served elsewhere, while a cluster's nodes edit and do not see main's folder."""

import shutil
import tempfile
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from core.store.outputs import ANSWERS_PREFIX
from tests.both_engines import IN_FULL
from tests.cluster.ray_cluster import RayCluster, hides, may_be_apart
from tests.conftest import Project, wait_until
from tests.edit_world import Bench, pair
from tests.test_served_judge import (
    BEFORE_THE_KILL,
    EACH,
    KEY,
    PAIRS,
    PASSES,
    Served,
    handler_of,
)


@pytest.fixture
def judge() -> Iterator[tuple[Served, str]]:
    """A judge's server, and its address."""
    served = Served()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(served))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield served, f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Settings of a run on a cluster whose only node sees nothing of this machine's folders."""
    cache = Path(tempfile.mkdtemp(prefix="cache-", dir="/tmp"))
    cluster = RayCluster(0)
    hidden = cluster.add_apart("hidden", hides(tmp_path))
    yield {"engine": "ray", "ray": {"address": cluster.address, "cache_dir": str(cache)}}
    hidden.end()
    cluster.close()
    shutil.rmtree(cache)


@IN_FULL
@pytest.mark.skipif(not may_be_apart(), reason="needs a mount namespace (root)")
def test_a_run_that_was_killed_asks_no_served_judge_twice_though_nodes_share_no_folder(
    project: Project, judge: tuple[Served, str], cluster: dict[str, Any]
) -> None:
    """The judge's key is in main's environment alone."""
    served, address = judge
    project.environment = {"JUDGE_KEY": KEY, "NO_PROXY": "*", "no_proxy": "*"}
    bench = Bench(project)
    bench.write_pairs([pair(i, f"make it night {i}") for i in range(PAIRS)])
    api = {"base_url": address, "key_variable": "JUDGE_KEY", "concurrency": 2, "timeout": 2}
    asked = {"type": "openai", "model": "judge", "prompts": "viescore.yaml", "api": api}
    settings = {**cluster, "judge": {**asked, "num_pass": PASSES, "temperature": 0.5}}
    first = bench.start(**settings)
    # Whoever asks the next question has written the answer before it down.
    wait_until(
        lambda: served.waiting >= 2 and len(bench.verdicts()) == 2,
        "two verdicts, and two questions that nobody answers",
    )
    first.process.kill()
    first.process.wait()
    assert len(served.answered) == BEFORE_THE_KILL
    served.open.set()
    resumed = bench.run(**settings)
    assert resumed.process.returncode == 0, resumed.errors
    assert bench.outcomes() == ["scored"] * PAIRS
    assert len(served.answered) == EACH * PAIRS, "no answer was paid for again"
    assert "hidden/cpu0" in first.errors, "the node has edited"
    assert not list(bench.results.rglob(f"{ANSWERS_PREFIX}*")) and bench.leftovers() == []
