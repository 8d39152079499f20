"""Pictures as text in JSON files: they stay in the file, and become the same files whatever is
around them."""

import base64
import json
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.edit_benchmark.encoded_pictures import decoded
from apps.edit_benchmark.json_rows import json_rows
from apps.edit_benchmark.json_skeleton import LEAST
from apps.edit_benchmark.long_text import LongText
from apps.edit_benchmark.pairs import read_pairs
from core.errors import InputError
from tests.published_sets import png, written

LONG = base64.b64encode(random.Random(1).randbytes(3 * LEAST)).decode()
URL = f"data:image/png;base64,{LONG}"
WORDS = "a word and another one, " * (LEAST // 8)


def whole(value: Any) -> Any:
    """A row with its long texts read."""
    if isinstance(value, LongText):
        return value.whole()
    if isinstance(value, list):
        return [whole(each) for each in value]
    if isinstance(value, dict):
        return {name: whole(each) for name, each in value.items()}
    return value


def rows_in(file: Path) -> list[Any]:
    return [whole(value) for _, value in json_rows(file)]


def left_in_the_file(file: Path) -> int:
    """How many texts of the top of rows were not read."""
    rows = [value for _, value in json_rows(file) if isinstance(value, dict)]
    return sum(isinstance(value, LongText) for row in rows for value in row.values())


AWKWARD: dict[str, Any] = {
    "a picture": {"a": 1, "image": LONG, "b": "x"},
    "a data URL": {"image": URL},
    "several in a list": {"images": [URL, "file.png", URL]},
    "deep inside": {"a": [{"b": {"c": LONG}}]},
    "its own last member": {"image": LONG + "=="},
    "a description": {"text": WORDS, "image": LONG},
    "a description with quotes": {"text": WORDS.replace("and", '"and"'), "image": LONG},
    "numbers without an end": {"numbers": list(range(4 * LEAST)), "image": LONG},
    "a text behind a quote": {"text": f'he said "{LONG}', "image": LONG},
    "a text before a quote": {"text": f'{LONG}" he said', "image": LONG},
    "a backslash at the end": {"text": LONG + "\\", "image": LONG},
    "backslashes before it": {"text": "\\\\", "image": LONG},
    "other letters": {"text": "é" * LEAST, "image": LONG, "b": "\u2028"},
}


@pytest.mark.parametrize("chunk", [1 << 23, 1000, 64 * LEAST])
@pytest.mark.parametrize("what", AWKWARD)
def test_rows_with_long_texts_are_what_json_says(
    what: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.edit_benchmark.json_skeleton._BUFFER", chunk)
    rows = [AWKWARD[what], {"between": 1}, AWKWARD[what], {"last": LONG}]
    for text in (json.dumps(rows), json.dumps(rows, indent=2, ensure_ascii=False)):
        file = tmp_path / "rows.json"
        file.write_text(text, "utf-8")
        assert rows_in(file) == rows
    lines = tmp_path / "rows.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    assert rows_in(lines) == rows
    assert left_in_the_file(lines) >= 1, "else nothing was shown here"


def test_escaped_slashes_and_line_breaks_are_read_as_json_has_them(tmp_path: Path) -> None:
    """As PHP writes base64, and as it comes with line breaks."""
    text = LONG.replace("/", "\\/")
    broken = "\\n".join(LONG[i : i + 76] for i in range(0, len(LONG), 76))
    file = tmp_path / "rows.json"
    file.write_text(f'[{{"a": "{text}", "b": "{broken}"}}]', "utf-8")
    assert left_in_the_file(file) == 2
    assert rows_in(file) == [{"a": LONG, "b": broken.replace("\\n", "\n")}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f'[{{"a": "{LONG}', "not valid JSON at row 1"),
        (f'[{{"a": "{LONG}"', "not valid JSON at row 1"),
        (f'[{{"a": "{LONG}\n"}}]', "not valid JSON at row 1"),
        (f'[{{"a" "{LONG}"}}]', "not valid JSON at row 1"),
    ],
)
def test_damage_beside_a_picture_is_one_error(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text(text, "utf-8")
    with pytest.raises(InputError, match=said):
        rows_in(file)


def test_a_line_without_its_end_fails_alone(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(f'{{"a": "{LONG}\n{{"a": "{LONG}"}}\n', "utf-8")
    first, second = (value for _, value in json_rows(file))
    assert isinstance(first, InputError)
    assert whole(second) == {"a": LONG}


def test_a_long_text_that_is_an_instruction_is_read_whole(tmp_path: Path) -> None:
    rows = [{"subset": "sky", "edit_instruction_en": LONG, "src_img_b64": URL, "more": LONG}]
    [pair] = read_pairs(written(tmp_path / "re.json", rows), tmp_path / "work").pairs
    assert pair.problem is None and pair.instruction == LONG
    assert pair.metadata == {}, "what is too long to be kept is left out, and not cut"


def test_pictures_of_all_sizes_become_files_of_their_content(tmp_path: Path) -> None:
    pictures = [png("navy"), random.Random(2).randbytes(LEAST), random.Random(3).randbytes(10**7)]
    encoded = [base64.b64encode(each).decode() for each in pictures]
    rows = [{"edit_instruction_en": "x", "src_img_b64": text} for text in [*encoded, encoded[2]]]
    for name, form in (("a.json", json.dumps(rows)), ("a.jsonl", "\n".join(map(json.dumps, rows)))):
        file = tmp_path / name
        file.write_text(form, "utf-8")
        pairs = read_pairs(file, tmp_path / name.replace(".", "-")).pairs
        found = [Path(pair.source_images[0]).read_bytes() for pair in pairs]
        assert found == [*pictures, pictures[2]]


def test_several_pictures_in_a_list_are_several_sources(tmp_path: Path) -> None:
    first, second = png("olive"), random.Random(4).randbytes(2 * LEAST)
    (tmp_path / "third.png").write_bytes(png("teal"))
    urls = [f"data:image/png;base64,{base64.b64encode(each).decode()}" for each in (first, second)]
    rows = [{"instruction": "x", "image": [urls[0], None, "third.png", urls[1]]}]
    data = written(tmp_path / "several.json", rows)
    [pair] = read_pairs(data, tmp_path / "work", fields={"image": "image"}).pairs
    assert pair.problem is None
    found = [Path(file).read_bytes() for file in pair.source_images]
    assert found == [first, png("teal"), second]


def test_a_text_that_is_no_base64_fails_its_pair_alone(tmp_path: Path) -> None:
    rows = [
        {"edit_instruction_en": "x", "src_img_b64": LONG[:-2] + "é" + LONG},
        {"edit_instruction_en": "x", "src_img_b64": LONG},
    ]
    bad, good = read_pairs(written(tmp_path / "re.json", rows), tmp_path / "work").pairs
    assert bad.problem is not None and "not base64" in str(bad.problem)
    assert good.problem is None


# Letters in full groups, padded rightly and wrongly, and what is no letter.
ALMOST_BASE64 = st.lists(st.sampled_from(["QUJD", "QQ", "QR", "==", "=", "\n", " ", "-", "é", ","]))


@given(ALMOST_BASE64.map(lambda parts: "".join(parts).encode()))
def test_base64_is_what_the_standard_library_says_it_is(text: bytes) -> None:
    try:
        expected = base64.b64decode(b"".join(text.split()), validate=True)
    except ValueError:
        assert isinstance(decoded(text), InputError)
    else:
        assert decoded(text) == expected


def test_texts_that_are_almost_base64_are_told_apart(tmp_path: Path) -> None:
    broken = "\n".join(LONG[i : i + 76] for i in range(0, len(LONG), 76))
    texts = [LONG, broken, URL, LONG[:-1], LONG + "=", LONG + "QQ==QQ==", "é" + LONG, "QR=="]
    rows = [{"edit_instruction_en": "x", "src_img_b64": text} for text in texts]
    pairs = read_pairs(written(tmp_path / "re.json", rows), tmp_path / "work").pairs
    good = [True, True, True, False, True, False, False, True]  # what is behind the end is let be
    assert [pair.problem is None for pair in pairs] == good
    files = {pair.source_images for pair in (*pairs[:3], pairs[4])}
    assert len(files) == 1, "one picture, however it is written"
    assert all("not base64" in str(pair.problem) for pair in pairs if pair.problem)


@pytest.mark.parametrize("join", [lambda rows: f"[{','.join(rows)}]", "\n".join])
def test_pictures_are_not_held_while_rows_are_read(
    join: Callable[[list[str]], str], tmp_path: Path
) -> None:
    picture = base64.b64encode(random.Random(5).randbytes(3_000_000)).decode()
    file = tmp_path / "rows.json"
    file.write_text(join([json.dumps({"a": picture, "n": n}) for n in range(20)]), "utf-8")
    tracemalloc.start()
    try:
        rows = [value for _, value in json_rows(file)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [row["n"] for row in rows] == list(range(20))
    assert peak < 40_000_000 < file.stat().st_size / 2
