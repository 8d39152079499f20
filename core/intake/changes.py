"""What a task and the result that lies under its name differ by.

A result says which task it is of, which files it was made from, and its fingerprint. What it
does not say (dtype, version of this program) is found by trying which of the possible values
give that fingerprint.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

from core.checkpoints.model_loras import identities_in
from core.errors import InputError
from core.intake.admission import Admitted, fingerprint
from core.intake.task_kinds import Contents, kind_of, undeciding_fields
from core.lora_stack import CheckedLora, counting, hashes_of
from core.memory_modes import ALL_WEIGHTS_AS_THEY_ARE
from core.model_identity import BACKEND, BASE, LOADED, Identity
from core.model_settings import Dtype
from core.tasks import ScoreTask, Task, fields_of, task_from_json

MOST_IN_VAIN = 200  # results that nothing explained: the others are taken to be like them
TEXTS = ("prompt", "negative_prompt", "instruction")  # too long for a line: only counted
MODEL, DTYPE, DRAWING = "model", "dtype", "drawing of this program"
MODEL_LORA, SCHEDULE = "model LoRA", "noise schedule"
# What a setting beside the model is called, and what it is where nothing is said of it.
_BESIDE_MODEL = {
    BACKEND: ("attention backend", "auto"),
    "memory": ("memory mode", "full"),
    "variant": ("variant", "none"),
    BASE: ("base model", "none"),
    "step_cache": ("step cache", "none"),
}
_WORDS = {  # of fields that have other names in files than in tasks
    "num_inference_steps": "steps",
    "negative_prompt": "negative prompt",
    "lora_strength": "LoRA strength",
}
_APART = {"width", "height", "lora_strength"}  # not compared field by field


@dataclass(frozen=True)
class Change:
    """One difference; `values` are before and after, or None where they are not shown.

    Attributes:
        of_the_maker: it is the same for all of a run.
    """

    what: str
    values: tuple[str, str] | None = None
    of_the_maker: bool = False


def text_of(task: Mapping[str, Any]) -> str | None:
    """A task's prompt or instruction."""
    text = task.get("prompt", task.get("instruction"))
    return text if isinstance(text, str) else None


@dataclass(frozen=True)
class Made:
    """How a result was made, as far as it says so.

    Attributes:
        loras_sha256: content hashes of the task's `loras`.
        files: content hashes of the pictures that it was made from.
    """

    task: Mapping[str, Any]
    used: Mapping[str, Any]
    lora_sha256: str | None
    files: list[str]
    fingerprint: str
    loras_sha256: tuple[str, ...] = ()

    @classmethod
    def said_by(cls, provenance: Mapping[str, Any]) -> "Made":
        """Read how a result was made from what it says, which may be anything."""
        task, used, lora, loras, files = (
            provenance.get(name)
            for name in ("task", "used", "lora_sha256", "loras_sha256", "files")
        )
        return cls(
            task if isinstance(task, dict) else {},
            used if isinstance(used, dict) else {},
            lora if isinstance(lora, str) else None,
            _texts(files),
            str(provenance.get("fingerprint")),
            tuple(_texts(loras)),
        )

    @property
    def text(self) -> str | None:
        """Prompt or instruction."""
        return text_of(self.task)

    @property
    def model(self) -> str | None:
        """The model's identity."""
        name, content = self.used.get("model"), self.used.get("model_hash")
        if not isinstance(name, str):
            return None
        return f"{name}#{content}" if isinstance(content, str) else name

    @property
    def identity(self) -> Identity | None:
        """The model with its own LoRAs and noise schedule."""
        model, loras = self.model, self.used.get("model_loras")
        scheduler, backend = self.used.get("scheduler"), self.used.get(BACKEND)
        if model is None:
            return None
        return Identity(
            model,
            self.beside_model,
            loras=tuple(identities_in(loras if isinstance(loras, list) else [])),
            scheduler=scheduler if isinstance(scheduler, dict) else {},
            backend=backend if isinstance(backend, str) else None,
        )

    @property
    def lora_names(self) -> dict[str, str]:
        """What it calls the model's own LoRAs, by their identities."""
        loras = self.used.get("model_loras")
        named = [x for x in loras if isinstance(x, dict)] if isinstance(loras, list) else []
        return {key: str(x.get("name")) for x in named for key in identities_in([x])}

    @property
    def beside_model(self) -> dict[str, str]:
        """Settings beside the model that it says, where they change its pixels."""
        said = {key: value for key in LOADED if isinstance(value := self.used.get(key), str)}
        if said.get("memory") in ALL_WEIGHTS_AS_THEY_ARE:
            del said["memory"]
        return said


