"""What the trainings share: fast arithmetic that is right, and going on after a stop."""

import json
import random
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image, ImageFilter

from apps.edit_benchmark.settings import load_benchmark_settings
from core.judge import load_judge
from demo_model.architecture import TRAINED, Sizes, build_pipeline, build_vae
from demo_model.batched import Pictures, pack, unpack, velocity
from demo_model.editor_parts import PICTURE, TEMPLATE, build_transformer
from demo_model.editor_parts import build_pipeline as build_editor
from demo_model.editor_pictures import edit_of
from demo_model.fast_attention import install, install_joint, install_vision
from demo_model.judge_parts import EDGES, build_judge, give_edges
from demo_model.judge_questions import IGNORED, Example, Questions, news, pairs, patches
from demo_model.judged_edits import DEEDS, JudgedEdit, sample_judged
from demo_model.scenes import POSITIONS
from demo_model.stage import publish
from demo_model.train_editor import TextInput, text_places, text_states
from demo_model.train_judge import edited_examples
from demo_model.train_loras import Adapter
from demo_model.train_transformer import Phase, Trainer, train
from demo_model.training_loop import Loop
from demo_model.training_set import USUAL_SIZE, TrainingSet, pixels_of
from tests.conftest import PROJECT, Project


@pytest.fixture(autouse=True)
def gradients() -> Iterator[None]:
    """Whatever a worker's model in the same process has set; threads that wait for no other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.enable_grad():
        yield
    torch.set_num_threads(threads)


def test_training_computes_what_z_image_computes() -> None:
    torch.manual_seed(0)
    pipe = build_pipeline(dim=64, layers=2, vae_widths=(8, 8, 8, 8))
    latents = [torch.randn(16, 1, 8, 8) for _ in range(2)]
    captions = [torch.randn(n, 128) for n in (20, 40)]
    times = torch.tensor([0.2, 0.7])
    with torch.no_grad():
        expected = pipe.transformer(latents, times, captions, return_dict=False)[0]
        install(pipe.transformer, compiled=False)
        found = pipe.transformer(latents, times, captions, return_dict=False)[0]
    for a, b in zip(expected, found, strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_training_computes_what_qwen_image_computes() -> None:
    torch.manual_seed(0)
    transformer = build_transformer(dim=64, layers=2).eval()
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, 4:] = False
    inputs = {
        "hidden_states": torch.randn(2, 32, 64),
        "timestep": torch.tensor([0.2, 0.7]),
        "encoder_hidden_states": torch.randn(2, 7, 128),
        "encoder_hidden_states_mask": mask,
        "img_shapes": [[(1, 4, 4)] * 2] * 2,
        "return_dict": False,
    }
    with torch.no_grad():
        expected = transformer(**inputs)[0]
        install_joint(transformer, compiled=False)
        found = transformer(**inputs)[0]
    assert torch.allclose(expected, found, atol=1e-4)
    assert not torch.allclose(expected[0], expected[1], atol=0.1)  # the inputs matter


def test_a_batch_in_one_go_is_what_z_image_draws_one_by_one() -> None:
    torch.manual_seed(0)
    transformer = build_pipeline(64, 2, (8, 8, 8), latent_channels=8).transformer
    for padding in (transformer.x_pad_token, transformer.cap_pad_token):
        torch.nn.init.normal_(padding)
    sizes, words = [(16, 8), (8, 8), (12, 20)], [20, 40, 64]
    latents = [torch.randn(8, 1, h, w) for h, w in sizes]
    captions = [torch.randn(count, 128) for count in words]
    times = torch.tensor([0.2, 0.7, 0.5])
    tokens, places = torch.zeros(3, 64, 32), torch.zeros(3, 64, 2, dtype=torch.long)
    said = torch.zeros(3, 64, 128)
    counts = [h * w // 4 for h, w in sizes]
    for i, (h, w) in enumerate(sizes):
        tokens[i, : counts[i]] = pack(latents[i][:, 0][None])[0]
        places[i, : counts[i]] = torch.cartesian_prod(torch.arange(h // 2), torch.arange(w // 2))
        said[i, : words[i]] = captions[i]
    pictures = Pictures(tokens, places, torch.tensor(counts))
    with torch.no_grad():
        expected = transformer(latents, times, captions, return_dict=False)[0]
        found = velocity(transformer, pictures, times, said, torch.tensor(words))
    for i, (h, w) in enumerate(sizes):
        one = unpack(found[i : i + 1, : counts[i]], h, w)
        assert torch.allclose(one[0], expected[i][:, 0], atol=1e-5)


def test_the_editor_is_trained_on_what_its_text_encoder_says() -> None:
    pipeline = build_editor(64, 1, 8, (1, 2, 2), 64, latent_channels=8)
    encoder, processor = pipeline.text_encoder, pipeline.processor
    words = ["make it night", "move the ball to the left"]
    pictures = [Image.new("RGB", (64, 64), "red")] * 2
    made = processor(
        text=[TEMPLATE.format(PICTURE + text) for text in words],
        images=pictures,
        padding=True,
        return_tensors="pt",
    )
    ids, mask = TextInput(pipeline.tokenizer)(words)
    with torch.no_grad():
        expected = encoder(**made, output_hidden_states=True)
        found = text_states(encoder, ids, mask, text_places(encoder, ids))
    length = made.input_ids.shape[1]
    assert torch.equal(ids[:, :length], made.input_ids)
    for row, real in enumerate(made.attention_mask.bool()):
        one = found[row, :length][real]
        assert torch.allclose(one, expected.hidden_states[-1][row][real], atol=1e-5)


def test_a_lora_goes_on_with_the_tensors_that_it_had() -> None:
    torch.manual_seed(0)
    first, second = (
        Adapter(build_pipeline(64, 1, (8, 8, 8), latent_channels=8).transformer, "snow", 4)
        for _ in range(2)
    )
    had = {name: torch.randn_like(tensor) for name, tensor in first.state_dict().items()}
    second.load_state_dict(had)
    now = second.state_dict()
    assert had and all(torch.equal(now[name], tensor) for name, tensor in had.items())


class _Stopped(Exception):
    pass


@pytest.mark.slow
def test_a_training_that_was_stopped_ends_like_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The generator's own: weights, their averages and the optimizer, in two phases."""
    monkeypatch.setattr("demo_model.training_loop.SAVE_EVERY", 0)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    sizes = Sizes(32, 1, (8, 8, 8), TRAINED.latent_channels)
    torch.manual_seed(0)
    vae = build_vae(sizes.vae_widths, sizes.latent_channels).eval()
    training_set = TrainingSet([USUAL_SIZE], 12, vae, seed=1, factor=0.0625)

    def trained(out: Path, stop_at: int | None) -> dict[str, torch.Tensor]:
        trainer = Trainer(vae, torch.device("cpu"), 0, sizes)
        monkeypatch.setattr(trainer, "show", lambda file: None)
        step = trainer.step

        def watched(batch: Any, rate: float, number: int) -> torch.Tensor:
            if number == stop_at:
                raise _Stopped
            return step(batch, rate, number)

        monkeypatch.setattr(trainer, "step", watched)
        for number, name in enumerate(("first", "second")):
            phase = Phase(name, (USUAL_SIZE,), 3, 1e-3, number, None)
            train(trainer, training_set, phase, out, 3 * number)
        publish(lambda folder: folder.mkdir(), out)
        return trainer.average.models["transformer"].state_dict()

    whole = trained(tmp_path / "whole", None)
    for number, stop_at in enumerate((1, 4)):
        out = tmp_path / f"stopped-{number}"
        with pytest.raises(_Stopped):
            trained(out, stop_at)
        assert not out.exists()
        resumed = trained(out, None)
        assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["stopped-0", "stopped-1", "whole"]
    smallest = torch.tensor(5e-324, dtype=torch.float64)
    assert (smallest * 1).item() > 0, "arithmetic is as before"


