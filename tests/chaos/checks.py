"""Attacks on an engine, and the judgement of what it left. The same code for every engine."""

import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import psutil
from PIL import Image

from tests.chaos.engines import LOAD_SECONDS, Engine, Hang, RealEngine
from tests.chaos.verdict import Verdict

CRASHES_ALLOWED = 4  # of its workers by one poisonous task: three in company, one alone
Victim = Literal["worker", "successor", "fork server", "main"]
HELD_PER_WORKER = 4  # leases: one on the device, two being saved, one copy at the end of a batch


def pictures_to_draw(count: int, poison: Collection[int] = ()) -> list[dict[str, Any]]:
    return [
        {"prompt": f"!crash {i}" if i in poison else f"picture {i}", "width": 64, "height": 64}
        for i in range(count)
    ]


def kill_workers(engine: Engine, kills: int, rng: random.Random, verdict: Verdict) -> None:
    """SIGKILL random workers, each time that so many more pictures are there, till the end."""
    engine.start()
    count = len(engine.tasks)
    moments = sorted(rng.choices(range(int(count * 0.9)), k=kills))
    try:
        for moment in moments:
            killed = False
            while not killed and engine.wait(partial(_drawn_and_at_work, engine, moment)):
                time.sleep(rng.uniform(0, 0.03))  # anywhere between two pictures
                killed = _kill_one(engine.workers(), rng)
            verdict.attempts += killed
        engine.wait()
    except Hang:
        verdict.found("hang")


def _drawn(engine: Engine, count: int) -> bool:
    return engine.drawn() >= count


def _drawn_and_at_work(engine: Engine, count: int) -> bool:
    return _drawn(engine, count) and bool(engine.workers())


def _kill_one(workers: list[psutil.Process], rng: random.Random) -> bool:
    """False if nobody is there, or the chosen one has just died of another fault."""
    if not workers:
        return False
    victim = rng.choice(workers)
    try:
        if victim.status() == psutil.STATUS_ZOMBIE:
            return False
        victim.kill()
    except psutil.NoSuchProcess:
        return False
    return True


def kill_main(engine: Engine, kills: int, rng: random.Random, verdict: Verdict) -> None:
    """SIGKILL the main process at random moments of its life and resume, till the end."""
    count = len(engine.tasks)
    in_flight = 0
    try:
        for number in range(kills):
            engine.start()
            due = rng.randint(0, int(count * 0.9 * (number + 1) / kills))
            if rng.random() < 0.8:
                engine.wait(partial(_drawn, engine, due))
            time.sleep(rng.uniform(0, 0.3))
            verdict.attempts += not engine.ended
            engine.kill_main()
            count_orphans(engine, verdict)
            if isinstance(engine, RealEngine):
                in_flight += _count_in_flight(engine, verdict)
        engine.start()
        engine.wait()
    except Hang:
        verdict.found("hang")
    if isinstance(engine, RealEngine):
        given = Counter(row["key"] for row in engine.leases("outcome IS NOT 'superseded'"))
        verdict.found("rerun", sum(given.values()) - len(given) - in_flight)


def _count_in_flight(engine: RealEngine, verdict: Verdict) -> int:
    """Leases that were out when main died; more than workers can hold is a violation, too."""
    open_leases = len(engine.leases("ended IS NULL"))
    verdict.found("rerun", open_leases - engine.workers_wanted * HELD_PER_WORKER)
    return open_leases


def kill_everybody(
    engine: RealEngine,
    kills: Mapping[Victim, int],
    rng: random.Random,
    verdict: Verdict,
) -> None:
    """SIGKILL workers, fork servers and mains, in any order, and start a dead main again.

    With a `successor` two workers die: one, and the next that is loading.
    """
    engine.start()
    whom = [victim for victim, count in kills.items() for _ in range(count)]
    rng.shuffle(whom)
    moments = sorted(rng.choices(range(int(len(engine.tasks) * 0.9)), k=len(whom)))
    try:
        for victim, moment in zip(whom, moments, strict=True):
            killed = False
            while not killed and engine.wait(partial(_drawn_and_at_work, engine, moment)):
                time.sleep(rng.uniform(0, 0.03))
                killed = _kill(engine, victim, rng, verdict)
            verdict.attempts += killed * (2 if victim == "successor" else 1)
        engine.wait()
        verdict.found("exit code", engine.process.returncode != 0)
    except Hang:
        verdict.found("hang")


