"""The text under `parameters`, as the web UI of AUTOMATIC1111 writes and reads it.

Prompt, a `Negative prompt:` line where there is one, then one line of settings: `Steps: 9,
Sampler: …, CFG scale: …, Seed: …, Size: WxH`. Line breaks of prompts stay: its reader takes the
last line for the settings, and what begins with `Negative prompt:` for that.
"""

import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import zip_longest
from typing import Any

from core.lora_paths import name_of
from core.lora_stack import hashes_of
from core.paths import printable
from core.tasks import EditTask, GenerateTask

_NEGATIVE = "Negative prompt:"
# A line of a prompt that would be read as the negative prompt; its break becomes a space.
_READ_AS_NEGATIVE = re.compile(rf"\s*\n\s*(?={_NEGATIVE})")
# In the name of a LoRA these end it, or part it from its strength or hash.
_UNFIT_FOR_LORA = str.maketrans("", "", ":,<>\r\n")
_Lora = tuple[str, float, str | None]  # name, strength, content hash


def parameters_text(
    task: GenerateTask | EditTask,
    used: Mapping[str, Any],
    lora_sha256: str | None,
    loras_sha256: Sequence[str] = (),
) -> str:
    """The text of one picture.

    Args:
        used: what the model really took; of it `cfg` is guidance as that web UI means it (1.0 =
            none), and `distilled_cfg` an input of a distilled model.
        lora_sha256, loras_sha256: of the contents of its LoRAs, as in `core.messages.Lease`.
    """
    loras = [*_model_loras(used), *_task_loras(task, hashes_of(lora_sha256, loras_sha256))]
    prompt = task.prompt if isinstance(task, GenerateTask) else task.instruction
    lines = [_line_by_line(prompt)]
    for name, strength, _ in loras:
        lines[0] += f" <lora:{name}:{_digits(strength).removesuffix('.0')}>"
    if task.negative_prompt:
        lines.append(f"{_NEGATIVE} {_line_by_line(task.negative_prompt)}")
    hashes = ", ".join(f"{name}: {sha256[:12]}" for name, _, sha256 in loras if sha256)
    settings = {
        "Steps": used.get("num_inference_steps"),
        "Sampler": used.get("sampler"),
        "CFG scale": _digits(used["cfg"]) if "cfg" in used else None,
        "Distilled CFG Scale": _digits(used["distilled_cfg"]) if "distilled_cfg" in used else None,
        "Seed": task.seed,
        "Size": f"{used.get('width')}x{used.get('height')}",
        "Model": used.get("model"),
        "Model hash": used.get("model_hash"),
        "Variant": used.get("variant"),
        "Memory mode": used.get("memory"),
        "VAE tile": used.get("vae_tile"),
        "Lora hashes": hashes or None,
    }
    lines.append(", ".join(f"{k}: {_quoted(v)}" for k, v in settings.items() if v is not None))
    # Names of files on old disks may hold bytes that are no text.
    return "\n".join(lines).encode("utf-8", "replace").decode()


def _model_loras(used: Mapping[str, Any]) -> list[_Lora]:
    """Tags of LoRAs that the model has for every picture; the web UI knows no other form."""
    return [
        (_lora_name(lora["name"]), lora["strength"], lora["sha256"])
        for lora in used.get("model_loras", ())
    ]


def _task_loras(task: GenerateTask | EditTask, hashes: Sequence[str]) -> list[_Lora]:
    named = [(_lora_name(lora.path), lora.strength) for lora in task.lora_stack]
    return [(*lora, sha256) for lora, sha256 in zip_longest(named, hashes[: len(named)])]


def _lora_name(path: str) -> str:
    """What the text calls a LoRA: its file's name, as far as a tag can hold it."""
    return printable(name_of(path)).translate(_UNFIT_FOR_LORA) or "lora"


def _line_by_line(prompt: str) -> str:
    return _READ_AS_NEGATIVE.sub(" ", prompt)


def _digits(number: float) -> str:
    """All of its digits, and never an exponent, which readers do not expect: 0.00001."""
    return f"{Decimal(repr(float(number))):f}"


def _quoted(value: object) -> str:
    """A value, quoted as JSON where a comma, colon, quote or line break would mislead a reader."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if re.search('[,:\n"]', text) else text
