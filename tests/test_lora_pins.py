"""LoRAs that a worker holds before any task asks for them, and those that stay there, pinned."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from core.checkpoints.lora_files import content_hash
from core.errors import LoraError
from core.messages import Keep, KeepWay, Kept, encode, room_beside
from tests.lora_layouts import family_with_loras
from tests.test_native_image_generator import drawn
from workers.channel import PIPE_BUF
from workers.lora_manager import LoraCounts
from workers.lora_orders import obey


@pytest.fixture(params=["kept", "exchanged"])
def family(tiny_model: Path, request: pytest.FixtureRequest) -> Any:
    """With LoRAs kept as adapters of their own, or exchanged in place as for compiled blocks."""
    return family_with_loras(tiny_model, exchanged=request.param == "exchanged")


@pytest.fixture(scope="module")
def five(tiny_loras: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five LoRAs for the model; two fit into the cache of `family`."""
    folder = tmp_path_factory.mktemp("five")
    files = [*tiny_loras]
    for number in range(3):
        files.append(folder / f"more{number}.safetensors")
        tensors = {k: v * (number + 2) for k, v in load_file(tiny_loras[0]).items()}
        save_file(tensors, files[-1])
    return files


def told(family: Any, way: KeepWay, file: Path) -> Kept:
    return obey(family, Keep(content_hash(file), str(file), way))


def held(family: Any) -> set[str]:
    return set(family.resident_loras())


def hashes(*files: Path) -> set[str]:
    return {content_hash(file) for file in files}


def test_a_lora_that_was_loaded_changes_no_picture_and_is_not_loaded_again(
    family: Any, five: list[Path], tiny_model: Path
) -> None:
    plain, first, second = drawn(family), drawn(family, five[0]), drawn(family, five[1])
    fresh = family_with_loras(tiny_model, exchanged="Hotswap" in type(family._loras).__name__)
    for before in (None, five[1]):  # adapters are off, or another one is on
        drawn(fresh, before)
        told(fresh, "unload", five[0])
        fresh.take_lora_counts()
        kept = told(fresh, "load", five[0])
        assert (kept.lora_loads, kept.kind) == (1, None)
        assert content_hash(five[0]) in kept.resident_loras
        assert np.array_equal(drawn(fresh), plain)
        assert np.array_equal(drawn(fresh, five[0]), first)
        assert fresh.take_lora_counts().loads == 0
    assert np.array_equal(drawn(fresh, five[1]), second)


def test_a_pinned_lora_stays_while_others_come_and_go(family: Any, five: list[Path]) -> None:
    told(family, "pin", five[0])
    for file in five[1:]:
        drawn(family, file)
        assert held(family) == hashes(five[0], file)
    pinned = drawn(family, five[0])
    assert family.take_lora_counts().loads == len(five) - 1, "the pinned one was there"
    told(family, "load", five[0])  # from now on like any other
    drawn(family, five[1])
    drawn(family, five[2])
    assert held(family) == hashes(five[1], five[2])
    assert np.array_equal(drawn(family, five[0]), pinned)


def test_where_every_place_is_pinned_the_tasks_own_lora_has_one_beside_them(
    family: Any, five: list[Path]
) -> None:
    for file in five[:2]:
        assert told(family, "pin", file).kind is None
    for file in five[2:]:
        drawn(family, file)
        assert held(family) == hashes(*five[:2], file)
    drawn(family)
    drawn(family, five[0])
    assert held(family) == hashes(*five[:2])


def test_an_unloaded_lora_is_gone_and_pictures_are_as_without_it(
    family: Any, five: list[Path]
) -> None:
    plain, second = drawn(family), drawn(family, five[1])
    first = drawn(family, five[0])  # the one that is on now
    told(family, "pin", five[0])
    assert told(family, "unload", five[0]).resident_loras == [content_hash(five[1])]
    assert np.array_equal(drawn(family), plain)
    assert np.array_equal(drawn(family, five[1]), second)
    told(family, "unload", five[1])
    assert not held(family)
    assert told(family, "unload", five[1]).kind is None, "it is gone already"
    assert np.array_equal(drawn(family, five[0]), first)
    assert np.array_equal(drawn(family), plain)


def test_a_lora_that_does_not_fit_is_refused_and_leaves_no_trace(
    family: Any, five: list[Path], tmp_path: Path
) -> None:
    plain, first = drawn(family), drawn(family, five[0])
    tensors = {k.replace("attention", "elsewhere"): v for k, v in load_file(five[0]).items()}
    unfit = tmp_path / "unfit.safetensors"
    save_file(tensors, unfit)
    for before in (None, five[0]):
        drawn(family, before)
        kept = told(family, "pin", unfit)
        assert kept.kind == "lora" and "unfit.safetensors does not fit" in kept.error
        assert kept.resident_loras == [content_hash(five[0])]
        assert np.array_equal(drawn(family), plain)
        assert np.array_equal(drawn(family, five[0]), first)


def test_a_file_that_has_changed_is_not_loaded_for_what_it_was(family: Any, tmp_path: Path) -> None:
    gone = tmp_path / "gone.safetensors"
    kept = obey(family, Keep("0" * 64, str(gone), "load"))
    assert kept.kind == "lora" and "cannot be read" in kept.error
    gone.write_bytes(b"x")
    kept = obey(family, Keep("0" * 64, str(gone), "load"))
    assert kept.kind == "lora" and "changed during the run" in kept.error


def test_out_of_memory_drops_pins_and_says_so(
    tiny_model: Path, five: list[Path], exchanged: bool
) -> None:
    lines: list[str] = []
    family = family_with_loras(
        tiny_model, exchanged, lambda level, text: lines.append(f"{level} {text}")
    )
    for file in five[:2]:
        told(family, "pin", file)
    drawn(family, five[2])
    assert "2 idle LoRAs dropped and at most 1 kept" in str(family.free_memory())
    assert held(family) == hashes(five[2])
    [line] = [line for line in lines if line.startswith("WARNING")]
    assert "out of memory: pinned LoRAs are dropped, too" in line
    assert all(file.name in line for file in five[:2])
    assert told(family, "pin", five[0]).kind is None
    kept = told(family, "pin", five[1])
    assert kept.kind == "error" and "at most 1 LoRAs are kept" in kept.error
    assert content_hash(five[0]) in held(family)


@pytest.fixture(params=[False, True], ids=["kept", "exchanged"])
def exchanged(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_a_pipeline_without_loras_refuses_them(
    family: Any, five: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for owner in type(family.pipeline).__mro__:
        if "load_lora_weights" in vars(owner):
            monkeypatch.delattr(owner, "load_lora_weights")
    kept = told(family, "load", five[0])
    assert kept.kind == "lora" and kept.error == "ZImagePipeline takes no LoRAs."


def test_a_message_about_many_loras_fits_into_the_pipe_at_once() -> None:
    class Full:
        """It holds the most pins and the largest stack."""

        def keep_lora(self, order: Keep) -> None:
            raise LoraError("\N{SNOWMAN}" * 5000)

        def resident_loras(self) -> list[str]:
            return ["0" * 64] * (24 + 16)

        def take_lora_counts(self) -> Any:
            return LoraCounts(99, 99)

    kept = obey(Full(), Keep("0" * 64, "x", "pin"))  # type: ignore[arg-type]
    assert len(encode(kept)) + 4 <= PIPE_BUF
    assert len(kept.error) > 100 and room_beside([]) > room_beside(kept.resident_loras)
