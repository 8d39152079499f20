"""What a kind of task is to intake: fields, defaults, files, expected work, what decides results.

Each kind has a file in `core.intake.kinds` that registers itself.
"""

from abc import ABC
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from core.checkpoints.lora_files import LoraInspector, find_lora
from core.errors import InputError, LoraError
from core.lora_stack import CheckedLora, fields_for
from core.paths import as_text
from core.pictures.source_images import SourceImage, inspect_image
from core.registry import Registry
from core.section import Section
from core.store.outputs import PICTURE_SUFFIXES
from core.tasks import KINDS as PACKAGE
from core.tasks import WHERE_SET, Lora, Task, fields_of, paths_in
from core.validation import describe, misspelt, shown

TaskInput = Mapping[str, Any] | Task | InputError
"""What may stand for a task in a batch; an InputError is a task that its reader gave up on."""


class PlacedTask(dict[str, Any]):
    """The fields of a task, with the place in a user's file that messages about them begin with.

    Attributes:
        where: file and place, such as `prompts.csv: row 3 (line 5)`.
    """

    __slots__ = ("where",)

    def __init__(self, fields: Mapping[str, Any], where: str) -> None:
        super().__init__(fields)
        self.where = where


def at_its_place(given: TaskInput, error: str) -> str:
    """An error about an input, with the input's place where it has one."""
    return f"{given.where}: {error}" if isinstance(given, PlacedTask) else error


class Inputs(Protocol):
    """The inputs of a batch. They are read once, in order, unless they are `rereadable`."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[TaskInput]: ...


def rereadable(inputs: Inputs) -> bool:
    """Whether inputs can be read more than once: a list, or what says so in `rereadable`."""
    return isinstance(inputs, Sequence) or bool(getattr(inputs, "rereadable", False))


def refuse_single_task(tasks: object) -> None:
    """Refuse what is not a list of tasks: a text would be read letter by letter.

    Raises:
        InputError: says what would be right.
    """
    if isinstance(tasks, str):
        raise InputError(
            f"tasks: expected a list, found a text; write [{{'prompt': {shown(tasks)}}}]."
        )
    if isinstance(tasks, Mapping | Task):
        raise InputError("tasks: expected a list, found one task; put it into a list: [task].")
    if not hasattr(tasks, "__len__") or not hasattr(tasks, "__iter__"):
        raise InputError(
            f"tasks: expected a list, found {shown(tasks)}; of a generator make one: list(tasks)."
        )


T = TypeVar("T", bound=Task)
K = TypeVar("K", bound="type[TaskKind[Any]]")
TWO_WAYS = "loras: give either loras or lora_path, not both."
USUAL_STEPS = 30
# Names and places decide nothing; the content of the files behind them does.
_NEVER_DECIDING = ("output_path", "task_id", "metadata", "lora_path", "loras")


@dataclass(frozen=True, slots=True)
class Contents:
    """Content hashes of the files that a task reads; pictures by their path.

    Attributes:
        lora: of `lora_path`.
        readings: rules by which pictures are read whose numbers are not plain sRGB.
        loras: of the task's `loras`, in their order.
    """

    lora: str | None = None
    pictures: dict[str, str] = field(default_factory=dict)
    readings: tuple[str, ...] = ()
    loras: tuple[str, ...] = ()


NO_FILES = Contents()
"""Of a task that reads none: one for all, as they are many."""


class TaskKind(ABC, Generic[T]):
    """One kind of task, for the tasks of one batch. Methods raise InputError.

    What a kind does not say holds as it stands here: fields are validated by their types, open
    ones are filled in from the settings, LoRAs and pictures are found, checked and hashed.

    Args:
        layers: of defaults; the first that sets a field wins.
        loras: finds the LoRAs; None for a kind whose tasks have none.

    Attributes:
        task: the dataclass of such tasks.
        needed: the field without which there is no task.
        version: raise it when such tasks come to give another result than before.
        undeciding: fields, beside names and paths, that decide nothing about the result.
        suffixes: that outputs may have, the first being the usual one.
        other_names: of fields, for hints at misspelt ones.
        signs: fields by which a mapping is told to be such a task; by default the needed one.
        stem: what names of results begin with that are given none; by default the role.
        small_results: results are small, and go into tables: they are compared byte by byte.
    """

    task: ClassVar[type[Task]]
    needed: ClassVar[str]
    version: ClassVar[int] = 1
    undeciding: ClassVar[tuple[str, ...]] = ()
    suffixes: ClassVar[tuple[str, ...]] = PICTURE_SUFFIXES
    other_names: ClassVar[tuple[str, ...]] = ()
    signs: ClassVar[tuple[str, ...]] = ()
    stem: ClassVar[str] = ""
    small_results: ClassVar[bool] = False

    def __init__(self, layers: Sequence[Section] = (), loras: "LoraFinder | None" = None) -> None:
        self.layers = layers
        self.loras = loras

    def parse(self, given: Mapping[str, Any] | Task) -> T:
        """The task as the user wrote it, every field of the right type."""
        return cast(T, _parsed(type(self), given))

    def complete(self, task: T) -> tuple[T, Contents]:
        """Fill in what is left open, find and check its files."""
        values = fields_of(task)
        for layer in self.layers:
            fill(values, layer)
        return self.with_files(replace(task, **values))

    def pictures_of(self, task: T) -> dict[str, SourceImage]:
        """The pictures that a task reads, checked and hashed, by their paths."""
        return {
            path: inspect_image(path, name)
            for name in task.picture_fields
            for path in paths_in(getattr(task, name))
        }

    def with_files(
        self, task: T, pictures: Mapping[str, SourceImage] | None = None
    ) -> tuple[T, Contents]:
        """The task with its LoRAs found, and the content of all its files.

        Args:
            pictures: what `pictures_of` said, where it was asked already.
        """
        pictures = self.pictures_of(task) if pictures is None else pictures
        contents = NO_FILES
        if self.loras is not None:
            loras, contents = self.loras.stack(task)
            if any(getattr(task, name) != value for name, value in loras.items()):
                task = replace(task, **loras)
        if not pictures:
            return task, contents
        hashes = {path: picture.sha256 for path, picture in pictures.items()}
        readings = tuple(p.reading for p in pictures.values() if p.reading)
        return task, replace(contents, pictures=hashes, readings=readings)

    def work(self, task: T) -> float:
        """Expected work, in any unit that is the same for all tasks of the kind."""
        del task
        return 1.0

    @classmethod
    def group_of(cls, task: T, loras: Sequence[CheckedLora]) -> Hashable | None:
        """A key that is equal for tasks that a worker may be given at once; None: it runs alone."""
        del task, loras
        return None


KINDS: Registry[type[TaskKind[Any]]] = Registry("kind of task", PACKAGE)


def task_kind(kind: K) -> K:
    """A decorator that registers a kind under the name of its tasks' class."""
    KINDS.add(kind.task.__name__, kind)
    return kind


