"""Several LoRAs for one picture: each layer changes by the sum, and nothing stays behind."""

from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.checkpoints.lora_files import content_hash
from core.errors import LoraError
from core.lora_stack import CheckedLora
from tests.lora_layouts import FAMILIES, LAYOUTS, Writer, family_with_loras
from tests.test_compilation import TOLERANCE
from tests.test_lora_layouts import Kept
from tests.test_native_image_generator import drawn, lease_of

PLAIN = "`diffusion_model.`, mixed ranks, alpha by layer"
FUSED = "the model's own names, fused `qkv`"
KOHYA = "kohya: `lora_unet_`, alpha"
DORA = "DoRA: `dora_scale`"
BY_INPUT = "DoRA: `dora_scale` by inputs"
LOKR = "LoKr, whole factors"
STACKS = [
    (PLAIN, KOHYA), (PLAIN, FUSED, "fp16"), (DORA, DORA), (PLAIN, DORA), (BY_INPUT, DORA),
    (LOKR, PLAIN), (LOKR, DORA, KOHYA),
]  # fmt: skip
# Sums are the same for every model; what differs is how its files are read (test_lora_layouts.py),
# and that SDXL has convolutions.
CASES = [
    *(("Z-Image", layouts) for layouts in STACKS),
    *((family, layouts) for family in ("Qwen-Image-Edit", "SDXL") for layouts in STACKS[-1:]),
    ("Qwen-Image-Edit", STACKS[1]),
]


@cache
def kept_pipeline(family: str, way: str) -> Kept:
    """Stacks come to it one after the other, as in a run."""
    return Kept(FAMILIES[family], way)


def written(family: str, layouts: tuple[str, ...], folder: Path) -> list[tuple[Path, Writer]]:
    files = []
    for number, layout in enumerate(layouts):
        writer = Writer(FAMILIES[family])
        torch.manual_seed(number)
        LAYOUTS[layout](writer)
        files.append((writer.save(folder / f"{number}.safetensors"), writer))
    return files


def checked(*loras: tuple[Path, float]) -> list[CheckedLora]:
    found = [CheckedLora(content_hash(file), str(file), strength) for file, strength in loras]
    return sorted(found, key=lambda lora: lora.sha256)


def total(*changes: tuple[Writer, float]) -> dict[str, Tensor]:
    """The sum of all changes of each layer's weight."""
    found: dict[str, Tensor] = {}
    for writer, strength in changes:
        for layer, delta in writer.deltas.items():
            found[layer] = found.get(layer, 0) + strength * delta
    return found


@pytest.mark.parametrize("way", ["kept", "exchanged"])
@pytest.mark.parametrize(
    ("family", "layouts"), CASES, ids=[" + ".join((name, *of)) for name, of in CASES]
)
def test_a_stack_changes_every_layer_by_the_sum_of_its_loras(
    family: str, layouts: tuple[str, ...], way: str, tmp_path: Path
) -> None:
    kept = kept_pipeline(family, way)
    files = written(family, layouts, tmp_path)
    for strengths in ((0.7, -0.4, 1.0), (0.7, 1.3, 0.2)):
        uses = [(file, writer, s) for (file, writer), s in zip(files, strengths, strict=False)]
        kept.loras.use_stack(checked(*((file, s) for file, _, s in uses)))
        kept.check(total(*((writer, s) for _, writer, s in uses)), 1.0)
        kept.use(files[0][0], 0.5)
        kept.check(files[0][1].deltas, 0.5)
    kept.loras.use_stack([])
    kept.check({}, 1.0)
    assert len(kept.loras.resident) <= max(2, len(files))


@pytest.mark.parametrize("way", ["kept", "exchanged"])
def test_a_stack_may_reach_text_encoders_with_one_of_its_loras(way: str, tmp_path: Path) -> None:
    kept = kept_pipeline("SDXL", way)
    [(style, writer), (words, other)] = written("SDXL", (PLAIN, KOHYA), tmp_path)
    lora = other.lora("encoder.layers.1.mlp.fc1", 2, 3.0, "text_encoder")
    name = "lora_te1_text_model_encoder_layers_1_mlp_fc1"
    other.tensors |= {
        f"{name}.lora_down.weight": lora.down,
        f"{name}.lora_up.weight": lora.up,
        f"{name}.alpha": torch.tensor(lora.alpha),
    }
    other.save(words)
    for strength in (0.6, 0.3):
        kept.loras.use_stack(checked((style, 0.5), (words, strength)))
        kept.check(total((writer, 0.5), (other, strength)), 1.0)
    kept.use(style)
    kept.check(writer.deltas, 1.0)


# -- pictures ------------------------------------------------------------------


