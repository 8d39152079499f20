"""Settings: every problem names file, key, value and what would be right."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from apps.edit_benchmark.settings import load_benchmark_settings
from core.devices.device import Device
from core.devices.edit_models import judge_model
from core.errors import InputError
from core.settings import DEFAULT_FILE, load_settings


def test_the_shipped_file_is_valid_and_complete() -> None:
    assert load_settings().model == "auto"


def test_every_key_of_the_shipped_file_is_explained() -> None:
    lines = DEFAULT_FILE.read_text("utf-8").splitlines()
    for above, line in pairwise(lines):
        is_top_level = line and line[0].isalpha()
        assert not is_top_level or above.startswith("#") or line.rstrip().endswith(":"), line


def test_a_user_file_needs_only_what_differs(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("seed: 7\nworkers: {max_resident_loras: 2}\n")
    settings = load_settings(file)
    assert (settings.seed, settings.workers.max_resident_loras) == (7, 2)
    assert settings.workers.picture_format == load_settings().workers.picture_format


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sed: 7", ["sed", "unknown key; did you mean 'seed'?"]),
        ("width: 512", ["width", "unknown key; did you mean 'defaults.width'?"]),
        ("workers: {max_bacth: 4}", ["workers.max_bacth", "did you mean 'max_batch'?"]),
        ("max_bacth: 4", ["max_bacth", "did you mean 'workers.max_batch'?"]),
        (
            "defaults: {steps: 4}",
            ["defaults.steps", "did you mean 'defaults.num_inference_steps'?"],
        ),
        ("xyzzy: 4", ["xyzzy", "unknown key."]),
        (
            "workers: {max_batch: many}",
            ["workers.max_batch: input should be 'auto' or a whole number (found 'many')."],
        ),
        (
            "workers: {picture_quality: 80}",
            ["workers.picture_quality: it is for picture_format: jpeg or webp"],
        ),
        ("defaults: {num_steps: 4}", ["defaults.num_steps", "did you mean 'num_inference_steps'?"]),
        ("model_defaults: [{match: x, widht: 64}]", ["0.widht", "did you mean 'width'?"]),
        ("seed: seven", ["seed", "'seven'"]),
        ("seed: -2", ["seed", "from 0 to 18446744073709551615", "-2"]),
        ("workers: {picture_format: jpg}", ["workers.picture_format", "jpg"]),
        ("workers: 3", ["workers: input should be a section with keys and values (found 3)"]),
        ("device: tpu", ["device", "'cuda'", "'tpu'"]),
        ("supervision: {boot_timeout: .nan}", ["supervision.boot_timeout", "finite", "nan"]),
        ("supervision: {boot_timeout: 0}", ["supervision.boot_timeout", "greater than 0"]),
        ("defaults: {cfg: 1.0, guidance_scale: 2.0}", ["defaults", "either cfg or"]),
        ("defaults: {width: 100}", ["defaults.width", "multiple of 16", "100"]),
        ("- a list", ["expected `key: value` lines", "list"]),
        ("a: [", ["not valid YAML"]),
        ("a: !!python/object/apply:os.system ['true']", ["not valid YAML"]),
        ("[" * 3000, ["nested too deeply"]),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, expected: list[str]) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        load_settings(file)
    message = str(caught.value)
    assert "\n" not in message
    for part in ["my.yaml", *expected]:
        assert part in message


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"my\.yaml: not UTF-8"):
        load_settings(file)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load_settings(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("model", "steps", "guidance"),
    [
        ("Tongyi-MAI/Z-Image-Turbo", 8, 0.0),
        ("Tongyi-MAI/Z-Image", 50, 4.0),
        ("/anywhere/demo_model/checkpoint", 8, 0.0),
        ("/models/z-image-turbo/", 8, 0.0),
        ("stabilityai/stable-diffusion-xl-base-1.0", None, None),
    ],
)
def test_models_bring_their_defaults(model: str, steps: Any, guidance: Any) -> None:
    defaults = load_settings().defaults_for(model)
    assert (defaults.num_inference_steps, defaults.guidance_scale) == (steps, guidance)


def test_a_judge_takes_from_its_models_defaults_what_the_settings_leave_open() -> None:
    defaults = [
        {"match": "*another*", "max_new_tokens": 1},
        {"match": "simul*", "prompts": "yes_no.yaml", "max_new_tokens": 9, "image_area": 4096},
        {"match": "*", "max_new_tokens": 2},
    ]
    judge = {"model": "simulated", "prompts": "viescore.yaml"}
    settings = load_benchmark_settings({"judge": judge, "judge_model_defaults": defaults})
    _, taken = judge_model(settings, [Device("cpu", 0, "")])
    assert (taken.prompts, taken.max_new_tokens, taken.image_area) == ("viescore.yaml", 9, 4096)