def kind_of(task: Task) -> type[TaskKind[Any]]:
    return KINDS[type(task).__name__]


def kind_asked_for(given: TaskInput, usual: type[Task]) -> tuple[type[TaskKind[Any]], TaskInput]:
    """The kind of task that is asked for, and what is asked, without the word that says the kind.

    A mapping may say its `kind`: the role (edit) or the name of the class (EditTask). Else its
    fields tell; of several kinds the one that requires more fields counts.

    Args:
        usual: what is asked for where nothing tells.

    Raises:
        InputError: there is no such kind.
    """
    if isinstance(given, Task):
        own = next(c for c in type(given).__mro__ if Task in c.__bases__)
        return KINDS[own.__name__], given
    if not isinstance(given, Mapping):
        return KINDS[usual.__name__], given
    if "kind" in given:
        named, given = given["kind"], _without_kind(given)
        if _is_said(named):
            return _named(named), given
    for kind in _most_demanding_first(tuple(KINDS)):
        if any(_is_said(given.get(sign)) for sign in kind.signs or (kind.needed,)):
            return kind, given
    return KINDS[usual.__name__], given


def _without_kind(given: Mapping[str, Any]) -> Mapping[str, Any]:
    rest = {k: v for k, v in given.items() if k != "kind"}
    return PlacedTask(rest, given.where) if isinstance(given, PlacedTask) else rest


def _named(name: Any) -> type[TaskKind[Any]]:
    kinds = KINDS.values()
    found = next((kind for kind in kinds if name in (kind.task.role, kind.task.__name__)), None)
    if found is None:
        known = ", ".join(sorted(kind.task.role for kind in kinds))
        raise InputError(f"kind: there is no kind of task {shown(name)}; there are {known}.")
    return found


@cache
def _most_demanding_first(names: Sequence[str]) -> list[type[TaskKind[Any]]]:
    """Kinds by the number of the fields that they require."""
    return sorted((KINDS[name] for name in names), key=lambda kind: -len(_required(kind)))


def _required(kind: type[TaskKind[Any]]) -> list[str]:
    """Fields without which there is no task of a kind."""
    every = fields(cast(Any, kind.task))
    return [f.name for f in every if f.default is MISSING and f.default_factory is MISSING]


def _is_said(value: Any) -> bool:
    return value is not None and value != ""


