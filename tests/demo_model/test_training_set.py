"""Batches of many sizes have few shapes."""

import random

import pytest
import torch

from demo_model.architecture import build_vae
from demo_model.scenes import render
from demo_model.training_set import (
    ALL_SIZES,
    BLOCK,
    USUAL_SIZE,
    Group,
    TrainingSet,
    tokens_of,
)


def tokens(latent: torch.Tensor) -> int:
    return latent.shape[1] // 2 * (latent.shape[2] // 2)


@pytest.mark.parametrize("group", [USUAL_SIZE, *ALL_SIZES])
def test_the_first_of_a_batch_has_its_groups_full_length(group: Group) -> None:
    torch.manual_seed(0)
    vae = build_vae((8, 8, 8, 8)).eval()
    training_set = TrainingSet([group], 40, vae, render, seed=1, halvings=2)
    rng = random.Random(0)
    for _ in range(5):
        scenes, latents = training_set.batch(rng)
        assert len(scenes) == len(latents) == group.batch // 4
        padded = [-(-tokens(latent) // BLOCK) * BLOCK for latent in latents]
        assert padded[0] == group.tokens == max(padded)
        assert all(latent.shape[0] == 16 and latent.dtype == torch.float32 for latent in latents)


def test_the_groups_cover_every_size_once() -> None:
    sizes = [size for group in ALL_SIZES for size in group.sizes]
    assert len(sizes) == len(set(sizes)) == 11 * 11
    assert all(tokens_of(size) <= group.tokens for group in ALL_SIZES for size in group.sizes)
    assert sum(group.share for group in ALL_SIZES) == 1
