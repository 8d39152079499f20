"""Tweet files as they are met in the wild."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.prompts.bad_entry import BadEntry
from apps.tweets.tweets_file import read_tweets
from core.errors import InputError


def read(tmp_path: Path, content: Any, **options: Any) -> list[Any]:
    file = tmp_path / "my tweets.json"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        file.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return list(read_tweets(file, **options).inputs)


def persona_file(*tweets: Any, **persona: Any) -> dict[str, Any]:
    return {"version": "2.0", "persona": {"name": "Mira Vale", **persona}, "tweets": list(tweets)}


def tweet(**image: Any) -> dict[str, Any]:
    return {"slot": 1, "tweet_text": "Good morning!", "mood": "calm", "image_generation": image}


def test_a_persona_tweet_becomes_a_task(tmp_path: Path) -> None:
    [task] = read(
        tmp_path,
        persona_file(
            tweet(
                scene_hint="a hint",
                positive_prompt="a red house",
                negative_prompt="blur",
                lora_params={"model_path": "style.safetensors", "strength": 0.8},
                generation_params={"width": 64, "height": 96, "steps": 8, "cfg": 1.0, "eta": 3},
            )
        ),
    )
    assert task == {
        "prompt": "a red house",
        "negative_prompt": "blur",
        "lora_path": "style.safetensors",
        "lora_strength": 0.8,
        "width": 64,
        "height": 96,
        "num_inference_steps": 8,
        "cfg": 1.0,
        "task_id": "Mira_Vale_00",
        "output_path": "Mira_Vale_00.png",
        "metadata": {
            "slot": 1,
            "tweet_text": "Good morning!",
            "mood": "calm",
            "persona": "Mira Vale",
        },
    }


def test_empty_values_mean_not_set(tmp_path: Path) -> None:
    [task] = read(
        tmp_path,
        persona_file(
            tweet(
                scene_hint="a hint",
                positive_prompt="",
                negative_prompt="",
                lora_params={},
                generation_params={"width": None, "steps": ""},
            ),
            lora={},
        ),
    )
    assert task["prompt"] == "a hint"
    assert not {"lora_path", "width", "num_inference_steps", "negative_prompt"} & set(task)


def test_the_persona_gives_what_the_tweet_leaves_open(tmp_path: Path) -> None:
    persona = {
        "lora": {"model_path": "face.safetensors", "strength": 0.7},
        "generation_params": {"width": 512, "cfg": 2.0},
    }
    own = tweet(
        prompt="b",
        lora_params={"model_path": "other.safetensors"},
        generation_params={"guidance_scale": 0.5},
    )
    weaker = tweet(prompt="c", lora_params={"strength": 0.2})
    first, second, third = read(tmp_path, persona_file(tweet(prompt="a"), own, weaker, **persona))
    assert (first["lora_path"], first["lora_strength"], first["cfg"]) == (
        "face.safetensors",
        0.7,
        2.0,
    )
    assert second["lora_path"] == "other.safetensors" and "lora_strength" not in second
    assert second["guidance_scale"] == 0.5 and "cfg" not in second and second["width"] == 512
    assert (third["lora_path"], third["lora_strength"]) == ("face.safetensors", 0.2)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({"generation_params": {"stepps": 8}}, "generation_params.stepps: unknown key; did you"),
        ({"lora_params": {"model_pth": "a"}}, "lora_params.model_pth: unknown key; did you mean"),
        ({"lora_params": {"href": "a", "strength": 1}}, "lora_params: has no model_path (found"),
        ({"positive_prompt": "", "positve_prompt": "a"}, "is 'positve_prompt' misspelt?"),
    ],
)
def test_a_misspelt_setting_is_not_passed_over(
    tmp_path: Path, image: dict[str, Any], message: str
) -> None:
    [entry] = read(tmp_path, persona_file(tweet(**{"positive_prompt": "a", **image})))
    assert isinstance(entry, InputError) and message in str(entry)


def test_keys_of_other_programs_are_passed_over(tmp_path: Path) -> None:
    [task] = read(
        tmp_path,
        persona_file(
            tweet(
                positive_prompt="a",
                prompt_notes="b",
                generation_params={"steps": 4, "sampler_name": "euler", "batch_size": 1},
                lora_params={"model_path": "", "trigger_word": "mira"},
            ),
            lora={"strength": 0.5},
        ),
    )
    assert isinstance(task, dict) and task["num_inference_steps"] == 4 and "lora_path" not in task


def test_the_text_of_a_tweet_is_no_prompt_unless_asked(tmp_path: Path) -> None:
    file = persona_file(tweet(), tweet(positive_prompt="a boat"))
    missing, given = read(tmp_path, file)
    assert isinstance(missing, BadEntry) and missing.task_id == "Mira_Vale_00"
    assert "tweet 0: has no prompt" in str(missing)
    assert given["prompt"] == "a boat"
    prompts = [t["prompt"] for t in read(tmp_path, file, prompt_from="tweet_text")]
    assert prompts == ["Good morning!"] * 2


def test_a_bare_list_has_task_fields(tmp_path: Path) -> None:
    tasks = read(tmp_path, [{"prompt": "a", "seed": 3}, {"scene_hint": "b", "tweet_text": "t"}])
    assert tasks[0] == {
        "prompt": "a",
        "seed": 3,
        "task_id": "my_tweets_00",
        "output_path": "my_tweets_00.png",
    }
    assert tasks[1]["prompt"] == "b" and tasks[1]["metadata"] == {"tweet_text": "t"}


def test_jsonl_has_one_object_per_line(tmp_path: Path) -> None:
    tasks = read(tmp_path, '{"prompt": "a"}\n\n{"prompt": "b"\n{"prompt": "c"}\n')
    assert tasks[0]["prompt"] == "a"
    assert isinstance(tasks[1], BadEntry) and "line 3: not valid JSON" in str(tasks[1])
    assert tasks[2]["prompt"] == "c"
    assert read(tmp_path, '{"prompt": "only"}')[0]["prompt"] == "only"


@pytest.mark.parametrize(
    "first",
    [
        '{"prompt": "a red house"',
        '{"prompt": "a red house",',
        '{"prompt": "a red',
        "{",
        "garbage",
        "\0",
        "{}",
        "null",
        '{"tweets": [',
        '[{"prompt": "a"}]',
        '{"prompt": "a"}{"prompt": "b"}',
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_damaged_first_line_fails_alone(tmp_path: Path, first: str, end: str) -> None:
    lines = ["\ufeff" + first, '{"prompt": "b"}', "", '{"prompt": "c"}', ""]
    bad, *good = read(tmp_path, end.join(lines).encode())
    assert isinstance(bad, BadEntry) and "tweet 0: " in str(bad)
    assert [task["prompt"] for task in good] == ["b", "c"]


def test_one_whole_line_after_a_damaged_one_is_enough(tmp_path: Path) -> None:
    bad, good = read(tmp_path, '{"prompt": "a red house"\n{"prompt": "b"}\n')
    assert isinstance(bad, BadEntry) and good["prompt"] == "b"


@pytest.mark.parametrize(
    "text",
    [
        '[\n{"prompt": "a"},\n{"prompt": "b"}\n',
        '[{"prompt": "a"},\n {"prompt": "b"}\n',
        '[\n{"prompt": "a"}\n{"prompt": "b"}\n{"prompt": "c"}\n]',
        '{"version": "2.0", "tweets": [\n{"prompt": "a"},\n{"prompt": "b"}\n]\n',
        '{\n "tweets": [\n  {"prompt": "a"}\n ]\n',
        '["a",\n"b",\n"c"\n',
        '{"prompt": "a", "seed": }',
        "a red house\na blue boat\n",
    ],
)
def test_a_damaged_document_is_one_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="not valid JSON"):
        read(tmp_path, text)


def test_comments_and_byte_order_marks_between_lines_are_no_entries(tmp_path: Path) -> None:
    text = '# two tweets\n{"prompt": "a"}\n// and\n\ufeff{"prompt": "b"}\n'
    assert [task["prompt"] for task in read(tmp_path, text)] == ["a", "b"]


@pytest.mark.parametrize(
    "content",
    [
        ["a", "b"],
        [{"prompt": "a"}, "b"],
        '"a"\n"b"\n',
        '{"prompt": "a"}\n"b"\n',
        {"prompts": ["a", {"prompt": "b"}]},
        {"tweets": ["a", {"tweet_text": "t", "image_generation": {"positive_prompt": "b"}}]},
    ],
)
def test_a_text_is_a_prompt(tmp_path: Path, content: Any) -> None:
    assert [task["prompt"] for task in read(tmp_path, content)] == ["a", "b"]


def test_what_php_writes_for_an_empty_object_is_empty(tmp_path: Path) -> None:
    image = {"positive_prompt": "a", "generation_params": [], "lora_params": [], "lora": []}
    tweet_ = {"image_generation": image, "metadata": [], "generation_params": []}
    persona = {"name": "M", "lora": [], "generation_params": [], "image_generation": []}
    plain = {"prompt": "a", "metadata": [], "lora": [], "image_generation": []}
    for content in (
        {"persona": persona, "tweets": [tweet_]},
        {"persona": [], "tweets": [tweet_]},
        [plain],
    ):
        [task] = read(tmp_path, content)
        assert set(task) <= {"prompt", "task_id", "output_path", "metadata"}, task
        assert task.get("metadata", {}) in ({}, {"persona": "M"})


def test_metadata_of_a_tweet_are_kept_with_its_texts(tmp_path: Path) -> None:
    [task] = read(tmp_path, persona_file({**tweet(prompt="a"), "metadata": {"likes": 3}}))
    assert task["metadata"] == {
        "slot": 1,
        "tweet_text": "Good morning!",
        "mood": "calm",
        "likes": 3,
        "persona": "Mira Vale",
    }


def test_a_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    assert read(tmp_path, b'\xef\xbb\xbf[{"prompt": "a"}]')[0]["prompt"] == "a"


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a/b\\c", "Zoë 星", "." * 50, "x" * 300, "", None, 7]
)
def test_any_persona_name_gives_a_safe_file_name(tmp_path: Path, name: Any) -> None:
    content = persona_file(tweet(prompt="a"))
    content["persona"]["name"] = name
    path = read(tmp_path, content)[0]["output_path"]
    assert not set(path) & set("/\\") and ".." not in path and len(path) < 120


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ('{"a": 1}', "expected a list of objects"),
        ("7", "expected a list of objects"),
        ("[]", "holds no tweets"),
        ('{"persona": {}, "tweets": []}', "holds no tweets"),
        ('{"persona": [], "tweets": "x"}', "expected a list of objects"),
        ('{"persona": "Mira", "tweets": [{}]}', "persona: expected an object"),
        (b'[{"prompt": "\xe9"}]', "not UTF-8 text \\(byte 13\\)"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ("[" + "9" * 5000 + "]", "not valid JSON"),
    ],
)
def test_an_unusable_file_gets_one_clear_line(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, content)
    assert str(caught.value).count("\n") == 0 and "my tweets.json" in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_tweets(tmp_path / "absent.json")
    with pytest.raises(InputError, match="is a folder"):
        read_tweets(tmp_path)


@pytest.mark.parametrize(
    "entry", [None, 5, "  ", [], {}, {"image_generation": "x"}, {"image_generation": []}]
)
def test_an_unusable_entry_keeps_its_place(tmp_path: Path, entry: Any) -> None:
    tasks = read(tmp_path, persona_file(tweet(prompt="a"), entry, tweet(prompt="c")))
    assert [isinstance(t, BadEntry) for t in tasks] == [False, True, False]


def test_a_line_separator_inside_text_ends_no_entry(tmp_path: Path) -> None:
    tasks = read(tmp_path, '{"prompt": "a\u2028b\x85c"}\n' * 2)
    assert [task["prompt"] for task in tasks] == ["a\u2028b\x85c"] * 2


@pytest.mark.parametrize("place", [0, 1, 3])
@pytest.mark.parametrize("cut", [b'{"prompt": "\xe3\x83\x9f\xe3\x83', b'{"prompt": "caf\xe9"}'])
def test_a_line_that_is_no_utf8_fails_alone(tmp_path: Path, place: int, cut: bytes) -> None:
    lines = [b'{"prompt": "a"}', '{"prompt": "ミラ"}'.encode(), b'{"prompt": "c"}']
    tasks = read(tmp_path, b"\n".join([*lines[:place], cut, *lines[place:]]))
    bad = tasks.pop(place)
    assert isinstance(bad, BadEntry) and f"line {place + 1}: not UTF-8 text" in str(bad)
    assert [task["prompt"] for task in tasks] == ["a", "ミラ", "c"]


@pytest.mark.parametrize(
    "content", [b'{"prompt": "caf\xe9"}\n' * 2, b'[\n{"prompt": "caf\xe9"},\n{"prompt": "b"}\n]']
)
def test_a_file_of_another_encoding_is_one_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError, match="ave it as UTF-8"):
        read(tmp_path, content)


def test_empty_cells_of_a_table_are_left_out(tmp_path: Path) -> None:
    nan = float("nan")  # Python's json writes it as NaN
    plain = {"prompt": "a", "seed": nan, "width": nan, "negative_prompt": nan, "lora_path": nan}
    [task] = read(tmp_path, [{**plain, "mood": nan, "metadata": {"x": nan}}])
    assert task["prompt"] == "a" and task["metadata"] == {"x": None}
    assert not {"seed", "width", "negative_prompt", "lora_path"} & set(task)
    image = {"positive_prompt": "b", "generation_params": nan, "lora_params": nan}
    tweets = [{"tweet_text": nan, "prompt": nan, "image_generation": image}]
    assert read(tmp_path, {"persona": nan, "tweets": tweets})[0]["prompt"] == "b"


@pytest.mark.parametrize("key", ["tweets", "prompts"])
def test_a_list_with_gaps_as_php_writes_it_is_a_list(tmp_path: Path, key: str) -> None:
    tasks = read(tmp_path, {key: {"0": {"prompt": "a"}, "2": {"prompt": "b"}}})
    assert [task["prompt"] for task in tasks] == ["a", "b"]


def test_no_key_depends_on_how_its_words_are_joined(tmp_path: Path) -> None:
    tweets = [{"TweetText": "t", "contentType": "c", "ImageGeneration": {"PositivePrompt": "a"}}]
    [task] = read(tmp_path, {"Persona": {"Name": "Mira"}, "Tweets": tweets})
    assert task["output_path"] == "Mira_00.png"
    assert task["metadata"] == {"tweet_text": "t", "content_type": "c", "persona": "Mira"}


def test_limit_takes_the_first(tmp_path: Path) -> None:
    assert len(read(tmp_path, [{"prompt": "a"}] * 5, limit=2)) == 2


KEYS = """version persona name lora tweets image_generation prompt positive_prompt scene_hint
tweet_text lora_params model_path strength generation_params width cfg steps prompts loras path
weight size height Seed CFG noise_seed guidance metadata sampler params task_id output_path"""
keys = st.sampled_from(KEYS.split())
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=20,
)


@given(documents | st.lists(st.dictionaries(keys, documents, max_size=4)), st.binary(max_size=3))
def test_no_content_can_do_worse_than_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, document: Any, noise: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzz.json"
    file.write_bytes(json.dumps(document).encode() + noise)
    try:
        tasks = read_tweets(file).inputs
    except InputError as error:
        assert "\n" not in str(error)
        return
    for task in tasks:
        assert isinstance(task, BadEntry) or ({"prompt", "output_path"} <= set(task))  # type: ignore[arg-type]