def _kill(engine: RealEngine, victim: Victim, rng: random.Random, verdict: Verdict) -> bool:
    if victim == "worker":
        return _kill_one(engine.workers(), rng)
    if victim == "successor":
        return _kill_with_successor(engine, rng)
    if victim == "fork server":
        server = engine.fork_server()
        return server is not None and _kill_one([server], rng)
    if engine.ended:
        return False
    engine.kill_main()
    count_orphans(engine, verdict)
    engine.start()
    return True


def _kill_with_successor(engine: RealEngine, rng: random.Random) -> bool:
    """Kill a worker, and the next one that is started, while it loads."""
    known = engine.workers()
    if not _kill_one(known, rng):
        return False
    new: list[psutil.Process] = []

    def has_come() -> bool:
        new[:] = [worker for worker in engine.workers() if worker not in known]
        return bool(new)

    if engine.wait(has_come):
        time.sleep(rng.uniform(0, LOAD_SECONDS * 0.7))
        return _kill_one(new, rng)
    return False


def count_orphans(engine: Engine, verdict: Verdict) -> None:
    """Count who is still there some time after the end of the main process, and keep who it is."""
    orphans = engine.orphans()
    verdict.found("orphan", len(orphans))
    for process in orphans:
        with suppress(psutil.Error):
            seen = f"{process.status()}: {' '.join(process.cmdline())}"
            verdict.log += f"still there: {process.pid}, {seen}\n"


def judge_ledger(engine: RealEngine, verdict: Verdict) -> None:
    """The ledger knows each result, once, as it lies there.

    One that was made twice differs from what is recorded: it says which process made it.
    """
    done = engine.ledger("SELECT * FROM tasks WHERE state = 'done'")
    verdict.found("unrecorded", engine.results_wanted - len(done))
    for row in done:
        file = engine.ledger_folder / row["output_path"]
        there = file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest()
        verdict.found("unrecorded", there != row["sha256"])
    times = Counter(row["key"] for row in engine.leases("outcome = 'done'"))
    verdict.found("duplicate", times.total() - len(times))


def judge(engine: Engine, verdict: Verdict, poison: Collection[int] = ()) -> Verdict:
    """Count what an engine left, after its command has ended or hangs."""
    if not engine.ended:
        engine.kill_main()
    count_orphans(engine, verdict)
    records = engine.records()
    known = [r for r in records if r is not None]
    per_input = Counter(r.position for r in known)
    verdict.found("torn", len(records) - len(known))
    verdict.found("lost", len(engine.tasks) - len(per_input))
    verdict.found("duplicate", len(known) - len(per_input))
    for record in known:
        expected = "quarantined" if record.position in poison else "done"
        if record.outcome != expected:
            verdict.found("innocent" if record.outcome == "quarantined" else "wrong")
        if record.outcome == "done":
            _judge_picture(record.picture, verdict)
    verdict.found("leftover", len(engine.leftovers()))
    if engine.run is not None:
        verdict.log += engine.run.errors
    return verdict


def _judge_picture(file: Path | None, verdict: Verdict) -> None:
    if file is None or not file.is_file():
        verdict.found("lost")
        return
    try:
        with Image.open(file) as image:
            image.load()
    except (OSError, SyntaxError):
        verdict.found("torn")


def judge_poison(engine: RealEngine, verdict: Verdict, poison: Collection[int]) -> None:
    """A poisonous task may take so many workers with it, and no more."""
    for position in poison:
        name = f"tweets_{position:02}.png"
        crashes = engine.leases(
            f"key = '{name}' AND outcome LIKE 'crash%' AND outcome NOT LIKE '%SIGKILL%'"
        )
        assert crashes, f"{name} is in the ledger under another name"
        verdict.found("crash", len(crashes) - CRASHES_ALLOWED)


def judge_replaced(engine: RealEngine, verdict: Verdict) -> None:
    """Of every input, the picture of the first run is kept once, whole and with one line."""
    folder = engine.pictures / ".replaced"
    kept = Counter(file.name for file in folder.glob("*/*.png"))
    told = Counter(
        json.loads(line)["file_name"]
        for table in folder.glob("*/metadata.jsonl")
        for line in table.read_text("utf-8").splitlines()
    )
    verdict.found("lost", len(engine.tasks) - len(kept))
    for counts in (kept, told):
        verdict.found("duplicate", counts.total() - len(counts))
    verdict.found("wrong", len(kept.keys() ^ told.keys()))
    for file in folder.glob("*/*.png"):
        _judge_picture(file, verdict)
