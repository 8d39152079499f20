"""Finds where a model cuts texts that are longer than it takes.

Pipelines have their tokenizers cut what is too long, each at a length of its own, and say little
about it. So the tokenizers are watched: whatever a pipeline has cut, by whichever tokenizer and
at whichever length, is known here, in the words of the user's own text.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from core.errors import one_line

MOST_REMEMBERED = 1024  # texts; those of remembered prompts are never encoded, and so cut, again
LIKENESS = 0.8  # of a text's length is left when a pipeline cleans it; other texts are not taken
SHOWN = 48  # characters before the cut
_FAMILY = re.compile("Text|Encoder|Model|For")  # where an encoder's class name goes on


@dataclass(frozen=True)
class Cut:
    """What a tokenizer left of a text.

    Attributes:
        limit: tokens that the model takes, its own marks and template included.
        tokens: of the user's text; `taken`: those of them that are before the cut.
        end: the last words before the cut, in quotation marks.
    """

    limit: int
    tokens: int
    taken: int
    end: str

    @property
    def marks(self) -> str:
        """The reason of the limit, in brackets."""
        return f" ({self.limit} with its own marks)" if self.limit > self.taken else ""


class PromptCuts:
    """Watches tokenizers, and knows of the texts they are given where they were cut.

    Args:
        tokenizers: by the name of the encoder that they serve.
        cached: texts whose embeddings are kept elsewhere at most: they are not encoded again.
    """

    def __init__(self, tokenizers: dict[str, Any], cached: int = 0) -> None:
        self._most = max(MOST_REMEMBERED, cached)
        self._expected: list[str] = []  # texts that are about to be encoded
        self._known: OrderedDict[str, dict[str, Cut | None]] = OrderedDict()
        self._last: dict[str, tuple[Any, Any]] = {}
        seen: dict[int, str] = {}
        for name, tokenizer in tokenizers.items():
            if seen.setdefault(id(tokenizer), name) == name:
                _watch(tokenizer, name, self)

    def expect(self, texts: Iterable[str]) -> None:
        """Say which texts of users the coming calls are about."""
        self._expected = sorted({text for text in texts if text.strip()}, key=len, reverse=True)

    def of(self, text: str, what: str) -> str | None:
        """One sentence that says where `text`, called `what`, is cut; None if it is taken whole."""
        found = self._known.get(text, {})
        if text in self._known:
            self._known.move_to_end(text)
        cuts = {name: cut for name, cut in found.items() if cut is not None}
        if not cuts:
            return None
        if len(set(cuts.values())) == 1 and len(cuts) == len(found):
            cut = next(iter(cuts.values()))
            taken = f"the model takes {cut.taken}{cut.marks}"
            return f"{what} has {cut.tokens} tokens, {taken}: cut after {cut.end}"
        parts = [
            f"{name} takes {cut.taken} of {cut.tokens} tokens{cut.marks}, cut after {cut.end}"
            for name, cut in cuts.items()
        ]
        whole = [f"{name} takes all of it" for name in found if name not in cuts]
        return f"{what}: {'; '.join([*parts, *whole])}"

    def note(self, name: str, tokenizer: Any, texts: Any, given: dict[str, Any]) -> None:
        """A tokenizer was called to cut `texts`; `given` are its other arguments."""
        for text in [texts] if isinstance(texts, str) else texts:
            own = self._own_text_in(text) if isinstance(text, str) else None
            if own is not None:
                self._remember(own, name, _cut_of(tokenizer, text, own, given))

    def saw(self, name: str, tokenizer: Any, texts: Any) -> None:
        """A tokenizer was called with `texts`, to cut them or not."""
        self._last[name] = (tokenizer, texts)

    def note_dropped_behind(self, tokens: int) -> None:
        """The pipeline itself dropped what was behind so many tokens of what it encoded last."""
        for name, (tokenizer, texts) in self._last.items():
            self.note(name, tokenizer, texts, {"max_length": tokens})

    def _own_text_in(self, text: str) -> str | None:
        """The user's text; `text` may have a template around it, or be a cleaned form of it."""
        found = [own for own in self._expected if _find(own, text) is not None]
        if not found and len(self._expected) == 1 and len(text) > LIKENESS * len(self._expected[0]):
            found = self._expected
        return found[0] if found else None

    def _remember(self, own: str, name: str, cut: Cut | None) -> None:
        # The last word counts: a shorter length may have been tried first.
        self._known.setdefault(own, {})[name] = cut
        self._known.move_to_end(own)
        if len(self._known) > self._most:
            self._known.popitem(last=False)


