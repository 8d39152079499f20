"""LitServe behind `benchmarks.serving --peers`: `python -m benchmarks.peer_litserve PORT WORKERS`.

Needs `pip install litserve==0.2.19`. Its workers are started again when they die, which it does
not do unless it is asked to.
"""

import os
import sys
from typing import Any

from benchmarks.peer_model import PeerModel, add_packages

add_packages()

import litserve  # noqa: E402 - after its own packages come others


class Api(litserve.LitAPI):  # type: ignore[misc, unused-ignore]
    """One picture for each request."""

    def setup(self, device: str) -> None:
        self._model = PeerModel()

    def decode_request(self, request: dict[str, Any], **_: Any) -> tuple[str, int]:
        return request["prompt"], request["seed"]

    def predict(self, asked: tuple[str, int], **_: Any) -> str:
        return self._model.draw(*asked)

    def encode_response(self, picture: str, **_: Any) -> dict[str, Any]:
        return {"data": [{"b64_json": picture}], "pid": os.getpid()}


if __name__ == "__main__":
    port, workers = map(int, sys.argv[1:])
    server = litserve.LitServer(
        Api(), accelerator="cpu", workers_per_device=workers, timeout=False, restart_workers=True
    )
    server.run(
        host="127.0.0.1",
        port=port,
        log_level="error",
        generate_client_file=False,
        num_api_servers=1,
    )
