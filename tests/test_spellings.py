"""What counts as a setting in a tweets file: any usual name, wherever people put it."""

import json
from pathlib import Path
from typing import Any

import pytest

from apps.prompts.bad_entry import BadEntry
from apps.tweets.tweets_file import TweetFile, read_tweets
from core.errors import InputError
from core.intake import spellings
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.tasks import GenerateTask
from tests.conftest import PROJECT, Project, simulated

GUIDE = PROJECT / "docs" / "TWEETS.md"
VALUES: dict[str, tuple[Any, dict[str, Any]]] = {  # by setting: a value, and the fields it gives
    "negative_prompt": ("blur", {"negative_prompt": "blur"}),
    "width": (512, {"width": 512}),
    "height": (768, {"height": 768}),
    "size": ("512x768", {"width": 512, "height": 768}),
    "num_inference_steps": (4, {"num_inference_steps": 4}),
    "cfg": (3.5, {"cfg": 3.5}),
    "guidance_scale": (2.5, {"guidance_scale": 2.5}),
    "seed": (7, {"seed": 7}),
    "lora_path": ("a.safetensors", {"lora_path": "a.safetensors"}),
}
NAMES = [(name, setting) for setting in VALUES for name in spellings.SETTINGS[setting]]


def first_of(file: TweetFile) -> Any:
    """Its first input."""
    return next(iter(file.inputs))


def read(tmp_path: Path, content: Any, **options: Any) -> TweetFile:
    file = tmp_path / "tweets.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return read_tweets(file, **options)


def settings_of(task: Any) -> dict[str, Any]:
    """What a task says of its picture beyond the prompt."""
    assert isinstance(task, dict), task
    return {
        k: v for k, v in task.items() if k not in ("prompt", "task_id", "output_path", "metadata")
    }


def in_every_place(given: dict[str, Any]) -> dict[str, Any]:
    """Files in which `given` stands somewhere else each time; all say the same."""
    image = {"positive_prompt": "a"}
    return {
        "tweet": {"persona": {"name": "M"}, "tweets": [{"prompt": "a", **given}]},
        "image_generation": {"persona": {}, "tweets": [{"image_generation": {**image, **given}}]},
        "its generation_params": {
            "tweets": [{"image_generation": {**image, "generation_params": given}}]
        },
        "the tweet's generation_params": {"tweets": [{"prompt": "a", "generation_params": given}]},
        "persona": {"persona": {"name": "M", "width": 512, **given}, "tweets": [{"prompt": "a"}]},
        "the persona's generation_params": {
            "persona": {"generation_params": given}, "tweets": [{"prompt": "a"}]
        },
        "the file": {**given, "persona": {"name": "M"}, "tweets": [{"prompt": "a"}]},
        "a list": [{"prompt": "a", **given}],
        "a list of prompts": {"prompts": ["a"], **given},
        "one line": json.dumps({"prompt": "a", **given}),
    }  # fmt: skip


@pytest.mark.parametrize(("name", "setting"), NAMES)
def test_every_name_of_a_setting_counts_in_every_place(
    tmp_path: Path, name: str, setting: str
) -> None:
    value, expected = VALUES[setting]
    for place, content in in_every_place({name: value}).items():
        task = settings_of(first_of(read(tmp_path, content)))
        extra = {"width": 512} if place == "persona" else {}
        assert task == {**extra, **expected}, place


@pytest.mark.parametrize(
    "name", ["CFG scale", "cfgScale", "CFG_SCALE", "cfg-scale", "CfgScale", "cfgscale"]
)
def test_a_name_counts_however_its_words_are_joined(tmp_path: Path, name: str) -> None:
    [task] = read(tmp_path, [{"prompt": "a", name: 4}]).inputs
    assert settings_of(task) == {"cfg": 4}


