"""The whole promise at once: many tweets, many LoRAs, kills of workers and of main."""

import random
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.store.ledger import Ledger
from core.store.provenance import read_provenance
from tests.both_engines import ON_BOTH
from tests.conftest import Project, Run, simulated, wait_until, write_safetensors

pytestmark = pytest.mark.slow

WORKERS = 4


def persona(loras: list[Path], count: int) -> dict[str, Any]:
    image = {"generation_params": {"width": 64, "height": 64, "steps": 2, "cfg": 1.0}}
    tweets = [
        {
            "tweet_text": f"tweet {i}",
            "image_generation": {
                **image,
                "positive_prompt": f"a red house {i}",
                "lora_params": {"model_path": str(loras[i % len(loras)]), "strength": 1.0},
            },
        }
        for i in range(count)
    ]
    return {"version": "2.0", "persona": {"name": "Mira"}, "tweets": tweets}


def survive(
    project: Project,
    settings: dict[str, Any],
    loras: list[Path],
    count: int,
    worker_kills: int,
    main_kills: int,
) -> None:
    """Kill at random moments spread over the run, resume after each death of main."""
    rng = random.Random(7)
    file = project.write_tweets(persona(loras, count))
    deaths = ["worker"] * worker_kills + ["main"] * main_kills
    rng.shuffle(deaths)
    # A death each time that so many more pictures are there.
    moments = sorted(rng.sample(range(1, int(count * 0.9)), len(deaths)))
    killed, run = 0, project.start([file, WORKERS], settings)
    for moment, death in zip(moments, deaths, strict=True):
        wait_until(partial(_has_drawn, project, moment), f"{moment} pictures")
        workers = wait_until(partial(_at_work_or_ended, project, run), "a worker")
        if run.process.poll() is not None:
            break  # it was quicker than this side
        killed += 1
        if death == "worker":
            rng.choice(workers).kill()
        else:
            run.process.kill()
            run.finish()
            wait_until(partial(_all_gone, workers), "the workers' end")
            run = project.start([file, WORKERS], settings)
    assert run.finish() == 0, run.errors
    assert killed > len(deaths) / 2
    check_records(project, count)


def _has_drawn(project: Project, count: int) -> bool:
    return drawn(project) >= count


def _at_work_or_ended(project: Project, run: Run) -> Any:
    return project.workers(run) or run.process.poll() is not None


def _all_gone(workers: list[psutil.Process]) -> bool:
    return not any(w.is_running() for w in workers)


def drawn(project: Project) -> int:
    return sum(1 for _ in project.pictures.glob("Mira_*.png"))


def check_records(project: Project, count: int) -> None:
    records = project.records()
    assert [r["position"] for r in records] == list(range(count))
    assert Counter(r["success"] for r in records) == {True: count}
    assert len({r["output_path"] for r in records}) == count == drawn(project)
    assert not project.leftovers()
    ledger = Ledger.open(project.pictures)
    assert Counter(e.state for e in ledger.entries().values()) == {"done": count}
    ledger.close()
    for record in records[:: max(1, count // 50)]:
        task = read_provenance(Path(record["output_path"]))["task"]
        assert task["seed"] == 42 + record["position"]


@ON_BOTH
def test_a_thousand_tweets_survive_ten_worker_and_two_main_kills(project: Project) -> None:
    loras = [
        write_safetensors(project.folder / f"style{i}.safetensors", f"{i}.lora_A.weight")
        for i in range(16)
    ]
    times = {"seconds_per_megapixel_step": 1.0, "lora_load_seconds": 0.01, "jitter": 0.5}
    settings = simulated(simulated=times)
    survive(project, settings, loras, count=1000, worker_kills=10, main_kills=2)
