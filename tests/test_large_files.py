"""Large files of prompts are read while the run goes on, and mean what small ones mean."""

import json
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from apps.prompts import json_document, streamed
from apps.prompts.entries import read_entries
from apps.tweets.tweets_file import read_tweets
from core.errors import InputError
from core.intake.task_kinds import PlacedTask, rereadable

DOCUMENT = {
    "persona": {"name": "Ada", "steps": 4},
    "tweets": [
        {"tweet_text": "Morning!", "image_generation": {"prompt": "a harbour", "seed": 7}},
        {"tweet_text": "Nothing to draw"},
        {"scene_hint": 'a \u2028 line, "quoted"', "mood": None},
    ],
    "width": 512,
    "nonsense": [1, {"a": []}],
}
FILES: dict[str, str | bytes] = {
    "lines.txt": "# a comment\n\na red house\n  a blue boat  \n\\# five\n\ufeffa tower\n",
    "lines.prompts": "a red house\r\na blue boat, with sails\r\n",
    "bytes.txt": b"a red house\nb\xe4rn\na tower\n",
    "table.csv": 'prompt,seed\n"a red, old house",7\n\n"two\nlines",8\nno seed\na,b,c\n',
    "spreadsheet.csv": "sep=;\r\nPrompt;Steps;Unknown\r\na red house;8;x\r\na boat;4;\r\n",
    "table.tsv": "id\tprompt\none\ta red house\none\ta blue boat\n",
    "table": "seed,caption\n7,a red house\n8,a blue boat\n",
    "lines.jsonl": '{"prompt": "a house", "what": 1}\n// no\n"a boat"\n{"seed": NaN}\n{"x\n[1]\n',
    "texts.jsonl": '"a red house"\n"a boat"\n',
    "objects.txt": '{"prompt": "a red house"}\n{"prompt": "a boat"}\n',
    "mark.jsonl": '\ufeff{"prompt": "a red house"}\n\ufeff{"prompt": "a boat"}\n',
    "wrong.jsonl": b'{"prompt": "a red house"}\n{"prompt": "b\xe4rn"}\n',
    "list.json": json.dumps([{"prompt": "a red house"}, "a boat", 3, [], {"promt": "x"}], indent=1),
    "tweets.json": json.dumps(DOCUMENT),
    "pretty.json": json.dumps(DOCUMENT, indent=2, ensure_ascii=False),
    "prompts.json": '{"seed": 1, "Prompts": ["a red house", {"prompt": "a boat"}]}',
}
AS_A_WHOLE: dict[str, str | bytes] = {
    "quoted.txt": '"a red house"\na blue boat\n"a dog", says he\n',
    "quoted.csv": '"prompt"\n"a house, red"\n"a boat"\n',
    "quoted table": '"prompt"\n"a house, red"\n"a boat"\n',
    "objects.csv": '{"prompt": "a house"}\n{"prompt": "a boat"}\n',
    "objects.yaml": '{"prompt": "a house"}\n{"prompt": "a boat"}\n',
    "damaged.json": json.dumps([{"prompt": "a"}, {"prompt": "b"}])[:-1],
    "more.json": '[{"prompt": "a"}] and more',
    "list and numbered.json": '{"prompts": ["a", "b"], "tweets": {"1": {"prompt": "c"}}}',
    "two lists.json": '{"tweets": ["a"], "prompts": ["b"]}',
    "empty.json": "[]",
    "of one.jsonl": '{"prompt": "a red house"}\n',
    "numbered.json": '{"tweets": {"0": "a red house", "2": "a boat"}}',
    "list.yaml": "- prompt: a red house\n- prompt: a boat\n",
    "wide.txt": "a red house\na boat\n".encode("utf-16"),
    "no text.txt": b"b\xe4rn\nh\xe4us\n",
    "open quote.csv": 'prompt,seed\n"a house,7\nb,8\n',
    "no column.csv": "colour,seed\nred,7\n",
}


def read(file: Path) -> tuple[str, Any]:
    """What a file asks for, or why it cannot be used."""
    try:
        found = read_tweets(file)
        tasks = [
            (repr(task), task.where if isinstance(task, PlacedTask) else None)
            for task in found.inputs
        ]
    except InputError as error:
        return "refused", str(error)
    return found.name_of_run, (found.noun, tasks, found.passed_over)


