"""What a PNG says of its own making: A1111's `parameters` text and our own JSON.

`parameters` follows the web UI of AUTOMATIC1111, which most viewers and ComfyUI nodes read:
prompt, `Negative prompt:` line, then `Steps: 9, Sampler: …, CFG scale: …, Seed: …, Size: WxH`.
Nothing is ever written under `prompt` or `workflow`, where ComfyUI expects its own JSON.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from core.messages import Lease
from core.tasks import EditTask, GenerateTask, task_to_json

PARAMETERS_KEY = "parameters"
TASK_KEY = "generate_task"


def png_info(lease: Lease, used: Mapping[str, Any]) -> PngInfo:
    """Text chunks for the picture of a lease.

    Args:
        used: what the model really took: model, model_hash, sampler, num_inference_steps,
            guidance_scale, width, height; missing where unknown.
    """
    assert isinstance(lease.task, GenerateTask | EditTask)
    info = PngInfo()
    info.add_text(PARAMETERS_KEY, parameters_text(lease.task, used, lease.lora_sha256))
    # PNG text is Latin-1 or iTXt; JSON in ASCII is safe in either.
    info.add_text(TASK_KEY, json.dumps(record(lease, used)))
    return info


def record(lease: Lease, used: Mapping[str, Any]) -> dict[str, Any]:
    """What a result says of its own making."""
    return {
        "task": task_to_json(lease.task),
        "used": dict(used),
        "lora_sha256": lease.lora_sha256,
        "files": list(lease.files.values()),
        "fingerprint": lease.fingerprint,
    }


def parameters_text(
    task: GenerateTask | EditTask, used: Mapping[str, Any], lora_sha256: str | None
) -> str:
    """The A1111 text of one picture."""
    prompt = task.prompt if isinstance(task, GenerateTask) else task.instruction
    if task.lora_path:
        prompt += f" <lora:{Path(task.lora_path).stem}:{task.lora_strength:g}>"
    lines = [prompt]
    if task.negative_prompt:
        lines.append(f"Negative prompt: {task.negative_prompt}")
    settings = {
        "Steps": used.get("num_inference_steps"),
        "Sampler": used.get("sampler"),
        "CFG scale": used.get("true_cfg_scale", used.get("guidance_scale")),
        "Seed": task.seed,
        "Size": f"{used.get('width')}x{used.get('height')}",
        "Model": used.get("model"),
        "Model hash": used.get("model_hash"),
    }
    if task.lora_path and lora_sha256:
        settings["Lora hashes"] = f'"{Path(task.lora_path).stem}: {lora_sha256[:12]}"'
    lines.append(", ".join(f"{k}: {v}" for k, v in settings.items() if v is not None))
    return "\n".join(lines)


def read_provenance(file: Path) -> dict[str, Any]:
    """What `record` wrote into a picture or a verdict.

    Raises:
        ValueError: not a whole PNG or JSON file of this project.
    """
    try:
        if file.suffix.lower() == ".json":
            found = json.loads(file.read_text("utf-8"))
        else:
            with Image.open(file, formats=["PNG"]) as image:
                text = image.info[TASK_KEY]
                image.verify()  # checksums: a torn file is not a picture
            found = json.loads(text)
        if "fingerprint" not in found:
            raise KeyError("fingerprint")
        return dict(found)
    except (OSError, KeyError, ValueError, SyntaxError, TypeError) as error:
        raise ValueError(f"{file} is not a whole result of this project") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{file} is not a whole result of this project") from error