@pytest.fixture(scope="module")
def more_loras(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """For layers that `tiny_loras` leave alone."""
    folder = tmp_path_factory.mktemp("more")
    files = []
    for number, layer in enumerate(("feed_forward.w1", "attention.to_k")):
        torch.manual_seed(number)
        name = f"transformer.layers.{number}.{layer}"
        shape = (170, 64) if "w1" in layer else (64, 64)
        tensors = {
            f"{name}.lora_A.weight": torch.randn(8, shape[1]) / 4,
            f"{name}.lora_B.weight": torch.randn(shape[0], 8) / 4,
        }
        files.append(folder / f"more{number}.safetensors")
        save_file(tensors, files[-1])
    return files


def stacked(family: Any, *loras: tuple[Path, float]) -> np.ndarray[Any, Any]:
    return np.asarray(family.run([lease_of(*loras)])[0].image)


@pytest.mark.parametrize("exchanged", [False, True])
def test_pixels_depend_neither_on_the_order_nor_on_what_was_loaded_first(
    tiny_model: Path, tiny_loras: list[Path], exchanged: bool
) -> None:
    first, second = tiny_loras
    one, other = (family_with_loras(tiny_model, exchanged) for _ in range(2))
    drawn(one, first)
    drawn(other, second)
    both = stacked(one, (first, 1.0), (second, 0.7))
    assert np.array_equal(both, stacked(other, (second, 0.7), (first, 1.0)))
    alone = drawn(one, first)
    assert np.abs(both.astype(int) - alone.astype(int)).max() > TOLERANCE
    assert np.array_equal(alone, drawn(other, first))
    assert np.array_equal(drawn(one), drawn(family_with_loras(tiny_model, exchanged)))


@pytest.mark.parametrize("exchanged", [False, True])
def test_a_lora_at_strength_0_drops_out_of_a_stack(
    tiny_model: Path, tiny_loras: list[Path], exchanged: bool
) -> None:
    first, second = tiny_loras
    family = family_with_loras(tiny_model, exchanged)
    assert np.array_equal(stacked(family, (first, 1.0), (second, 0.0)), drawn(family, first))
    assert family.take_lora_counts().loads == 1, "what takes no part is not loaded"
    assert np.array_equal(stacked(family, (first, 0.0), (second, 0.0)), drawn(family))


@pytest.mark.parametrize("exchanged", [False, True])
def test_a_stack_of_which_one_file_does_not_fit_fails_and_leaves_no_trace(
    tiny_model: Path,
    tiny_loras: list[Path],
    more_loras: list[Path],
    tmp_path: Path,
    exchanged: bool,
) -> None:
    """Neither where adapters are switched off at the moment, nor where some are on."""
    family = family_with_loras(tiny_model, exchanged)
    tensors = load_file(tiny_loras[1])
    damaged = tmp_path / "damaged.safetensors"
    tensors = {k.replace("attention", "elsewhere"): v for k, v in tensors.items()}
    last = max(content_hash(file) for file in more_loras)  # so that the others are loaded by then
    for number in count():
        save_file(tensors, damaged, {"number": str(number)})
        if content_hash(damaged) > last:
            break
    plain, styled = drawn(family), drawn(family, tiny_loras[0])
    for before in (None, tiny_loras[0]):
        drawn(family, before)
        for good in more_loras:
            with pytest.raises(LoraError, match=r"damaged\.safetensors does not fit"):
                stacked(family, (good, 1.0), (damaged, 1.0))
            assert np.array_equal(plain, drawn(family))
        assert np.array_equal(styled, drawn(family, tiny_loras[0]))


@pytest.mark.parametrize("exchanged", [False, True])
def test_a_stacks_own_files_are_never_dropped_for_each_other(
    tiny_model: Path, tiny_loras: list[Path], more_loras: list[Path], exchanged: bool
) -> None:
    """Two fit by the settings: a stack of three is kept whole, and the next task's files alone."""
    family = family_with_loras(tiny_model, exchanged)
    files = [*tiny_loras, more_loras[0]]
    for strengths in ((1.0, 0.5, 0.3), (1.0, 0.2, 0.3)):
        stacked(family, *zip(files, strengths, strict=True))
    assert family.take_lora_counts().loads == 3
    assert set(family.resident_loras()) == {content_hash(file) for file in files}
    drawn(family, more_loras[1])
    assert len(family.resident_loras()) == 2
    assert family.resident_loras()[-1] == content_hash(more_loras[1])


def test_a_worker_that_holds_a_part_of_a_stack_loads_the_rest(
    tiny_model: Path, tiny_loras: list[Path]
) -> None:
    family = family_with_loras(tiny_model, exchanged=False)
    drawn(family, tiny_loras[0])
    family.take_lora_counts()
    stacked(family, (tiny_loras[0], 1.0), (tiny_loras[1], 1.0))
    stacked(family, (tiny_loras[1], 0.4), (tiny_loras[0], 1.0))
    counts = family.take_lora_counts()
    assert (counts.loads, counts.switches) == (1, 1)