def write(file: Path, content: str | bytes) -> None:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.fixture(params=[False, True], ids=["in one piece", "in pieces"])
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param:
        monkeypatch.setattr("apps.prompts.json_document.PIECE", 7)


@pytest.mark.parametrize("name", [*FILES, *AS_A_WHOLE])
def test_a_large_file_means_what_a_small_one_means(
    tmp_path: Path, name: str, pieces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / name
    write(file, {**FILES, **AS_A_WHOLE}[name])
    small = read(file)
    monkeypatch.setattr(streamed, "LARGE", 0)
    assert read(file) == small
    if name in FILES:
        assert not isinstance(read_entries(file).entries, list), "read as a whole"


@pytest.mark.parametrize("name", FILES)
def test_a_limit_counts_for_a_large_file_too(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / name
    write(file, FILES[name])
    small = [repr(task) for task in read_tweets(file, limit=2).inputs]
    monkeypatch.setattr(streamed, "LARGE", 0)
    assert [repr(task) for task in read_tweets(file, limit=2).inputs] == small
    assert len(small) == 2


def other(file: Path) -> None:
    file.write_text("".join(f"quite another prompt of number {n}\n" for n in range(2000)))


def shortened(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def replaced(file: Path) -> None:
    other(file.with_name("new"))
    file.with_name("new").rename(file)


@pytest.mark.parametrize("change", [other, shortened, replaced, Path.unlink])
@pytest.mark.parametrize("form", ["txt", "csv", "jsonl", "json"])
def test_a_file_that_changes_between_two_readings_is_refused(
    tmp_path: Path, form: str, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed, "LARGE", 0)
    file = tmp_path / f"prompts.{form}"
    file.write_text(many(form))
    inputs = read_tweets(file).inputs
    assert len(list(inputs)) == 2000
    change(file)
    with pytest.raises(InputError, match=f"{file}: it was changed while it was read"):
        list(islice(inputs, 10))


@pytest.mark.parametrize("change", [other, shortened])
def test_a_file_that_changes_while_it_is_read_gives_nothing_more(
    tmp_path: Path, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed, "LARGE", 0)
    file = tmp_path / "prompts.txt"
    file.write_text(many("txt"))
    inputs = iter(read_tweets(file).inputs)
    before = list(islice(inputs, 3))
    change(file)
    with pytest.raises(InputError, match="changed while it was read"):
        next(inputs)
    assert [task["prompt"] for task in before if isinstance(task, PlacedTask)] == ["0", "1", "2"]


def many(form: str) -> str:
    """2000 prompts."""
    texts = [f"{n}" for n in range(2000)]
    if form == "json":
        return json.dumps(texts)
    if form == "jsonl":
        return "".join(f"{json.dumps(text)}\n" for text in texts)
    return "\n".join(["prompt,seed", *(f"{n},7" for n in texts)] if form == "csv" else texts)


def prompts(count: int) -> Iterator[str]:
    for number in range(count):
        yield f"house number {number} by the river, in the evening, oil on canvas, {'x' * 100}"


FORMS: dict[str, Callable[[str], str]] = {
    "prompts.txt": lambda text: f"{text}\n",
    "prompts.csv": lambda text: f'7,"{text}"\n',
    "prompts.jsonl": lambda text: json.dumps({"prompt": text, "seed": 7}) + "\n",
    "prompts.json": lambda text: ",\n" + json.dumps({"prompt": text, "seed": 7}),
}
BEGINNINGS = {"prompts.csv": "seed,prompt\n", "prompts.json": '{"prompts": ["first"'}
ENDS = {"prompts.json": "]}"}


@pytest.mark.parametrize("name", FORMS)
def test_a_large_file_is_never_in_memory(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streamed, "LARGE", streamed.LARGE // 4)
    monkeypatch.setattr(streamed, "HEAD", streamed.HEAD // 4)
    monkeypatch.setattr(json_document, "PIECE", json_document.PIECE // 4)
    file, count = tmp_path / name, 25_000
    with file.open("w") as stream:
        stream.write(BEGINNINGS.get(name, ""))
        stream.writelines(map(FORMS[name], prompts(count)))
        stream.write(ENDS.get(name, ""))
    assert file.stat().st_size > streamed.LARGE
    tracemalloc.start()
    try:
        inputs = read_tweets(file).inputs
        assert rereadable(inputs) and len(inputs) >= count
        *_, last = islice(inputs, 2000)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "house number 199" in str(last)
    assert most < file.stat().st_size / 1.5
