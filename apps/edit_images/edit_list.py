"""Edits as task inputs: pictures with instructions, and lists that hold both.

Each instruction of the command line is done on each picture that has none of its own. A list is a
file of any form that `apps.prompts.entries` reads; its relative paths begin beside it. Names of
fields that count are in docs/EDITING.md.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from apps.edit_images.edit_entry import Edit, read_entry, slug
from apps.edit_images.found_pictures import FoundPicture, FoundTable, find_pictures
from apps.prompts.bad_entry import BadEntry
from apps.prompts.entries import read_entries
from apps.prompts.run_names import name_of_run
from apps.prompts.text import STDIN, shown_path
from apps.prompts.words import EDITS
from core.errors import InputError, one_line
from core.intake.task_kinds import PlacedTask, TaskInput
from core.names import bounded, counted
from core.paths import as_text, is_text
from core.pictures.source_images import inspect_image
from core.seeds import RANDOM
from core.store.outputs import PICTURE_SUFFIXES

MAX_ID_BYTES = 200
MAX_PASSED_OVER = 20  # keys that one line names
SHARED = "edited"  # the folder of pictures that are named one by one; no list is called so


@dataclass
class EditList:
    """What is to be edited; see `apps.picture_commands.command.Source`.

    Attributes:
        source: the one folder or list that all of it comes from, if there is one.
    """

    inputs: list[TaskInput]
    folder: Path
    name_of_run: str
    source: Path | None = None
    passed_over: str | None = None
    noun: str = "edit"
    is_read: bool = True


@dataclass
class _Reading:
    """What has been read so far."""

    found: list[Edit | BadEntry] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    files: set[Path] = field(default_factory=set)  # that are named by themselves
    tables: list[Path] = field(default_factory=list)


def read_edits(
    pictures: str | Path | Sequence[str | Path],
    instructions: str | Sequence[str] = (),
    references: str | Path | Sequence[str | Path] = (),
    mask: str | Path | None = None,
    *,
    seed: int = RANDOM,
    limit: int | None = None,
    suffix: str = ".png",
    left_out: Path | None = None,
) -> EditList:
    """Edits of pictures.

    Args:
        pictures: files, folders, patterns such as `photos/*.jpg`, and lists of edits.
        instructions: each is done on each picture that has none of its own.
        references: further pictures that every edit is shown, behind its own.
        mask: for every picture without one of its own; or a folder that holds one for each, called
            like the picture.
        seed: of every edit without one; RANDOM leaves it to the run.
        limit: only the first so many pictures, or entries of lists.
        suffix: of the new pictures.
        left_out: a folder whose pictures are none of those in folders above it.

    Raises:
        InputError: there is nothing to edit, no instruction is given for a picture or for any entry
            of a list, or a list, reference or mask cannot be read.
    """
    pictures = [pictures] if isinstance(pictures, str | Path) else pictures
    instructions = [instructions] if isinstance(instructions, str) else instructions
    references = [references] if isinstance(references, str | Path) else references
    if any(not text.strip() for text in instructions):
        raise InputError("--instruction: is blank; say what is to change.")
    for reference in references:  # now, and not once for each picture
        inspect_image(reference, "--with")
    reading = _Reading()
    for given in find_pictures(pictures, left_out):
        if isinstance(given, FoundTable):
            _read_table(given.file, reading)
        elif given.file not in reading.files:
            reading.files.add(given.file)
            reading.found.append(_of_file(given))
    entries = reading.found[:limit]
    lacking = [e for e in entries if isinstance(e, Edit) and not e.instruction]
    if lacking and not instructions:
        entries = _without_lacking(entries, lacking, pictures)
    if instructions and not lacking and any(isinstance(e, Edit) for e in entries):
        raise InputError(
            "--instruction: all of these pictures have instructions of their own in the file; "
            "leave it out, or the file's."
        )
    masks = _Masks(mask)
    shared = [str(Path(os.path.abspath(reference))) for reference in references]
    tasks = [
        _finished(each, shared, masks, seed) if isinstance(each, Edit) else each
        for entry in entries
        for each in _with_instructions(entry, instructions)
    ]
    inputs = list(_named(tasks, suffix))
    if not inputs:
        raise InputError("There is nothing to edit.")
    return _listed(inputs, pictures, reading)


def _of_file(given: FoundPicture) -> Edit | BadEntry:
    """An edit of a picture that lies on the disk."""
    file = str(given.file)
    if not is_text(as_text(file)):  # a task is text, and so is what a picture says of itself
        return BadEntry(
            f"{as_text(file)}: its name is not UTF-8 text; rename it. convmv -f GBK -t UTF-8 does "
            "that for whole folders of names that are GBK.",
            given.name,
        )
    return Edit({"source_images": [file]}, given.name, given.name)


def _read_table(file: Path, reading: _Reading) -> None:
    found = read_entries(file, EDITS)
    if not found.entries:
        raise InputError(f"{shown_path(file)}: holds no pictures.")
    reading.tables.append(file)
    base = Path.cwd() if file == STDIN else Path(os.path.abspath(file)).parent
    for index, entry in enumerate(found.entries):
        place = found.places(index) if found.names_places else f"entry {index + 1}"
        where = f"{shown_path(file) if file == STDIN else file.name}: {place}"
        task_id = f"{'stdin' if file == STDIN else as_text(file.stem)}_{index:02d}"
        try:
            if isinstance(entry, InputError):
                raise entry
            reading.found.append(read_entry(entry, found.around, base, where, reading.passed_over))
        except InputError as error:
            reading.found.append(BadEntry(f"{where}: {error}", task_id))
        except RecursionError:
            reading.found.append(BadEntry(f"{where}: nested too deeply.", task_id))


def _without_lacking(
    entries: Sequence[Edit | BadEntry], lacking: Sequence[Edit], pictures: Sequence[str | Path]
) -> list[Edit | BadEntry]:
    """Entries, with an error in place of each row of a list that has no instruction.

    Raises:
        InputError: a picture of the command line has none, or no entry at all.
    """
    named = next((edit for edit in lacking if not edit.where), None)
    if named is not None:
        raise _no_instruction(named, pictures)
    if not any(isinstance(e, Edit) and e.instruction for e in entries):
        raise _no_instruction(lacking[0], pictures)
    return [
        BadEntry(str(_no_instruction(e, pictures)), e.name)
        if isinstance(e, Edit) and not e.instruction
        else e
        for e in entries
    ]


def _no_instruction(edit: Edit, pictures: Sequence[str | Path]) -> InputError:
    if edit.where:
        return InputError(
            f"{edit.where}: has no instruction; give one in the file, or one for all that have "
            'none with --instruction "…".'
        )
    tables = [Path(p) / "metadata.jsonl" for p in pictures if Path(p).is_dir()]
    beside = next((table for table in tables if table.is_file()), None)
    hint = (
        f" If {as_text(beside)} says it, name that file in place of its folder." if beside else ""
    )
    return InputError(f'Say what is to change, with --instruction "…".{hint}')


def _with_instructions(
    entry: Edit | BadEntry, instructions: Sequence[str]
) -> Iterator[Edit | BadEntry]:
    if isinstance(entry, BadEntry) or entry.instruction:
        yield entry
        return
    for text in dict.fromkeys(instructions):
        yield entry.changed(f"_{slug(text)}", {"instruction": text})


class _Masks:
    """The mask of each picture that has none of its own."""

    def __init__(self, given: str | Path | None) -> None:
        self._file: str | None = None
        self._by_name: dict[str, str] = {}
        if given is None:
            return
        path = Path(os.path.abspath(given))
        if path.is_dir():
            found = list(find_pictures([path]))
            self._by_name = {p.name: str(p.file) for p in found if not isinstance(p, FoundTable)}
        elif path.is_file():
            inspect_image(path, "--mask")  # now, and not once for each picture
            self._file = str(path)
        else:
            raise InputError(f"--mask: {str(given)!r}: there is no such file or folder.")
        self._given = path

    def of(self, edit: Edit) -> str | None:
        """The mask of a picture.

        Raises:
            InputError: masks lie in a folder, and there is none for it.
        """
        if not self._by_name:
            return self._file
        for name in (edit.picture, PurePosixPath(edit.picture).name):
            if name in self._by_name:
                return self._by_name[name]
        raise InputError(f"--mask: {as_text(self._given)} has no mask called {edit.picture}.")


def _finished(edit: Edit, shared: Sequence[str], masks: _Masks, seed: int) -> Edit | BadEntry:
    """An edit with what the command line gives to all."""
    changes: dict[str, Any] = {}
    if shared:
        changes["source_images"] = [*edit.sources, *shared]
    if edit.fields.get("seed") is None and seed != RANDOM:
        changes["seed"] = seed
    if edit.fields.get("mask") is None:
        try:
            mask = masks.of(edit)
        except InputError as error:
            return BadEntry(edit.placed(str(error)), edit.name)
        changes |= {"mask": mask} if mask is not None else {}
    return edit.changed("", changes)


def _named(edits: Sequence[Edit | BadEntry], suffix: str) -> Iterator[TaskInput]:
    """Task inputs; those that would have one name get two.

    What an edit is called does not change with others, unless they are called alike.
    """
    taken: set[str] = set()
    for edit in edits:
        if isinstance(edit, BadEntry):
            yield edit
            continue
        usual, number = _printable(edit.name), 2
        name = usual
        while name.casefold() in taken:
            name, number = f"{usual}_{number}", number + 1
        taken.add(name.casefold())
        fields = dict(edit.fields)
        fields.setdefault("task_id", bounded(name, MAX_ID_BYTES))
        given = fields.get("output_path")
        if given is None:
            fields["output_path"] = f"{_path(name)}{suffix}"
        elif isinstance(given, str) and not given.lower().endswith(PICTURE_SUFFIXES):
            fields["output_path"] = f"{given}{suffix}"
        yield PlacedTask(fields, edit.where) if edit.where else fields


def _printable(name: str) -> str:
    """A name without what ids may not have, such as line breaks."""
    return "".join(letter if letter.isprintable() else "_" for letter in name)


def _path(name: str) -> str:
    """A name as a path below the output folder."""
    parts = [bounded(part) for part in name.split("/") if part not in ("", ".", "..")]
    return "/".join(part.lstrip(".") or "_" for part in parts)


def _listed(inputs: list[TaskInput], pictures: Sequence[str | Path], reading: _Reading) -> EditList:
    name, source, folder = SHARED, None, Path.cwd()
    if len(pictures) == 1:
        only = Path(pictures[0])
        if reading.tables == [only]:
            name = "stdin" if only == STDIN else name_of_run(as_text(only.stem))
            source = only
            folder = folder if only == STDIN else Path(os.path.abspath(only)).parent
        elif only.is_dir():
            source = Path(os.path.abspath(only))
            name = name_of_run(f"{as_text(source.name)}_edited")
    return EditList(inputs, folder, name, source, _passed_over(reading.passed_over))


def _passed_over(keys: Mapping[str, int]) -> str | None:
    if not keys:
        return None
    parts = [f"{key} ({counted(count, 'edit')})" for key, count in keys.items()]
    more = len(parts) - MAX_PASSED_OVER
    parts = [*parts[:MAX_PASSED_OVER], *([f"{more} more"] if more > 0 else [])]
    return one_line(
        f"Passed over: {', '.join(parts)}. They mean nothing here; docs/EDITING.md lists what "
        "counts."
    )
