"""The text under `parameters`, as the web UI of AUTOMATIC1111 writes and reads it.

Prompt, a `Negative prompt:` line where there is one, then one line of settings: `Steps: 9,
Sampler: …, CFG scale: …, Seed: …, Size: WxH`. Line breaks of prompts stay: its reader takes the
last line for the settings, and what begins with `Negative prompt:` for that.
"""

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from core.lora_files import lora_name
from core.paths import printable
from core.tasks import EditTask, GenerateTask

_NEGATIVE = "Negative prompt:"
# A line of a prompt that would be read as the negative prompt; its break becomes a space.
_READ_AS_NEGATIVE = re.compile(rf"\s*\n\s*(?={_NEGATIVE})")
# In the name of a LoRA these end it, or part it from its strength or hash.
_UNFIT_FOR_LORA = str.maketrans("", "", ":,<>\r\n")


def parameters_text(
    task: GenerateTask | EditTask, used: Mapping[str, Any], lora_sha256: str | None
) -> str:
    """The text of one picture.

    Args:
        used: what the model really took; of it `cfg` is guidance as that web UI means it (1.0 =
            none), and `distilled_cfg` an input of a distilled model.
    """
    lora = _lora_name(task)
    prompt = task.prompt if isinstance(task, GenerateTask) else task.instruction
    lines = [_line_by_line(prompt)]
    if lora is not None:
        lines[0] += f" <lora:{lora}:{_digits(task.lora_strength).removesuffix('.0')}>"
    if task.negative_prompt:
        lines.append(f"{_NEGATIVE} {_line_by_line(task.negative_prompt)}")
    settings = {
        "Steps": used.get("num_inference_steps"),
        "Sampler": used.get("sampler"),
        "CFG scale": _digits(used["cfg"]) if "cfg" in used else None,
        "Distilled CFG Scale": _digits(used["distilled_cfg"]) if "distilled_cfg" in used else None,
        "Seed": task.seed,
        "Size": f"{used.get('width')}x{used.get('height')}",
        "Model": used.get("model"),
        "Model hash": used.get("model_hash"),
        "VAE tile": used.get("vae_tile"),
        "Lora hashes": f"{lora}: {lora_sha256[:12]}" if lora and lora_sha256 else None,
    }
    lines.append(", ".join(f"{k}: {_quoted(v)}" for k, v in settings.items() if v is not None))
    # Names of files on old disks may hold bytes that are no text.
    return "\n".join(lines).encode("utf-8", "replace").decode()


def _lora_name(task: GenerateTask | EditTask) -> str | None:
    """What the text calls the task's LoRA: its file's name, as far as a tag can hold it."""
    if not task.lora_path:
        return None
    return printable(lora_name(task.lora_path)).translate(_UNFIT_FOR_LORA) or "lora"


def _line_by_line(prompt: str) -> str:
    return _READ_AS_NEGATIVE.sub(" ", prompt)


def _digits(number: float) -> str:
    """All of its digits, and never an exponent, which readers do not expect: 0.00001."""
    return f"{Decimal(repr(float(number))):f}"


def _quoted(value: object) -> str:
    """In JSON's quotes where a comma, colon or line break, or a quote, would mislead its reader."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if re.search('[,:\n"]', text) else text
