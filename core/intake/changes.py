"""What a task and the result that lies under its name differ by.

A result says which task it is of, which files it was made from, and its fingerprint. What it
does not say (dtype, version of this program) is found by trying which of the possible values
give that fingerprint.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, get_args

from core.errors import InputError
from core.intake.admission import Admitted, fingerprint
from core.intake.differences import Change, of_fields, of_files, of_loras
from core.intake.made import Made
from core.intake.task_kinds import Contents, kind_of
from core.model_identity import BACKEND, BASE, LOADED, Identity
from core.model_settings import Dtype
from core.tasks import ScoreTask, Task, task_from_json

MOST_IN_VAIN = 200  # results that nothing explained: the others are taken to be like them
MODEL, DTYPE = "model", "dtype"
_WORK = {"edit": "editing", "score": "judging"}  # by role
MODEL_LORA, SCHEDULE = "model LoRA", "noise schedule"
# What a setting beside the model is called, and what it is where nothing is said of it.
_BESIDE_MODEL = {
    BACKEND: ("attention backend", "auto"),
    "memory": ("memory mode", "full"),
    "variant": ("variant", "none"),
    BASE: ("base model", "none"),
    "step_cache": ("step cache", "none"),
}


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
            *of_fields(admitted, task, made),
            *of_loras(admitted, task, made),
            *of_files(admitted, task, made),
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
            work = f"{_WORK.get(task.role, 'drawing')} of this program"
            found.append(Change(work, (f"{maker.version}", f"{newest}"), True))
        if maker.readings != admitted.contents.readings and not explained:
            found.append(Change("reading of pictures"))
        return found

    def _of_model(self, before: Identity, after: Identity, made: Made) -> list[Change]:
        found = []
        if before.model != after.model:
            found.append(Change(MODEL, told_apart(before.model, after.model), True))
        if before.loras != after.loras:
            names = {**self._lora_names, **made.lora_names}
            shown = (loras_shown(identity.loras, names) for identity in (before, after))
            found.append(Change(MODEL_LORA, (next(shown), next(shown)), True))
        if before.scheduler != after.scheduler:
            found.append(of_schedule(before.scheduler, after.scheduler))
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
    return [change for change in of_fields(admitted, task, made) if change.what != "seed"]


def _task(made: Made) -> Task | None:
    try:
        return task_from_json(made.task)
    except (InputError, KeyError, TypeError, ValueError):
        return None


def loras_shown(loras: tuple[str, ...], names: Mapping[str, str]) -> str:
    """LoRAs and strengths as text, such as `turbo.safetensors at 1`."""
    shown = []
    for lora in loras:
        content, _, strength = lora.partition("@")
        shown.append(f"{names.get(lora, f'#{content[:8]}')} at {strength.removesuffix('.0')}")
    return " + ".join(shown) or "none"


def of_schedule(before: Mapping[str, Any], after: Mapping[str, Any]) -> Change:
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


def told_apart(before: str, after: str) -> tuple[str, str]:
    """Names without the hash of their weights where the names alone differ."""
    short = before.partition("#")[0], after.partition("#")[0]
    return short if short[0] != short[1] else (before, after)