@dataclass(frozen=True)
class _Maker:
    """What decides a result beside its task and the files that it was made from."""

    model: str
    dtype: str
    version: int
    readings: tuple[str, ...]  # see `core.intake.task_kinds.Contents`

    def gives(self, made: Made, task: Task) -> bool:
        """Whether a result's fingerprint is of this maker."""
        files = {str(i): file for i, file in enumerate(made.files)}
        contents = Contents(made.lora_sha256, files, self.readings, made.loras_sha256)
        found = fingerprint(task, contents, self.model, self.dtype, self.version)
        return found == made.fingerprint


class Comparison:
    """Compares tasks with results. One for many: what explains one explains most.

    Args:
        lora_names: what the tasks' model LoRAs are called, by their identities.
    """

    def __init__(self, lora_names: Mapping[str, str] | None = None) -> None:
        self._lora_names = dict(lora_names or {})
        self._last: _Maker | None = None
        self._in_vain = 0

    def changes(self, admitted: Admitted, made: Made) -> list[Change]:
        """What a task and the result under its name differ by; never empty."""
        task = _task(made)
        if task is None or type(task) is not type(admitted.task):
            return [Change("another kind of task")]
        found = [
            *_of_fields(admitted, task, made),
            *_of_loras(admitted, task, made),
            *_of_files(admitted, made),
        ]
        found += self._of_maker(admitted, made, task, explained=bool(found))
        return found or [Change("version or settings of this program")]

    def _of_maker(
        self, admitted: Admitted, made: Made, task: Task, explained: bool
    ) -> list[Change]:
        """Differences in the model, its dtype, and this program's version."""
        maker = self._maker(made, task, admitted)
        after = Identity.read(admitted.model)
        if maker is not None:  # the fingerprint knows best
            before = Identity.read(maker.model)
        elif isinstance(task, ScoreTask):  # what else is in there is the judge's own
            usual = {key: value for key, value in after.others.items() if key != "memory"}
            before = replace(after, others=usual | made.beside_model)
        else:
            before = made.identity or after
        found = self._of_model(before, after, made)
        if maker is None:
            judged = isinstance(task, ScoreTask) and not (found or explained)
            return [Change("judge's settings or protocol")] if judged else found
        if maker.dtype != admitted.dtype:
            found.append(Change(DTYPE, (maker.dtype, admitted.dtype), True))
        newest = kind_of(task).version
        if maker.version != newest:
            found.append(Change(DRAWING, (f"{maker.version}", f"{newest}"), True))
        if maker.readings != admitted.contents.readings and not explained:
            found.append(Change("reading of source pictures"))
        return found

    def _of_model(self, before: Identity, after: Identity, made: Made) -> list[Change]:
        found = []
        if before.model != after.model:
            found.append(Change(MODEL, _told_apart(before.model, after.model), True))
        if before.loras != after.loras:
            names = {**self._lora_names, **made.lora_names}
            shown = (_loras_shown(identity.loras, names) for identity in (before, after))
            found.append(Change(MODEL_LORA, (next(shown), next(shown)), True))
        if before.scheduler != after.scheduler:
            found.append(_of_schedule(before.scheduler, after.scheduler))
        for name in dict.fromkeys((*before.beside, *after.beside)):
            word, usual = _BESIDE_MODEL.get(name, (name.replace("_", " "), "none"))
            values = before.beside.get(name, usual), after.beside.get(name, usual)
            if values[0] != values[1]:
                found.append(Change(word, values, True))
        return found

    def _maker(self, made: Made, task: Task, admitted: Admitted) -> _Maker | None:
        """The maker that gives the result's fingerprint; None if none does."""
        if self._in_vain > MOST_IN_VAIN:
            return None
        for maker in self._makers(made, task, admitted):
            try:
                if maker.gives(made, task):
                    self._last = maker
                    return maker
            except (TypeError, ValueError, RecursionError):  # a stranger's task
                return None
        self._in_vain += 1
        return None

    def _makers(self, made: Made, task: Task, admitted: Admitted) -> Iterator[_Maker]:
        if self._last is not None:
            yield self._last
        models = dict.fromkeys([admitted.model])
        if not isinstance(task, ScoreTask):
            models |= dict.fromkeys(map(str, _other_models(made, Identity.read(admitted.model))))
        dtypes = dict.fromkeys((admitted.dtype, *get_args(Dtype)))
        versions = range(kind_of(task).version, 0, -1)
        readings = dict.fromkeys((admitted.contents.readings, ()))
        for read, model, dtype, version in product(readings, models, dtypes, versions):
            yield _Maker(model, dtype, version, read)


