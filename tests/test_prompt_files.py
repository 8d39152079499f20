"""Ordinary files with prompts: text, tables, YAML, and whatever comes through a pipe."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from apps.prompts.bad_entry import BadEntry
from apps.prompts.text import STDIN
from apps.tweets.tweets_file import read_tweets
from core.errors import InputError

PROMPTS = ["a red house", "a blue boat at noon"]


def tasks_of(folder: Path, name: str, content: str | bytes) -> list[Any]:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_tweets(file).inputs)


def prompts_of(folder: Path, name: str, content: str | bytes) -> list[str]:
    return [task["prompt"] for task in tasks_of(folder, name, content)]


def refusal_of(folder: Path, name: str, content: str | bytes) -> str:
    with pytest.raises(InputError) as caught:
        tasks_of(folder, name, content)
    text = str(caught.value)
    assert name in text and "\n" not in text
    return text


FORMS = {
    "lines": "# houses and boats\n\na red house\n  a blue boat at noon  \n",
    "csv": "prompt\na red house\na blue boat at noon\n",
    "wide csv": "id,prompt,seed\n1,a red house,7\n2,a blue boat at noon,8\n",
    "semicolons": "Prompt;Seed\na red house;7\na blue boat at noon;8\n",
    "tsv": "seed\ttext\n7\ta red house\n8\ta blue boat at noon\n",
    "a spreadsheet's csv": "sep=;\ncaption;steps\na red house;8\na blue boat at noon;8\n",
    "a yaml list": "- prompt: a red house\n- prompt: a blue boat at noon\n",
    "a yaml document": "---\n- a red house\n- a blue boat at noon\n",
    "yaml with settings": "prompts:\n- a red house\n- a blue boat at noon\nsteps: 8\n",
    "json": json.dumps(PROMPTS),
    "jsonl": '{"prompt": "a red house"}\n"a blue boat at noon"\n',
}


def test_columns_may_have_chinese_names(tmp_path: Path) -> None:
    table = "提示词,负面提示词,宽度,高度,步数,种子\na red house,blur,128,96,4,7\n"
    [task] = tasks_of(tmp_path, "prompts.csv", table)
    names = ("prompt", "negative_prompt", "width", "height", "num_inference_steps", "seed")
    found = {name: str(task[name]) for name in names}
    assert [*found.values()] == ["a red house", "blur", "128", "96", "4", "7"]


@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_told_by_its_content(tmp_path: Path, form: str) -> None:
    for name in ("prompts.txt", "prompts"):
        assert prompts_of(tmp_path, name, FORMS[form]) == PROMPTS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_any_unicode_encoding_and_line_end_is_read(tmp_path: Path, encoding: str) -> None:
    for form in FORMS.values():
        for end in ("\n", "\r\n", "\r"):
            content = form.replace("\n", end).encode(encoding)
            assert prompts_of(tmp_path, "prompts.txt", content) == PROMPTS, content


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.csv", '"prompt","seed"\n"a ""b"": c, d",3\n'),
        ("p.txt", '"prompt","seed"\n"a ""b"": c, d",3\n'),
        ("p.tsv", 'prompt\tseed\n"a ""b"": c, d"\t3\n'),
        ("p.yaml", "prompt: 'a \"b\": c, d'\nseed: 3\n"),
        ("p.txt", 'a "b": c, d\n'),
    ],
)
def test_what_stands_in_a_prompt_decides_nothing(tmp_path: Path, name: str, content: str) -> None:
    assert prompts_of(tmp_path, name, content) == ['a "b": c, d']


@pytest.mark.parametrize(
    "line", ["{red|blue} house", "[cinematic] a house", '"Open" says a sign', "[[blurry]], a house"]
)
def test_prompts_that_begin_with_brackets_are_prompts(tmp_path: Path, line: str) -> None:
    assert prompts_of(tmp_path, "prompts.txt", f"{line}\na boat\n") == [line, "a boat"]


def test_a_prompt_may_begin_with_a_hash_sign(tmp_path: Path) -> None:
    assert prompts_of(tmp_path, "p.txt", "# no prompt\n\\#sunset\n") == ["#sunset"]


def test_the_columns_of_a_table_are_fields(tmp_path: Path) -> None:
    table = (
        "id,text,neg,Seed,size,steps,CFG Scale,lora,metadata,author\n"
        'h7,a house,blur,7,512x768,8,1.5,a.safetensors:0.8; b.safetensors,"{""k"": 1}",Ann\n'
        "b 8,a boat,,,,,,ink.safetensors,,\n"
    )
    first, second = tasks_of(tmp_path, "prompts.csv", table)
    assert first == {
        "prompt": "a house",
        "negative_prompt": "blur",
        "seed": "7",
        "width": 512,
        "height": 768,
        "num_inference_steps": "8",
        "cfg": "1.5",
        "loras": [{"path": "a.safetensors", "strength": 0.8}, {"path": "b.safetensors"}],
        "task_id": "h7",
        "output_path": "h7.png",
        "metadata": {"author": "Ann", "k": 1},
    }
    assert second == {
        "prompt": "a boat",
        "lora_path": "ink.safetensors",
        "task_id": "b 8",
        "output_path": "b_8.png",
    }


def test_a_table_may_name_its_pictures(tmp_path: Path) -> None:
    table = "prompt,file_name\na,one\nb,two.webp\nc,\n"
    tasks = tasks_of(tmp_path, "t.csv", table)
    assert [task["output_path"] for task in tasks] == ["one.png", "two.webp", "t_02.png"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.csv", "prompt,flavour,Mood\na,mint,calm\n"),
        ("p.tsv", "prompt\tflavour\tMood\na\tmint\tcalm\n"),
        ("p.jsonl", '{"prompt": "a", "flavour": "mint", "Mood": "calm"}\n'),
        ("p.yaml", "- {prompt: a, flavour: mint, Mood: calm}\n"),
    ],
)
def test_a_column_of_your_own_is_kept_with_the_picture(
    tmp_path: Path, name: str, content: str
) -> None:
    """As lists of edits keep it; so it can be searched, and pictures can be called by it."""
    (tmp_path / name).write_text(content)
    found = read_tweets(tmp_path / name)
    [task] = found.inputs
    assert isinstance(task, dict)
    assert task["metadata"] == {"flavour": "mint", "mood": "calm"} and found.passed_over is None


def test_columns_too_large_to_be_kept_are_named(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(f"prompt,essay,flavour\na,{'x' * 9000},mint\n")
    found = read_tweets(tmp_path / "p.csv")
    [task] = found.inputs
    assert isinstance(task, dict) and task["metadata"] == {"flavour": "mint"}
    assert "Passed over in p.csv: essay (1 prompt)." in str(found.passed_over)


def test_a_setting_of_another_program_is_named_once(tmp_path: Path) -> None:
    file = tmp_path / "prompts.csv"
    file.write_text("prompt,sampler\na,euler\nb,euler\n")
    found = read_tweets(file)
    assert "Passed over in prompts.csv: sampler (2 prompts)." in str(found.passed_over)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a, b,7", "3 cells, but the header names 2 columns; put a cell that contains a comma"),
        ('"a"b,7', "not valid CSV"),
        ('"b,7\nc,8', "a quotation mark opens a cell and is never closed"),
    ],
)
def test_a_damaged_row_fails_alone_and_says_its_line(tmp_path: Path, row: str, reason: str) -> None:
    good, bad = tasks_of(tmp_path, "p.csv", f"prompt,seed\n\ngood,1\n{row}\n")
    assert good["prompt"] == "good" and isinstance(bad, BadEntry)
    assert str(bad).startswith(f"p.csv: row 2 (line 4): {reason}")


def test_yaml_may_name_its_prompts(tmp_path: Path) -> None:
    text = "house: a red house\nboat: {prompt: a blue boat at noon, seed: 3}\n"
    house, boat = tasks_of(tmp_path, "prompts.yaml", text)
    assert (house["prompt"], house["output_path"]) == ("a red house", "house.png")
    assert (boat["seed"], boat["task_id"], boat["output_path"]) == (3, "boat", "boat.png")


def test_large_yaml_is_read_by_the_fast_parser_and_bombs_are_not_unfolded(tmp_path: Path) -> None:
    many = "".join(f"- prompt: picture number {i}\n  seed: {i}\n" for i in range(3000))
    assert len(tasks_of(tmp_path, "many.yaml", many)) == 3000
    bomb = "a: &a [x, x]\n" + "".join(f"{chr(i + 1)}: &{chr(i + 1)} [*{chr(i)}, *{chr(i)}]\n"
                                      for i in range(ord("a"), ord("y")))  # fmt: skip
    assert "unfold to more than" in refusal_of(tmp_path, "bomb.yaml", bomb)
    deep = "- " * 40_000
    assert "nested too deeply" in refusal_of(tmp_path, "deep.yaml", deep)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (
            "p.csv",
            "a red house\na blue boat\n",
            "no column gives the prompt; the first line has to",
        ),
        (
            "p.csv",
            "prompt,widht\na,5\n",
            "line 1: column 'widht' is unknown; did you mean 'width'?",
        ),
        ("p.csv", "prompt,seed,seed\na,1,2\n", "two columns are called 'seed'"),
        ("p.csv", "# nothing\n", "no column gives the prompt"),
        ("p.csv", "prompt,seed\n", "holds no prompts"),
        ("p.txt", "# nothing\n\n", "holds no prompts"),
        ("p.txt", "", "holds no prompts"),
        ("p.txt", '[{"prompt": "a"},\n', "not valid JSON"),
        ("p.txt", '{\n "prompt": "a"\n', "not valid JSON"),
        (
            "p.txt",
            "caf\xe9\n".encode("latin-1"),
            "not UTF-8 text (byte 3); it looks like WINDOWS-1252. Save it as UTF-8",
        ),
        ("p.yaml", "- a: b: c\n", "not valid YAML"),
        ("p.yaml", "seed: 3\n", "expected a list of objects or prompts"),
        ("p.json", "a red house\na boat\n", "belong into a file called .txt, tables into .csv"),
        ("p.txt", b"\x89PNG\r\n\x1a\n", "is a picture; --from-png draws it again"),
        ("p.csv", b"PK\x03\x04xl/workbook", "is a spreadsheet or an archive; save the table as"),
    ],
)
def test_an_unusable_file_gets_one_line_that_says_what_to_do(
    tmp_path: Path, name: str, content: str | bytes, reason: str
) -> None:
    assert reason in refusal_of(tmp_path, name, content)


def test_a_line_that_is_no_text_fails_alone(tmp_path: Path) -> None:
    good, bad, better = tasks_of(tmp_path, "p.txt", b"a house\ncaf\xe9\n\na boat\n")
    assert (good["prompt"], better["prompt"]) == ("a house", "a boat")
    assert (
        str(bad)
        == 'p.txt: line 2: not UTF-8 text; save the file as UTF-8 (in a spreadsheet: "CSV UTF-8").'
    )


def test_what_standard_input_cannot_give_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    request = b'{"custom_id": "a", "url": "/v1/images/generations", "body": {"prompt": "x"}}\n'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(request)))
    with pytest.raises(InputError, match="Batch API are read from a file; save them as one"):
        read_tweets(STDIN)
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="standard input: is closed"):
        read_tweets(STDIN)


def test_prompts_come_through_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    for content in FORMS.values():
        stream = io.TextIOWrapper(io.BytesIO(content.encode()))
        monkeypatch.setattr(sys, "stdin", stream)
        found = read_tweets(STDIN)
        assert [task["prompt"] for task in found.inputs] == PROMPTS  # type: ignore[index]
        assert found.name_of_run == "stdin"


@pytest.mark.parametrize(
    ("encoding", "text", "usual"),
    [
        ("gbk", "一座红色的房子\n", "GBK"),
        ("gb18030", "夜晚的海边，一只猫 (4k)\n", "GBK"),
        ("gbk", "一座红色的房子，旁边是树" * 1001 + "\n", "GBK"),
        ("gbk", "镕基镕 一座红色的房子 夜晚 海边\n", "GBK"),  # whose second byte may be a letter's
        ("cp1252", "hübsches Häuschen\n", "WINDOWS-1252"),
        ("cp1252", "ein “rotes” Haus – nachts\n", "WINDOWS-1252"),
    ],
)
def test_text_of_before_unicode_is_refused_with_the_command_that_converts_it(
    tmp_path: Path, encoding: str, text: str, usual: str
) -> None:
    said = refusal_of(tmp_path, "my prompts.txt", text.encode(encoding))
    assert f"it looks like {usual}." in said and '"CSV UTF-8"' in said
    file = tmp_path / "my prompts.txt"
    assert f"iconv -f {usual} -t UTF-8 '{file}'" in said


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1251", "красный дом у озера\n"),
        ("cp1253", "κόκκινο σπίτι\n"),
        ("koi8-r", "дом\nлес ночью\n"),
    ],
)
def test_text_of_another_alphabet_is_not_told_to_be_converted_from_the_wrong_encoding(
    tmp_path: Path, encoding: str, text: str
) -> None:
    said = refusal_of(tmp_path, "p.txt", text.encode(encoding))
    assert "it looks like" not in said and "iconv" not in said
    assert 'save it as UTF-8 (in a spreadsheet: "CSV UTF-8").' in said


def test_the_encoding_is_told_by_the_text_that_is_no_utf8_and_not_by_what_comes_before(
    tmp_path: Path,
) -> None:
    plain = '{"prompt": "a red house"},' * 1000
    chinese = f'[{plain}{{"prompt": "夜晚的海边，一只猫"}}]'
    assert "it looks like GBK." in refusal_of(tmp_path, "p.json", chinese.encode("gbk"))


def test_a_header_of_before_unicode_is_no_riddle(tmp_path: Path) -> None:
    said = refusal_of(tmp_path, "p.csv", "prompt;Größe\na house;64x64\n".encode("latin-1"))
    assert "line 1: not UTF-8 text; save the file as UTF-8" in said
    said = refusal_of(tmp_path, "p.csv", "提示词,seed\na house,7\n".encode("gbk"))
    assert "line 1: not UTF-8 text" in said and "\\udc" not in said


def test_a_spreadsheets_decimal_comma_is_a_point(tmp_path: Path) -> None:
    table = 'prompt;cfg;seed\na house;3,5;7\na boat, red;"2,000";8\n'
    house, boat = tasks_of(tmp_path, "p.csv", table)
    assert float(house["cfg"]) == 3.5 and float(boat["cfg"]) == 2.0
    assert boat["prompt"] == "a boat, red"
