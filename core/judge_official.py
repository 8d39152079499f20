"""Texts of official benchmarks that lie in files of their own and are read where they lie."""

import ast
import json
from pathlib import Path

from core.errors import InputError
from core.judge_calls import JudgeCall, Official
from core.judge_protocol import JudgePrompts
from core.validation import shown

MOST_BYTES = 2**22


def with_official_texts(prompts: JudgePrompts, prompt_file: Path) -> JudgePrompts:
    """The prompts with every `text_from` read, and official placeholders written as ours are.

    Raises:
        InputError: names the file and the entry that are not there.
    """
    if not prompts.placeholders and not any(form.text_from for form in prompts.forms):
        return prompts
    calls = [_with_text(call, prompts, prompt_file) for call in prompts.calls]
    return prompts.model_copy(update={"calls": calls})


def _with_text(call: JudgeCall, prompts: JudgePrompts, prompt_file: Path) -> JudgeCall:
    text = _in_our_words(call.text, prompts)
    for wanted in call.text_from:
        more = _in_our_words(_official_text(wanted, prompt_file), prompts)
        text += more.replace("{{", "{").replace("}}", "}") if wanted.formatted else more
    variants = tuple(_with_text(one, prompts, prompt_file) for one in call.variants)
    return call.model_copy(update={"text": text, "text_from": (), "variants": variants})


def _in_our_words(text: str, prompts: JudgePrompts) -> str:
    for words, name in prompts.placeholders.items():
        text = text.replace(words, f"{{{name}}}")
    return text


def _official_text(wanted: Official, prompt_file: Path) -> str:
    file = prompt_file.parent / Path(wanted.file).expanduser()
    where = f"{prompt_file}: text_from.file {shown(wanted.file)}"
    try:
        if file.stat().st_size > MOST_BYTES:
            raise InputError(f"{where} is larger than {MOST_BYTES // 2**20} MiB: no prompt file.")
        content = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InputError(f"{where} cannot be read: {reason}.") from None
    if not wanted.entries:
        text = content
    else:
        found = _texts_in(content, file, where)
        missing = [name for name in wanted.entries if name not in found]
        if missing:
            there = ", ".join(list(found)[:12]) or "none"
            raise InputError(f"{where} has no text {missing[0]!r}; there are {there}.")
        text = "\n".join(found[name] for name in wanted.entries)
    for words, others in wanted.replace.items():
        text = text.replace(words, others)
    return text


def _texts_in(content: str, file: Path, where: str) -> dict[str, str]:
    """Texts by name, of a JSON object or of a Python module's assignments."""
    try:
        if file.suffix.lower() == ".json":
            given = json.loads(content)
            items = given.items() if isinstance(given, dict) else ()
            return {str(name): text for name, text in items if isinstance(text, str)}
        found = {}
        for node in ast.parse(content).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                for target in node.targets:
                    if isinstance(target, ast.Name) and isinstance(node.value.value, str):
                        found[target.id] = node.value.value
        return found
    except (ValueError, SyntaxError, RecursionError):
        raise InputError(f"{where} is neither a JSON object nor a Python file.") from None
