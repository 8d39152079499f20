"""Who loads when: one alone from the disk, the others side by side from the page cache."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from core.devices.load_turns import LoadTurns, loading_environment
from core.events import Event, WorkerState
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.worker_spec import WorkerSpec
from tests.conftest import simulated, wait_for_workers
from tests.fault_tickets import SPAWNED, arm_in_children
from tests.paper_models import write_header
from tests.test_native_image_generator import spec_for

GIB = 1024**3


def checkpoint(folder: Path, *gib: int) -> WorkerSpec:
    """A GPU worker's orders for a model with files of such sizes, which are empty inside."""
    (folder / "transformer").mkdir(parents=True)
    for number, size in enumerate(gib):
        with (folder / "transformer" / f"{number}.safetensors").open("wb") as file:
            file.truncate(size * GIB)
    (folder / "model_index.json").write_text("{}")
    return replace(spec_for(str(folder)), device="cuda")


def with_free(gib: float) -> Callable[[], int]:
    return lambda: int(gib * GIB)


def test_a_big_model_is_loaded_by_one_worker_and_then_by_as_many_as_host_memory_holds(
    tmp_path: Path,
) -> None:
    spec = checkpoint(tmp_path, 10, 10, 8, 2)
    turns = LoadTurns("auto", spec, with_free(100))
    assert turns.at_once(loaded=False) == 1
    assert turns.at_once(loaded=True) == 5  # half of the memory, a file each
    assert LoadTurns("auto", spec, with_free(12)).at_once(loaded=True) == 1  # never none


@pytest.mark.parametrize(
    "changes", [{"device": "cpu"}, {"memory": "group_offload"}, {"memory": "fp8_cast"}]
)
def test_where_weights_stay_in_host_memory_each_worker_takes_the_whole_model(
    tmp_path: Path, changes: dict[str, str]
) -> None:
    spec = replace(checkpoint(tmp_path, 10, 10, 8, 2), **changes)  # type: ignore[arg-type]
    assert LoadTurns("auto", spec, with_free(130)).at_once(loaded=True) == 2


def test_workers_that_turn_to_another_mode_meanwhile_take_the_whole_model(tmp_path: Path) -> None:
    turns = LoadTurns("auto", checkpoint(tmp_path, 10, 10, 8, 2), with_free(130))
    assert turns.at_once(loaded=True) == 6
    turns.change_to("offload")
    assert turns.at_once(loaded=True) == 2


def test_what_a_base_model_gives_to_a_file_counts(tmp_path: Path) -> None:
    base = tmp_path / "base"
    checkpoint(base, 20)  # of a transformer, which is in the file
    write_header(tmp_path / "model.safetensors", {"layers.0.weight": (1, 1)})
    text_encoder = base / "text_encoder" / "model.safetensors"
    write_header(text_encoder, {})
    os.truncate(text_encoder, 6 * GIB)
    spec = spec_for(str(tmp_path / "model.safetensors"))
    spec = replace(spec, base_model=str(base), device="cuda")
    turns = LoadTurns("auto", spec, with_free(36))
    assert turns.at_once(loaded=False) == 1 and turns.at_once(loaded=True) == 3


def test_a_small_model_is_loaded_by_all_at_once(tmp_path: Path) -> None:
    turns = LoadTurns("auto", checkpoint(tmp_path, 1, 1), with_free(64))
    assert turns.at_once(loaded=False) >= 8


def test_a_number_in_the_settings_wins(tmp_path: Path) -> None:
    turns = LoadTurns(3, checkpoint(tmp_path, 10), with_free(1))
    assert turns.at_once(loaded=False) == turns.at_once(loaded=True) == 3


def test_a_model_of_unknown_size_is_loaded_by_one_after_the_other(tmp_path: Path) -> None:
    turns = LoadTurns("auto", replace(spec_for("owner/model"), device="cuda"), with_free(40))
    assert turns.at_once(loaded=False) == turns.at_once(loaded=True) == 1


def states_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch, workers: int, **started: str
) -> list[tuple[str, str]]:
    """Worker and state, one after the other, of a run whose model counts as big."""
    monkeypatch.setattr(LoadTurns, "at_once", lambda self, loaded: 8 if loaded else 1)
    states: list[tuple[str, str]] = []

    def listen(event: Event) -> None:
        if isinstance(event, WorkerState):
            states.append((event.worker, event.state))

    config = simulated(simulated={"load_seconds": 0.3}, workers=started)
    with MultiGPUImageGenerator(
        workers, config=config, output_dir=folder / "out", listener=listen
    ) as generator:
        wait_for_workers(generator)  # of few tasks the first one may have done all by then
        assert all(result.success for result in generator.generate_batch([{"prompt": "a"}]))
    return states


def turns(states: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Who begins to load, has loaded or leaves."""
    return [s for s in states if s[1] in ("loading the model", "ready", "stopping")]


def test_nobody_loads_until_the_first_one_has_and_then_all_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *then = turns(states_of(tmp_path, monkeypatch, 3))
    assert then[0] == (first[0], "ready")
    assert [state for _, state in then[1:3]] == ["loading the model"] * 2


def test_where_the_first_load_fails_the_next_worker_is_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm_in_children(monkeypatch, tmp_path, "worker.load:1:error", tickets=1)
    states = states_of(tmp_path, monkeypatch, 3, **SPAWNED)
    (failed, _), left, (second, loads), ready = turns(states)[:4]
    assert left == (failed, "stopping")
    assert loads == "loading the model" and ready == (second, "ready")
    before = dict(states[: states.index(left)])
    waiting = [worker for worker, state in before.items() if state == "waiting to load"]
    assert second in waiting or not waiting, "who takes long to start may be late for it"


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        ({}, "1"),
        ({"role": "edit"}, "1"),
        ({"role": "score"}, None),  # transformers has threads of its own
        ({"device": "cpu"}, None),
        ({"memory": "nf4"}, None),
        ({"memory": "offload"}, "1"),
    ],
)
def test_files_are_read_side_by_side_where_that_helps(
    tmp_path: Path, changes: dict[str, str], value: str | None
) -> None:
    spec = replace(checkpoint(tmp_path, 1), **changes)  # type: ignore[arg-type]
    assert loading_environment(spec).get("HF_ENABLE_PARALLEL_LOADING") == value


def test_the_users_own_value_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENABLE_PARALLEL_LOADING", "0")
    spec = checkpoint(tmp_path, 1)
    assert loading_environment(spec) == {"HF_ENABLE_PARALLEL_LOADING": "0"}
