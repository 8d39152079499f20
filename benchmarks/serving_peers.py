"""The daemon beside LitServe and Ray Serve with the same model: `benchmarks.serving --peers`.

All of them run at once and are asked in turns, so that whatever else the machine does falls on
each alike. Direct is the model itself, called in a process that does nothing else. Peers have an
environment of their own, by which this project's is not changed:

    python3 -m venv /tmp/peers
    /tmp/peers/bin/pip install litserve==0.2.19 "ray[serve]==2.60.0"
    python -m benchmarks.serving --peers /tmp/peers/bin/python

Of torch and diffusers they have this project's. What is not installed there is left out.
"""

import asyncio
import base64
import io
import os
import random
import socket
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import psutil
from PIL import Image

from benchmarks.daemon import PROJECT, Daemon, wait_for
from benchmarks.peer_model import MODEL, PACKAGES, SECONDS, SIDE, SIDES, SIMULATED, STEPS, PeerModel
from core.devices.model_choice import DEMO_MODEL

EACH = 8  # requests one after the other in each round of each contender
CLIENTS = 16  # at once
BURSTS, BURST = 3, 5.0  # rounds of these, and seconds of each
OPEN, AFTER = 8, 24  # clients while a worker is killed, and requests of all of them
PATIENCE = 60.0  # seconds for an answer
STARTING = 180.0  # seconds for a server
PEERS = {
    "LitServe": ("litserve", "benchmarks.peer_litserve"),
    "Ray Serve": ("ray.serve", "benchmarks.peer_ray_serve"),
}


@dataclass(frozen=True)
class Contender:
    """A server that draws pictures.

    Attributes:
        path: of the URL, to which a request is posted.
        asked: the body for a prompt and a seed.
        worker: the process id of one of its workers that draws now.
    """

    name: str
    url: str
    path: str
    asked: Callable[[str, int], dict[str, Any]]
    worker: Callable[[], int]


@dataclass
class Measured:
    """What was seen of one contender: seconds of each request, requests a second of each burst."""

    seconds: list[float]
    rates: list[float]
    lost: str = "-"


def compare(python: Path) -> None:
    """Print a table for each model and each number of workers."""
    installed = {name: parts for name, parts in PEERS.items() if _has(python, parts[0])}
    for name in PEERS.keys() - installed.keys():
        print(f"{name} is left out: {python} cannot import {PEERS[name][0]}.")
    for title, model, rounds in (
        (f"a simulated device, {SECONDS:g} s a picture", SIMULATED, 8),
        (f"the demo model on the CPU, {SIDE}x{SIDE}, {STEPS} steps", str(DEMO_MODEL), 3),
    ):
        os.environ[MODEL] = model
        os.environ[PACKAGES] = sysconfig.get_path("purelib")
        for workers in (1, 2):
            print(f"\n{title}; {workers} {'worker' if workers == 1 else 'workers'}; ", end="")
            print(f"load {os.getloadavg()[0]:.1f}\n", flush=True)
            _tell(_measured(python, installed, model, workers, rounds))


def _has(python: Path, module: str) -> bool:
    found = subprocess.run([str(python), "-c", f"import {module}"], capture_output=True)
    return found.returncode == 0


def _tell(found: dict[str, Measured]) -> None:
    direct = statistics.median(found["direct"].seconds)
    print(
        "| contender | ms a picture, one client | over direct | p99 | "
        f"pictures/s, {CLIENTS} clients | lost of {AFTER} when a worker is killed |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for name, one in found.items():
        median, p99 = (1000 * _quantile(one.seconds, at) for at in (0.5, 0.99))
        rate = f"{statistics.median(one.rates):.1f}" if one.rates else "-"
        over = f"{median - 1000 * direct:+.1f}" if name != "direct" else "-"
        print(f"| {name} | {median:.1f} | {over} | {p99:.1f} | {rate} | {one.lost} |", flush=True)


def _quantile(values: list[float], at: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(at * (len(ordered) - 1)))]


def _measured(
    python: Path,
    installed: dict[str, tuple[str, str]],
    model: str,
    workers: int,
    rounds: int,
) -> dict[str, Measured]:
    """What is seen of all contenders with so many workers."""
    with ExitStack() as stack:
        direct = stack.enter_context(_direct())
        contenders = [stack.enter_context(_ours(model, workers))]
        for name, (_, program) in installed.items():
            contenders.append(stack.enter_context(_peer(name, python, program, workers)))
        found = {"direct": Measured([], [])} | {c.name: Measured([], []) for c in contenders}
        client = stack.enter_context(httpx2.Client(timeout=PATIENCE, trust_env=False))
        _check_pixels(client, contenders, model, direct)
        for number in range(rounds):
            found["direct"].seconds += [direct(f"house {number}", n)[1] for n in range(EACH)]
            for contender in contenders:
                for seed in range(EACH):
                    started = time.monotonic()
                    _ask(client, contender, f"house {number}", seed)
                    found[contender.name].seconds.append(time.monotonic() - started)
        for number in range(BURSTS):
            for contender in contenders:
                found[contender.name].rates.append(asyncio.run(_burst(contender, number)))
        for contender in contenders:
            found[contender.name].lost = asyncio.run(_with_a_kill(contender))
        return found


# -- contenders ------------------------------------------------------------------------


@contextmanager
def _direct() -> Iterator[Callable[[str, int], tuple[str, float]]]:
    """The model in a process of its own: a picture, and the seconds that it took."""
    here, there = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=_draw_for, args=(there,))
    process.start()

    def draw(prompt: str, seed: int) -> tuple[str, float]:
        here.send((prompt, seed))
        found: tuple[str, float] = here.recv()
        return found

    try:
        draw("warm", 0)
        yield draw
    finally:
        here.send(None)
        process.join()