TOY = """
import os, signal, sys, threading, time, torch
from pathlib import Path
from demo_model import training_loop
from demo_model.stage import publish, state_file

training_loop.SAVE_EVERY, out = 0.1, Path(sys.argv[1])
torch.set_num_threads(1)
torch.manual_seed(1)
model = torch.nn.Linear(20, 20)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
average = training_loop.Average({"model": model}, 0.9)
parts = {"model": model, "optimizer": optimizer, "average": average}
loop = training_loop.Loop("toy", 200, 0, parts, state_file(out))
def age():
    return state_file(out).stat().st_mtime if state_file(out).exists() else 0.0
def die(before):
    while age() == before:
        time.sleep(0.01)
    time.sleep(float(sys.argv[2]))
    os.kill(os.getpid(), signal.SIGKILL)
if len(sys.argv) > 2:
    threading.Thread(target=die, args=[age()], daemon=True).start()
for step in loop:
    time.sleep(0.003)
    loss = (model(torch.randn(8, 20)) - loop.rng.random()).square().mean() * loop.rate(step)
    optimizer.zero_grad(); loss.backward(); optimizer.step()
    average.follow({"model": model}, step)
def write(folder):
    folder.mkdir()
    torch.save(average.state_dict(), folder / "weights.pt")
publish(write, out)
"""