@pytest.mark.parametrize(
    ("size", "sides"),
    [("512x768", (512, 768)), ("512 × 768", (512, 768)), ("512*768", (512, 768)),
     ("512X768px", (512, 768)), ([512, 768], (512, 768)), ({"w": 512, "h": 768}, (512, 768)),
     (512, (512, 512)), ("512", (512, 512))],
)  # fmt: skip
def test_a_size_is_both_sides(tmp_path: Path, size: Any, sides: tuple[int, int]) -> None:
    [task] = read(tmp_path, [{"prompt": "a", "size": size}]).inputs
    assert settings_of(task) == {"width": sides[0], "height": sides[1]}


def test_a_size_that_is_none_is_refused_and_auto_is_left_to_the_model(tmp_path: Path) -> None:
    bad, auto = read(
        tmp_path, [{"prompt": "a", "size": "square_hd"}, {"prompt": "a", "size": "auto"}]
    ).inputs
    assert isinstance(bad, BadEntry) and "size: expected a size such as '512x768'" in str(bad)
    assert settings_of(auto) == {}


LORA = {"lora_path": "a.safetensors", "lora_strength": 0.8}
LORAS = [
    {"lora": {"model_path": "a.safetensors", "strength": 0.8}},
    {"lora_params": {"path": "a.safetensors", "weight": 0.8}},
    {"lora": {"file": "a.safetensors", "scale": 0.8}},
    {"lora": {"name": "a.safetensors", "strength": 0.8}},
    {"lora": {"name": "Mira's face", "path": "a.safetensors", "strength": 0.8}},
    {"lora": {"lora_name": "a.safetensors", "strength_model": 0.8}},  # ComfyUI
    {"loras": [{"lora": {"model_name": "a.safetensors"}, "weight": 0.8}]},  # InvokeAI
    {"loras": [{"model": {"name": "a.safetensors", "base": "any"}, "weight": 0.8}]},  # InvokeAI 4
    {"loras": [["a.safetensors", 0.8]]},
    {"lora": ["a.safetensors", 0.8]},
    {"lora": "a.safetensors", "lora_strength": 0.8},
    {"LoRA": "a.safetensors", "lora_scale": "0.8"},
    {"lora_path": "a.safetensors", "lora_weight": 0.8},
    {"lora": {"path": "a.safetensors"}, "lora_strength": 0.8},
]


@pytest.mark.parametrize("given", LORAS, ids=str)
def test_a_lora_counts_in_all_its_usual_forms_in_every_place(
    tmp_path: Path, given: dict[str, Any]
) -> None:
    for place, content in in_every_place(given).items():
        task = settings_of(first_of(read(tmp_path, content)))
        task.pop("width", None)
        assert {**task, "lora_strength": float(task["lora_strength"])} == LORA, place


@pytest.mark.parametrize(
    "given",
    [{"lora": []}, {"lora": {}}, {"lora": ""}, {"lora": None}, {"loras": [{}]},
     {"lora": {"path": "", "name": "x"}}, {"lora": {"path": "a", "enabled": False}}],
)  # fmt: skip
def test_a_lora_that_is_empty_or_switched_off_is_none(tmp_path: Path, given: Any) -> None:
    for content in in_every_place(given).values():
        assert "lora_path" not in settings_of(first_of(read(tmp_path, content)))


@pytest.mark.parametrize(
    "off",
    [{"lora": {"enabled": False}}, {"lora": {"path": "p.safetensors", "enabled": False}},
     {"loras": [{"path": "p.safetensors", "enabled": False}, {"path": "b", "on": False}]},
     {"image_generation": {"lora": {"enabled": False}}}],
)  # fmt: skip
@pytest.mark.parametrize("of_persona", [{"lora": "p.safetensors"}, {"loras": ["p", "b"]}])
def test_a_tweet_switches_its_personas_loras_off(
    tmp_path: Path, of_persona: dict[str, Any], off: dict[str, Any]
) -> None:
    content = {"persona": {"name": "M", **of_persona}, "tweets": [{"prompt": "a", **off}]}
    assert not {"lora_path", "loras"} & settings_of(first_of(read(tmp_path, content))).keys()


