"""From command to workers that can draw: `python -m benchmarks.start [WORKERS]`.

The demo model on CPU workers. Contenders: four processes that each import and load as a script
would; this engine with spawned workers; and with forks of its server. Also what a second batch
on warm workers waits for, and the memory that all processes have together (PSS: shared pages
count once).
"""

import argparse
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from statistics import median
from threading import Event as Flag
from typing import Any

import psutil
from loguru import logger

from benchmarks.ratios import times_faster
from core.devices.model_choice import DEMO_MODEL
from core.engine.worker_slot import State
from core.events import Event as Happening
from core.events import TaskStarted, WorkerState
from core.multi_gpu_image_generator import MultiGPUImageGenerator

ROUNDS = 3
TASK = {"prompt": "a red house on grass", "width": 128, "height": 128}
Measured = dict[str, float]


def load_alone(ready: Any, leave: Event) -> None:
    """In a process: what a script does before its first picture."""
    import torch
    from diffusers import ZImagePipeline

    torch.set_num_threads(1)
    ZImagePipeline.from_pretrained(DEMO_MODEL, dtype=torch.float32)
    ready.release()
    leave.wait()


def naive(workers: int) -> Measured:
    context = get_context("spawn")
    ready, leave = context.Semaphore(0), context.Event()
    started = time.perf_counter()
    processes = [context.Process(target=load_alone, args=(ready, leave)) for _ in range(workers)]
    for process in processes:
        process.start()
    for _ in processes:
        ready.acquire()
    seconds = time.perf_counter() - started
    memory = pss()
    leave.set()
    for process in processes:
        process.join()
    return {"ready": seconds, "PSS": memory}


def engine(method: str) -> Callable[[int], Measured]:
    def run(workers: int) -> Measured:
        all_ready = Flag()
        serving: set[str] = set()
        leased: list[float] = []

        def listen(event: Happening) -> None:
            if isinstance(event, WorkerState) and event.state == State.SERVING.value:
                serving.add(event.worker)
                if len(serving) == workers:
                    all_ready.set()
            if isinstance(event, TaskStarted):
                leased.append(time.perf_counter())

        config = {"device": "cpu", "model": str(DEMO_MODEL), "workers": {"start_method": method}}
        started = time.perf_counter()
        with MultiGPUImageGenerator(workers, config=config, listener=listen) as generator:
            all_ready.wait()
            seconds = time.perf_counter() - started
            memory = pss()
            generator.generate_batch([TASK])
            again = time.perf_counter()
            generator.generate_batch([{**TASK, "seed": 1}])
            return {"ready": seconds, "PSS": memory, "second": 1000 * (leased[-1] - again)}

    return run


def pss() -> float:
    """MB of all processes below this one."""
    below = psutil.Process().children(recursive=True)
    return sum(p.memory_full_info().pss for p in below) / 1e6


CONTENDERS: dict[str, Callable[[int], Measured]] = {
    "each process imports and loads": naive,
    "this engine, spawn": engine("spawn"),
    "this engine, forkserver": engine("forkserver"),
}


def alone(contender: str, workers: int) -> Measured:
    """In a fresh interpreter: a fork server stays as long as the program that started it."""
    context = get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(contender, workers, writer))
    process.start()
    found: Measured = reader.recv()
    process.join()
    return found


def _send(contender: str, workers: int, writer: Any) -> None:
    logger.remove()
    writer.send(CONTENDERS[contender](workers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("workers", nargs="?", type=int, default=4)
    workers = parser.parse_args().workers
    found: dict[str, list[Measured]] = {name: [] for name in CONTENDERS}
    for _ in range(ROUNDS):
        for name, values in found.items():
            values.append(alone(name, workers))
    base = found["each process imports and loads"]
    print(f"{workers} workers, the demo model on a CPU; medians of {ROUNDS} interleaved rounds\n")
    print("| contender | s until all are ready | times sooner | PSS, MB | ms to a 2nd batch |")
    print("| --- | --- | --- | --- | --- |")
    for name, values in found.items():
        faster = times_faster([b["ready"] for b in base], [v["ready"] for v in values], digits=1)
        seconds, memory = (median(v[key] for v in values) for key in ("ready", "PSS"))
        second = f"{median(v['second'] for v in values):.0f}" if "second" in values[0] else "-"
        print(f"| {name} | {seconds:.1f} | {faster} | {memory:.0f} | {second} |")


if __name__ == "__main__":
    main()
