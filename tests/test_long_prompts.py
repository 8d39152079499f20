"""A prompt that is longer than the model takes is drawn from what it takes, and that is said."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.conftest import Project
from tests.test_native_image_generator import SMALL, drawn, lease, spec_for

WORDS = "a red house and a blue tree on grass at night by the sea".split()  # noqa: SIM905


def words(count: int) -> str:
    return " ".join(WORDS[i % len(WORDS)] for i in range(count))


def letters(count: int) -> str:
    """The tiny pipelines' tokenizers make a token of each letter."""
    return "".join("abcdefghij"[i % 10] for i in range(count))


def save(name: str, folder: Path) -> Path:
    from tests import tiny_pipelines

    getattr(tiny_pipelines, f"build_{name}")().save_pretrained(folder / name)
    return folder / name


def loaded(model: Path) -> Any:
    from workers.models.native_image_generator import NativeImageGenerator

    native = NativeImageGenerator(spec_for(str(model)), lambda level, text: None)
    native.load()
    return native


def remarks(family: Any, **fields: Any) -> list[str]:
    return list(family.run([lease(**fields)])[0].remarks)


@pytest.fixture(scope="module")
def z_image(tiny_model: Path) -> Any:
    return loaded(tiny_model)


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return loaded(save("sdxl", tmp_path_factory.mktemp("models")))


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return loaded(save("flux", tmp_path_factory.mktemp("models")))


@pytest.fixture(scope="module")
def qwen_image(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return loaded(save("qwen_image", tmp_path_factory.mktemp("models")))


# -- Z-Image: the checkpoint's table of positions ends before the pipeline's 512 tokens --------


def test_a_z_image_prompt_is_cut_where_the_checkpoint_has_no_more_positions(z_image: Any) -> None:
    """Two tokens of the template come before it; what is lost behind the cut is the template."""
    [said] = remarks(z_image, prompt=words(700))
    assert said.startswith("prompt has 700 tokens, the model takes 478 (480 with its own marks): ")
    assert said.endswith('cut after "… a blue tree on grass at night by the sea a red"')
    assert words(478).endswith("a blue tree on grass at night by the sea a red")
    long, short = (drawn(z_image, prompt=words(n)) for n in (700, 478))
    assert np.array_equal(long, short)
    assert not np.array_equal(long, drawn(z_image, prompt=words(470)))


def test_a_prompt_of_exactly_the_limit_is_not_said_to_be_cut(z_image: Any) -> None:
    assert remarks(z_image, prompt=words(478)) == []
    assert len(remarks(z_image, prompt=words(479))) == 1


@pytest.mark.parametrize("count", [1, 100, 473, 500, 1500])
def test_pictures_drawn_together_are_cut_like_pictures_drawn_alone(
    z_image: Any, count: int
) -> None:
    prompts = [words(count), words(3)]
    together = z_image.run([replace(lease(prompt=p), lease_id=p) for p in prompts])
    alone = [z_image.run([lease(prompt=p)])[0] for p in prompts]
    for a, b in zip(together, alone, strict=True):
        assert a.remarks == b.remarks
        difference = np.abs(np.asarray(a.image, int) - np.asarray(b.image, int))
        assert difference.max() <= 1


def test_a_remembered_prompt_is_still_said_to_be_cut(z_image: Any) -> None:
    first = remarks(z_image, prompt=words(640))
    assert first and remarks(z_image, prompt=words(640), seed=9) == first


def test_a_negative_prompt_is_cut_and_named(z_image: Any) -> None:
    [said] = remarks(z_image, negative_prompt=words(600), guidance_scale=2.0)
    assert said.startswith("negative prompt has 600 tokens, the model takes 478")


def test_a_short_prompt_that_another_one_contains_is_not_said_to_be_cut(z_image: Any) -> None:
    remarks(z_image, prompt=f"{words(600)} purple boat")
    assert remarks(z_image, prompt="purple boat") == []


# -- CLIP, T5 and Qwen: the pipeline cuts, and diffusers' own pixels stay ----------------------


@pytest.mark.parametrize(
    ("family", "takes", "said"),
    [
        ("sdxl", 75, r"prompt has 90 tokens, the model takes 75 \(77 with its own marks\)"),
        ("flux", 75, r"prompt: CLIP takes 75 of 90 tokens \(77 .*; T5 takes all of it"),
    ],
)
def test_clip_cuts_and_says_where(
    family: str, takes: int, said: str, request: pytest.FixtureRequest
) -> None:
    native = request.getfixturevalue(family)
    text = letters(90)
    [sentence] = remarks(native, prompt=text)
    assert re.match(said, sentence)
    assert f'cut after "… {text[takes - 48 : takes]}"' in sentence
    assert remarks(native, prompt=letters(takes)) == []


def test_a_cut_sdxl_picture_is_that_of_the_cut_prompt(sdxl: Any) -> None:
    long, cut, shorter = ("ab " * n for n in (60, 37, 36))
    pictures = [drawn(sdxl, prompt=f"a {prompt}") for prompt in (long, cut, shorter)]
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


def test_flux_says_what_t5_and_what_clip_take(flux: Any) -> None:
    [said] = remarks(flux, prompt=letters(600))
    assert "CLIP takes 75 of 600 tokens" in said
    assert re.search(r"T5 takes 510 of 601 tokens|T5 takes 51\d of 60\d tokens", said)


def test_qwen_image_takes_1024_tokens(qwen_image: Any) -> None:
    """Its tokenizer makes 180 tokens of the template before the prompt, of which 34 are dropped."""
    assert remarks(qwen_image, prompt=letters(870)) == []
    whole, cut = (drawn(qwen_image, prompt=letters(n)) for n in (870, 300))
    assert not np.array_equal(whole, cut)
    [said] = remarks(qwen_image, prompt=letters(1300))
    assert "prompt has 1300 tokens, the model takes 878 (1058 with its own marks)" in said
    long, taken = (drawn(qwen_image, prompt=letters(n)) for n in (1300, 878))
    assert np.array_equal(long, taken)


def test_a_clip_tokenizer_without_a_length_cuts_at_its_encoders_positions(tmp_path: Path) -> None:
    from tests import tiny_pipelines

    pipeline = tiny_pipelines.build_sdxl()
    for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_2):
        tokenizer.model_max_length = int(1e30)
    pipeline.save_pretrained(tmp_path / "model")
    assert len(remarks(loaded(tmp_path / "model"), prompt=letters(200))) == 1


