"""A batch file worked on by a generator of this process: the command line's way, and Python's."""

import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast, overload

from apps.openai_images.answer import Wanted
from apps.openai_images.batch_file import BadLine, BatchFile, BatchRequest
from apps.openai_images.batch_lines import BatchLines, BatchRow
from apps.openai_images.encoding import encoded
from apps.openai_images.errors import ApiError
from apps.openai_images.local_pictures import find_lora_by_name, find_picture
from apps.openai_images.masks import check_mask, no_mask
from apps.openai_images.models import AUTO, check_model, name_of, no_model
from apps.openai_images.rules import ImageSettings, ImagesSection, load_image_settings
from apps.openai_images.tasks import steps_of, tasks_for
from core import MultiGPUImageGenerator
from core.errors import InputError, MultiGPUError, one_line
from core.intake.task_kinds import TaskInput
from core.names import bounded, cleaned, distinct
from core.paths import as_text, user_path
from core.seeds import MAX_SEED
from core.store.outputs import (
    PARTIAL_PREFIX,
    discard,
    make_folder,
    remove,
    storage_error,
    sync_folder,
    write_atomically,
)
from core.tasks import Result, Task
from core.worker_spec import Role

OUTPUT, ERRORS = "batch_output.jsonl", "batch_errors.jsonl"
MOST_NAME_BYTES = 180
MOST_SHOWN = 180  # characters of a name in logs
MOST_TOLD = 3  # lines that cannot be used, of which is said why


@dataclass(frozen=True)
class BatchOutcome:
    """How a batch ended.

    Attributes:
        output: lines with pictures; None if there are none.
        errors: lines of what failed; None if nothing did.
        completed: lines in `output`.
        failed: lines in `errors`.
    """

    output: Path | None
    errors: Path | None
    completed: int
    failed: int


def run_batch(
    generator: MultiGPUImageGenerator,
    file: str | Path,
    *,
    rules: ImagesSection | None = None,
    limit: int | None = None,
) -> BatchOutcome:
    """Do all requests of a batch file, and write their results beside the pictures::

        with MultiGPUImageGenerator(output_dir="out") as generator:
            run_batch(generator, "batch.jsonl")

    Args:
        generator: one with an output folder continues where an earlier run of the file stopped.
        rules: what `quality` means, and how large pictures may be; by default as the generator's
            settings, or config/server.yaml, say.
        limit: only the first so many requests.

    Raises:
        InputError: the file cannot be read, or holds no requests.
        LedgerError, StorageError: the output folder cannot be used.
    """
    batch = LocalBatch(generator, user_path(file, "file"), rules, limit)
    results = generator.generate_batch(cast(Sequence[Mapping[str, Any] | Task], batch))
    return batch.write(results)


class BadRequest(InputError):
    """A request that is refused; knows the name of its picture."""

    def __init__(self, message: str, task_id: str) -> None:
        super().__init__(message)
        self.task_id = task_id


