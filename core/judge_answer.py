"""Reads a judge's scores out of its words: what is unambiguous is taken, nothing is guessed.

1. Only what follows the judge's thought counts (`core.judge_thought`).
2. The answer is a JSON object; words and code fences around it are passed over, line breaks
   and tabs inside its strings are taken as they are. Where yes or no is asked for, the answer may
   be that word alone.
3. Its scores are a number, or a list of one number per part, under `score`; or one number under
   each part's own name. Case does not count. Each has to be a number, not text, in its range.
4. Several objects, or a key that is given twice, have to give the same scores.
5. In an object that is not valid JSON (a comma too many, single quotes, quotes inside a text, the
   end missing) scores count where no text can be mistaken for them: before the first text whose
   end is unsure, or as the last members before the closing brace. A number at the answer's end
   may be half of one.
6. Whatever else in the answer looks like a score has to agree. An object inside one whose
   beginning cannot be read is not the answer.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from core.judge_thought import NoScore, after_thought
from core.validation import shown

SCORE = "score"
YES_NO = {"yes": 1.0, "no": 0.0}

_AROUND_A_WORD = " \t\r\n.!*`\"'“”‘’"
_QUOTE = "[\"'“”‘’]"
_COMMA, _COLON = r"\s*+[,，]", r"\s*+[:：]\s*+"
_NUMBER = r"-?(?:0|[1-9]\d*+)(?:\.\d+)?+(?:[eE][+-]?\d+)?+"
_OBJECT = re.compile(rf"{{\s*+(?:{_QUOTE}[^\"'“”‘’{{}}]{{1,80}}{_QUOTE}|\w++){_COLON}")
_KEY = re.compile(rf"\s*+(?:{_QUOTE}([^\"'“”‘’{{}}]{{1,80}}){_QUOTE}|([^\W\d]\w*+)){_COLON}")
_VALUE = re.compile(
    rf"""
      [\[(]\s*+ (?P<list>{_NUMBER}(?:\s*+[,，]\s*+{_NUMBER})*+) (?:\s*+[,，])?+ \s*+[\])]
        (?= \s*+ (?:[,，}}]|{_QUOTE}|//|\#|\Z) )
    | (?P<number>{_NUMBER}) (?= \s*+[,，}}] )
    | (?: "(?P<double>(?:[^"\\]|\\.)*+)" | '(?P<single>(?:[^'\\]|\\.)*+)' | “(?P<smart>[^“”]*+)” )
        (?= \s*+ (?:[,，}}]|\Z) )
    | (?P<word>true|false|null|None) (?= \s*+[,，}}] )
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_SEPARATOR = re.compile(_COMMA)
_END = re.compile(r"\s*+}")
_TAIL = re.compile(rf"(?<=[\"'”’\]}}\d]){_COMMA}(?=\s*+{_QUOTE})")
_NOTHING_MORE = re.compile(r"\s*+(?:`{3,}\s*+|<[/|\w:]+>\s*+|\[/?\w+\]\s*+)*+\Z")


@dataclass(frozen=True)
class Form:
    """What an answer has to give: one number per part in a range, or yes or no."""

    parts: tuple[str, ...]
    lowest: float
    highest: float
    yes_no: bool = False


@dataclass(frozen=True)
class Reading:
    """The parts of an answer, or why there are none."""

    parts: dict[str, float] | None
    problem: str | None = None


class _Members(list[tuple[str, object]]):
    """The members of an object in order, keys that are given twice included."""


_DECODER = json.JSONDecoder(strict=False, object_pairs_hook=_Members)


def read_answer(raw: str, form: Form, cut: bool = False) -> Reading:
    """The scores of an answer.

    Args:
        cut: the judge had more to say when it reached its limit of tokens.
    """
    try:
        scores = _scores_in(after_thought(raw), form, cut)
    except NoScore as reason:
        return Reading(None, str(reason))
    return Reading(dict(zip(form.parts, scores, strict=True)))


