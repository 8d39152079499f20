"""Finds the place of an edit's instruction in the questions of a judge's prompt file."""

import re
from collections.abc import Collection, Sequence

INSTRUCTION = "{instruction}"
RIGHT = f"write {INSTRUCTION} where the edit's instruction belongs"
A_FIELD = "list a row field of the data under `fields`"

# A name in braces, as `str.format` and Jinja have it; a JSON example has quotes or colons there.
_IN_BRACES = re.compile(r"\{\{\s*[^\W\d][\w.\-]*\s*\}\}|\{\s*[^\W\d][\w.\-]*(?:![rsa])?\s*\}")
# How other templates write it.
_NAME = r"(?:[\w\-]*[_\-])?instruct(?:ion)?s?"
_ELSEWHERE = re.compile(
    rf"""\{{[\s$]*[\w.\-\ ]*instruct[\w.\-\ ]*(?:[!|:][\w\ ]*)?\}}
      | \{{\s*[\w.]*instruct\w*(?:\[[^\]{{}}]*\])+\s*\}} | \{{\s*\w+\[['"]\w*instruct\w*['"]\]\s*\}}
      | <<?\s*{_NAME}\s*>>? | \[\[?\s*{_NAME}\s*\]\]?
      | \$\{{?\w*instruct\w*\}}? | %\(\w*\)s | %s\b""",
    re.VERBOSE | re.IGNORECASE,
)
# Before the braces of LaTeX: \boxed{answer}, \frac{a}{b}, x_{i}.
_LATEX = re.compile(r"(?:\\[A-Za-z]+\*?(?:\{[^{}]*\})*|[_^])\Z")
_BEFORE = 80  # characters that are looked at
# What else may have been meant, where nothing is right.
_GUESSES = re.compile(r"\{\d*\}|\$\{?[^\W\d]\w*\}?|<[^\W\d]\w*>|\[[^\W\d]\w*\]|｛\w*｝")


def placeholder_problem(
    calls: Sequence[tuple[str, str]], fields: Sequence[str] = (), spoken: Sequence[str] = ()
) -> str | None:
    """Why the questions of a prompt file cannot be asked as they stand; None if they can.

    Braces that hold a bare name are a placeholder: `{instruction}`, or a row field that the file
    lists. A question about the edited picture alone needs none, but one question of a file does;
    where an answer is compared with a right one, a row field says what was to be done.

    Args:
        calls: name and text of each.
        fields: row fields that the file lists.
        spoken: calls whose answers later ones name.
    """
    of_row = {INSTRUCTION, *(f"{{{name}}}" for name in fields)}
    known = of_row | {f"{{{name}}}" for name in spoken}
    for number, (name, text) in enumerate(calls):
        unknown = _unknown_in(text, known)
        if unknown:
            what = "placeholder" if len(unknown) == 1 else "placeholders"
            shown = ", ".join(unknown)
            return f"calls.{number}.text ({name}): unknown {what} {shown}; {RIGHT}, or {A_FIELD}."
    wanted = of_row if spoken else {INSTRUCTION}
    if any(mark in text for _, text in calls for mark in wanted):
        return None
    found = [m.group() for _, text in calls for m in _GUESSES.finditer(text)]
    hint = f" (found {', '.join(dict.fromkeys(found[:3]))})" if found else ""
    return f"no text of `calls` has a placeholder{hint}; {RIGHT}."


def _unknown_in(text: str, known: Collection[str]) -> list[str]:
    """Placeholders that are not known, each once."""
    marks = [m.group() for m in _IN_BRACES.finditer(text) if not _is_latex(text, m.start())]
    marks += [m.group() for m in _ELSEWHERE.finditer(text) if not _sets_off(m.group(), text)]
    wrong = [mark for mark in dict.fromkeys(marks) if mark not in known]
    return [mark for mark in wrong if not any(mark != other and mark in other for other in wrong)]


def _is_latex(text: str, start: int) -> bool:
    """Whether the braces at `start` belong to LaTeX; those of the instruction never do."""
    if text.startswith(INSTRUCTION, start):
        return False
    return _LATEX.search(text[max(0, start - _BEFORE) : start]) is not None


def _sets_off(mark: str, text: str) -> bool:
    """Whether `mark` is a heading or a tag around the instruction: [instruction], <instruction>."""
    if INSTRUCTION not in text:
        return False
    return mark.startswith("[") or f"</{mark.strip('< >')}>" in text
