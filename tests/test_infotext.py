"""The text of a picture, as other people's programs read it."""

import json
import re
from pathlib import Path
from typing import Any

import piexif
import piexif.helper
import pytest
from PIL import Image
from sd_parsers import ParserManager
from sd_prompt_reader.image_data_reader import ImageDataReader

from apps.tweets.tweets_file import read_tweets
from core.messages import Lease
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.store.infotext import parameters_text
from core.store.provenance import encode_picture, read_provenance
from core.tasks import GenerateTask, Lora
from tests.conftest import PROJECT

CPU = {"model": "auto", "device": "cpu"}
LORAS = PROJECT / "demo_model" / "loras"
USED = {
    "num_inference_steps": 8, "sampler": "FlowMatchEulerDiscrete", "cfg": 3.5,
    "width": 64, "height": 48, "model": "demo-model", "model_hash": "12ab",
}  # fmt: skip


def picture(folder: Path, task: GenerateTask, used: dict[str, Any] = USED) -> Path:
    file = folder / str(task.output_path)
    lease = Lease("-", 1, task, "ab" * 32 if task.lora_path else None, "f" * 64, "-")
    file.write_bytes(encode_picture(Image.new("RGB", (64, 48)), lease, used))
    return file


def read_by_sd_parsers(file: Path) -> dict[str, Any]:
    found = ParserManager().parse(file)
    assert found is not None, "sd-parsers found nothing"
    (sampler,) = found.samplers
    return {
        "prompt": "".join(p.value for p in sampler.prompts),
        "negative": "".join(p.value for p in sampler.negative_prompts),
        "model": sampler.model and sampler.model.name,
        "size": found.metadata["Size"],
        **sampler.parameters,
    }


def read_by_sd_prompt_reader(file: Path) -> dict[str, Any]:
    found = ImageDataReader(str(file))
    assert found.tool == "A1111 webUI"
    parameters = found.parameter
    return {
        "prompt": found.positive,
        "negative": found.negative,
        "cfg_scale": parameters["cfg"],
        **{name: parameters[name] for name in ("model", "size", "seed", "steps")},
    }


READERS = [read_by_sd_parsers, read_by_sd_prompt_reader]
KEPT = {"model": "demo-model", "size": "64x48", "steps": "8", "cfg_scale": "3.5"}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg"])
@pytest.mark.parametrize(
    ("prompt", "negative"),
    [
        ("a red house", None),
        ("a red house — ☃ 😀 प्रिया 星", "rain 🌧, snow"),
        ("first line\nsecond line, with: a colon", "one\ntwo"),
        ('she said "hi", Steps: 3, Sampler: none', "Steps: 9"),
        ("a (masked:1.2) <word> [bracket] \\(escaped\\)", None),
    ],
)
def test_readers_of_others_find_the_task_in_a_picture(
    tmp_path: Path, reader: Any, suffix: str, prompt: str, negative: str | None
) -> None:
    seed = 2**64 - 1
    task = GenerateTask(prompt, negative_prompt=negative, seed=seed, output_path=f"a{suffix}")
    found = reader(picture(tmp_path, task))
    assert found["prompt"] == prompt and found["negative"] == (negative or "")
    assert {name: found[name] for name in KEPT} == KEPT and found["seed"] == str(seed)


def test_a_webp_has_its_text_in_the_type_that_exif_asks_for(tmp_path: Path) -> None:
    task = GenerateTask("ein Haus, ß — 😀", seed=1, output_path="a.webp")
    file = picture(tmp_path, task)
    with Image.open(file) as image:
        raw = image.info["exif"]
    for exif in (piexif.load(str(file)), piexif.load(raw)):
        comment = piexif.helper.UserComment.load(exif["Exif"][piexif.ExifIFD.UserComment])
        assert comment == parameters_text(task, USED, None)
        own = json.loads(exif["0th"][piexif.ImageIFD.ImageDescription])
        assert own["task"]["prompt"] == task.prompt
    assert (b"\x92\x86\x00\x07" in raw) and read_provenance(file)["fingerprint"] == "f" * 64


