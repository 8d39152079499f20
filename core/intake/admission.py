"""Turns what the user wrote into tasks that can run: validated, complete, fingerprinted.

One bad task becomes one `Rejected`; it never stops the others. What differs between kinds of
task is in `core.intake.task_kinds`.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.errors import InputError
from core.intake.task_kinds import (
    Contents,
    TaskInput,
    TaskKind,
    at_its_place,
    deciding,
    kind_of,
)
from core.lora_stack import CheckedLora, counting, hashes_of
from core.seeds import RANDOM, random_seed, seed_of_task
from core.store.claims import BatchClaims, Claim, Claims
from core.store.outputs import JPEG_QUALITY, LOSSY_SUFFIXES, WEBP, OutputPath, OutputRoot
from core.tasks import MAX_TASK_BYTES, WHERE_SET, Task, paths_in, task_to_json
from core.validation import shown

MAX_TASK_ID = 200  # characters
_NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Admitted:
    """A task that can run: every setting resolved, its output safe, its files checked."""

    position: int
    task: Task
    task_id: str
    output: OutputPath
    digest: bytes  # the fingerprint, in half of its size
    contents: Contents
    work: float  # expected work, in a unit of the task's kind
    model: str  # its identity, as in the fingerprint
    dtype: str

    @property
    def role(self) -> str:
        """The role of the model that does it: generate, edit or score."""
        return self.task.role

    @property
    def fingerprint(self) -> str:
        """A hash of all that decides the result, as text."""
        return self.digest.hex()

    @property
    def lora_sha256(self) -> str | None:
        return self.contents.lora

    @property
    def loras(self) -> tuple[CheckedLora, ...]:
        """LoRAs that take part in the picture."""
        contents = self.contents
        if contents.lora is None and not contents.loras:
            return ()
        return _counting(self.task, contents)

    @property
    def loads(self) -> frozenset[str]:
        """Content hashes of the LoRAs that a worker needs for it."""
        return frozenset([lora.sha256 for lora in self.loras]) or _NOTHING


@dataclass(frozen=True)
class Rejected:
    """An input that cannot run, and why."""

    position: int
    task_id: str
    error: str
    output_path: str | None = None
    cause: str = "input"  # as in `core.tasks.Result`


Item = Admitted | Rejected
"""What becomes of an input."""


class Admission:
    """Turns the inputs of one batch into admitted tasks.

    Args:
        identity: of the model, with everything about it that decides results.
        default_name: output path of a task that gives none, from its position.
        first_seed: what the task at position 0 gets if it has none; RANDOM for any. Kinds of
            which no seed is drawn at random count from 0 then.
        kept_seed: the seed that an earlier run drew at random for an output, if one did.
        claims: keeps other batches of the folder from the outputs of this one; of its own where
            no other batch runs beside it.
        picture_quality: of JPEG and WebP files whose tasks give none; None is the usual one.
    """

    def __init__(
        self,
        kind: TaskKind[Any],
        identity: str,
        dtype: str,
        root: OutputRoot,
        default_name: Callable[[int], str],
        first_seed: int,
        kept_seed: Callable[[OutputPath], int | None] | None = None,
        claims: BatchClaims | None = None,
        picture_quality: int | None = None,
    ) -> None:
        self._kind = kind
        self._identity = identity
        self._dtype = dtype
        # One of its own: it looks once at each folder of a batch.
        self._root = OutputRoot(root.folder, root.confined)
        self._default_name = default_name
        self._first_seed = first_seed
        self._kept_seed = kept_seed
        self._claims = claims or Claims().begin()
        self._picture_quality = picture_quality

    def admit(self, position: int, given: TaskInput) -> Item:
        """Check one input; `position` is its place in the batch."""
        try:
            if isinstance(given, InputError):
                raise given
            task = self._kind.parse(given)
            _check_task_id(task.task_id)
            return self._job(position, task)
        except InputError as error:
            text = at_its_place(given, str(error))
            return Rejected(position, claimed_id(given, position), text)
        except RecursionError:
            error_text = "The task is nested too deeply."
            return Rejected(position, claimed_id(given, position), error_text)

    def name_of(self, position: int, given: TaskInput) -> str:
        """The id that a task is recorded under, from what it says of itself."""
        claimed = claimed_id(given, position)
        if claimed != _usual_id(position) or isinstance(given, InputError):
            return claimed
        path = given.get("output_path") if isinstance(given, Mapping) else given.output_path
        if path is not None and not isinstance(path, str | Path):
            return claimed
        return Path(path or self._default_name(position)).stem or claimed

    def _job(self, position: int, task: Task) -> Admitted:
        output_path = task.output_path or self._default_name(position)
        task = replace(
            task,
            output_path=output_path,
            task_id=task.task_id or Path(output_path).stem,
        )
        output = self._root.place(output_path, self._kind.suffixes)
        task = self._seeded(self._with_quality(task, output), position, output)
        task, contents = self._kind.complete(task)
        _check_size(task)
        other = self._claims.take(output.key, position)
        if other is not None:
            raise InputError(_taken(task, other))
        return Admitted(
            position=position,
            task=task,
            task_id=task.task_id or output.file.stem,
            output=output,
            digest=bytes.fromhex(fingerprint(task, contents, self._identity, self._dtype)),
            contents=contents,
            work=self._kind.work(task),
            model=self._identity,
            dtype=self._dtype,
        )

    def _with_quality(self, task: Task, output: OutputPath) -> Task:
        """The task with the quality of its file, where the file's format has one."""
        if not hasattr(task, "picture_quality"):
            return task
        given, suffix = task.picture_quality, output.file.suffix.lower()
        if suffix not in LOSSY_SUFFIXES:
            if given is not None:
                raise InputError(
                    f"picture_quality: {given} is for {' and '.join(LOSSY_SUFFIXES)}; "
                    f"{shown(task.output_path)} is lossless."
                )
            return task
        usual = None if suffix == WEBP else JPEG_QUALITY
        quality = next((q for q in (given, self._picture_quality) if q is not None), usual)
        return task if quality == given else replace(task, picture_quality=quality)

    def _seeded(self, task: Task, position: int, output: OutputPath) -> Task:
        wanted = self._first_seed if task.seed is None else task.seed
        says_random = hasattr(task, "seed_is_random")
        if says_random and wanted == RANDOM:
            kept = self._kept_seed(output) if self._kept_seed else None
            seed = random_seed() if kept is None else kept
            return replace(task, seed=seed, seed_is_random=True)
        first = 0 if self._first_seed == RANDOM else self._first_seed
        if task.seed is not None:  # of one that is drawn again it says how it was found
            return task if task.seed == wanted else replace(task, seed=wanted)
        seed = seed_of_task(first, position)
        return replace(task, seed=seed, **({"seed_is_random": False} if says_random else {}))