class LocalBatch(Sequence[TaskInput]):
    """The requests of a file as inputs of a generator, one for each picture.

    The file is read once to count them, and again whenever they are iterated over: its pictures
    never lie in memory.

    Args:
        kept_in: below which pictures of data URLs are kept; by default the output folder.

    Attributes:
        roles: what its requests need.
        unusable: lines that ask for nothing that can be done, such as bad JSON.

    Raises:
        InputError: the file cannot be read, or holds no requests.
    """

    def __init__(
        self,
        generator: MultiGPUImageGenerator,
        path: Path,
        rules: ImagesSection | None = None,
        limit: int | None = None,
        kept_in: Path | None = None,
    ) -> None:
        settings = generator.settings
        if rules is None:
            told = settings if isinstance(settings, ImageSettings) else load_image_settings()
            rules = told.images
        self._generator = generator
        self._kept_in = generator.output_folder if kept_in is None else kept_in
        self._rules = rules
        self._file = BatchFile(path, rules, limit=limit)
        self._base = path.absolute().parent
        self._loras = [self._base, user_path(settings.lora_dir, "lora_dir").absolute()]
        self._models: dict[Role, str | ApiError] = {}
        self._refused: dict[int, ApiError] = {}  # by line
        self._rows: list[BatchRow] = []
        self.roles: set[Role] = set()
        self._count = 0
        self.unusable = 0
        self._why: list[str] = []  # the first of these cannot be used
        for item in self._file:
            if isinstance(item, BadLine):
                self.unusable += 1
                if len(self._why) < MOST_TOLD:
                    self._why.append(f"line {item.line}: {item.error.message.rstrip('.')}")
                self._rows.append(BatchRow.of_bad_line(item))
            else:
                self._rows.append(BatchRow.of_request(item, self._count))
                self.roles.add(item.role)
                self._count += item.asked.n
        if not self._rows:
            raise InputError(f"{path}: holds no requests.")

    @property
    def requests(self) -> int:
        """Lines of the file, those included that cannot be used."""
        return len(self._rows)

    @property
    def refusal(self) -> str | None:
        """How many lines cannot be used, and why the first ones; None if all can."""
        if not self.unusable:
            return None
        more = self.unusable - len(self._why)
        why = "; ".join([*self._why, *([f"and {more} more"] if more else [])])
        of = f"{self.unusable} of {self.requests} lines of {as_text(self._file.path.name)}"
        return one_line(f"{of} cannot be used, and fail: {why}.")

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> TaskInput: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[TaskInput]: ...
    def __getitem__(self, place: int | slice) -> TaskInput | Sequence[TaskInput]:
        if isinstance(place, slice):
            return list(self)[place]
        wanted = range(self._count)[place]
        return next(islice(iter(self), wanted, None))

    def __iter__(self) -> Iterator[TaskInput]:
        for item in self._file:
            if isinstance(item, BatchRequest):
                yield from self._inputs(item)

    def write(self, results: Sequence[Result]) -> BatchOutcome:
        """Write the lines of all requests, in the order of the file.

        Both files are there as a whole or not at all, and no request is ever in both.

        Args:
            results: of all inputs, in their order.

        Raises:
            StorageError: the disk refuses.
        """
        folder = self._generator.output_folder
        output, errors = folder / OUTPUT, folder / ERRORS
        try:
            make_folder(folder)
            with ExitStack() as stack:
                name = as_text(self._file.path.name)
                done, bad = _partial(stack, output), _partial(stack, errors)
                lines = BatchLines(done, bad, name, self._hidden())
                self._write_rows(lines, results)
                for stream in (done, bad):
                    stream.flush()
                    os.fsync(stream.fileno())
            remove(errors)  # first: what failed before may have come to its end now
            _publish(output, bool(lines.completed))
            _publish(errors, bool(lines.failed))
            sync_folder(folder)
        except OSError as error:
            for file in (output, errors):
                discard(_partial_of(file))
            raise storage_error(error, output) from None
        return BatchOutcome(
            output if lines.completed else None,
            errors if lines.failed else None,
            lines.completed,
            lines.failed,
        )

    def _write_rows(self, lines: BatchLines, results: Sequence[Result]) -> None:
        folder, now = self._generator.output_folder, int(time.time())
        for row in self._rows:
            own = [r.as_dict() for r in results[row.first : row.first + row.pictures]]
            refused = self._refused.get(row.line)
            if refused is not None:
                row = BatchRow.refused(row.line, row.custom_id, refused)
            lines.write(row, now, own, lambda result: folder / str(result["output_path"]), _url)

    def _hidden(self) -> dict[str, str]:
        return {f"{self._generator.output_folder}/": "", f"{self._loras[-1]}/": ""}

    # -- from requests to tasks -----------------------------------------------------

    def _inputs(self, request: BatchRequest) -> Sequence[TaskInput]:
        place = partial(_place, request.custom_id, request.asked.n)
        try:
            return self._tasks(request)
        except ApiError as error:
            self._refused[request.line] = error
            names = (place(number)[0] for number in range(request.asked.n))
            return [BadRequest(error.message, name) for name in names]

    def _tasks(self, request: BatchRequest) -> Sequence[TaskInput]:
        asked = request.asked
        model = self._model(asked.model, request.role)
        if request.mask is not None and not self._generator.takes_masks():
            raise no_mask(model)
        found = partial(find_picture, base=self._base, kept_in=self._kept_in)
        sources = [found(reference, param="images") for reference in request.pictures]
        mask = None
        if request.mask is not None:
            mask = found(request.mask, param="mask")
            check_mask(mask, sources[0])
        loras = [
            find_lora_by_name(lora.name, self._loras, f"loras[{number}].name")
            for number, lora in enumerate(asked.loras)
        ]
        seed = _seed_of(request.custom_id, self._generator.settings.seed)
        place = partial(_place, request.custom_id, asked.n)
        return tasks_for(asked, place, steps_of(asked, self._rules), loras, sources, seed, mask)

    def _model(self, name: str, role: Role) -> str:
        """The name of the model that a request means."""
        serving = self._serving(role)
        if isinstance(serving, ApiError):
            raise serving
        if name not in (AUTO, serving):
            other: Role = "edit" if role == "generate" else "generate"
            others = self._serving(other)
            check_model(name, role, serving, [others] if isinstance(others, str) else [])
        return serving

    def _serving(self, role: Role) -> str | ApiError:
        if role not in self._models:
            try:
                self._models[role] = name_of(self._generator.model_of(role))
            except MultiGPUError as error:
                self._models[role] = no_model(role, str(error))
        return self._models[role]


def _place(custom_id: str, count: int, number: int) -> tuple[str, str]:
    """Name and file of a picture; no two requests share a file, on whatever file system."""
    name = cleaned(custom_id, "-")
    if name != custom_id or name != name.casefold():
        name = distinct(custom_id, name, MOST_NAME_BYTES)
    name = bounded(name, MOST_NAME_BYTES)
    fits = len(custom_id) <= MOST_SHOWN and custom_id.isprintable()
    shown = custom_id if fits else name
    if count == 1:
        return shown, f"{name}.png"
    return f"{shown}/{number}", f"{name}.{number}.png"  # a dot is in no other name


def _seed_of(custom_id: str, seed: int) -> int:
    """The seed of a request without one: another run of the file draws the same picture."""
    digest = hashlib.sha256(f"{seed}/{custom_id}".encode()).digest()
    return int.from_bytes(digest[:4], "big") & MAX_SEED


def _url(file: Path, wanted: Wanted, result: Mapping[str, Any]) -> str:
    """The address of a picture's file, which is made here if it is to be of another format."""
    if wanted.output_format != "png":
        content = encoded(file, wanted.output_format, wanted.output_compression)
        file = file.with_suffix(f".{wanted.output_format}")
        write_atomically(file, content)
    return file.absolute().as_uri()


def _partial_of(file: Path) -> Path:
    return file.with_name(f"{PARTIAL_PREFIX}{file.name}")


def _partial(stack: ExitStack, file: Path) -> BinaryIO:
    return stack.enter_context(_partial_of(file).open("wb"))


def _publish(file: Path, wanted: bool) -> None:
    if wanted:
        os.replace(_partial_of(file), file)
    else:
        discard(_partial_of(file))
        remove(file)