STACK = [{"path": "a.safetensors", "strength": 0.8}, {"path": "b.safetensors", "strength": -0.5}]
STACKS: list[dict[str, Any]] = [
    {"loras": STACK},
    {"lora": STACK},
    {"lora_params": [{"model_path": "a.safetensors", "weight": 0.8}, ["b.safetensors", -0.5]]},
    {"loras": [["a.safetensors", 0.8], ["b.safetensors", -0.5]]},
    {"loras": [{"lora": {"model_name": "a.safetensors"}, "weight": 0.8},
               {"model": {"name": "b.safetensors"}, "weight": -0.5}]},  # InvokeAI
    {"loras": [*STACK, {"path": "c.safetensors", "enabled": False}, {}, "", None]},
    {"loras": ["a.safetensors", "b.safetensors"], "loraweights": ["0.8", "-0.5"]},  # SwarmUI
    {"lora_path": ["a.safetensors", "b.safetensors"], "lora_strength": [0.8, -0.5]},
    {"loras": {"a.safetensors": 0.8, "b.safetensors": -0.5}},
    {"loras": {"lora_1": {"on": True, "lora": "a.safetensors", "strength": 0.8},
               "lora_2": {"on": True, "lora": "b.safetensors", "strength": -0.5}}},  # rgthree
    {"loras": {"0": STACK[0], "2": STACK[1]}},  # PHP
]  # fmt: skip


@pytest.mark.parametrize("given", STACKS, ids=str)
def test_several_loras_count_in_all_their_usual_forms_in_every_place(
    tmp_path: Path, given: dict[str, Any]
) -> None:
    for place, content in in_every_place(given).items():
        task = settings_of(first_of(read(tmp_path, content)))
        loras = [{**lora, "strength": float(lora["strength"])} for lora in task["loras"]]
        assert loras == STACK and "lora_path" not in task and "lora_strength" not in task, place


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"loras": ["a", "b"], "lora_path": "a"}, "loras is [{'path': 'a'}, {'path': 'b'}] and"),
        ({"lora": "c", "loras": ["a", "b"]}, "they are one setting: give one of them"),
        ({"loras": ["a", "b"], "lora_strength": 0.5}, "lora_strength: 0.5: 1 strength for 2 LoRAs"),
        ({"loras": ["a", "b"], "lora_weights": [1, 1, 1]}, "3 strengths for 2 LoRAs; give each"),
        ({"loras": ["a"], "lora_weights": [1, 1]}, "2 strengths for 1 LoRA; give each"),
        ({"loras": STACK, "lora_weights": [1, 2]}, "some of the LoRAs have a strength of their"),
        ({"loras": ["a", {"strength": 0.5}]}, "loras[1].strength: has no LoRA beside it"),
        ({"loras": ["a", {"path": "b", "strenght": 1}]}, "loras[1].strenght: unknown key; did you"),
        ({"loras": ["a", {"href": "b"}]}, "loras[1]: has no model_path (found ['href'])"),
        ({"loras": ["a", "b", 5]}, "loras[2]: expected a path, an object, or [path, strength]"),
        ({"loras": ["a", ["b", 1, 2]]}, "loras[1]: expected a path, an object, or [path"),
        ({"loras": {"strenght": 1}}, "loras.strenght: unknown key; did you mean 'strength'?"),
    ],
)
def test_what_is_no_list_of_loras_fails_that_tweet_and_says_where(
    tmp_path: Path, given: dict[str, Any], error: str
) -> None:
    bad, good = read(tmp_path, [{"prompt": "a", **given}, {"prompt": "b", "loras": STACK}]).inputs
    assert isinstance(bad, BadEntry) and error in str(bad)
    assert settings_of(good) == {"loras": STACK}


