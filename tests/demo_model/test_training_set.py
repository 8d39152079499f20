"""Batches of many sizes have few shapes."""

import random
from typing import Any

import pytest
import torch

from demo_model.architecture import TRAINED, build_vae
from demo_model.training_set import (
    ALL_SIZES,
    CAPTION_TOKENS,
    USUAL_SIZE,
    Group,
    TrainingSet,
    tokens_of,
)


@pytest.fixture(scope="module")
def vae() -> Any:
    torch.manual_seed(0)
    return build_vae((8, 8, 8), TRAINED.latent_channels).eval()


@pytest.mark.parametrize("group", [USUAL_SIZE, *ALL_SIZES])
def test_every_batch_of_a_group_has_its_full_length(vae: Any, group: Group) -> None:
    training_set = TrainingSet([group], 24, vae, seed=1, factor=0.25)
    for step in range(5):
        torch.manual_seed(step)
        batch = training_set.batch(random.Random(0))
        count = group.batch // 4
        assert batch.pictures.tokens.shape == (count, group.tokens, 4 * TRAINED.latent_channels)
        assert batch.pictures.tokens.dtype == torch.float32
        assert batch.pictures.places.shape == (count, group.tokens, 2)
        assert batch.ids.shape[1] in (CAPTION_TOKENS // 2, CAPTION_TOKENS)
        assert int(batch.words.max()) <= batch.ids.shape[1]
        behind = batch.pictures.tokens[~batch.pictures.real]
        assert not behind.any(), "padding is empty"


def test_a_usual_picture_is_sixteen_tokens_wide() -> None:
    assert tokens_of((128, 128)) == 16 * 16


def test_the_same_seed_gives_the_same_batches_however_many_processes_draw(
    vae: Any,
) -> None:
    found = []
    for processes in (1, 2):
        training_set = TrainingSet([USUAL_SIZE], 40, vae, 7, factor=0.25, processes=processes)
        torch.manual_seed(3)
        found.append(training_set.batch(random.Random(0), unsaid=0.5))
    one, two = found
    assert torch.equal(one.ids, two.ids)
    assert torch.equal(one.pictures.tokens, two.pictures.tokens)
    assert len(set(one.words.tolist())) > 1, "some have no caption"


def test_the_groups_cover_every_size_once() -> None:
    sizes = [size for group in ALL_SIZES for size in group.sizes]
    assert len(sizes) == len(set(sizes)) == 11 * 11
    assert all(tokens_of(size) <= group.tokens for group in ALL_SIZES for size in group.sizes)
    assert sum(group.share for group in ALL_SIZES) == 1
