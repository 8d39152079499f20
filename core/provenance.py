"""Picture files that say how they were made: A1111's `parameters` text and our own JSON.

`parameters` follows the web UI of AUTOMATIC1111, which most viewers and ComfyUI nodes read:
prompt, `Negative prompt:` line, then `Steps: 9, Sampler: …, CFG scale: …, Seed: …, Size: WxH`.
Nothing is ever written under `prompt` or `workflow`, where ComfyUI expects its own JSON.
A PNG has both as text chunks. A WebP has them in EXIF: `parameters` as the user comment, where
that web UI has it, too, and the JSON as the image description.
"""

import json
import warnings
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from core.lora_files import lora_name
from core.messages import Lease
from core.tasks import EditTask, GenerateTask, task_to_json

WEBP = ".webp"
PARAMETERS_KEY = "parameters"
TASK_KEY = "generate_task"


def encode_picture(image: Image.Image, lease: Lease, used: Mapping[str, Any]) -> bytes:
    """The file of a picture, lossless, in the format that its task's output path names.

    Args:
        used: what the model really took: model, model_hash, sampler, num_inference_steps,
            guidance_scale, width, height; missing where unknown.
    """
    assert isinstance(lease.task, GenerateTask | EditTask)
    parameters = parameters_text(lease.task, used, lease.lora_sha256)
    own = json.dumps(record(lease, used))  # in ASCII, which every kind of text field can hold
    stream = BytesIO()
    if (lease.task.output_path or "").lower().endswith(WEBP):
        exif = Image.Exif()
        exif[ExifTags.Base.ImageDescription] = own
        comment = b"UNICODE\0" + parameters.encode("utf-16-be")
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
        # For lossless files "quality" is effort: more of it takes four times as long for nothing.
        image.save(stream, "WEBP", lossless=True, method=1, quality=20, exif=exif)
    else:
        info = PngInfo()
        info.add_text(PARAMETERS_KEY, parameters)
        info.add_text(TASK_KEY, own)
        # Run lengths alone: a third of the default's time, and no larger (benchmarks/encode.py).
        image.save(stream, "PNG", pnginfo=info, compress_type=zlib.Z_RLE)
    return stream.getvalue()


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
        prompt += f" <lora:{lora_name(task.lora_path)}:{task.lora_strength:g}>"
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
        settings["Lora hashes"] = f'"{lora_name(task.lora_path)}: {lora_sha256[:12]}"'
    lines.append(", ".join(f"{k}: {v}" for k, v in settings.items() if v is not None))
    return "\n".join(lines)


def read_provenance(file: Path) -> dict[str, Any]:
    """What `record` wrote into a picture or a verdict.

    Raises:
        ValueError: not a whole picture or JSON file of this project.
    """
    try:
        if file.suffix.lower() == ".json":
            found = json.loads(file.read_text("utf-8"))
        else:
            found = json.loads(_text_in(file))
        if "fingerprint" not in found:
            raise KeyError("fingerprint")
        return dict(found)
    except Exception as error:  # whatever Pillow's readers trip over
        raise ValueError(f"{file} is not a whole result of this project") from error


def _text_in(file: Path) -> str:
    """Our JSON in a picture that is whole: a torn file is none."""
    with (
        warnings.catch_warnings(action="ignore"),
        Image.open(file, formats=["PNG", "WEBP"]) as image,
    ):
        if image.format == "WEBP":
            image.load()  # WebP has no checksums: what is not torn counts as whole
            return str(image.getexif()[ExifTags.Base.ImageDescription])
        text = str(image.info[TASK_KEY])
        image.verify()
        return text
