"""Batches by Ray, behind `benchmarks.scheduling --peers`.

`PYTHON -m benchmarks.peer_batches WHAT N`

WHAT is one of RUNS, N the number of workers. A batch is a line of JSON on standard input; when it
has ended, a line says how many seconds it took, and the error that its user would see. Each is used
as its documentation shows it, with the default settings, but that a replica of Ray Serve does one
request at a time, as a device does. Ray Data makes new actors for every batch.
"""

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import ray

from benchmarks.peers import Task, do_logged

Batch = Callable[[list[Task]], None]


class Actor:
    """A device behind each of the ways to call it."""

    def do(self, task: Task) -> None:
        do_logged(task)

    def __call__(self, given: Any) -> Any:
        if isinstance(given, dict):  # a batch of Ray Data
            for row in given["item"]:
                do_logged(Task(**json.loads(row)))
            return given
        do_logged(given)
        return None


def with_actor_pool(workers: int) -> Batch:
    from ray.util import ActorPool

    actor: Any = ray.remote(num_cpus=1)(Actor)
    actors = [actor.remote() for _ in range(workers)]

    def run(tasks: list[Task]) -> None:
        pool = ActorPool(actors)
        list(pool.map_unordered(lambda one, task: one.do.remote(task), tasks))

    return run


def with_data(workers: int) -> Batch:
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False

    def run(tasks: list[Task]) -> None:
        rows = [json.dumps(task.__dict__) for task in tasks]
        ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            Actor, batch_size=1, compute=ray.data.ActorPoolStrategy(size=workers), num_cpus=1
        ).materialize()

    return run


def with_serve(workers: int) -> Batch:
    from ray import serve

    serve.start(proxy_location="Disabled", logging_config={"log_level": "ERROR"})
    make: Any = serve.deployment  # its types say that it takes a class alone
    deployed = make(
        num_replicas=workers, max_ongoing_requests=1, ray_actor_options={"num_cpus": 1}
    )(Actor)
    handle = serve.run(deployed.bind())

    def run(tasks: list[Task]) -> None:
        error = None
        for answer in [handle.remote(task) for task in tasks]:
            try:
                answer.result()
            except Exception as failed:
                error = failed
        if error is not None:
            raise error

    return run


RUNS = {"data": with_data, "actors": with_actor_pool, "serve": with_serve}


def main() -> None:
    what, workers = sys.argv[1], int(sys.argv[2])
    said = sys.stdout
    sys.stdout = sys.stderr  # for Ray's own words
    ray.init(
        "local",  # and not some cluster that is there
        num_cpus=workers + 2,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        object_store_memory=128 * 2**20,
    )
    run = RUNS[what](workers)
    print("ready", file=said, flush=True)
    for line in sys.stdin:
        tasks = [Task(**task) for task in json.loads(line)]
        began, error = time.time(), None
        try:
            run(tasks)
        except Exception as failed:
            error = type(failed).__name__
        answer = {"began": began, "seconds": time.time() - began, "error": error}
        print(json.dumps(answer), file=said, flush=True)


if __name__ == "__main__":
    main()