def _other_models(made: Made, now: Identity) -> Iterator[Identity]:
    """Models that a result may be of: what it does not say may be as it is now, or as usual."""
    said = made.identity or now
    keys = dict.fromkeys((*LOADED, *now.others))
    values = [dict.fromkeys((said.others.get(key), now.others.get(key), None)) for key in keys]
    models = dict.fromkeys((said.model, now.model))
    backends = dict.fromkeys((said.backend, now.backend, None))
    for model, backend, chosen in product(models, backends, product(*values)):
        others = {k: v for k, v in zip(keys, chosen, strict=True) if v is not None}
        yield replace(said, model=model, others=others, backend=backend)


def field_changes(admitted: Admitted, made: Made) -> list[Change]:
    """Differences in a task's own settings alone, from a result that lies under another name."""
    task = _task(made)
    if task is None or type(task) is not type(admitted.task):
        return []
    return [change for change in _of_fields(admitted, task, made) if change.what != "seed"]


def _task(made: Made) -> Task | None:
    try:
        return task_from_json(made.task)
    except (InputError, KeyError, TypeError, ValueError):
        return None


def _of_fields(admitted: Admitted, before: Task, made: Made) -> list[Change]:
    """Differences of settings; where the old task left one to the model, what the model took."""
    found = []
    after, apart = fields_of(admitted.task), _APART | undeciding_fields(type(before))
    for name, old in fields_of(before).items():
        if name in apart or old == after[name]:
            continue
        values = _told_apart_from_default(old, made.used.get(name), after[name])
        found.append(Change(_WORDS.get(name, name), None if name in TEXTS else values))
    if _sides(before) != _sides(admitted.task):
        sizes = _size(before, made.used), _size(admitted.task, {})
        found.append(Change("size", sizes if sizes[0] != sizes[1] else (_shown(None), sizes[1])))
    return found


def _of_lora(admitted: Admitted, made: Made) -> list[Change]:
    path = getattr(admitted.task, "lora_path", None)
    before, after = _lora_name(made.task.get("lora_path")), _lora_name(path)
    if made.lora_sha256 != admitted.lora_sha256:
        if before == after:
            return [Change(f"content of {after}")]
        return [Change("LoRA", (before, after))]
    strengths = made.task.get("lora_strength"), getattr(admitted.task, "lora_strength", 1.0)
    if admitted.lora_sha256 is not None and strengths[0] != strengths[1]:
        return [Change("LoRA strength", (_shown(strengths[0]), _shown(strengths[1])))]
    return []


