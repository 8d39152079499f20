"""The daemon: requests accepted and journalled, and what survives a kill; on simulated workers.

python -m benchmarks.serving [--seconds 10] [--clients 200] [--jobs 10000]
python -m benchmarks.serving --peers PYTHON: see `benchmarks.serving_peers`

Clients are other processes on the same machine, so they share its cores with the daemon: on a
machine that does other work, compare two runs side by side and not with another day's figures.
"""

import argparse
import asyncio
import multiprocessing
import os
import re
import signal
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.daemon import Daemon, settings, wait_for
from benchmarks.serving_peers import compare
from core import MultiGPUImageGenerator

CALLERS = 2  # processes that the clients are spread over
RATES = (50, 100, 200)  # requests a second
SAMPLES = 60  # pictures, one after the other, for the added latency


def job(n: int) -> dict[str, Any]:
    return {"tasks": [{"prompt": f"house {n}", "width": 64, "height": 64}]}


async def enqueue(
    url: str, clients: int, jobs: int, seconds: float, rate: float | None = None
) -> list[float]:
    """Seconds of each request, of so many clients at once.

    Args:
        rate: requests a second of all clients together; None for as many as are answered.
    """
    took: list[float] = []
    end = time.monotonic() + seconds
    limits = httpx2.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx2.AsyncClient(
        base_url=url, timeout=600, trust_env=False, limits=limits
    ) as client:

        async def call(number: int) -> None:
            if rate is not None:
                await asyncio.sleep(number / rate)
            for n in range(jobs):
                started = time.monotonic()
                if started >= end:
                    return
                answer = await client.post("/v1/jobs", json=job(number * jobs + n))
                answer.raise_for_status()
                took.append(time.monotonic() - started)
                if rate is not None:
                    await asyncio.sleep(max(0.0, clients / rate - took[-1]))

        await asyncio.gather(*(call(n) for n in range(clients)))
    return took


def _enqueue(url: str, clients: int, jobs: int, seconds: float, rate: float | None) -> list[float]:
    return asyncio.run(enqueue(url, clients, jobs, seconds, rate))


def enqueue_by_processes(
    url: str, clients: int, jobs: int, seconds: float, rate: float | None = None
) -> list[float]:
    share = max(1, clients // CALLERS)
    each = None if rate is None else rate / CALLERS
    with multiprocessing.get_context("spawn").Pool(CALLERS) as pool:
        parts = pool.starmap(_enqueue, [(url, share, jobs, seconds, each)] * CALLERS)
    return [one for part in parts for one in part]


def measure_enqueue(clients: int, seconds: float) -> None:
    slow = {"simulated": {"seconds_per_megapixel_step": 25.0}}  # 0.1 s a picture
    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(Path(folder), **slow)
        enqueue_by_processes(daemon.url, CALLERS, 20, 60)  # everything is imported then
        took = enqueue_by_processes(daemon.url, clients, 1_000_000, seconds)
        tell(f"enqueue, {clients} clients that never pause", took, seconds)
        for rate in RATES:
            took = enqueue_by_processes(daemon.url, clients, 1_000_000, seconds, rate)
            tell(f"enqueue, {clients} clients, {rate} requests/s asked for", took, seconds)
        daemon.kill()


def tell(what: str, took: list[float], seconds: float) -> None:
    p50, p99 = (1000 * sorted(took)[int(len(took) * p)] for p in (0.5, 0.99))
    print(
        f"{what}: {len(took) / seconds:.0f} requests/s accepted and journalled, p50 {p50:.0f} ms, "
        f"p99 {p99:.0f} ms",
        flush=True,
    )


def measure_survival(jobs: int) -> None:
    slow = {"simulated": {"seconds_per_megapixel_step": 25000.0}}  # nothing ends meanwhile
    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(Path(folder), **slow)
        before = daemon.memory
        accepted = len(enqueue_by_processes(daemon.url, 40, jobs // 40, 600))
        memory = daemon.memory
        daemon.kill()
        started = time.monotonic()
        daemon.start()
        up = time.monotonic() - started
        with daemon.client() as client:

            def depth() -> float:
                text = client.get("/metrics").text
                found = re.search(r"^imagegen_tasks_waiting\{[^}]*\} (\S+)", text, re.MULTILINE)
                return float(found[1]) if found else 0.0

            workers = len(client.get("/v1/workers").json()["data"])
            wait_for(lambda: depth() >= accepted - workers, "all jobs in the engine")
            fed = time.monotonic() - started
            known = client.get("/metrics").text
            open_jobs = re.search(r"^imagegen_jobs (\S+)", known, re.MULTILINE)
        again = daemon.memory
        daemon.kill()
    assert open_jobs is not None
    print(
        f"{accepted} queued jobs: {float(open_jobs[1]):.0f} after SIGKILL; the daemon answers "
        f"after {up:.1f} s and has all in the scheduler after {fed:.1f} s; memory {before:.0f} "
        f"MiB empty, {memory:.0f} full, {again:.0f} after the restart "
        f"({1024 * (memory - before) / accepted:.1f} KiB a job)"
    )


def measure_latency() -> None:
    """One picture after the other: through the daemon, and by the engine in this process."""
    paced = {"simulated": {"seconds_per_megapixel_step": 25.0}}
    with tempfile.TemporaryDirectory() as folder:
        direct: list[float] = []
        with MultiGPUImageGenerator(
            1, config=_engine(paced), output_dir=Path(folder) / "direct", tables=False
        ) as generator:
            for n in range(SAMPLES):
                started = time.monotonic()
                generator.submit(job(n)["tasks"], listener=lambda event: None).results()
                direct.append(time.monotonic() - started)
        daemon = Daemon(Path(folder), **paced)
        served: list[float] = []
        with daemon.client() as client:
            for n in range(SAMPLES):
                started = time.monotonic()
                id = client.post("/v1/jobs", json=job(n)).json()["id"]
                with client.stream("GET", f"/v1/jobs/{id}/events") as events:
                    for line in events.iter_lines():
                        if line == "event: end":
                            break
                served.append(time.monotonic() - started)
        daemon.kill()
    one, other = (1000 * statistics.median(times[5:]) for times in (direct, served))
    print(
        f"one picture: {one:.1f} ms by the engine, {other:.1f} ms by the daemon and its events: "
        f"{other - one:.1f} ms more (median)"
    )


def _engine(changes: dict[str, Any]) -> dict[str, Any]:
    found = settings(**changes)
    del found["server"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument(
        "--peers",
        type=Path,
        metavar="PYTHON",
        help="beside LitServe and Ray Serve, by the Python of an environment that has them",
    )
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f} before")
    if options.peers is not None:
        compare(options.peers)
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    measure_latency()
    measure_enqueue(options.clients, options.seconds)
    measure_survival(options.jobs)


if __name__ == "__main__":
    main()
