"""The LoRA of a judge: an adapter of PEFT, as EditScore publishes, in a folder or on the hub."""

import hashlib
import json
import re

from core.checkpoints.hub_files import fetch_file
from core.errors import InputError
from core.lora_paths import PEFT_FILE
from core.model_lora import ModelLora
from core.paths import user_path
from core.validation import shown

CONFIG, WEIGHTS = "adapter_config.json", PEFT_FILE
SETTING = "judge.lora"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def find_judge_lora(wanted: str, revision: str | None) -> ModelLora:
    """The adapter that is meant, fetched if it lies on the hub; `path` is its file of weights.

    Raises:
        InputError: it is not there, or no LoRA of PEFT in safetensors form.
    """
    folder = user_path(wanted, SETTING)
    if folder.is_dir():
        missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
        if missing:
            raise InputError(
                f"{SETTING}: {folder} has no {missing[0]}; expected an adapter as PEFT saves it."
            )
    elif _HUB_ID.fullmatch(wanted):
        folder = fetch_file(wanted, CONFIG, revision, SETTING).parent
        folder = fetch_file(wanted, WEIGHTS, revision, SETTING).parent
    else:
        raise InputError(f"{SETTING}: {shown(wanted)} is neither a folder nor a hub id.")
    digest = hashlib.sha256()
    try:
        config = (folder / CONFIG).read_bytes()
        kind = json.loads(config).get("peft_type")
        digest.update(config)
        with (folder / WEIGHTS).open("rb") as stream:
            while block := stream.read(2**22):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{SETTING}: {folder} cannot be read: {error.strerror}.") from None
    except (ValueError, AttributeError):
        raise InputError(f"{SETTING}: {folder / CONFIG} is not a JSON object.") from None
    if kind != "LORA":
        raise InputError(f"{SETTING}: {folder} is an adapter of type {shown(kind)}, not LORA.")
    name = wanted.rstrip("/").rpartition("/")[2]
    return ModelLora(str(folder / WEIGHTS), name, digest.hexdigest(), 1.0)