def tokenizers_of(pipeline: Any) -> dict[str, Any]:
    """A pipeline's tokenizers, by the short names of their encoders: CLIP, T5, Qwen3, …"""
    found: dict[str, Any] = {}
    for number in ("", "_2", "_3", "_4"):
        tokenizer = getattr(pipeline, f"tokenizer{number}", None)
        # FLUX.2 and Kandinsky 5 have a processor in its place, which calls the tokenizer inside.
        part = getattr(tokenizer, "tokenizer", None)
        tokenizer = part if callable(part) else tokenizer
        if not callable(tokenizer):
            continue
        encoder = type(getattr(pipeline, f"text_encoder{number}", None)).__name__
        name = _FAMILY.split(encoder)[0] or encoder
        found[name if name not in found else f"{name}{number.replace('_', ' ')}"] = tokenizer
    inner = getattr(getattr(pipeline, "processor", None), "tokenizer", None)
    if callable(inner) and all(inner is not known for known in found.values()):
        found["the processor"] = inner
    return found


def _watch(tokenizer: Any, name: str, cuts: PromptCuts) -> None:
    """Give the tokenizer a class of its own, under its old name, that tells `cuts` of calls."""
    kind = type(tokenizer)

    def call(self: Any, text: Any = None, *args: Any, **given: Any) -> Any:
        encoded = kind.__call__(self, text, *args, **given)
        if text is not None:
            unwatched = _Unwatched(self, kind)
            cuts.saw(name, unwatched, text)
            if given.get("truncation"):
                cuts.note(name, unwatched, text, given)
        return encoded

    members = {"__call__": call, "__module__": kind.__module__}
    tokenizer.__class__ = type(kind.__name__, (kind,), members)


@dataclass(frozen=True)
class _Unwatched:
    """A watched tokenizer, to be called without being told of."""

    tokenizer: Any
    kind: Any

    def __call__(self, text: str, **given: Any) -> Any:
        return self.kind.__call__(self.tokenizer, text, **given)


def _cut_of(tokenizer: Any, text: str, own: str, given: dict[str, Any]) -> Cut | None:
    """How `tokenizer` cuts `text`; None if all of the user's `own` text is left."""
    marks = {"add_special_tokens": given.get("add_special_tokens", True)}
    if not tokenizer.tokenizer.is_fast:
        return _cut_without_offsets(tokenizer, text, given, marks)
    whole = tokenizer(text, return_offsets_mapping=True, verbose=False, **marks)
    limit = given.get("max_length") or tokenizer.tokenizer.model_max_length
    if len(whole["input_ids"]) <= limit:
        return None
    left = tokenizer(
        text, return_offsets_mapping=True, truncation=True, max_length=limit, verbose=False, **marks
    )
    found = _find(own, text)
    begin, end = (0, len(text)) if found is None else (found, found + len(own.strip()))
    tokens = _inside(whole["offset_mapping"], begin, end)
    taken = _inside(left["offset_mapping"], begin, end)
    if len(taken) >= len(tokens):
        return None
    cut_at = max((stop for _, stop in taken), default=begin)
    return Cut(int(limit), len(tokens), len(taken), _end_of(text[begin:cut_at]))


def _cut_without_offsets(
    tokenizer: Any, text: str, given: dict[str, Any], marks: dict[str, Any]
) -> Cut | None:
    """Find the cut with a tokenizer in Python, which does not say where its tokens come from."""
    whole = tokenizer(text, verbose=False, **marks)["input_ids"]
    limit = given.get("max_length") or tokenizer.tokenizer.model_max_length
    if len(whole) <= limit:
        return None
    left = tokenizer(text, truncation=True, max_length=limit, verbose=False, **marks)["input_ids"]
    kept = tokenizer.tokenizer.decode(left, skip_special_tokens=True)
    return Cut(int(limit), len(whole), len(left), _end_of(kept))


def _inside(offsets: Iterable[tuple[int, int]], begin: int, end: int) -> list[tuple[int, int]]:
    """Tokens that stand for characters between `begin` and `end`."""
    return [(a, b) for a, b in offsets if a < end and b > begin and a < b]


def _find(own: str, text: str) -> int | None:
    """Find where `own` begins in `text`; templates strip it, and some pipelines lower it."""
    for whole, part in ((text, own.strip()), (text.lower(), own.strip().lower())):
        at = whole.find(part)
        if at >= 0 and len(whole) == len(text):
            return at
    return None


def _end_of(kept: str) -> str:
    """The last words before the cut, in quotation marks."""
    text = one_line(" ".join(kept.split()))
    if len(text) <= SHOWN:
        return f'"{text}"'
    shown = text[-SHOWN:]
    return f'"… {shown.partition(" ")[2] or shown}"'