def test_a_training_killed_at_any_moment_ends_like_one_that_was_not(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(0)
    toy, models = project.folder / "toy.py", tmp_path / "models"
    models.mkdir()
    toy.write_text(f"import sys\nsys.path.insert(0, {str(PROJECT)!r})\n{TOY}")
    out, said = models / "killed", ""
    for _ in range(2):
        moment = str(rng.uniform(0, 0.15))  # seconds after its next state is there
        run = project.execute(toy, [str(out), moment], "models")
        assert run.finish() == -signal.SIGKILL, run.errors
        said += run.output
    last = project.execute(toy, [str(out)], "models")
    assert last.finish() == 0, last.errors
    said += last.output
    monkeypatch.setattr("demo_model.training_loop.SAVE_EVERY", 1)
    monkeypatch.setattr(sys, "argv", ["toy", str(models / "whole")])
    exec(TOY, {})  # undisturbed
    assert said.count("going on from step") == 2
    one, other = (
        torch.load(models / name / "weights.pt", weights_only=True)["model"]
        for name in ("whole", "killed")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert sorted(p.name for p in models.iterdir()) == ["killed", "whole"]


def test_a_training_ends_on_time_with_its_rate_run_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that the test moves on."""
    model = torch.nn.Linear(2, 2)
    now = 1000.0
    clock = SimpleNamespace(time=lambda: now)
    monkeypatch.setattr("demo_model.training_loop.time", clock)
    until = now + 0.5
    loop = Loop("test", 10**6, 0, {"model": model}, tmp_path / "model.state", until)
    rates, begun = [], []
    for step in loop:
        begun.append(now)
        rates.append(loop.rate(step, warm_up=1))
        now += 0.01
    assert until <= now
    assert sum(moment >= until for moment in begun) <= 1
    assert rates[0] == 1 and rates[-1] < 0.3 and rates == sorted(rates, reverse=True)
    again = Loop("test", 10**6, 0, {"model": model}, tmp_path / "model.state", until)
    assert list(again) == [], "what has ended is not begun anew"


def test_training_sees_what_qwen3_vl_sees() -> None:
    model, _ = build_judge(["how good"], 64, 2, 64, 2)
    visual = model.model.visual
    patches, grid = torch.randn(3 * 64, 3 * 2 * 16 * 16), torch.tensor([[1, 8, 8]] * 3)
    with torch.no_grad():
        expected = visual(patches, grid).pooler_output
        install_vision(visual, 64)
        found = visual(patches, grid).pooler_output
    for a, b in zip(expected, found, strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_some_of_its_filters_see_noise_and_nothing_of_the_light() -> None:
    model, _ = build_judge(["how good"], 64, 1, 64, 1)
    give_edges(model)
    filters = model.model.visual.patch_embed
    grey = torch.full((1, 128, 128, 3), 120, dtype=torch.uint8)
    noisy = (grey + torch.randint(-20, 20, grey.shape)).byte()
    dark, usual, spoilt = (
        filters(patches(p, [0.5] * 3, [0.5] * 3))[:, -EDGES:] for p in (grey // 2, grey, noisy)
    )
    assert torch.allclose(dark, usual, atol=1e-4)
    assert (spoilt - usual).abs().mean() > 0.5


def test_the_judge_is_trained_on_what_its_processor_makes() -> None:
    processor, questions = _demo_questions()
    judged = sample_judged(random.Random(1), "right", damaged=False)
    pictures = [pixels_of(image) for image in (judged.before, judged.after)]
    batch = questions([Example(judged, *pictures)], "SC")
    content = [{"type": "image"}, {"type": "image"}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": [*content, {"type": "text", "text": _asked(judged)}]}],
        tokenize=False,
        add_generation_prompt=True,
    )
    made = processor(text=[text], images=[judged.before, judged.after], return_tensors="pt")
    question = made.input_ids.shape[1]
    assert torch.equal(batch["input_ids"][:, :question], made.input_ids)
    assert torch.allclose(batch["pixel_values"], made.pixel_values, atol=1e-5)
    learnt = batch["labels"][0][batch["labels"][0] != IGNORED]
    answer = json.loads(processor.tokenizer.decode(learnt).removesuffix("<|im_end|>"))
    seen, done, asked = answer["reasoning"].split(";")
    edit = judged.edit
    assert seen == pairs(edit.source, edit.target).replace(" ", "")
    assert asked == done == news(edit.source, edit.target).replace(" ", "")
    assert answer["score"] == [10, 10]


def test_the_judge_learns_to_tell_what_was_done_from_what_was_asked_for() -> None:
    rng = random.Random(3)
    for deed in DEEDS:
        for _ in range(20):
            judged = sample_judged(rng, deed)
            asked = news(judged.edit.source, judged.edit.target)
            done = news(judged.edit.source, judged.shown)
            assert (asked == done) is (deed == "right")
            assert (done == "no") is (deed == "unedited")


def test_the_judge_says_of_each_object_how_badly_it_is_drawn() -> None:
    processor, questions = _demo_questions()
    fine = _with_the_right_object_first(random.Random(6))
    second, first = fine.shown.things
    bad = replace(fine, after=fine.after.filter(ImageFilter.GaussianBlur(8)))
    for judged in (fine, bad):
        example = Example(judged, pixels_of(judged.before), pixels_of(judged.after))
        labels = questions([example], "PQ")["labels"][0]
        words = processor.tokenizer.decode(labels[labels != IGNORED]).removesuffix("<|im_end|>")
        drawn = json.loads(words)["reasoning"].split(";")[0]
        severity = dict(zip(judged.shown.things, judged.malformed, strict=True))
        expected = f"{first.kind}{severity[first]},{second.kind}{severity[second]}"
        assert drawn == expected and len(words) < 200
    assert max(fine.malformed) == 0 < max(bad.malformed)


def _with_the_right_object_first(rng: random.Random) -> JudgedEdit:
    while True:
        judged = sample_judged(rng, "right", damaged=False)
        places = [POSITIONS[thing.position] for thing in judged.shown.things]
        if len(places) == 2 and places[0] > places[1]:
            return judged


def test_what_editors_missed_is_shown_more_often(tmp_path: Path) -> None:
    edits = [edit_of(3, number) for number in range(4)]
    pictures = [edits[0].after(), edits[1].before(), edits[2].after(), edits[3].before()]
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / f"3-{number:05d}.png")
    made, missed = edited_examples(tmp_path, seed=1, vae=None)
    assert len(made) == 4
    asked_of = [example.judged.edit for example in made]
    assert [e.judged.edit for e in missed] == [e for e in asked_of if e in (edits[1], edits[3])]
    assert missed and all(e.judged.consistency[0] == 0 for e in missed)


def _demo_questions() -> tuple[Any, Questions]:
    """With the processor that they are for."""
    settings = load_benchmark_settings({"judge": {"prompts": "demo.yaml"}}).judge
    calls = load_judge(settings).prompts.calls
    _, processor = build_judge([call.text for call in calls])
    return processor, Questions(processor, calls)


def _asked(judged: JudgedEdit) -> str:
    return f"{judged.edit.instruction}. success, over editing?"