def test_a_processor_in_a_tokenizers_place_works_and_says_where_it_cuts() -> None:
    """FLUX.2 and Kandinsky 5 have one; its first argument is the pictures, not the text."""
    from demo_model.qwen_vision import build_processor
    from tests import tiny_pipelines
    from workers.prompt_cuts import PromptCuts, tokenizers_of

    tokenizer = tiny_pipelines.build_qwen_image().tokenizer
    processor = build_processor("Qwen2VLProcessor", tokenizer, 14, 100_000)
    cuts = PromptCuts(tokenizers_of(SimpleNamespace(tokenizer=processor)))
    cuts.expect([letters(90)])
    tokens = processor(
        text=[f"xx{letters(90)}"], images=None, max_length=60, truncation=True, padding=True
    )
    assert len(tokens["input_ids"][0]) == 60
    said = cuts.of(letters(90), "prompt")
    assert said is not None and said.startswith("prompt has 90 tokens, the model takes 58 (60 with")


def test_as_many_cut_prompts_are_known_as_embeddings_are_remembered() -> None:
    from tests import tiny_pipelines
    from workers.prompt_cuts import MOST_REMEMBERED, PromptCuts

    count = MOST_REMEMBERED + 3
    tokenizer = tiny_pipelines.build_sdxl().tokenizer
    cuts = PromptCuts({"CLIP": tokenizer}, cached=count)
    texts = [f"{n} {letters(90)}" for n in range(count)]
    for text in texts:
        cuts.expect([text])
        tokenizer(text, truncation=True)
    assert all(cuts.of(text, "prompt") for text in texts)


# -- the command -------------------------------------------------------------------------------


def test_each_task_whose_prompt_is_cut_is_named_in_few_lines(
    project: Project, tmp_path: Path
) -> None:
    tweets = project.write_tweets(
        [
            *({"prompt": letters(80 + n), "task_id": f"long {n:02}"} for n in range(14)),
            *({"prompt": letters(99), "task_id": f"same {n}"} for n in range(2)),
            {"prompt": "short", "task_id": "short"},
        ]
    )
    settings = {"model": str(save("sdxl", tmp_path)), "defaults": SMALL}
    run = project.run([tweets, 1], settings)
    assert run.process.returncode == 0, run.errors
    lines = [line for line in run.errors.splitlines() if "INFO" not in line]
    assert len(lines) == 11, run.errors
    line = r"WARNING cpu0, long (\d\d): prompt has \d\d tokens, the model takes 75 \("
    assert all(re.search(line, found) for found in lines[:-1])
    named = re.findall(r"long \d\d|same \d", "\n".join(lines))
    assert len(named) == len({*named}) == 16
    assert "Prompts of 6 more tasks were longer than the model takes and were cut: " in lines[10]