def _scores_in(text: str, form: Form, cut: bool) -> tuple[float, ...]:
    word = text.strip(_AROUND_A_WORD).casefold()
    if form.yes_no and word in YES_NO and not cut:
        return (YES_NO[word],)
    found: set[tuple[float, ...]] = set()
    outside: list[str] = []
    position = 0
    while start := _OBJECT.search(text, position):
        outside.append(text[position : start.start()])
        if _opens_an_object(outside[-1]):
            raise NoScore("the JSON object cannot be read from its beginning")
        members, end = _object_at(text, start.start(), form, cut)
        position = len(text) if end is None else end
        found.add(_scores_of(members, form))
    if not found:
        raise NoScore("there is no JSON object in the answer")
    if len(found) > 1:
        raise NoScore("the answer gives several different scores")
    if cut and not _NOTHING_MORE.match(text, position):
        # Perhaps a draft: a judge that thinks aloud without marks goes on like this.
        raise NoScore("the answer went on after its scores and has no end")
    scores = found.pop()
    for words in (*outside, text[position:]):
        _check_that_nothing_differs(words, scores, form)
    return scores


def _opens_an_object(words: str) -> bool:
    """Whether members follow a brace that stays open: an object inside is not the answer."""
    opened: list[int] = []
    for brace in re.finditer("[{}]", words):
        if brace.group() == "{":
            opened.append(brace.end())
        elif opened:
            opened.pop()
    return bool(opened) and re.search("[:：]", words[opened[-1] :]) is not None


def _check_that_nothing_differs(words: str, scores: tuple[float, ...], form: Form) -> None:
    """Raise if anything like a member with a score, outside of objects, too, says otherwise."""
    wanted = {part.casefold(): score for part, score in zip(form.parts, scores, strict=True)}
    for member in _looks_like(_names(form)).finditer(words):
        value, name = _VALUE.match(words, member.end()), _plain(member[1])
        if name == SCORE:
            same = value is not None and _one_per_part(_value(value), form) == scores
        else:
            given = _value(value) if value else None
            same = not _is_number(given) or given == wanted.get(name)
        if not same:
            raise NoScore("the answer gives several different scores")


def _object_at(text: str, start: int, form: Form, cut: bool) -> tuple[_Members, int | None]:
    """The members that are certain, and where the object ends; None: nowhere, or it is unsure."""
    try:
        members, end = _DECODER.raw_decode(text, start)
        return members, end
    except (ValueError, RecursionError):
        pass
    members, here = _members_at(text, start + 1)
    end_of_object = _END.match(text, here)
    if end_of_object:
        return members, end_of_object.end()
    names = _names(form)
    if not any(_plain(key) in names for key, _ in members):
        members = _last_members(text, start, here, names, cut)
    _check_that_all_agree(text, here, members, names)
    return members, None


def _members_at(text: str, position: int) -> tuple[_Members, int]:
    """The members from `position` on, up to the first that is not plain; and its place."""
    members = _Members()
    while key := _KEY.match(text, position):
        value = _VALUE.match(text, key.end())
        if not value:
            break
        members.append((key[1] or key[2], _value(value)))
        position = value.end()
        separator = _SEPARATOR.match(text, position)
        if not separator:
            break
        position = separator.end()
    return members, position


def _value(found: re.Match[str]) -> object:
    match found.lastgroup:
        case "list":
            return [float(number) for number in re.split("[,，]", found["list"])]
        case "number":
            return float(found["number"])
        case "word":
            return None
        case _:
            return found[str(found.lastgroup)]


def _last_members(text: str, start: int, unsure: int, names: Sequence[str], cut: bool) -> _Members:
    """Members with scores behind a text whose end is unsure: they end the object.

    Where the answer was cut or has no closing brace they have to end it, too: else they might be
    words of the text, and the scores might have come later.
    """
    brace = text.find("{", start + 1)  # perhaps of an example in the text
    for comma in _TAIL.finditer(text, unsure, len(text) if brace < 0 else brace):
        members, here = _members_at(text, comma.end())
        if not members or _plain(members[0][0]) not in names:
            continue
        end = _END.match(text, here)
        if (end and not cut) or _NOTHING_MORE.match(text, end.end() if end else here):
            return members
    raise NoScore(f'the JSON object cannot be read, and no "{SCORE}" in it is certain')


