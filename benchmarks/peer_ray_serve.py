"""Ray Serve behind `benchmarks.serving --peers`.

`python -m benchmarks.peer_ray_serve PORT WORKERS`

Needs `pip install "ray[serve]==2.60.0"`. A replica draws one picture at a time, as a device does,
and has as many requests waiting as Ray Serve gives it by default.
"""

import logging
import os
import sys
import time
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

STORE = 128 * 2**20  # bytes: pictures go by HTTP


@serve.deployment  # type: ignore[untyped-decorator, unused-ignore]
class Api:
    """One picture for each request."""

    def __init__(self) -> None:
        from benchmarks.peer_model import PeerModel, add_packages

        add_packages()
        self._model = PeerModel()

    async def __call__(self, request: Request) -> dict[str, Any]:
        asked = await request.json()
        picture = self._model.draw(asked["prompt"], asked["seed"])
        return {"data": [{"b64_json": picture}], "pid": os.getpid()}


if __name__ == "__main__":
    port, workers = map(int, sys.argv[1:])
    ray.init(
        num_cpus=workers + 1,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        object_store_memory=STORE,
    )
    serve.start(
        http_options={"host": "127.0.0.1", "port": port}, logging_config={"log_level": "ERROR"}
    )
    deployed = Api.options(  # type: ignore[attr-defined, unused-ignore]
        num_replicas=workers,
        ray_actor_options={"num_cpus": 0.1},
    )
    serve.run(deployed.bind(), route_prefix="/predict")
    while True:
        time.sleep(60)
