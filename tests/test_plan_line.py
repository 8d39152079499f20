"""Before anything is drawn, one line says what is new, what changed and by what, what stays."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from loguru import logger
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from core.intake import admission
from core.intake.changes import Comparison
from core.intake.kinds.generate import GenerateKind
from core.intake.made import Made
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.tasks import task_to_json
from tests.conftest import Project, simulated, write_safetensors
from tests.edit_world import Bench, pair
from tests.inline_command import InlineCommand

KEPT = " What is replaced is kept in .replaced."


@pytest.fixture
def command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> InlineCommand:
    return InlineCommand(tmp_path, capfd)


def tweets(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"picture {i}", **fields} for i in range(count)]


def test_new_and_unchanged_are_counted(command: InlineCommand) -> None:
    assert command.plan(command.write("tweets.json", tweets(3))) == "3 new."
    file = command.write("tweets.json", tweets(5))
    assert command.plan(file) == "2 new, 3 unchanged."
    assert command.plan(file) == "5 unchanged."


def test_one_changed_setting_is_named_with_both_values(command: InlineCommand) -> None:
    file = command.write("tweets.json", tweets(8))
    command.plan(file, defaults={"num_inference_steps": 8})
    plan = command.plan(file, defaults={"num_inference_steps": 4})
    assert plan == f"8 changed (steps 8 -> 4).{KEPT}"
    plan = command.plan(file, defaults={"num_inference_steps": 4, "width": 128, "height": 64})
    assert plan == f"8 changed (size 64x64 -> 128x64).{KEPT}"


def test_a_default_that_is_now_asked_for_is_not_said_to_change_into_itself(
    command: InlineCommand,
) -> None:
    file = command.write("tweets.json", tweets(2))
    command.plan(file)
    plan = command.plan(file, defaults={"num_inference_steps": 1, "width": 64, "height": 64})
    assert plan == f"2 changed (steps default -> 1, size default -> 64x64).{KEPT}"
    plan = command.plan(file, defaults={"num_inference_steps": 4, "width": 128, "height": 64})
    assert plan.startswith("2 changed (steps 1 -> 4, size 64x64 -> 128x64).")


def test_reasons_come_most_frequent_first_and_are_bounded(command: InlineCommand) -> None:
    content = tweets(6, cfg=1.0, seed=3)
    file = command.write("tweets.json", content)
    command.plan(file)
    for tweet in content:
        tweet["cfg"] = 2.5
    for number, tweet in enumerate(content[:3]):
        tweet["seed"] = number * 5 + 7
    content[0]["prompt"] = "another"
    content[1]["negative_prompt"] = "blur"
    content[2]["width"] = 128
    command.write("tweets.json", content)
    plan = command.plan(file)
    assert plan.startswith("6 changed (cfg 1 -> 2.5, seed: 3, ")
    assert plan.endswith(f", 1 other reason).{KEPT}")


def test_a_tweet_inserted_at_the_head_is_said_to_move_the_others(command: InlineCommand) -> None:
    file = command.write("tweets.json", tweets(9))
    command.plan(file)
    command.write("tweets.json", [{"prompt": "inserted"}, *tweets(9)])
    code, errors = command.run(file)
    assert code == 0
    assert "Plan: 1 new, 9 changed (seed: 8 tweets moved, prompt: 1)." in errors
    assert "a tweet with a seed and an output_path of its own keeps its picture" in errors
    command.write("tweets.json", tweets(9))  # and taken out again
    assert command.plan(file) == f"9 changed (seed: 9 tweets moved).{KEPT}"


def test_with_seeds_and_places_of_their_own_tweets_stay(command: InlineCommand) -> None:
    own = [{**t, "seed": i, "output_path": f"{i}.png"} for i, t in enumerate(tweets(9))]
    file = command.write("tweets.json", own)
    command.plan(file)
    command.write("tweets.json", [{"prompt": "inserted"}, *own])
    assert command.plan(file) == "1 new, 9 unchanged."


def test_with_places_of_their_own_only_the_seeds_move(command: InlineCommand) -> None:
    own = [{**t, "output_path": f"{i}.png"} for i, t in enumerate(tweets(9))]
    file = command.write("tweets.json", own)
    command.plan(file)
    command.write("tweets.json", [{"prompt": "inserted"}, *own])
    assert command.plan(file) == f"1 new, 9 changed (seed: 9 tweets moved).{KEPT}"
    assert command.plan(file, "--seed", "7").startswith("10 changed (seed: 10)")


def test_with_seeds_of_their_own_only_the_names_move(command: InlineCommand) -> None:
    file = command.write("tweets.json", tweets(4, seed=1))
    command.plan(file)
    command.write("tweets.json", [{"prompt": "inserted"}, *tweets(4, seed=1)])
    assert command.plan(file) == (
        f"1 new, 4 changed (name: 3 tweets moved, prompt: 1, seed 1 -> 42: 1).{KEPT}"
    )


def test_a_prompt_that_another_tweet_has_too_did_not_move(command: InlineCommand) -> None:
    content = tweets(3, seed=1)
    file = command.write("tweets.json", content)
    command.plan(file)
    content[2]["prompt"] = content[0]["prompt"]
    command.write("tweets.json", content)
    assert command.plan(file) == f"1 changed (prompt: 1), 2 unchanged.{KEPT}"


def test_loras_are_named_and_their_content_counts(command: InlineCommand) -> None:
    write_safetensors(command.folder / "a.safetensors", "a.lora_A")
    write_safetensors(command.folder / "b.safetensors", "b.lora_A")
    file = command.write("tweets.json", tweets(2))
    command.plan(file)
    command.write("tweets.json", tweets(2, lora_path="a.safetensors"))
    assert command.plan(file) == f"2 changed (LoRA none -> a.safetensors).{KEPT}"
    command.write("tweets.json", tweets(2, lora_path="a.safetensors", lora_strength=0.5))
    assert command.plan(file) == f"2 changed (LoRA strength 1 -> 0.5).{KEPT}"
    shutil.copy(command.folder / "a.safetensors", command.folder / "same.safetensors")
    command.write("tweets.json", tweets(2, lora_path="same.safetensors", lora_strength=0.5))
    assert command.plan(file) == "2 unchanged."
    command.plan(file, "--overwrite")
    write_safetensors(command.folder / "same.safetensors", "trained.lora_A")
    assert command.plan(file) == f"2 changed (content of same.safetensors: 2).{KEPT}"
    command.write("tweets.json", tweets(2, lora_path="b.safetensors", lora_strength=0.5))
    assert command.plan(file) == (f"2 changed (LoRA same.safetensors -> b.safetensors).{KEPT}")


def test_of_stacks_the_plan_names_what_changed_and_no_order(command: InlineCommand) -> None:
    for name in "abc":
        write_safetensors(command.folder / f"{name}.safetensors", f"{name}.lora_A")

    def plan(*loras: tuple[str, float], **fields: Any) -> str:
        stack = [[f"{name}.safetensors", strength] for name, strength in loras]
        return command.plan(command.write("tweets.json", tweets(2, loras=stack, **fields)))

    assert plan(("a", 1.0), ("b", 0.5)) == "2 new."
    assert plan(("b", 0.5), ("a", 1.0)) == "2 unchanged."
    assert plan(("b", 0.8), ("a", 1.0)) == (
        f"2 changed (strength of b.safetensors 0.5 -> 0.8).{KEPT}"
    )
    assert plan(("b", 0.8), ("a", 1.0), ("c", 0.0)) == "2 unchanged."
    assert plan(("c", 0.8), ("a", 1.0)) == (
        f"2 changed (LoRA a.safetensors + b.safetensors -> a.safetensors + c.safetensors).{KEPT}"
    )
    write_safetensors(command.folder / "c.safetensors", "trained.lora_A")
    assert plan(("c", 0.8), ("a", 1.0)) == (f"2 changed (content of c.safetensors: 2).{KEPT}")
    assert plan(("a", 1.0)) == (
        f"2 changed (LoRA a.safetensors + c.safetensors -> a.safetensors).{KEPT}"
    )
    assert plan(("a", 1.0), ("b", 0.0)) == "2 unchanged."
    assert plan(("a", 1.0), ("b", 0.1), steps=4) == (
        f"2 changed (steps 1 -> 4, LoRA a.safetensors -> a.safetensors + b.safetensors).{KEPT}"
    )


def model_folder(folder: Path) -> str:
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps({"name": folder.name}))
    return str(folder)


def test_model_dtype_and_attention_are_told_apart(command: InlineCommand) -> None:
    file = command.write("tweets.json", tweets(3))
    command.plan(file)
    assert command.plan(file, dtype="float32") == f"3 changed (dtype auto -> float32).{KEPT}"
    attention = {"attention_backend": "flash"}
    assert command.plan(file, dtype="float32", workers=attention) == (
        f"3 changed (attention backend auto -> flash).{KEPT}"
    )
    attention = {"attention_backend": "sage"}
    assert command.plan(file, dtype="float32", workers=attention) == (
        f"3 changed (attention backend flash -> sage).{KEPT}"
    )
    model = model_folder(command.folder / "b")  # the stand-in for workers says it is "inline"
    assert "model inline -> b" in command.plan(file, model=model)


def test_the_ways_of_older_versions_are_told_apart(
    command: InlineCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = command.write("tweets.json", tweets(3))
    command.plan(file)
    newest = GenerateKind.version
    monkeypatch.setattr(GenerateKind, "version", newest + 1)
    words = f"drawing of this program {newest} -> {newest + 1}"
    assert command.plan(file, defaults={"width": 128}) == (
        f"3 changed (size 64x64 -> 128xdefault, {words}).{KEPT}"
    )


def test_without_a_ledger_the_pictures_tell(command: InlineCommand) -> None:
    file = command.write("tweets.json", tweets(3))
    command.plan(file, defaults={"num_inference_steps": 8})
    (command.out / "tweets" / "ledger.sqlite").unlink()
    plan = command.plan(file, defaults={"num_inference_steps": 4})
    assert plan == f"3 changed (steps 8 -> 4).{KEPT}"


def test_missing_and_damaged_pictures_are_counted_apart(command: InlineCommand) -> None:
    file = command.write("tweets.json", tweets(4))
    command.plan(file)
    (command.out / "tweets" / "tweets_00.png").unlink()
    Image.new("RGB", (9, 9)).save(command.out / "tweets" / "tweets_01.png")  # retouched
    assert command.plan(file) == (f"1 damaged or altered since, 1 missing, 2 unchanged.{KEPT}")
    [kept] = (command.out / "tweets" / ".replaced").rglob("tweets_01.png")
    assert Image.open(kept).size == (9, 9), "the user's own work is not lost"


def test_overwrite_says_that_it_keeps_nothing(command: InlineCommand) -> None:
    file = command.write("tweets.json", tweets(2))
    command.plan(file)
    command.write("tweets.json", tweets(3))
    assert command.plan(file, "--overwrite") == "1 new, 2 done again (--overwrite)."


def test_what_a_stranger_writes_into_a_picture_harms_nothing(command: InlineCommand) -> None:
    file = command.write("tweets.json", tweets(3))
    command.plan(file)
    deep: Any = {"fingerprint": "f", "task": {"kind": "GenerateTask", "prompt": ["x\n\x1b[31m"]}}
    for _ in range(60):
        deep["task"] = {"kind": "GenerateTask", "prompt": deep["task"], "seed": {"a": [1] * 99}}
    strange = [deep, {"fingerprint": 7, "task": [], "used": 3, "files": {}}, {"fingerprint": None}]
    for number, record in enumerate(strange):
        info = PngInfo()
        info.add_text("generate_task", json.dumps(record))
        picture = command.out / "tweets" / f"tweets_{number:02}.png"
        Image.new("RGB", (9, 9)).save(picture, pnginfo=info)
    plan = command.plan(file)
    assert plan.startswith("3 changed (") and len(plan) < 300 and plan.isprintable()


def test_failed_and_interrupted_ones_are_told_from_new_ones(project: Project) -> None:
    file = project.write_tweets([{"prompt": "a"}, {"prompt": "!nan"}])
    project.run([file])
    run = project.run(
        [project.write_tweets([{"prompt": "a"}, {"prompt": "!nan"}, {"prompt": "b"}])]
    )
    assert "Plan: 1 new, 1 failed before, 1 unchanged." in run.errors


def test_a_thousand_changed_pictures_are_explained_in_a_moment(tmp_path: Path) -> None:
    """As many as the fingerprint cannot explain are not tried one by one for ever."""
    folder = tmp_path / "out"
    generator = MultiGPUImageGenerator(1, config=simulated(), output_dir=folder)
    tasks = generator.prepare(tweets(1000), []).tasks
    generator.stop()
    comparison = Comparison()
    unknown = hashlib.sha256(b"unknown").hexdigest()
    calls = 0
    original = admission.fingerprint

    def counted(*arguments: Any, **options: Any) -> str:
        nonlocal calls
        calls += 1
        return original(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("core.intake.changes.fingerprint", counted)
        for one in tasks:
            made = Made(task_to_json(one.task), {}, None, [], unknown)
            [change] = comparison.changes(one, made)
            assert change.what == "version or settings of this program"
    assert 0 < calls < 10_000


def test_python_logs_the_same_line(tmp_path: Path) -> None:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), format="{message}")
    try:
        with MultiGPUImageGenerator(1, config=simulated(), output_dir=tmp_path) as generator:
            generator.generate_batch([{"prompt": "a", "output_path": "a.png"}])
            generator.generate_batch([{"prompt": "b", "output_path": "a.png"}])
    finally:
        logger.remove(sink)
    plans = [line.strip() for line in lines if "Plan" in line]
    assert plans == ["Plan: 1 new.", f"Plan: 1 changed (prompt: 1).{KEPT}"]
    assert len([*(tmp_path / ".replaced").rglob("a.png")]) == 1


@pytest.mark.slow
def test_edits_and_scores_are_planned_apart(project: Project) -> None:
    bench = Bench(project)
    bench.write_pairs([pair(i) for i in range(4)])
    run = bench.run("--limit", "3")
    assert "Plan for edits: 3 new.\n" in run.errors and "Plan for scores: 3 new.\n" in run.errors
    run = bench.run(editor={"defaults": {"num_inference_steps": 4}})
    edits, scores = (line for line in run.errors.splitlines() if "Plan for" in line)
    assert edits.endswith(f"Plan for edits: 1 new, 3 changed (steps 1 -> 4).{KEPT}")
    assert scores.endswith(f"Plan for scores: 1 new, 3 changed (edited picture: 3).{KEPT}")
    run = bench.run(editor={"defaults": {"num_inference_steps": 4}}, judge={"temperature": 0.5})
    [scores] = (line for line in run.errors.splitlines() if "Plan for" in line)
    assert scores.endswith(f"Plan for scores: 4 changed (judge's settings or protocol: 4).{KEPT}")
    bench.write_pairs([pair(9), *(pair(i) for i in range(4))])
    run = bench.run(editor={"defaults": {"num_inference_steps": 4}}, judge={"temperature": 0.5})
    assert "Plan for edits: 1 new, 4 changed (seed: 4 pairs moved)." in run.errors