def test_the_nearest_loras_count_and_a_layer_may_change_the_strengths_of_a_farther_one(
    tmp_path: Path,
) -> None:
    persona = {"name": "M", "loras": STACK}
    tweets: list[dict[str, Any]] = [
        {"prompt": "a"},
        {"prompt": "b", "lora": "near.safetensors"},
        {"prompt": "c", "image_generation": {"loras": ["n.safetensors", "b.safetensors"]}},
        {"prompt": "d", "lora_strength": [1, 0.25]},
        {"prompt": "e", "lora_strength": 0.25},
    ]
    *found, unclear = read(tmp_path, {"persona": persona, "tweets": tweets}).inputs
    assert [settings_of(task) for task in found] == [
        {"loras": STACK},
        {"lora_path": "near.safetensors"},
        {"loras": [{"path": "n.safetensors"}, {"path": "b.safetensors"}]},
        {"loras": [{**STACK[0], "strength": 1}, {**STACK[1], "strength": 0.25}]},
    ]
    assert "lora_strength: 0.25: 1 strength for 2 LoRAs" in str(unclear)
    inner = {"positive_prompt": "f", "loras": STACK}
    [nearer] = read(
        tmp_path, {"tweets": [{"image_generation": inner, "lora_strength": [3, 4]}]}
    ).inputs
    assert settings_of(nearer) == {"loras": STACK}, "strengths beside paths are nearer than others"
    one = {"name": "M", "lora": "a.safetensors"}
    [other] = read(tmp_path, {"persona": one, "tweets": [{"prompt": "a", "loras": STACK}]}).inputs
    assert settings_of(other) == {"loras": STACK}


def test_a_strength_goes_with_its_own_lora(tmp_path: Path) -> None:
    tweet = {
        "prompt": "a",
        "lora": {"path": "far.safetensors", "strength": 0.2},
        "image_generation": {"lora": "near.safetensors"},
    }
    persona = {"name": "M", "lora": {"path": "persona.safetensors", "strength": 0.3}}
    weaker = {"prompt": "b", "lora_strength": 0.6}
    near, weak = read(tmp_path, {"persona": persona, "tweets": [tweet, weaker]}).inputs
    assert settings_of(near) == {"lora_path": "near.safetensors"}
    assert settings_of(weak) == {"lora_path": "persona.safetensors", "lora_strength": 0.6}


PLACES = ["image_generation.generation_params", "image_generation", "generation_params", "tweet",
          "persona.generation_params", "persona", "file"]  # fmt: skip


@pytest.mark.parametrize("nearest", range(len(PLACES)))
def test_the_innermost_place_wins_and_a_tweet_over_its_persona(
    tmp_path: Path, nearest: int
) -> None:
    """Every place from the one that should win outwards has a seed; those inside have none."""
    names = ["SEED", "noise_seed", "Seed", "seed", "rng_seed", "random_seed", "seed"]
    said = {
        place: {names[number]: number} if number >= nearest else {}
        for number, place in enumerate(PLACES)
    }
    image = {**said["image_generation"], "generation_params": said[PLACES[0]]}
    tweet = {**said["tweet"], "image_generation": image}
    tweet |= {"prompt": "a", "generation_params": said["generation_params"]}
    persona = {**said["persona"], "generation_params": said["persona.generation_params"]}
    content = {**said["file"], "persona": persona, "tweets": [tweet]}
    assert settings_of(first_of(read(tmp_path, content))) == {"seed": nearest}


def test_a_nearer_guidance_replaces_a_farther_one_of_another_meaning(tmp_path: Path) -> None:
    content = {
        "persona": {"name": "M", "cfg_scale": 4},
        "tweets": [{"prompt": "a"}, {"prompt": "b", "guidance": 2.5}],
    }
    first, second = read(tmp_path, content).inputs
    assert settings_of(first) == {"cfg": 4} and settings_of(second) == {"guidance_scale": 2.5}


