"""What the trainings share: fast arithmetic that is right, and going on after a stop."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import ImageFilter

from core.benchmark.settings import load_benchmark_settings
from core.judge import load_judge
from demo_model.architecture import build_pipeline
from demo_model.editor_parts import build_transformer
from demo_model.editor_pictures import edit_of
from demo_model.fast_attention import install, install_joint, install_vision
from demo_model.judge_parts import EDGES, build_judge, give_edges
from demo_model.judge_questions import IGNORED, Example, Questions, news, pairs, patches
from demo_model.judged_edits import DEEDS, JudgedEdit, sample_judged
from demo_model.scenes import POSITIONS
from demo_model.train_judge import edited_examples
from demo_model.training_loop import Loop
from demo_model.training_set import pixels_of


@pytest.fixture(autouse=True)
def gradients() -> Iterator[None]:
    """Whatever a worker's model in the same process has set."""
    with torch.enable_grad():
        yield


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


class _Stopped(Exception):
    pass


def _train(state: Path, stop_at: int | None, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    monkeypatch.setattr("demo_model.training_loop.SAVE_EVERY", 0)
    torch.manual_seed(1)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer}
    loop = Loop("test", 8, 0, parts, state)
    for step in loop:
        if step == stop_at:
            raise _Stopped
        loss = (model(torch.randn(3, 4)) - loop.rng.random()).square().mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        loop.note(loss.item())
    return model.weight.detach()


def test_a_training_that_was_stopped_ends_like_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _train(tmp_path / "whole.state", None, monkeypatch)
    with pytest.raises(_Stopped):
        _train(tmp_path / "model.state", 5, monkeypatch)
    assert (tmp_path / "model.state").exists()
    assert torch.equal(_train(tmp_path / "model.state", None, monkeypatch), whole)
    assert list(tmp_path.iterdir()) == []
    smallest = torch.tensor(5e-324, dtype=torch.float64)
    assert (smallest * 1).item() > 0, "arithmetic is as before"


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