def made_by(admitted: Admitted, identity: str) -> Admitted:
    """Remake a task for another model, or for one that is loaded in another way."""
    if admitted.model == identity:
        return admitted
    decides = fingerprint(admitted.task, admitted.contents, identity, admitted.dtype)
    return replace(admitted, model=identity, digest=bytes.fromhex(decides))


def fingerprint(
    task: Task, contents: Contents, model: str, dtype: str, version: int | None = None
) -> str:
    """A hash of all that decides a task's result: equal for tasks that give the same one.

    Args:
        version: of this program's way to make them, as its kind counts them; today's.
    """
    decides = deciding(task)
    loras: str | list[tuple[str, float]] | None = contents.lora
    strength = decides.get("lora_strength") if contents.lora is not None else None
    if contents.loras:
        stack = [(lora.sha256, lora.strength) for lora in _counting(task, contents)]
        # One that is left of a stack draws what it draws by itself.
        loras, strength = stack[0] if len(stack) == 1 else (stack or None, None)
    mask = getattr(task, "mask", None)
    if mask is not None:  # which of the pictures it is: their contents do not tell
        sources = paths_in(task.source_images)  # type: ignore[attr-defined]
        decides["mask"] = [len(sources), [*sources, mask].index(mask)]
    several = [n for n in task.picture_fields if n in WHERE_SET and n != "mask"]
    if any(getattr(task, n) for n in several):  # which of the pictures below is of which kind
        paths = {n: paths_in(getattr(task, n)) for n in task.picture_fields}
        every = list(dict.fromkeys(path for some in paths.values() for path in some))
        decides["more_pictures"] = {n: [every.index(path) for path in paths[n]] for n in several}
    decides.update(
        kind=type(task).__name__,
        lora_strength=strength,
        lora=loras,
        pictures=[*contents.pictures.values(), *contents.readings],
        model=model,
        dtype=dtype,
        version=kind_of(task).version if version is None else version,
    )
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _counting(task: Task, contents: Contents) -> tuple[CheckedLora, ...]:
    return counting(task, hashes_of(contents.lora, contents.loras))


def _taken(task: Task, other: Claim) -> str:
    """The reason why a task cannot have its output."""
    what = f"output_path: {shown(task.output_path)} is also the output of task {other.position}"
    if other.batch is not None:
        return f"{what} of {other.batch}, which is not done with it yet; choose another name."
    return f"{what}; on some file systems names that differ only in case are one file."


def _check_task_id(task_id: str | None) -> None:
    if task_id is not None and (len(task_id) > MAX_TASK_ID or not task_id.isprintable()):
        raise InputError(
            f"task_id: at most {MAX_TASK_ID} printable characters (found {shown(task_id)})."
        )


def _check_size(task: Task) -> None:
    size = len(json.dumps(task_to_json(task)))
    if size > MAX_TASK_BYTES:
        raise InputError(
            f"The task takes {size} bytes with its prompt and metadata; the most is "
            f"{MAX_TASK_BYTES}."
        )


def claimed_id(given: TaskInput, position: int) -> str:
    """The id that an unusable input gives itself, if that much of it is usable."""
    claimed = (
        given.get("task_id") if isinstance(given, Mapping) else getattr(given, "task_id", None)
    )
    if isinstance(claimed, str) and claimed.isprintable() and 0 < len(claimed) <= MAX_TASK_ID:
        return claimed
    return _usual_id(position)


def _usual_id(position: int) -> str:
    return f"task_{position:04d}"