def test_one_setting_said_twice_in_one_place_is_one_clear_error(tmp_path: Path) -> None:
    twice, same = read(
        tmp_path,
        [{"prompt": "a", "CFG": 3.0, "cfg_scale": 4}, {"prompt": "a", "size": "64x64", "w": "64"}],
    ).inputs
    assert isinstance(twice, BadEntry)
    assert "tweet 0: CFG is 3.0 and cfg_scale is 4; they are one setting" in str(twice)
    assert settings_of(same) == {"width": 64, "height": 64}


def test_what_means_nothing_here_is_named_once_for_the_file(project: Project) -> None:
    params = {"steps": 1, "sampler_name": "euler", "denoise": 1.0}
    tweet = {"prompt": "a", "tweet_text": "t", "generation_params": params, "clip_skip": 2}
    calm = {
        "prompt": "b",
        "slot": 2,
        "mood": "calm",
        "hashtags": ["x"],
        "reasoning": "because",
        "hr_cfg_mode": 1,
    }
    persona = {"name": "M", "bio": "b", "age": 24, "scheduler": "karras", "height": "168 cm"}
    file = project.write_tweets({"persona": persona, "tweets": [tweet, tweet, calm]})
    run = project.run([file])
    assert run.process.returncode == 0
    lines = [line for line in run.errors.splitlines() if "assed over" in line]
    assert len(lines) == 1, run.errors
    assert "Passed over in tweets.json: sampler_name (2 tweets), denoise (2)," in lines[0]
    for part in ("clip_skip (2)", "hr_cfg_mode (1)", "scheduler (persona)", "height (persona)"):
        assert part in lines[0]
    for quiet in ("mood", "slot", "hashtags", "reasoning", "bio", "age ("):
        assert quiet not in lines[0]


def test_a_list_names_every_setting_that_it_passes_over(tmp_path: Path) -> None:
    entry = {
        "prompt": "a",
        "id": 3,
        "sampler": "euler",
        "flavour": "mint",
        "lora": {"path": "a", "x": 1},
    }
    found = read(tmp_path, [entry, {"prompt": "b"}])
    first = first_of(found)
    assert isinstance(first, dict) and first["metadata"] == {"id": 3, "flavour": "mint"}
    assert str(found.passed_over).startswith("Passed over in tweets.json: ")
    for part in ("sampler (1", "x (1"):
        assert part in str(found.passed_over)
    assert "id (" not in str(found.passed_over) and "flavour" not in str(found.passed_over)
    assert read(tmp_path, [{"prompt": "b", "seed": 1}]).passed_over is None


def test_many_strange_keys_make_one_line_all_the_same(tmp_path: Path) -> None:
    strange = {f"strange\n{i}{'x' * 500}": "y" * 9000 for i in range(500)}
    line = str(read(tmp_path, [{"prompt": "a", **strange}]).passed_over)
    assert "\n" not in line and len(line) < 3000 and ", 480 more." in line


def test_texts_beside_the_settings_are_not_taken_for_settings(tmp_path: Path) -> None:
    persona = {
        "name": "M",
        "height": 176,
        "size": "S",
        "guidance": "be kind",
        "negative": ["spiders"],
    }
    tweet = {
        "prompt": "a",
        "steps": ["mix", "bake"],
        "positive": True,
        "size": "large",
        "with": "Ann",
    }
    found = read(tmp_path, {"persona": persona, "tweets": [tweet]})
    assert settings_of(first_of(found)) == {}
    for key in ("height", "size", "guidance", "negative", "steps"):
        assert key in str(found.passed_over)


@pytest.mark.parametrize("persona", [{"height": 512}, {"height": 176, "width": 512}])
def test_a_persona_may_set_the_height_of_its_pictures(
    tmp_path: Path, persona: dict[str, int]
) -> None:
    found = read(tmp_path, {"persona": persona, "tweets": ["a"]})
    assert settings_of(first_of(found)) == persona