def _of_loras(admitted: Admitted, task: Task, made: Made) -> list[Change]:
    """Differences of LoRAs; of stacks only those that take part in the pictures are compared."""
    if not getattr(admitted.task, "loras", ()) and not getattr(task, "loras", ()):
        return _of_lora(admitted, made)
    hashes = hashes_of(made.lora_sha256, made.loras_sha256)
    if len(hashes) != len(task.lora_stack):  # what it says does not go together
        return [Change("LoRA")]
    before, after = (
        {lora.sha256: lora for lora in s} for s in (counting(task, hashes), admitted.loras)
    )
    if before.keys() != after.keys():
        old_names, new_names = _names(before.values()), _names(after.values())
        if old_names == new_names:
            others = [after[sha256] for sha256 in after.keys() - before.keys()]
            return [Change(f"content of {_names(others)}")]
        return [Change("LoRA", (old_names, new_names))]
    return [
        Change(f"strength of {_lora_name(new.path)}", (_shown(old.strength), _shown(new.strength)))
        for old, new in zip(before.values(), after.values(), strict=True)
        if old.strength != new.strength
    ]


def _names(loras: Iterable[CheckedLora]) -> str:
    return " + ".join(sorted(_lora_name(lora.path) for lora in loras)) or "none"


def _of_files(admitted: Admitted, made: Made) -> list[Change]:
    before, after = made.files, list(admitted.contents.pictures.values())
    found = []
    if isinstance(admitted.task, ScoreTask):
        if before[-1:] != after[-1:]:
            found.append(Change("edited picture"))
        before, after = before[:-1], after[:-1]
    if before != after:
        found.append(Change("source picture"))
    return found


def _texts(found: Any) -> list[str]:
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []


def _sides(task: Task) -> tuple[int | None, int | None]:
    return getattr(task, "width", None), getattr(task, "height", None)


def _size(task: Task, used: Mapping[str, Any]) -> str:
    width, height = (
        used.get(name) if given is None else given
        for name, given in zip(("width", "height"), _sides(task), strict=True)
    )
    return "default" if width is None and height is None else f"{_shown(width)}x{_shown(height)}"


def _lora_name(path: Any) -> str:
    return Path(path).name if isinstance(path, str) and path else "none"


def _loras_shown(loras: tuple[str, ...], names: Mapping[str, str]) -> str:
    """LoRAs and strengths as text, such as `turbo.safetensors at 1`."""
    shown = []
    for lora in loras:
        content, _, strength = lora.partition("@")
        shown.append(f"{names.get(lora, f'#{content[:8]}')} at {strength.removesuffix('.0')}")
    return " + ".join(shown) or "none"


def _of_schedule(before: Mapping[str, Any], after: Mapping[str, Any]) -> Change:
    """The difference of two noise schedules, with values where just one setting differs."""
    names = [
        name
        for name in dict.fromkeys((*before, *after))
        if name not in before or name not in after or before[name] != after[name]
    ]
    if len(names) != 1:
        return Change(SCHEDULE, None, True)
    name = names[0]
    values = [
        f"{name} {json.dumps(of[name])}" if name in of else f"{name} as the model's"
        for of in (before, after)
    ]
    return Change(SCHEDULE, (values[0], values[1]), True)


def _told_apart(before: str, after: str) -> tuple[str, str]:
    """Names without the hash of their weights where the names alone differ."""
    short = before.partition("#")[0], after.partition("#")[0]
    return short if short[0] != short[1] else (before, after)


def _told_apart_from_default(before: Any, used: Any, after: Any) -> tuple[str, str]:
    """What the model took counts as before, unless it is just what is asked for now."""
    shown = _shown(used if before is None else before), _shown(after)
    return shown if shown[0] != shown[1] else (_shown(before), shown[1])


def _shown(value: Any) -> str:
    if value is None:
        return "default"
    return f"{value:.12g}" if isinstance(value, float) else str(value)
