"""One prompt in many ways: seeds, grids, alternatives, LoRAs and settings for all."""

from pathlib import Path
from typing import Any

import pytest

from apps.prompts.alternatives import alternatives
from apps.prompts.bad_entry import BadEntry
from apps.prompts.loras import read_lora
from apps.prompts.number_ranges import read_seeds
from apps.prompts.settings import loras_of, read_changes, read_grid
from apps.prompts.variants import Variants, with_alternatives
from apps.prompts.words import PICTURES
from apps.tweets.tweets_file import read_prompts
from core.errors import InputError


def task(**fields: Any) -> dict[str, Any]:
    return {"prompt": "a", "task_id": "t", "output_path": "sub/t.png", **fields}


def variants(*given: Any, grid: tuple[str, ...] = (), **options: Any) -> list[Any]:
    changes = read_changes(options.get("set", ()), PICTURES) | loras_of(options.get("lora", ()))
    return list(Variants(list(given), read_grid(grid, PICTURES), changes, 42))


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("3", [3]), ("0-3", [0, 1, 2, 3]), ("0,3,7-9", [0, 3, 7, 8, 9]), ("5 - 6, 5", [5, 6])],
)
def test_seeds_are_numbers_and_ranges(text: str, seeds: list[int]) -> None:
    assert read_seeds(text) == seeds


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected seeds like 0-9"),
        ("1,,2", "expected seeds like 0-9"),
        ("a-b", "expected seeds like 0-9"),
        ("-1", "expected seeds like 0-9"),
        ("9-0", "ends before it begins; write 0-9"),
        ("0-1000000", "more than 100000 seeds"),
        ("99999999999999999999", "the largest seed is"),
    ],
)
def test_what_is_no_range_says_what_would_be_one(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read_seeds(text)


def test_a_grid_is_every_combination_and_names_tell_them_apart() -> None:
    found = variants(task(cfg=5, lora_path="own"), grid=("lora=a.safetensors:0.5,none", "CFG=1,3"))
    assert [t["task_id"] for t in found] == [
        "t_lora-a0.5_CFG1", "t_lora-a0.5_CFG3", "t_lora-none_CFG1", "t_lora-none_CFG3"
    ]  # fmt: skip
    assert [t["output_path"] for t in found] == [f"sub/{t['task_id']}.png" for t in found]
    assert [(t["lora_path"], t.get("lora_strength"), t["cfg"]) for t in found] == [
        ("a.safetensors", 0.5, 1.0), ("a.safetensors", 0.5, 3.0), (None, None, 1.0),
        (None, None, 3.0),
    ]  # fmt: skip


def test_variants_of_a_prompt_share_its_seed() -> None:
    found = variants(task(), task(), task(seed=7), grid=("steps=1,2",))
    assert [t["seed"] for t in found] == [42, 42, 43, 43, 7, 7]
    assert [t["seed"] for t in variants(task(), grid=("seed=0-2",))] == [0, 1, 2]


def test_a_grid_sets_either_kind_of_guidance_and_both_sides_of_a_size() -> None:
    [one, two] = variants(task(guidance_scale=2.0), grid=("cfg=1,2",))
    assert "guidance_scale" not in one and two["cfg"] == 2.0
    [found] = variants(task(width=64), grid=("size=512x768",))
    assert (found["width"], found["height"], found["task_id"]) == (512, 768, "t_size512x768")


def test_what_cannot_be_told_apart_by_its_words_is_numbered() -> None:
    found = variants(task(), grid=("negative_prompt=blur!,blur?",))
    assert [t["task_id"] for t in found] == ["t_negative_prompt-1", "t_negative_prompt-2"]


def test_a_setting_and_loras_for_all_leave_names_and_default_seeds_alone() -> None:
    [found] = variants(task(loras=["x"], steps=1), set=("steps=8", "width=64"), lora=("s:0.5", "t"))
    assert found["num_inference_steps"] == 8 and found["task_id"] == "t" and "seed" not in found
    assert found["loras"] == [{"path": "s", "strength": 0.5}, {"path": "t"}]


def test_a_bad_prompt_fails_once_for_each_of_its_pictures() -> None:
    found = variants(BadEntry("broken", "t"), task(), grid=("cfg=1,2",))
    assert [getattr(x, "task_id", None) for x in found[:2]] == ["t_cfg1", "t_cfg2"]
    assert isinstance(found[0], BadEntry) and len(found) == 4


def test_a_grid_of_millions_is_refused_before_anything_is_made() -> None:
    axes = read_grid(("seed=0-9999", "steps=" + ",".join(map(str, range(1, 201)))), PICTURES)
    with pytest.raises(InputError, match=r"1 prompt in 2000000 variants are 2000000"):
        Variants([task()], axes, {}, 42)


@pytest.mark.parametrize(
    ("grid", "reason"),
    [
        ("cfg", "expected FIELD=VALUE,VALUE, like cfg=1,3"),
        ("cfg=", "expected FIELD=VALUE,VALUE"),
        ("cfg=1,,2", "a value between the commas is missing"),
        ("cfg=1,1", "a value is there twice"),
        ("cfg=1,x", "--grid cfg=1,x: cfg: input should be a valid number"),
        ("stepps=1,2", "'stepps' is no setting of a picture; did you mean 'steps'?"),
        ("model=a,b", "'model' is no setting of a picture; docs/TWEETS.md lists them all."),
        ("width=10,20", "width: input should be"),
        ("lora=:", "expected a LoRA as FILE or FILE:STRENGTH"),
        ("seed=5-1", "--grid seed=5-1: the range"),
    ],
)
def test_a_grid_that_is_none_is_one_line(grid: str, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        read_grid((grid,), PICTURES)
    assert reason in str(caught.value)


def test_one_setting_stands_on_one_axis() -> None:
    with pytest.raises(InputError, match="cfg and guidance_scale are one setting"):
        read_grid(("cfg=1,2", "guidance_scale=1,2"), PICTURES)
    with pytest.raises(InputError, match="num_inference_steps was given before"):
        read_changes(("steps=1", "num_steps=2"), PICTURES)


@pytest.mark.parametrize(
    ("text", "lora"),
    [
        ("a.safetensors", {"path": "a.safetensors"}),
        ("a.safetensors:0.8", {"path": "a.safetensors", "strength": 0.8}),
        ("a.safetensors:0,8", {"path": "a.safetensors", "strength": 0.8}),
        ("a:-1", {"path": "a", "strength": -1.0}),
        ("C:\\a.safetensors", {"path": "C:\\a.safetensors"}),
    ],
)
def test_a_lora_is_a_file_and_perhaps_a_strength(text: str, lora: dict[str, Any]) -> None:
    assert read_lora(text) == lora


@pytest.mark.parametrize(
    ("prompt", "readings"),
    [
        ("a house", ["a house"]),
        ("a {red|blue} house", ["a red house", "a blue house"]),
        ("{a|b} {c|d}", ["a c", "a d", "b c", "b d"]),
        ("{a|b {c|d}}", ["a", "b c", "b d"]),
        ("a{| big} house", ["a house", "a big house"]),
        ("{a}", ["{a}"]),
        ("\\{a\\|b\\}", ["{a|b}"]),
        ("a|b", ["a|b"]),
    ],
)
def test_alternatives_are_all_readings(prompt: str, readings: list[str]) -> None:
    found = alternatives(prompt)
    assert [text for _, text in found] == readings
    labels = [label for label, _ in found]
    assert len(set(labels)) == len(labels) and (all(labels) or len(labels) == 1)


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [("a {b", "a { without a }"), ("a } b", "a } without a {"), ("{a|b}" * 20, "more than 10000")],
)
def test_a_prompt_with_broken_alternatives_fails_alone(prompt: str, reason: str) -> None:
    [good, bad] = with_alternatives([task(), task(prompt=prompt, task_id="u")], 42)
    assert isinstance(bad, BadEntry) and bad.task_id == "u" and reason in str(bad)
    assert isinstance(good, dict)


def test_alternatives_of_a_prompt_share_its_seed_and_say_their_words() -> None:
    found = with_alternatives([task(prompt="{red|deep blue} house"), task(prompt="b")], 5)
    assert [(t["task_id"], t["seed"]) for t in found] == [  # type: ignore[index]
        ("t_red", 5), ("t_deep_blue", 5), ("t", 6)
    ]  # fmt: skip


def test_prompts_of_the_command_line_are_called_by_their_own_words(tmp_path: Path) -> None:
    long = "a house " * 20
    tasks: Any = list(read_prompts(["a house!", "a house?", "a boat", long, "a boat"], 42).inputs)
    names = [t["output_path"] for t in tasks]
    assert names[2] == "a_boat.png" and len(set(names)) == len(names) == 4
    assert names[0].startswith("a_house-") and len(names[3]) < 80
    assert {t["seed"] for t in tasks} == {42}