@pytest.mark.parametrize(
    ("entry", "hint"),
    [
        ({"prompt": "a", "widht": 5}, "widht: unknown key; did you mean 'width'?"),
        ({"prompt": "a", "lora_stength": 1}, "did you mean 'lora_strength'?"),
        ({"prompt": "a", "generation_params": {"guidance_scal": 1}}, "generation_params.guidance_"),
        ({"prompt": "a", "lora": {"strenght": 1, "path": "x"}}, "lora.strenght: unknown key; did"),
    ],
)
def test_a_misspelt_name_is_still_refused(tmp_path: Path, entry: dict[str, Any], hint: str) -> None:
    [bad] = read(tmp_path, [entry]).inputs
    assert isinstance(bad, BadEntry) and hint in str(bad)


def test_a_fault_of_the_persona_is_said_for_each_tweet(tmp_path: Path) -> None:
    persona = {"name": "M", "generation_params": {"stepps": 8}}
    tasks = read(tmp_path, {"persona": persona, "tweets": ["a", {"prompt": "b"}]}).inputs
    assert all("persona: generation_params.stepps: unknown" in str(t) for t in tasks)


def test_no_name_of_other_programs_is_one_of_ours_misspelt() -> None:
    assert not [n for n in ("cfg_rescale", "guidance_rescale", "prompt_2", "lora_strength_clip")
                if spellings.meant(n)]  # fmt: skip
    names = [n for table in (spellings.SETTINGS, spellings.PROMPTS, spellings.CONTAINERS)
             for some in table.values() for n in some]  # fmt: skip
    assert not [n for n in names if spellings.is_foreign(n) or spellings.is_content(n)]


def test_python_tasks_take_the_same_names(tmp_path: Path) -> None:
    loose: dict[str, Any] = {
        "Prompt": "a",
        "noise_seed": 3,
        "Steps": 4,
        "cfgScale": 2,
        "size": "64x96",
    }
    with MultiGPUImageGenerator(1, config=simulated(), output_dir=tmp_path) as generator:
        plan = generator.prepare([loose], [])
    [task] = [admitted.task for admitted in plan.tasks]
    assert isinstance(task, GenerateTask)
    assert (task.prompt, task.seed, task.num_inference_steps, task.cfg) == ("a", 3, 4, 2.0)
    assert (task.width, task.height) == (64, 96)


@pytest.mark.parametrize(
    ("task", "error"),
    [
        ({"prompt": "a", "stepps": 4}, "did you mean"),
        ({"prompt": "a", "Steps": 4, "num_steps": 5}, "Steps is 4 and num_steps is 5"),
        ({"prompt": "a", "sampler": "euler"}, "'sampler': unknown key"),
        ({"prompt": "a", "Seed": 1, "sampler": "euler"}, "'sampler': unknown key"),
        ({"tweet_text": "a", "Seed": 1}, "prompt: is missing"),
        ({"prompt": "a", "lora": {"path": "a", "trigger": 1}}, "lora: 'trigger': unknown key"),
    ],
)
def test_a_python_task_with_unknown_names_is_refused(
    tmp_path: Path, task: dict[str, Any], error: str
) -> None:
    with MultiGPUImageGenerator(1, config=simulated(), output_dir=tmp_path) as generator:
        plan = generator.prepare([task], [])
    assert error in str(plan.settled[0].error)


def test_the_guide_shows_the_tables_of_the_code() -> None:
    text = GUIDE.read_text("utf-8")
    tables = (spellings.SETTINGS, spellings.PROMPTS, spellings.CONTAINERS, spellings.LORA_FIELDS)
    for table in tables:
        for meaning, names in table.items():
            row = f"| `{meaning}` | {', '.join(f'`{name}`' for name in names)} |"
            assert row in text, row


@pytest.mark.parametrize("content", [{"persona": [], "tweets": ["a"]}, {"prompts": ["a"]}])
def test_a_file_may_be_read_without_a_persona(tmp_path: Path, content: Any) -> None:
    assert not isinstance(first_of(read(tmp_path, content)), InputError)
