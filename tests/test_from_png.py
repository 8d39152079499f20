"""Pictures that are drawn again from what they say of themselves."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from apps.prompts.made_pictures import read_pictures
from core.store.provenance import read_provenance
from tests.conftest import write_safetensors
from tests.inline_command import rows
from tests.test_prompt_command import Command, command

__all__ = ["command"]
SAME = "compared with the originals: {} the same byte for byte"


@pytest.fixture
def drawn(command: Command) -> list[Path]:
    """Pictures of several kinds: in all formats, with LoRAs, with a random seed, and below."""
    write_safetensors(command.folder / "ink.safetensors", "ink.lora_A")
    write_safetensors(command.folder / "snow.safetensors", "snow.lora_A")
    tweets: list[dict[str, Any]] = [
        {"prompt": "a house", "seed": 3, "steps": 2, "cfg": 1.5, "metadata": {"k": 1}},
        {"prompt": "a boat", "seed": -1, "output_path": "sub/boat.webp"},
        {"prompt": "a tree", "lora": "ink.safetensors", "output_path": "tree.jpg",
         "picture_quality": 80, "negative_prompt": "blur", "size": "32x48"},
        {"prompt": "a cat", "loras": ["ink.safetensors", ["snow.safetensors", 0.5]]},
    ]  # fmt: skip
    (command.folder / "tweets.json").write_text(json.dumps(tweets))
    assert command.run("tweets.json", "1")[0] == 0
    folder = command.folder / "outputs" / "tweets"
    names = ("tweets_00.png", "sub/boat.webp", "tree.jpg", "tweets_03.png")
    return [folder / name for name in names]


def new(command: Command, old: Path) -> Path:
    folder = command.folder / "outputs"
    return folder / "tweets_again" / old.relative_to(folder / "tweets")


def test_pictures_drawn_again_are_the_same_files(command: Command, drawn: list[Path]) -> None:
    code, said = command.run("--from-png", *map(str, drawn), "1")
    assert code == 0 and SAME.format(4) in said
    assert [new(command, old).read_bytes() for old in drawn] == [old.read_bytes() for old in drawn]
    assert "4 pictures: 4 skipped" in command.run("--from-png", *map(str, drawn), "1")[1]


@pytest.mark.parametrize("what", ["", "metadata.jsonl"])
def test_a_folder_or_its_table_stands_for_its_pictures(
    command: Command, drawn: list[Path], what: str
) -> None:
    code, said = command.run("--from-png", str(drawn[0].parent / what), "1")
    assert code == 0 and SAME.format(4) in said


def test_a_table_draws_what_is_gone(command: Command, drawn: list[Path]) -> None:
    before = Image.open(drawn[0]).convert("RGB").tobytes()
    drawn[0].unlink()
    code, said = command.run("--from-png", str(drawn[0].parent / "metadata.jsonl"), "1")
    assert code == 0 and SAME.format(3) in said
    said_again = read_provenance(new(command, drawn[0]))["task"]
    assert (said_again["prompt"], said_again["seed"], said_again["metadata"]) == (
        "a house", 3, {"k": 1}
    )  # fmt: skip
    assert len(before) == len(Image.open(new(command, drawn[0])).convert("RGB").tobytes())


def test_a_picture_is_drawn_with_other_seeds_and_settings(
    command: Command, drawn: list[Path]
) -> None:
    line = ["--from-png", str(drawn[0]), "--seeds", "7-8", "--set", "steps=1"]
    code, said = command.run(*line, "--format", "jpeg")
    assert code == 0 and "compared" not in said
    assert command.pictures("tweets_again") == ["tweets_00_seed7.jpg", "tweets_00_seed8.jpg"]
    task = read_provenance(new(command, drawn[0]).with_name("tweets_00_seed8.jpg"))["task"]
    assert (task["prompt"], task["seed"], task["num_inference_steps"]) == ("a house", 8, 1)
    assert command.run("--from-png", str(drawn[1]), "--seed", "9")[0] == 0
    task = read_provenance(new(command, drawn[1]).with_name("boat_seed9.webp"))["task"]
    assert task["seed"] == 9 and task["seed_is_random"] is False


def test_what_will_differ_is_said_before_it_is_drawn(command: Command, drawn: list[Path]) -> None:
    write_safetensors(command.folder / "ink.safetensors", "another.lora_A")
    code, said = command.run(
        "--from-png", *map(str, drawn[:3]), "1", workers={"attention_backend": "sage"}
    )
    warning, rest = said.index("3 pictures cannot become the same as before"), said.index("Model: ")
    assert code == 0 and warning < rest
    assert "attention backend auto -> sage" in said and "LoRA" in said
    assert "compared with the originals: 3 different (attention backend auto -> sage" in said


def rewritten(file: Path, **used: Any) -> None:
    """A picture with one colour less, as another device would have drawn it."""
    from PIL.PngImagePlugin import PngInfo

    said = read_provenance(file)
    info = PngInfo()
    info.add_text("generate_task", json.dumps({**said, "used": {**said["used"], **used}}))
    with Image.open(file) as image:
        Image.new("RGB", image.size).save(file, pnginfo=info)


def test_another_device_and_other_libraries_are_named_when_bits_differ(
    command: Command, drawn: list[Path]
) -> None:
    rewritten(drawn[0], device="NVIDIA A100", libraries="torch 2.12.0")
    code, said = command.run("--from-png", str(drawn[0]))
    assert code == 0 and "cannot become the same" not in said
    assert (
        "1 different (device NVIDIA A100 -> not said, libraries torch 2.12.0 -> not said)" in said
    )


def test_two_pictures_of_one_name_get_two(command: Command, drawn: list[Path]) -> None:
    other = command.folder / "elsewhere"
    other.mkdir()
    shutil.copy(drawn[0], other)
    code, said = command.run("--from-png", str(drawn[0]), str(other / "tweets_00.png"))
    assert code == 0 and "2 pictures: 2 done" in said
    found = command.folder / "outputs" / "tweets_again"
    assert (found / "elsewhere" / "tweets_00.png").is_file()


def test_what_does_not_say_how_it_was_made_fails_alone(command: Command, drawn: list[Path]) -> None:
    Image.new("RGB", (8, 8)).save(command.folder / "holiday.png")
    code, said = command.run("--from-png", "holiday.png", str(drawn[0]))
    assert code == 1 and "2 pictures: 1 done, 1 failed" in said
    [failed, _] = rows(command.folder / "outputs" / f"{command.folder.name}_again/results.jsonl")
    assert "holiday.png: does not say how it was made" in failed["error"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nothing.png"], "nothing.png: cannot be read: No such file"),
        (["none.jsonl"], "none.jsonl: lists no pictures."),
        (["empty"], "empty: holds no pictures (PNG, WebP or JPEG)."),
        (["p.txt"], "p.txt: expected a picture (PNG, WebP or JPEG), a folder of pictures"),
        (["bad.jsonl"], "bad.jsonl: line 2: expected an object with `file_name`"),
        (["out.jsonl"], "out.jsonl: line 1: file_name leads out of its folder"),
        (["a.png", "--prompt", "x"], "Give either --prompt or --from-png, not both."),
    ],
)
def test_an_unusable_picture_is_one_line(
    command: Command, arguments: list[str], reason: str
) -> None:
    (command.folder / "empty").mkdir()
    (command.folder / "p.txt").write_text("a\n")
    (command.folder / "none.jsonl").write_text("\n")
    (command.folder / "bad.jsonl").write_text('{"file_name": "a.png"}\n{"prompt": 3}\n')
    (command.folder / "out.jsonl").write_text('{"file_name": "../a.png"}\n')
    code, said = command.run("--from-png", *arguments)
    assert code == 2 and reason in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("models", "chosen"),
    [
        (["Tongyi-MAI/Z-Image@abc"], {"model": "Tongyi-MAI/Z-Image", "revision": "abc"}),
        (["Qwen/Qwen-Image", "Qwen/Qwen-Image"], {"model": "Qwen/Qwen-Image"}),
        (["a/b", "c/d"], "drawn by different models (a/b, c/d)"),
        (["mine"], "drawn by mine, a folder or a file of which they do not say"),
    ],
)
def test_the_model_of_a_picture_is_taken_or_asked_for(
    command: Command, models: list[str], chosen: Any
) -> None:
    from apps.picture_commands.again import Again
    from core.errors import InputError
    from core.settings import load_settings

    info: Any = {"prompt": "a", "seed": 1}
    lines = [{"file_name": f"{i}.png", "model": m, **info} for i, m in enumerate(models)]
    (command.folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    again = Again([str(command.folder / "metadata.jsonl")], None)
    if isinstance(chosen, dict):
        assert again.settings(load_settings()) == chosen
        assert again.settings(load_settings({"model": "simulated"})) == {}
    else:
        with pytest.raises(InputError) as caught:
            again.settings(load_settings())
        assert chosen in str(caught.value)


def test_each_picture_is_read_once(command: Command, drawn: list[Path]) -> None:
    found = read_pictures([drawn[0].parent, drawn[0]])
    assert len(found) == 4


@pytest.mark.parametrize(
    ("key", "what"),
    [("parameters", "AUTOMATIC1111's text"), ("workflow", "ComfyUI's graph"), (None, None)],
)
def test_a_picture_of_another_program_says_whose_it_is(
    command: Command, key: str | None, what: str | None
) -> None:
    said_by_it = PngInfo()
    if key is not None:
        said_by_it.add_text(key, "a red house\nSteps: 4, Seed: 7")
    Image.new("RGB", (32, 32)).save(command.folder / "theirs.png", pnginfo=said_by_it)
    code, said = command.run("--from-png", "theirs.png", "1")
    assert code == 1
    if what is None:
        assert "does not say how it was made" in said
    else:
        assert f"was made by another program, as it has {what}" in said and "--prompt" in said