def _draw_for(pipe: Connection) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libraries tell as they load
    model = PeerModel()
    while (asked := pipe.recv()) is not None:
        started = time.monotonic()
        picture = model.draw(*asked)
        pipe.send((picture, time.monotonic() - started))


@contextmanager
def _ours(model: str, workers: int) -> Iterator[Contender]:
    settings: dict[str, Any] = {"device": "cpu"}
    more: dict[str, Any] = {}
    if model == SIMULATED:
        rate = SECONDS / (SIDES[SIMULATED] ** 2 / 1e6)
        settings = {"simulated": {"seconds_per_megapixel_step": rate}}
        more = {"size": "{0}x{0}".format(SIDES[SIMULATED]), "num_inference_steps": 1}
    settings |= {"model": model, "supervision": {"restart_backoff": 0.1}}
    with tempfile.TemporaryDirectory(prefix="serving-") as folder:
        daemon = Daemon(Path(folder), "--cpu-workers", str(workers), **settings)

        def worker() -> int:
            forks = [f for s in psutil.Process(daemon.process.pid).children() for f in s.children()]
            return random.choice([f.pid for f in forks if f.status() != psutil.STATUS_ZOMBIE])

        try:
            with daemon.client() as client:
                wait_for(lambda: client.get("/readyz").is_success, "workers", STARTING)
            yield Contender(
                "this daemon",
                daemon.url,
                "/v1/images/generations",
                lambda prompt, seed: {"prompt": prompt, "seed": seed, **more},
                worker,
            )
        finally:
            daemon.kill()


@contextmanager
def _peer(name: str, python: Path, program: str, workers: int) -> Iterator[Contender]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with tempfile.NamedTemporaryFile("w+", prefix="peer-", suffix=".log") as log:
        process = subprocess.Popen(
            [str(python), "-m", program, str(port), str(workers)],
            cwd=PROJECT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

        def asked(prompt: str, seed: int) -> dict[str, Any]:
            return {"prompt": prompt, "seed": seed}

        def pid() -> int:
            answer = httpx2.post(f"{url}/predict", json=asked("who", 0), timeout=PATIENCE)
            return int(answer.raise_for_status().json()["pid"])

        def answers() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended: {Path(log.name).read_text()[-2000:]}")
            with suppress(httpx2.HTTPError):
                return bool(pid())
            return False

        try:
            wait_for(answers, name, STARTING)
            yield Contender(name, url, "/predict", asked, pid)
        finally:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a server with all that it started."""
    family: list[psutil.Process] = []
    with suppress(psutil.Error):
        family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    for one in family:
        with suppress(psutil.Error):
            one.kill()
    process.kill()
    process.wait()


# -- what is measured ------------------------------------------------------------------


def _check_pixels(
    client: httpx2.Client,
    contenders: list[Contender],
    model: str,
    direct: Callable[[str, int], tuple[str, float]],
) -> None:
    """Say by how much a contender's picture differs; a simulated one is of any colour.

    An attention of another order of sums may round a value the other way, so 1 of 255.
    """
    expected = _pixels(direct("a red house", 7)[0])
    for contender in contenders:
        if model != SIMULATED:
            drawn = _pixels(_ask(client, contender, "a red house", 7))
            furthest = int(np.abs(drawn - expected).max())
            if furthest:
                print(f"{contender.name} draws pixels that differ by up to {furthest} of 255.")


def _pixels(picture: str) -> "np.ndarray[Any, np.dtype[np.int16]]":
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    return np.asarray(image, dtype=np.int16)


def _ask(client: httpx2.Client, contender: Contender, prompt: str, seed: int) -> str:
    answer = client.post(contender.url + contender.path, json=contender.asked(prompt, seed))
    return str(answer.raise_for_status().json()["data"][0]["b64_json"])


async def _burst(contender: Contender, number: int) -> float:
    """Pictures a second of many clients at once."""
    end = time.monotonic() + BURST
    done = 0

    async def call(seed: int) -> None:
        nonlocal done
        while time.monotonic() < end:
            asked = contender.asked(f"house {number}", seed)
            answer = await client.post(contender.url + contender.path, json=asked)
            done += answer.is_success
            seed += CLIENTS

    async with httpx2.AsyncClient(timeout=PATIENCE, trust_env=False) as client:
        started = time.monotonic()
        await asyncio.gather(*(call(n) for n in range(CLIENTS)))
        return done / (time.monotonic() - started)


async def _with_a_kill(contender: Contender) -> str:
    """How many of some requests have no picture when a worker dies meanwhile."""
    waiting = list(range(AFTER))
    outcomes: list[str] = []

    async def call() -> None:
        while waiting:
            asked = contender.asked("a house", waiting.pop())
            try:
                answer = await client.post(contender.url + contender.path, json=asked)
                outcomes.append("" if answer.is_success else str(answer.status_code))
            except httpx2.TimeoutException:
                outcomes.append("no answer")
            except httpx2.HTTPError as error:
                outcomes.append(type(error).__name__)

    victim = await asyncio.to_thread(contender.worker)
    async with httpx2.AsyncClient(timeout=PATIENCE, trust_env=False) as client:
        calls = [asyncio.create_task(call()) for _ in range(OPEN)]
        while len(outcomes) < OPEN // 2:
            await asyncio.sleep(0.01)
        with suppress(ProcessLookupError):
            os.kill(victim, 9)
        await asyncio.gather(*calls)
    lost = [outcome for outcome in outcomes if outcome]
    reasons = ", ".join(sorted(set(lost)))
    return f"{len(lost)} ({reasons})" if lost else "0"


if __name__ == "__main__":
    compare(Path(sys.argv[1]))