def test_a_webp_of_an_earlier_version_is_still_recognised(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[piexif.ImageIFD.ImageDescription] = json.dumps({"fingerprint": "abc"})
    exif.get_ifd(0x8769)[piexif.ExifIFD.UserComment] = b"UNICODE\0" + "a".encode("utf-16-be")
    Image.new("RGB", (16, 16)).save(tmp_path / "a.webp", exif=exif)
    assert read_provenance(tmp_path / "a.webp")["fingerprint"] == "abc"


def read_by_a1111(text: str) -> dict[str, str]:
    """As that web UI reads: lines up to the last one, and values that may be quoted as in JSON."""
    *lines, last = text.strip().split("\n")
    values = re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', last)
    parts: dict[str, list[str]] = {"prompt": [], "negative": []}
    part = "prompt"
    for line in map(str.strip, lines):
        if line.startswith("Negative prompt:"):
            part, line = "negative", line.removeprefix("Negative prompt:").strip()
        parts[part].append(line)
    found = {k: json.loads(v) if v.startswith('"') else v for k, v in values}
    return {**{name: "\n".join(kept) for name, kept in parts.items()}, **found}


@pytest.mark.parametrize(
    "model", ["a, b: c", 'the "best"', '"quoted"', "back\\slash, x", "org/m@1"]
)
def test_a_model_name_of_any_kind_is_read_back(model: str) -> None:
    found = read_by_a1111(
        parameters_text(GenerateTask("a", seed=1), {**USED, "model": model}, None)
    )
    assert found["Model"] == model and found["Model hash"] == "12ab" and found["Seed"] == "1"


def test_a_prompt_that_speaks_of_negative_prompts_stays_a_prompt() -> None:
    task = GenerateTask(
        "a house\nNegative prompt: is a term\nSteps: 1, Sampler: x, Seed: 3",
        negative_prompt="rain\n\n Negative prompt: too",
        seed=1,
    )
    found = read_by_a1111(parameters_text(task, USED, None))
    assert found["prompt"].split() == task.prompt.split()
    assert found["negative"].split() == str(task.negative_prompt).split()
    assert found["Seed"] == "1"


@pytest.mark.parametrize(
    ("file", "strength", "tag"),
    [
        ("/loras/ink.safetensors", 0.8, "<lora:ink:0.8>"),
        ("/loras/ink.v1.safetensors", 1.0, "<lora:ink.v1:1>"),
        ("/loras/my ink.safetensors", -0.5, "<lora:my ink:-0.5>"),
        ("/loras/a:b>c,d<.safetensors", 0.00001, "<lora:abcd:0.00001>"),
        ("/loras/ink.safetensors", 0.123456789, "<lora:ink:0.123456789>"),
    ],
)
def test_a_lora_is_a_tag_that_others_can_read(file: str, strength: float, tag: str) -> None:
    task = GenerateTask("a house", seed=1, lora_path=file, lora_strength=strength)
    found = read_by_a1111(parameters_text(task, USED, "ab" * 32))
    assert found["prompt"] == f"a house {tag}"
    assert re.fullmatch(r"<lora:([^:>]+):([-.0-9]+)>", tag)
    assert found["Lora hashes"] == f"{tag.split(':')[1]}: abababababab"


def test_a_stack_is_a_tag_of_each_lora(tmp_path: Path) -> None:
    loras = (Lora("/loras/fast.safetensors"), Lora("/loras/my ink.safetensors", 0.65))
    task = GenerateTask("a house", seed=1, output_path="a.png", loras=loras)
    lease = Lease("-", 1, task, None, "f" * 64, "-", loras_sha256=("ab" * 32, "cd" * 32))
    file = tmp_path / "a.png"
    file.write_bytes(encode_picture(Image.new("RGB", (64, 48)), lease, USED))
    with Image.open(file) as image:
        found = read_by_a1111(image.info["parameters"])
    assert found["prompt"] == "a house <lora:fast:1> <lora:my ink:0.65>"
    assert found["Lora hashes"] == "fast: abababababab, my ink: cdcdcdcdcdcd"
    assert read_by_sd_parsers(file)["model"] == "demo-model"
    said = read_provenance(file)
    assert said["loras_sha256"] == ["ab" * 32, "cd" * 32]
    assert said["task"]["loras"][1] == {"path": "/loras/my ink.safetensors", "strength": 0.65}


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg"])
def test_names_that_are_no_text_cost_no_picture(tmp_path: Path, suffix: str) -> None:
    task = GenerateTask("a", seed=1, output_path=f"a{suffix}", lora_path="/\udcff.safetensors")
    file = picture(tmp_path, task, {**USED, "model": "\udcff"})
    assert read_by_sd_parsers(file)["model"] == "?"


def test_what_a_picture_says_of_itself_draws_it_again(tmp_path: Path) -> None:
    common = {"num_inference_steps": 1, "width": 64, "height": 64}
    tweets = [
        {"prompt": "a red house on grass", "cfg": 3.5, "seed": 7, **common},
        {"prompt": "a red house on grass", "cfg": 2.5, "seed": 7, **common},
        {"prompt": "a red house on grass", "cfg": 1.0, "seed": 7, **common},
        {"prompt": "a blue house\non sand", "guidance_scale": 1.7, "seed": 8, **common},
        {"prompt": "a tree", "cfg": 2.1, "negative_prompt": "night, a house", **common},
        {"prompt": "a tree", "lora_path": str(LORAS / "snow.safetensors"),
         "lora_strength": 0.65, "num_inference_steps": 2, "width": 80, "height": 48},
        {"prompt": "a house at night", "output_path": "w.webp", **common},
    ]  # fmt: skip
    with MultiGPUImageGenerator(1, config=CPU, output_dir=tmp_path / "out") as generator:
        drawn = _drawn(generator, tmp_path / "first.json", tweets)
        again = [_tweet_of(read_by_sd_parsers(file)) for file in drawn]
        assert [t["cfg"] for t in again[:4]] == ["3.5", "2.5", "1.0", "2.7"]
        drawn_again = _drawn(generator, tmp_path / "again.json", again)
    pixels = [_pixels(file) for file in drawn]
    assert len(set(pixels[:3])) == 3  # guidance makes a difference
    assert [_pixels(file) for file in drawn_again] == pixels


def _pixels(file: Path) -> tuple[tuple[int, int], bytes]:
    with Image.open(file) as image:
        return image.size, image.convert("RGB").tobytes()


def _drawn(generator: MultiGPUImageGenerator, file: Path, tweets: Any) -> list[Path]:
    file.write_text(json.dumps(tweets), "utf-8")
    plan = generator.prepare(read_tweets(file).inputs, [file.parent])
    results = generator.execute(plan)
    assert [r.error for r in results] == [None] * len(tweets)
    return [Path(str(r.output_path)) for r in results]


def _tweet_of(read: dict[str, Any]) -> dict[str, Any]:
    prompt, _, lora = read["prompt"].partition(" <lora:")
    width, height = read["size"].split("x")
    tweet = {
        "prompt": prompt, "negative_prompt": read["negative"], "cfg": read["cfg_scale"],
        "seed": read["seed"], "num_inference_steps": read["steps"],
        "width": width, "height": height,
    }  # fmt: skip
    if lora:
        name, strength = lora.removesuffix(">").split(":")
        tweet |= {"lora_path": str(LORAS / f"{name}.safetensors"), "lora_strength": strength}
    return tweet