def _check_that_all_agree(
    text: str, position: int, members: _Members, names: Sequence[str]
) -> None:
    """Raise if anything like a score after `position` contradicts the certain members."""
    certain = {_plain(key): value for key, value in members}
    for other in _looks_like(names).finditer(text, position):
        value, name = _VALUE.match(text, other.end()), _plain(other[1])
        if name not in certain and name != SCORE:
            continue
        if not value or _value(value) != certain.get(name):
            raise NoScore("the answer gives several different scores")


def _looks_like(names: Sequence[str]) -> re.Pattern[str]:
    """A member of one of these names, however it is quoted."""
    return re.compile(
        rf"(?:{_QUOTE}|{{\s*+)({'|'.join(map(re.escape, names))}){_QUOTE}?+{_COLON}", re.IGNORECASE
    )


def _names(form: Form) -> list[str]:
    return [SCORE, *(part.casefold() for part in form.parts)]


def _plain(key: str) -> str:
    return key.strip().casefold()


def _scores_of(members: _Members, form: Form) -> tuple[float, ...]:
    """The scores that an object gives, under `score` or under its parts' names."""
    given: dict[str, list[object]] = {}
    for key, value in members:
        given.setdefault(_plain(key), []).append(value)
    found = {_one_per_part(value, form) for value in given.get(SCORE, [])}
    for scores in set(found):
        # Beside `score` a part may have a remark of its own, but no other number.
        for part, score in zip(form.parts, scores, strict=True):
            beside = [] if _plain(part) == SCORE else given.get(_plain(part), [])
            if any(_is_number(value) and value != score for value in beside):
                raise NoScore("the answer gives several different scores")
    if not found:
        found = set(_by_name(given, form))
    if not found:
        raise NoScore(f'the JSON object has no "{SCORE}"')
    if len(found) > 1:
        raise NoScore("the answer gives several different scores")
    return found.pop()


def _by_name(given: dict[str, list[object]], form: Form) -> Iterator[tuple[float, ...]]:
    of_parts = [given.get(part.casefold(), []) for part in form.parts]
    if all(of_parts):
        for place in range(max(map(len, of_parts))):
            yield _one_per_part([values[min(place, len(values) - 1)] for values in of_parts], form)


def _one_per_part(value: object, form: Form) -> tuple[float, ...]:
    if isinstance(value, _Members):
        given: dict[str, list[object]] = {}
        for key, inner in value:
            given.setdefault(_plain(key), []).append(inner)
        found = set(_by_name(given, form))
        if len(found) != 1:
            raise NoScore(f"{shown(dict(value))} is not one score for each of {_list(form)}")
        return found.pop()
    if form.yes_no:
        return (_yes_or_no(value),)
    numbers = value if isinstance(value, list) else [value]
    if len(numbers) != len(form.parts):
        raise NoScore(f"{shown(value)} is not one number for each of {_list(form)}")
    return tuple(_number(number, form) for number in numbers)


def _yes_or_no(value: object) -> float:
    word = value[0] if isinstance(value, list) and len(value) == 1 else value
    answer = YES_NO.get(word.strip().lower()) if isinstance(word, str) else None
    if answer is None:
        raise NoScore(f"{shown(value)} is neither yes nor no")
    return answer


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: object, form: Form) -> float:
    if not isinstance(value, int | float) or not _is_number(value):
        raise NoScore(f"{shown(value)} is not a number")
    if not form.lowest <= value <= form.highest:
        raise NoScore(f"{shown(value)} is outside {form.lowest:g} to {form.highest:g}")
    return float(value)


def _list(form: Form) -> str:
    return ", ".join(form.parts)
