"""What reads strangers' bytes, each as one function: it succeeds or raises a MultiGPUError.

Shared by the suite's tables and properties and by the coverage-guided `fuzz.py`.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from apps.edit_benchmark.pairs import read_pairs
from apps.edit_images import read_edits
from apps.picture_commands.again import Again
from apps.prompts.variants import with_alternatives
from apps.tweets.tweets_file import read_tweets
from core.checkpoints.lora_files import LoraInspector
from core.errors import MultiGPUError
from core.intake.admission import Admission, Admitted, Rejected
from core.intake.kinds.edit import EditKind
from core.intake.kinds.generate import GenerateKind
from core.intake.task_kinds import LoraFinder, TaskKind
from core.judge_answer import Form, read_answer
from core.judges.clip import CLIP_PROMPTS
from core.messages import Lease, encode
from core.pictures.source_images import inspect_image, read_image
from core.settings import EditDefaults, load_settings
from core.store.ledger_file import FILE_NAME
from core.store.ledger_recovery import connect_or_recover
from core.store.outputs import OutputRoot
from core.store.provenance import read_provenance

ROOT = "root"  # the output folder of the admitted tasks, below the target's folder
MOST_LEASE_BYTES = 64 * 1024  # a pipe's buffer
SETTINGS = load_settings()


def _loras(folder: Path) -> LoraFinder:
    return LoraFinder([folder], LoraInspector())


def admission(folder: Path, kind: TaskKind[Any] | None = None) -> Admission:
    return Admission(
        kind or GenerateKind([SETTINGS.defaults], _loras(folder)),
        "model",
        "float32",
        OutputRoot(folder / ROOT),
        lambda position: f"image_{position:04d}.png",
        42,
    )


def check_admitted(item: Admitted | Rejected, folder: Path) -> None:
    """A refusal in one line, or a job that stays in its folder and fits in a pipe."""
    if isinstance(item, Rejected):
        assert "\n" not in item.error and len(item.error) < 2000
        assert item.task_id.isprintable()
        return
    assert item.output.file.is_relative_to(folder / ROOT)
    assert ".." not in item.output.file.parts
    lease = Lease("l", 1, item.task, item.lora_sha256, item.fingerprint, "partial")
    assert len(encode(lease)) < MOST_LEASE_BYTES


def tweets(content: bytes, folder: Path) -> None:
    file = folder / "tweets.json"
    file.write_bytes(content)
    admit = admission(folder).admit
    for position, given in enumerate(read_tweets(file).inputs):
        check_admitted(admit(position, given), folder)


def prompts(content: bytes, folder: Path) -> None:
    """Text, tables and YAML, by names that leave the form open and by names that say it."""
    admit = admission(folder).admit
    for name in ("prompts", "prompts.csv", "prompts.yaml"):
        file = folder / name
        file.write_bytes(content)
        with suppress(MultiGPUError):
            inputs = with_alternatives(read_tweets(file).inputs, 42)
            for position, given in enumerate(inputs):
                check_admitted(admit(position, given), folder)


def edits(content: bytes, folder: Path) -> None:
    """Lists of edits, by names that leave the form open and by names that say it."""
    admit = admission(folder, EditKind([EditDefaults()], _loras(folder))).admit
    for name in ("edits.txt", "edits.csv", "edits.yaml", "edits.json"):
        file = folder / name
        file.write_bytes(content)
        with suppress(MultiGPUError):
            inputs = read_edits(file, "make it night", seed=42).inputs
            for position, given in enumerate(inputs):
                check_admitted(admit(position, given), folder)


def from_png(content: bytes, folder: Path) -> None:
    for name in ("made.png", "made.jpg", "metadata.jsonl"):
        (folder / name).write_bytes(content)
    admit = admission(folder).admit
    for name in ("made.png", "made.jpg", "metadata.jsonl"):
        with suppress(MultiGPUError):
            for position, given in enumerate(Again([str(folder / name)], None).inputs):
                check_admitted(admit(position, given), folder)


def settings(content: bytes, folder: Path) -> None:
    file = folder / "settings.yaml"
    file.write_bytes(content)
    load_settings(file)


def ledger(content: bytes, folder: Path) -> None:
    file = folder / FILE_NAME
    for old in folder.glob("*ledger*"):
        old.unlink()
    file.write_bytes(content)
    connect_or_recover(file).close()


def lora(content: bytes, folder: Path) -> None:
    file = folder / "style.safetensors"
    file.write_bytes(content)
    LoraInspector().sha256(file)


def image(content: bytes, folder: Path) -> None:
    file = folder / "source.img"
    file.write_bytes(content)
    with suppress(MultiGPUError):
        inspect_image(file)
    read_image(file)


def provenance(content: bytes, folder: Path) -> None:
    for suffix in (".png", ".json"):
        file = folder / f"result{suffix}"
        file.write_bytes(content)
        with suppress(ValueError):  # what its callers expect
            read_provenance(file)


def pairs(content: bytes, folder: Path) -> None:
    (folder / "metadata.jsonl").write_bytes(content)
    read_pairs(folder, folder / "work")


def re_edit(content: bytes, folder: Path) -> None:
    file = folder / "pairs.json"
    file.write_bytes(content)
    read_pairs(file, folder / "work")


def verdict(content: bytes, folder: Path) -> None:
    words = content.decode("utf-8", "replace")
    for form in (CLIP_PROMPTS.calls[0].form, Form(("a", "b"), 0, 10), Form(("a",), 0, 1, True)):
        parts = read_answer(words, form, cut=True).parts or {}
        assert all(form.lowest <= value <= form.highest for value in parts.values())


TARGETS: dict[str, Callable[[bytes, Path], None]] = {
    f.__name__: f
    for f in (
        tweets,
        prompts,
        edits,
        from_png,
        settings,
        ledger,
        lora,
        image,
        provenance,
        pairs,
        re_edit,
        verdict,
    )
}


def survives(target: str, content: bytes, folder: Path) -> str | None:
    """Run a target; the one-line error that it gave, if it gave one."""
    outside = set(os.listdir(folder.parent))
    try:
        TARGETS[target](content, folder)
    except MultiGPUError as error:
        assert "\n" not in str(error), str(error)
        assert len(str(error)) < 3000, len(str(error))
        return str(error)
    finally:
        assert set(os.listdir(folder.parent)) == outside
    return None
