"""Judges on real model classes with random weights."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from apps.edit_benchmark.settings import load_benchmark_settings
from core.errors import InputError, MultiGPUError
from core.judge import load_judge
from core.messages import Lease
from core.tasks import ScoreTask
from tests.test_native_image_generator import spec_for

JUDGE = load_benchmark_settings({"judge": {"prompts": "viescore.yaml"}}).judge
NEIGHBOURS = 1e-4  # how far a score may move with its batch, in float32

Loaded = Callable[..., Any]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Of different sizes, so that a batch has to be filled up."""
    folder = tmp_path_factory.mktemp("pictures")
    sizes = ((64, 64), (96, 64), (128, 128), (64, 128))
    files = [folder / f"{i}.png" for i in range(len(sizes))]
    for file, size in zip(files, sizes, strict=True):
        Image.effect_noise(size, 80).convert("RGB").save(file)
    return [str(file) for file in files]


def build_dense(folder: Path) -> None:
    from demo_model.judge_parts import build_judge

    judge = load_judge(JUDGE)
    questions = [call.text for call in judge.prompts.calls]
    model, processor = build_judge(questions, 64, 2, 32, 1)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def build_thinker(folder: Path) -> None:
    """A judge whose chat template opens a thought, as Qwen3-VL-Thinking's does."""
    build_dense(folder)
    with (folder / "chat_template.jinja").open("a") as stream:
        stream.write("{{ '<think>\\n' }}")


def build_experts(folder: Path) -> None:
    """The same with a mixture of experts for a language model."""
    import torch
    from transformers import Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration

    from demo_model.judge_parts import build_judge

    dense, processor = build_judge(["how good is it"], 64, 2, 32, 1)
    text = dense.config.text_config.to_dict()
    text |= {
        "model_type": "qwen3_vl_moe_text",
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
    }
    vision = {**dense.config.vision_config.to_dict(), "model_type": "qwen3_vl_moe"}
    ids = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    tokens = {name: getattr(dense.config, name) for name in ids}
    torch.manual_seed(0)
    config = Qwen3VLMoeConfig(text_config=text, vision_config=vision, **tokens)
    Qwen3VLMoeForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)