def deciding(task: Task) -> dict[str, Any]:
    """The fields of a task that decide its result by their own values."""
    undeciding = undeciding_fields(type(task))
    decides = {k: v for k, v in fields_of(task).items() if k not in undeciding}
    return {k: v for k, v in decides.items() if v or k not in WHERE_SET}


def undeciding_fields(task: type[Task]) -> frozenset[str]:
    """Fields whose own values decide nothing about the results of such tasks."""
    return _undeciding(task.__name__)


@cache
def _undeciding(name: str) -> frozenset[str]:
    kind = KINDS[name]
    return frozenset((*_NEVER_DECIDING, *kind.task.picture_fields, *kind.undeciding))


class LoraFinder:
    """Finds and checks LoRA files, each once: one finder is for one batch.

    Args:
        folders: where relative paths are looked up, in this order.
    """

    def __init__(self, folders: Sequence[Path], inspector: LoraInspector) -> None:
        self._folders = folders
        self._inspector = inspector
        self._found: dict[str, tuple[str, str]] = {}
        self._contents: dict[str, Contents] = {}  # by hash: tasks share them

    def find(self, path: str | None) -> tuple[str | None, str | None]:
        """The file and its content hash; None for none."""
        if path is None:
            return None, None
        if path not in self._found:
            file = find_lora(path, self._folders)
            self._found[path] = str(file), self._inspector.sha256(file)
        return self._found[path]

    def stack(self, task: Task) -> tuple[dict[str, Any], Contents]:
        """The fields of a task that say its LoRAs, and their content hashes.

        Raises:
            LoraError: one of them is no LoRA, or one is there twice.
        """
        stack: Sequence[Lora] = getattr(task, "loras", ())
        if not stack:
            path, sha256 = self.find(getattr(task, "lora_path", None))
            if sha256 is None:
                return {}, NO_FILES
            if sha256 not in self._contents:
                self._contents[sha256] = Contents(sha256)
            return {"lora_path": path}, self._contents[sha256]
        found: list[Lora] = []
        named: dict[str, int] = {}  # content hash: place
        for place, lora in enumerate(stack):
            try:
                path, sha256 = self.find(lora.path)
            except InputError as error:
                text = str(error).removeprefix("lora_path: ")
                raise LoraError(f"loras[{place}]: {text}") from None
            assert path is not None and sha256 is not None
            first = named.setdefault(sha256, place)
            if first != place:
                raise LoraError(
                    f"loras[{place}]: {shown(lora.path)} is the same LoRA as loras[{first}]; give "
                    "it once, with one strength."
                )
            found.append(Lora(path, lora.strength))
        hashes = tuple(named)
        one = hashes[0] if len(hashes) == 1 else None
        return fields_for(found), Contents(one, loras=() if one else hashes)


@lru_cache(maxsize=1024)
def megapixel_steps(
    width: int | None, height: int | None, steps: int | None, passes: int = 1
) -> float:
    """Megapixels x steps x passes, with usual values where one is open."""
    return (width or 1024) * (height or 1024) / 1e6 * (steps or USUAL_STEPS) * passes


def fill(values: dict[str, Any], layer: Section, skipped: Sequence[str] = ()) -> None:
    """Take from a layer of settings what `values` leave open."""
    for name in values:
        if values[name] is None and name not in skipped and name in type(layer).model_fields:
            values[name] = getattr(layer, name)


@cache
def _validator(name: str) -> TypeAdapter[Any]:
    """Made once: that takes a millisecond, many times as long as to use one."""
    return TypeAdapter(KINDS[name].task)


def _parsed(of: type[TaskKind[Any]], given: object) -> Task:
    kind, needed = of.task, of.needed
    names: list[str] = [f.name for f in fields(kind)]
    if isinstance(given, kind):
        given = fields_of(given)
    if not isinstance(given, Mapping):
        raise InputError(f"Expected a task with {_a(needed)}, found {shown(given)}.")
    # Real files leave fields empty where they mean "not set".
    data = {k: v for k, v in given.items() if _is_said(v)}
    data = {k: as_text(v) if isinstance(v, Path) else v for k, v in data.items()}
    if needed not in data:
        raise InputError(f"{needed}: is missing or empty{misspelt(data, [needed], names)}")
    try:
        task = _validator(kind.__name__).validate_python(data)
    except ValidationError as error:
        raise InputError(describe(error, [*names, *of.other_names])) from None
    except RecursionError:
        raise InputError("The task is nested too deeply.") from None
    if getattr(task, "loras", ()):
        if task.lora_path:
            raise InputError(TWO_WAYS)
        if task.lora_strength != 1:
            raise InputError(
                f"lora_strength: {task.lora_strength:g} is for lora_path; each of loras has a "
                "strength of its own."
            )
    return cast(Task, task)


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
