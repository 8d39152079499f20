"""As what the data was read, and by which protocol it is judged: one line each."""

from collections.abc import Sequence
from pathlib import Path

from apps.edit_benchmark.data_set import MAPPED
from apps.edit_benchmark.pair import Pair
from core.judge import Judge


def read_as(pairs: Sequence[Pair]) -> str:
    """The form in which the data was recognised."""
    forms = list(dict.fromkeys(pair.data_set for pair in pairs))
    if forms == [MAPPED]:
        return "The data is read by the setting `fields`."
    return f"The data is read as {', '.join(forms)} (docs/BENCHMARKS.md)."


def judged_with(judge: Judge) -> str:
    """The type of the judge, and the file of its questions where it is asked any."""
    kind = judge.settings.type
    if not judge.type.chats:
        return f"Edits are scored by {kind}, which asks no questions."
    file = Path(judge.settings.prompts or judge.prompts.name).name
    return f"Edits are judged by {kind} with the protocol {file}."
