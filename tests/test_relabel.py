"""Results made under another name become, byte for byte, what a worker here would have written."""

from dataclasses import replace

import pytest
from PIL import Image

from core.messages import Lease
from core.store.provenance import encode_picture
from core.store.relabel import OtherResult, relabelled, with_other_paths
from core.tasks import GenerateTask, Lora, ScoreTask, with_paths
from workers.models.base import Verdict

USED = {"model": "m", "num_inference_steps": 4, "width": 64, "height": 48, "memory": "fp8"}
HERE = GenerateTask(
    "ein Häuschen 🏠, \u4e2d",
    negative_prompt="fog",
    seed=3,
    loras=(Lora("/here/snow.safetensors", 0.5), Lora("/here/b.safetensors", 1.0)),
    task_id="tweet",
    metadata={"a": "é", "odd": 1},
    seed_is_random=True,
)


def lease(task: GenerateTask | ScoreTask) -> Lease:
    hashes = ("ab" * 32, "cd" * 32)
    files = {"/here/a.png": "0" * 64}
    return Lease("a", 1, task, None, "f" * 64, "partial", files, loras_sha256=hashes)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg"])
@pytest.mark.parametrize("odd", ["", "x"])  # WebP pads what is of odd length
def test_a_picture_is_the_same_file(suffix: str, odd: str) -> None:
    image = Image.effect_noise((64, 48), 90).convert("RGB")
    task = replace(HERE, output_path=f"sub/x{suffix}", task_id=f"tweet{odd}")
    there = replace(task, output_path=f"jobs/1/0{suffix}", task_id="0", metadata={})
    mine = encode_picture(image, lease(task), USED)
    data, used = relabelled(encode_picture(image, lease(there), USED), lease(task))
    assert data == mine
    assert used == USED


def test_a_verdict_is_the_same_file() -> None:
    task = ScoreTask("é", ("/here/a.png",), "/here/b.png", seed=1, output_path="v.json")
    verdict = Verdict({"scores": {"SC": 3}}, {"answers": ["\ud800 good"]})
    there = replace(task, output_path="jobs/1/0.json", task_id="0")
    data, used = relabelled(verdict.encode(lease(there)), lease(task))
    assert data == verdict.encode(lease(task))
    assert used == {"scores": {"SC": 3}}


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg"])
def test_what_was_made_of_something_else_or_is_torn_is_refused(suffix: str) -> None:
    image = Image.new("RGB", (64, 48))
    task = replace(HERE, output_path=f"x{suffix}")
    other = replace(lease(task), fingerprint="e" * 64)
    with pytest.raises(OtherResult):
        relabelled(encode_picture(image, other, USED), lease(task))
    whole = encode_picture(image, lease(task), USED)
    for torn in (whole[:-1], whole[: len(whole) // 2], b"", b"{}", b"<html>"):
        with pytest.raises(ValueError, match="whole"):
            relabelled(torn, lease(task))


def name(path: str) -> str:
    return path.rpartition("/")[2]


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg"])
@pytest.mark.parametrize("odd", ["", "x"])  # WebP pads what is of odd length
def test_a_picture_with_other_paths_is_the_one_that_was_made_of_them(suffix: str, odd: str) -> None:
    image = Image.effect_noise((64, 48), 90).convert("RGB")
    task = replace(HERE, output_path=f"sub/x{suffix}", task_id=f"tweet{odd}")
    made = encode_picture(image, lease(task), USED)
    told = with_other_paths(made, name)
    assert b"/here/" in made and b"/here/" not in told
    assert told == encode_picture(image, lease(with_paths(task, name)), USED)
    assert with_other_paths(told, name) is told  # as it is already
    for torn in (made[:-1], made[: len(made) // 2], b"", b"{}", b"<html>"):
        assert with_other_paths(torn, name) is torn


def test_a_verdict_with_other_paths_is_the_one_that_was_made_of_them() -> None:
    task = ScoreTask("\u00e9", ("/here/a.png",), "/here/b.png", seed=1, output_path="v.json")
    verdict = Verdict({"scores": {"SC": 3}}, {"answers": ["\ud800 good"]})
    told = with_other_paths(verdict.encode(lease(task)), name)
    assert told == verdict.encode(lease(with_paths(task, name)))