def build_clip(folder: Path) -> None:
    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    from demo_model.qwen_vision import build_tokenizer

    torch.manual_seed(0)
    tokenizer = build_tokenizer(["make it night add snow"])
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "projection_dim": 16}
    text: dict[str, Any] = {**sizes, **heads, "vocab_size": len(tokenizer)}
    text |= {"max_position_embeddings": 16}
    text |= {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": None, "pad_token_id": 0}
    vision = {**sizes, **heads, "image_size": 32, "patch_size": 16}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """A judge of a type and prompt file on a model built by `build_…`."""
    folders: dict[str, Path] = {}

    def load(model: str = "dense", **changes: Any) -> Any:
        from workers.judges.registry import create_judge

        if model not in folders:
            folders[model] = tmp_path_factory.mktemp("judges") / model
            globals()[f"build_{model}"](folders[model])
        judge = load_judge(JUDGE.model_copy(update={"max_new_tokens": 6, **changes}))
        spec = replace(spec_for(str(folders[model])), role="score", judge=judge)
        family = create_judge(spec, lambda level, text: None)
        family.load()
        return family

    return load


def lease(pictures: list[str], number: int, **fields: Any) -> Lease:
    edited = pictures[(number + 1) % len(pictures)]
    words = "make it night" if number % 2 else "turn the house blue and remove the tree, please"
    task = ScoreTask(words, (pictures[number],), edited, seed=number, **fields)
    return Lease(str(number), 1, task, None, "fingerprint", "unused.json")


def test_a_vlm_without_a_parsable_answer_gives_no_score(
    loaded: Loaded, pictures: list[str]
) -> None:
    verdict = loaded().run([lease(pictures, 0)])[0]
    assert verdict.used["scores"] is None
    assert [call["name"] for call in verdict.details["calls"]] == ["SC", "PQ"]
    assert all(len(call["raw"]) == 2 for call in verdict.details["calls"])  # asked again, once


def test_what_a_vlm_says_becomes_scores(
    loaded: Loaded, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = loaded()
    words = iter(["no JSON", '{"score": [6, 9]}', '{"score": [4, 8], "reasoning": "."}'])
    monkeypatch.setattr(judge, "_generate", lambda call, *_: [next(words)])
    verdict = judge.run([lease(pictures, 0)])[0]
    assert verdict.used["scores"] == {"SC": 6.0, "PQ": 4.0, "O": pytest.approx(24**0.5)}
    assert verdict.details["calls"][0]["raw"] == ["no JSON", '{"score": [6, 9]}']


def says(judge: Any, monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[Any]:
    """Have the judge's model write `answers` one by one, each to its end; returns what it took."""
    import torch

    texts, taken, tokenizer = iter(answers), [], judge.processor.tokenizer
    tokenizer.add_tokens(["[THINK]", "[/THINK]"], special_tokens=True)  # as Magistral has them
    tokenizer.add_tokens(sorted(set(re.findall(r"\w+|\W", "".join(answers)))))

    def generate(input_ids: Any, generation_config: Any, **_: Any) -> Any:
        taken.append(generation_config)
        new = tokenizer(next(texts), add_special_tokens=False).input_ids
        new = [*new, generation_config.eos_token_id][: generation_config.max_new_tokens]
        return torch.cat([input_ids, torch.tensor([new])], -1)

    monkeypatch.setattr(judge.model, "generate", generate)
    return taken


def test_a_later_question_is_about_what_was_said_and_shows_no_picture(
    loaded: Loaded, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = loaded(prompts="i2ebench.yaml", max_new_tokens=60)
    says(judge, monkeypatch, "[THINK]No[/THINK]Two dogs.", '{"score": "no"}')
    asked: list[tuple[str, bool]] = []
    put, kind = judge.processor.__call__, type(judge.processor)

    def heard(_: Any, **given: Any) -> Any:
        asked.append((given["text"][0], bool(given["images"])))
        return put(**given)

    monkeypatch.setattr(kind, "__call__", heard)
    fields = {"Evaluation": "How many cats?", "Answer": "one"}
    verdict = judge.run([lease(pictures, 0, fields=fields)])[0]
    assert verdict.used["scores"] == {"correct": 0.0}
    (question, shown), (comparison, shown_again) = asked
    assert "How many cats?" in question and shown and not shown_again
    assert 'was given is: "two dogs."' in comparison, "the tiny tokenizer writes small letters"


DRAFT, RIGHT = '{"score": [9, 9]}', '{"score": [2, 3]}'


def test_a_draft_is_not_scored(
    loaded: Loaded, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = loaded(max_new_tokens=200)
    says(judge, monkeypatch, f"[THINK]{DRAFT}[/THINK]{RIGHT}", f"{DRAFT}</think>{RIGHT}")
    assert judge.run([lease(pictures, 0)])[0].used["scores"] == {"SC": 2, "PQ": 2, "O": 2}


def test_a_thought_that_the_template_opens_is_no_answer(
    loaded: Loaded, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = loaded("thinker", max_new_tokens=200)
    says(judge, monkeypatch, DRAFT, DRAFT, f"{DRAFT}</think>{RIGHT}")
    calls = judge.run([lease(pictures, 0)])[0].details["calls"]
    assert "thought has no end" in calls[0]["problem"] and calls[0]["value"] is None
    assert calls[1]["parts"] == {"naturalness": 2, "artifacts": 3}
    read = loaded("thinker", type="vlm_logits", prompts="viescore_logits.yaml")
    seen: list[str] = []
    original = read.processor.__class__.__call__

    def spy(self: Any, text: Any = None, **kwargs: Any) -> Any:
        seen.extend(text)
        return original(self, text=text, **kwargs)

    monkeypatch.setattr(read.processor.__class__, "__call__", spy)
    read.run([lease(pictures, 0)])
    assert seen[0].endswith('<think>\n\n\n</think>\n\n{"score": ')


def test_a_cut_answer_is_asked_for_again_with_twice_the_tokens(
    loaded: Loaded, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    judge = loaded(max_new_tokens=30)
    judge.log = lambda level, text: lines.append(f"{level} {text}")
    long = "It is a picture of a house in the snow, " + 20 * "and so on "
    took = says(judge, monkeypatch, long, long, "no JSON", RIGHT)
    verdict = judge.run([lease(pictures, 0, task_id="score sky/001")])[0]
    assert [t.max_new_tokens for t in took] == [30, 60, 30, 30]
    problem = verdict.details["calls"][0]["problem"]
    reason = "there is no JSON object in the answer"
    assert problem == f"cut at max_new_tokens=30: {reason}, then cut at max_new_tokens=60: {reason}"
    first, second = verdict.details["calls"][0]["raw"]
    assert second.startswith(first), "it goes on"
    assert lines == [f"WARNING score sky/001: no score: SC: {problem}"]
    assert not any(t.do_sample for t in took)


def test_scores_before_the_cut_are_taken(
    loaded: Loaded, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = loaded(max_new_tokens=22)
    answer = '{"score": [8, 9], "reasoning": "the house is blue"}'
    says(judge, monkeypatch, answer, answer)
    verdict = judge.run([lease(pictures, 0)])[0]
    assert verdict.used["scores"] == {"SC": 8, "PQ": 8, "O": 8}
    assert "blue" not in verdict.details["calls"][0]["raw"][0]


def test_more_asks_let_a_cut_answer_go_on(loaded: Loaded, pictures: list[str]) -> None:
    judge = loaded()  # random weights: they never come to an end
    more = judge.run([lease(pictures, 0, more_asks=2), lease(pictures, 1)])
    for call in more[0].details["calls"]:
        one, *others = call["raw"]
        assert len(others) == 3 and all(longer.startswith(one) for longer in others)
        assert call["problem"].count("cut at max_new_tokens=") == 4
        assert "max_new_tokens=48" in call["problem"]
    assert all(len(call["raw"]) == 2 for call in more[1].details["calls"])
    first = judge.run([lease(pictures, 0)])[0].details["calls"]
    assert [c["raw"] for c in first] == [c["raw"][:2] for c in more[0].details["calls"]]


def test_more_asks_draw_another_answer_where_it_was_whole(
    loaded: Loaded, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = loaded(max_new_tokens=200)
    took = says(judge, monkeypatch, *4 * ["no JSON"], RIGHT, RIGHT)
    verdict = judge.run([lease(pictures, 0, more_asks=3)])[0].details["calls"][0]
    assert len(verdict["raw"]) == 5 and verdict["parts"] == {"success": 2, "over_editing": 3}
    assert [t.do_sample for t in took[:5]] == [False, False, True, True, True]


def test_a_vlms_words_do_not_depend_on_its_batch(loaded: Loaded, pictures: list[str]) -> None:
    judge = loaded()
    together = judge.run([lease(pictures, i) for i in range(4)])
    alone = [judge.run([lease(pictures, i)])[0] for i in range(4)]
    assert [v.details for v in together] == [v.details for v in alone]


def test_a_models_own_penalties_do_not_touch_its_answers(
    loaded: Loaded, pictures: list[str]
) -> None:
    judge = loaded()
    before = judge.run([lease(pictures, 0)])[0]
    judge.model.generation_config.update(repetition_penalty=50.0, no_repeat_ngram_size=1)
    assert judge.run([lease(pictures, 0)])[0].details == before.details


def test_numbers_that_are_none_are_no_score(loaded: Loaded, pictures: list[str]) -> None:
    judge = loaded(type="vlm_logits", prompts="viescore_logits.yaml")
    judge.model.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(MultiGPUError, match="NaN instead of a score"):
        judge.run([lease(pictures, 0)])


@pytest.mark.parametrize("model", ["dense", "experts"])
def test_one_forward_pass_scores_a_batch_as_it_scores_each(
    loaded: Loaded, pictures: list[str], model: str
) -> None:
    judge = loaded(model, type="vlm_logits", prompts="viescore_logits.yaml")
    together = judge.run([lease(pictures, i) for i in range(4)])
    for i, verdict in enumerate(together):
        alone = judge.run([lease(pictures, i)])[0].used["scores"]
        assert verdict.used["scores"] == pytest.approx(alone, abs=NEIGHBOURS)
        call = verdict.details["calls"][0]
        assert sum(call["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert 0 < call["mass"] < 1 and 0 <= call["value"] <= 9
    assert len({v.used["scores"]["O"] for v in together}) == 4


def test_score_tokens_of_next_to_no_probability_are_no_score(
    loaded: Loaded, pictures: list[str]
) -> None:
    judge = loaded(type="vlm_logits", prompts="viescore_logits.yaml")
    ids, _ = judge._score_tokens(judge.judge.prompts.calls[0])

    def push_down(module: Any, inputs: Any, logits: Any) -> Any:
        logits[..., ids] -= 15.0
        return logits

    hook = judge.model.lm_head.register_forward_hook(push_down)
    verdict = judge.run([lease(pictures, 0)])[0]
    hook.remove()
    call = verdict.details["calls"][0]
    assert verdict.used["scores"] is None and call["value"] is None and call["mass"] < 1e-6
    assert f"{call['mass']:.2g} together, below judge.minimum_mass 0.01" in call["problem"]
    assert judge.run([lease(pictures, 0)])[0].used["scores"] is not None
    strict = loaded(type="vlm_logits", prompts="viescore_logits.yaml", minimum_mass=0.9)
    assert strict.run([lease(pictures, 0)])[0].used["scores"] is None


def test_experts_are_implemented_as_asked(loaded: Loaded) -> None:
    judge = loaded("experts", experts_implementation="eager")
    assert judge.model.config._experts_implementation == "eager"


def test_score_tokens_must_be_single_tokens(loaded: Loaded, pictures: list[str]) -> None:
    judge = loaded(type="vlm_logits", prompts="viescore_logits.yaml")
    call = judge.judge.prompts.calls[0].model_copy(update={"tokens": {"quite good": 8.0}})
    with pytest.raises(InputError, match="is not one token after"):
        judge.answers(call, [lease(pictures, 0)], [])


def test_a_processor_keeps_what_is_its_own(tmp_path: Path) -> None:
    """LLaVA's counts a picture's tokens by its patch size, and wants no video processor."""
    from transformers import CLIPImageProcessorPil, LlavaProcessor

    from demo_model.qwen_vision import build_tokenizer
    from workers.processors import load_processor

    tokenizer = build_tokenizer(["make it night <image>"])
    LlavaProcessor(
        CLIPImageProcessorPil(), tokenizer, patch_size=7, chat_template="a"
    ).save_pretrained(tmp_path)
    processor = load_processor(str(tmp_path))
    assert type(processor) is LlavaProcessor
    assert (processor.patch_size, processor.chat_template) == (7, "a")


def test_the_judge_sees_at_most_so_many_pixels(
    loaded: Loaded, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = loaded(image_area=32 * 32)
    seen: list[tuple[int, int]] = []
    original = judge.processor.__class__.__call__

    def spy(self: Any, images: Any = None, **kwargs: Any) -> Any:
        seen.extend(picture.size for row in images for picture in row)
        return original(self, images=images, **kwargs)

    monkeypatch.setattr(judge.processor.__class__, "__call__", spy)
    judge.run([lease(pictures, 2)])
    assert seen and all(width * height <= 32 * 33 for width, height in seen)


def test_sampling_draws_by_the_tasks_seed_whatever_the_batch(
    loaded: Loaded, pictures: list[str]
) -> None:
    judge = loaded(temperature=1.0)
    together = judge.run([lease(pictures, i) for i in range(3)])
    alone = [judge.run([lease(pictures, i)])[0] for i in (2, 1, 0)][::-1]
    assert [v.details for v in together] == [v.details for v in alone]


@pytest.mark.parametrize(("model", "kind"), [("dense", "vlm"), ("clip", "clip")])
def test_no_weight_of_a_judge_waits_to_be_trained(loaded: Loaded, model: str, kind: str) -> None:
    judge = loaded(model, type=kind)
    assert not any(weight.requires_grad for weight in judge.model.parameters())


def test_clip_compares_embeddings(loaded: Loaded, pictures: list[str]) -> None:
    judge = loaded("clip", type="clip")
    same = ScoreTask("make it night", (pictures[0],), pictures[0])
    long = ScoreTask("make it night " * 9, (pictures[0],), pictures[0])
    [said] = judge.run([Lease("s", 1, long, None, "f", "x")])[0].remarks
    assert said.startswith("instruction has 27 tokens, the model takes 16")
    verdicts = judge.run(
        [Lease("s", 1, same, None, "f", "x"), *(lease(pictures, i) for i in range(3))]
    )
    assert verdicts[0].used["scores"]["image_image"] == pytest.approx(1, abs=1e-5)
    alone = judge.run([lease(pictures, 1)])[0].used["scores"]
    assert verdicts[2].used["scores"] == pytest.approx(alone, abs=NEIGHBOURS)
    assert not any(verdict.remarks for verdict in verdicts)


def test_several_passes_are_drawn_apart_and_averaged(
    loaded: Loaded, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = loaded(max_new_tokens=200, temperature=0.7, num_pass=3)
    said = ['{"score": [4, 4]}', '{"score": [9, 9]}', "no", "no", RIGHT, '{"score": [16, 16]}']
    says(judge, monkeypatch, *said, RIGHT, '{"score": [8, 8]}', '{"score": [2, 2]}')
    verdict = judge.run([lease(pictures, 0)])[0]
    calls = verdict.details["calls"]
    assert [call["pass"] for call in calls] == [0, 0, 1, 1, 2, 2]
    # The second pass has no SC, as that was not answered in form, and so no O; its PQ of 2 counts.
    means = {"SC": 3.0, "PQ": pytest.approx((9 + 2 + 8) / 3), "O": pytest.approx(5.0)}
    assert verdict.used["scores"] == means
    spread = {"SC": 1.0, "PQ": pytest.approx(3.0912, abs=1e-4), "O": pytest.approx(1.0)}
    assert verdict.used["spread"] == spread
    assert (verdict.used["num_pass"], verdict.used["passes_scored"]) == (3, 2)


def test_each_pass_draws_from_a_seed_of_its_own(loaded: Loaded, pictures: list[str]) -> None:
    judge = loaded(temperature=1.0, num_pass=2)
    calls = judge.run([lease(pictures, 0)])[0].details["calls"]
    assert calls[0]["raw"] != calls[2]["raw"], "another draw"
    alone = loaded(temperature=1.0).run([lease(pictures, 0)])[0].details["calls"]
    assert [c["raw"] for c in calls[:2]] == [c["raw"] for c in alone], "the first is the usual one"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"num_pass": 4}, "needs a temperature above 0"),
        (
            {"num_pass": 4, "type": "vlm_logits", "prompts": "viescore_logits.yaml"},
            "for judges that answer in words",
        ),
    ],
)
def test_passes_that_would_be_the_same_are_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=f"judge.num_pass: 4 .*{why}"):
        load_judge(JUDGE.model_copy(update=changes))
