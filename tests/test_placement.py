"""Which part of a model goes to which GPU of a worker, from its configs alone."""

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import (
    AutoencoderKLQwenImage,
    FluxTransformer2DModel,
    QwenImageTransformer2DModel,
    UNet2DConditionModel,
)
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from core.devices.memory_needs import GIB
from core.errors import InputError
from workers.model_parts import part_of
from workers.placement import Part, Place, place


def transformer(kind: type = QwenImageTransformer2DModel) -> Part:
    """A true one, in its true size: diffusers' defaults are Qwen-Image's and FLUX's own."""
    with init_empty_weights():
        return part_of("transformer", kind(), torch.bfloat16)


def text_encoder() -> Part:
    """Qwen-Image's own, of 7 billion weights."""
    text = {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    }
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text))
    return part_of("text_encoder", model, torch.bfloat16)


def vae() -> Part:
    with init_empty_weights():
        return part_of("vae", AutoencoderKLQwenImage(), torch.bfloat16)


def used(parts: list[Part], places: dict[str, Place], gpus: int) -> list[int]:
    """Bytes on each GPU."""
    bytes_on = [0] * gpus
    for part in parts:
        at = places[part.name]
        sizes = dict(part.blocks) if at.blocks else {"": part.size - part.fixed}
        bytes_on[at.gpu] += part.fixed
        for block, size in sizes.items():
            bytes_on[at.blocks.get(block, at.gpu)] += size
    return bytes_on


@pytest.mark.parametrize(("gpus", "gib"), [(2, 22), (4, 10.5), (8, 6)])
def test_a_transformer_too_large_for_one_gpu_is_split_between_its_blocks(
    gpus: int, gib: float
) -> None:
    part = transformer()
    assert part.size > 38 * GIB and len(part.blocks) == 60
    at = place([part], [int(gib * GIB)] * gpus)["transformer"]
    assert at.is_split and len(at.blocks) == 60
    order = list(at.blocks.values())
    assert order == sorted(order) and set(order) == set(range(gpus))  # each GPU is gone to once
    on_each = used([part], {"transformer": at}, gpus)
    assert sum(on_each) == part.size and max(on_each) <= gib * GIB
    assert max(on_each) <= part.size / gpus + part.blocks[0][1]  # none is much fuller than others


def test_what_fits_into_one_gpu_stays_whole_and_decoding_is_at_home() -> None:
    parts = [transformer(), text_encoder(), vae()]
    places = place(parts, [60 * GIB, 60 * GIB])
    assert not any(at.is_split for at in places.values())
    assert places["vae"].gpu == 0
    assert places["transformer"].gpu != places["text_encoder"].gpu


def test_unequal_gpus_get_as_much_as_they_hold() -> None:
    part = transformer()
    room = [8 * GIB, 36 * GIB]
    places = place([part], room)
    on_each = used([part], places, 2)
    assert all(taken <= there for taken, there in zip(on_each, room, strict=True))


def test_two_lists_of_blocks_are_split_as_one() -> None:
    part = transformer(FluxTransformer2DModel)
    assert len(part.blocks) == 19 + 38
    at = place([part], [9 * GIB] * 3)["transformer"]
    assert sorted(set(at.blocks.values())) == [0, 1, 2]


def test_what_does_not_fit_says_which_part_needs_how_much_and_what_is_there() -> None:
    with pytest.raises(InputError) as refused:
        place([transformer(), text_encoder(), vae()], [20 * GIB, 22 * GIB])
    said = str(refused.value)
    assert "gpus_per_worker: 2" in said
    assert "transformer (QwenImageTransformer2DModel) needs 40.0 GiB" in said
    assert "room for" in said and "Raise gpus_per_worker" in said


def test_what_cannot_be_split_is_refused_by_name() -> None:
    whole = Part("vae", "AutoencoderKL", 3 * GIB, at_home=True)
    with pytest.raises(InputError, match=r"vae \(AutoencoderKL\) needs 3.0 GiB on one GPU.*2.0"):
        place([whole], [2 * GIB, 9 * GIB])


def test_a_part_that_finds_no_gpu_of_its_own_any_more_is_split_over_what_is_left() -> None:
    def part(name: str) -> Part:
        blocks = tuple((f"layers.{i}", GIB) for i in range(14))
        return Part(name, "Model", 0, blocks)

    places = place([part("a"), part("b"), part("c")], [22 * GIB] * 2)
    assert [places[n].is_split for n in "abc"] == [False, False, True]
    assert used([part("a"), part("b"), part("c")], places, 2) == [21 * GIB, 21 * GIB]


def test_small_lists_before_the_main_one_stay_together() -> None:
    from diffusers import ZImageTransformer2DModel

    part = transformer(ZImageTransformer2DModel)
    assert {name.partition(".")[0] for name, _ in part.blocks} == {"layers"}
    with init_empty_weights():
        unet = part_of("unet", UNet2DConditionModel(), torch.float16)
    assert sum(size for _, size in unet.blocks) < unet.size  # blocks in blocks count once
