"""Pictures drawn again from what they say of themselves, and whether they became the same.

What decides a picture is in its fingerprint, so what is known to differ is said before anything is
drawn. Device and versions of libraries are not: what came of them is seen afterwards, bit by bit.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from loguru import logger
from PIL import Image

from apps.prompts.bad_entry import BadEntry
from apps.prompts.made_pictures import MadePicture, read_pictures
from apps.prompts.run_names import name_of_run
from core.devices.automatic_model import Automatic
from core.devices.edit_models import EDITOR
from core.devices.model_choice import GENERATOR, SIMULATED, is_hub_model
from core.errors import InputError
from core.intake.changes import Comparison
from core.intake.differences import Change
from core.intake.planning import Plan
from core.intake.task_kinds import TaskInput
from core.memory_modes import ALL_WEIGHTS_AS_THEY_ARE
from core.names import counted
from core.settings import Settings
from core.store.folder_input import NoFile
from core.store.outputs import LOSSY_SUFFIXES
from core.store.provenance import read_provenance
from core.tasks import ROLES, Result
from core.worker_spec import Role

MOST_REASONS = 4  # of one line
_NOT_DECIDING = {  # of what pictures say, beside the fingerprint: what to call it
    "device": "device",
    "libraries": "libraries",
    "pipeline": "pipeline",
    "compiled": "compiled blocks",
    "vae_tile": "VAE tile",
}
_UNSAID = "not said"


class Again:
    """Pictures as inputs; see `apps.tweets.tweets_file.TweetFile` for what the command needs.

    Args:
        files: pictures, folders of them, or their `metadata.jsonl`.
        suffix: of the new files, where another format is asked for.
        role: what made them: "generate", or "edit".

    Raises:
        InputError: a path is none of these, or there is no picture.
    """

    noun = "picture"
    source = NoFile("pictures that are made again")
    passed_over = None
    is_read = True

    def __init__(
        self,
        files: Sequence[str],
        limit: int | None,
        suffix: str | None = None,
        role: Role = "generate",
    ) -> None:
        self._role = role
        self._pictures = read_pictures(files)[:limit]
        self.folder = self._pictures[0].root
        self.name_of_run = name_of_run(f"{self.folder.name}_again")
        self.inputs: list[TaskInput] = [_task(picture, suffix, role) for picture in self._pictures]
        self._expected: dict[int, list[Change]] = {}  # by position: differences that are known

    def settings(self, given: Settings) -> dict[str, Any]:
        """Settings that pictures were drawn with, where the user's say nothing.

        Raises:
            InputError: the model is not known, or there are several.
        """
        used = [
            p.made.used for p in self._pictures if p.made and p.kind == ROLES[self._role].__name__
        ]
        draws = self._role == "generate"
        said = given.model_dump() if draws else given.editor or {}
        found: dict[str, Any] = {}
        if said.get("model", "auto") == "auto" and used:
            found |= _model_of(used, GENERATOR if draws else EDITOR)
        memory = _only(used, "memory")
        is_open = said.get("memory", "auto") == "auto"
        if is_open and memory and memory not in ALL_WEIGHTS_AS_THEY_ARE:
            found["memory"] = memory
        for name in ("variant", "scheduler"):
            if not said.get(name) and (value := _only(used, name)):
                found[name] = value
        if not draws:
            found = {"editor": found}
        backend = _only(used, "attention_backend")
        if given.workers.attention_backend == "auto" and backend:
            found["workers"] = {"attention_backend": backend}
        return found

    def expect(self, plan: Plan) -> None:
        """Say of which pictures it is known that they will differ, and why."""
        comparison = Comparison()
        for admitted in plan.tasks:
            made = self._pictures[admitted.position].made
            if made is not None and made.fingerprint != admitted.fingerprint:
                self._expected[admitted.position] = comparison.changes(admitted, made)
        if self._expected:
            reasons = _shown(change for each in self._expected.values() for change in each)
            pictures = counted(len(self._expected), "picture")
            logger.warning(f"{pictures} cannot become the same as before: {reasons}.")

    def compare(self, results: Sequence[Result]) -> str:
        """One line on how the new pictures stand to the old ones."""
        counts: Counter[str] = Counter()
        reasons: list[Change] = []
        for result in results:
            picture = self._pictures[result.position]
            if not result.success or picture.sha256 is None:
                continue
            file = Path(str(result.output_path))
            if hashlib.sha256(file.read_bytes()).hexdigest() == picture.sha256:
                counts["the same byte for byte"] += 1
            elif _pixels(file) == _pixels(picture.file):
                counts["the same pixel for pixel, in another file"] += 1
            else:
                counts["different"] += 1
                reasons += self._expected.get(result.position) or _beside(picture, file)
        text = ", ".join(f"{count} {what}" for what, count in counts.items()) or "none to compare"
        if counts["different"]:
            text += f" ({_shown(reasons) or 'nothing that pictures say of themselves differs'})"
        return f"compared with the originals: {text}"


def _task(picture: MadePicture, suffix: str | None, role: Role) -> TaskInput:
    name = Path(picture.name)
    if picture.made is None:
        return BadEntry(str(picture.problem), name.stem)
    if picture.kind != ROLES[role].__name__:
        return BadEntry(f"{picture.file}: {_refusal(picture.kind, role)}", name.stem)
    fields = picture.fields
    if suffix is not None:
        fields["output_path"] = str(name.with_suffix(suffix))
        if suffix not in LOSSY_SUFFIXES:
            fields.pop("picture_quality", None)
    return fields


def _refusal(kind: str, role: Role) -> str:
    """Why a command does not make a picture of another kind again."""
    if role == "generate" and kind == "EditTask":
        return "is an edit; edit_images.py --from-png makes it again."
    if role == "edit" and kind == "GenerateTask":
        return "is drawn from a prompt; generate_images_from_tweets.py --from-png draws it again."
    return "is no picture that a prompt or an instruction was given for."


def _model_of(used: Sequence[Mapping[str, Any]], automatic: Automatic) -> dict[str, Any]:
    models = {(_text(x.get("model")), _text(x.get("model_hash"))) for x in used}
    names = sorted({name or _UNSAID for name, _ in models})
    if len(names) > 1:
        raise InputError(
            f"These pictures were drawn by different models ({', '.join(names)}): draw those of "
            "one model at a time, or say with --model which one shall draw all."
        )
    name, at, revision = names[0].partition("@")
    if name == automatic.demo_identity:
        return {"model": str(automatic.demo)}
    if name == SIMULATED:
        return {"model": SIMULATED}
    if is_hub_model(name):
        return {"model": name, **({"revision": revision} if at else {})}
    raise InputError(
        f"These pictures were drawn by {names[0]}, a folder or a file of which they do not say "
        "where it lies: name it with --model."
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _only(used: Sequence[Mapping[str, Any]], name: str) -> Any:
    """A setting that all pictures were drawn with alike; None where they were not."""
    first = used[0].get(name) if used else None
    return first if all(each.get(name) == first for each in used) else None


def _pixels(file: Path) -> tuple[Any, ...] | None:
    try:
        with Image.open(file) as image:
            return image.size, image.convert("RGB").tobytes()
    except (OSError, ValueError):
        return None


def _beside(picture: MadePicture, file: Path) -> list[Change]:
    """What a picture and its successor say differently of their making, beside the task."""
    try:
        now = read_provenance(file)["used"]
    except ValueError:
        return []
    before = picture.made.used if picture.made is not None else {}
    return [
        Change(word, (str(before.get(key, _UNSAID)), str(now.get(key, _UNSAID))))
        for key, word in _NOT_DECIDING.items()
        if before.get(key) != now.get(key)
    ]


def _shown(changes: Iterable[Change]) -> str:
    """Differences in words, the most frequent first."""
    counts: Counter[str] = Counter()
    for change in changes:
        values = f" {change.values[0]} -> {change.values[1]}" if change.values else ""
        counts[f"{change.what}{values}"] += 1
    shown = [text for text, _ in counts.most_common(MOST_REASONS)]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {counted(more, 'other difference')}" if more else "")
