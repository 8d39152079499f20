"""Workers of a hub's model are started as its files ask for, which is known once they are here."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from core.engine.fetch import Fetch
from core.events import Listener
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.worker_spec import WorkerSpec
from tests.conftest import PATIENCE, submitted
from tests.hub_server import COMMIT, MODEL
from tests.stub_backend import StubBackend


class Asking:
    """A hub that was asked for a model, and has not answered yet."""

    def __init__(self) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self.folder: str | None = None
        self.refusal: str | None = None
        self.transfers = False

    def start(self, after: Fetch | None = None) -> None: ...

    def wait(self, seconds: float) -> bool:
        return False

    def stop(self) -> None: ...


class HubBackend(StubBackend):
    def __init__(self) -> None:
        super().__init__()
        self.asking = Asking()

    def fetch(self, spec: WorkerSpec, listener: Listener) -> Fetch:
        return self.asking


def put_into_cache(cache: Path, config: dict[str, Any]) -> Path:
    """A pipeline whose transformer has this config, as the hub's library keeps it."""
    model = cache / "models--someone--model"
    folder = model / "snapshots" / COMMIT
    (folder / "transformer").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "transformer" / "config.json").write_text(json.dumps(config))
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(COMMIT)
    return folder


@pytest.mark.parametrize("method", [None, "bitsandbytes"])
def test_no_worker_starts_before_it_is_known_which_packages_it_needs(
    method: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    executor: ThreadPoolExecutor,
) -> None:
    """A fork of the server lacks packages that a fresh interpreter would import."""
    cache = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    backend = HubBackend()
    config = {"model": MODEL, "device": "cpu"}
    generator = MultiGPUImageGenerator(
        1, config=config, output_dir=tmp_path / "out", backend=backend
    )
    with generator:
        results = submitted(executor, generator, 1)
        backend.let_the_engine_act()
        assert backend.prepared and not backend.started
        said = {"quantization_config": {"quant_method": method}} if method else {}
        backend.asking.folder = str(put_into_cache(cache, said))
        backend.asking.on_change()
        worker = backend.worker()
        assert worker.spec.packages == ({method} if method else frozenset())
        worker.serve().finish_all(1)
        assert [r.success for r in results.result(PATIENCE)] == [True]


def test_no_worker_starts_while_its_model_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: ThreadPoolExecutor
) -> None:
    """Its configs may be here already; the weights come, and nobody holds memory meanwhile."""
    cache = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    folder = put_into_cache(cache, {})
    backend = HubBackend()
    backend.asking.transfers = True
    config = {"model": MODEL, "device": "cpu"}
    generator = MultiGPUImageGenerator(
        1, config=config, output_dir=tmp_path / "out", backend=backend
    )
    with generator:
        results = submitted(executor, generator, 1)
        backend.let_the_engine_act()
        assert backend.prepared and not backend.started
        backend.asking.folder, backend.asking.transfers = str(folder), False
        backend.asking.on_change()
        backend.worker().serve().finish_all(1)
        assert [r.success for r in results.result(PATIENCE)] == [True]
