"""What a LoRA is called, by the path of its file."""

from pathlib import PurePosixPath

PEFT_FILE = "adapter_model.safetensors"  # in a folder of its own, which has the LoRA's name
WEIGHTS_ENDINGS = ("safetensors", "sft", "st", "ckpt", "pt", "pth", "bin")
_SNAPSHOTS, _JOINT = "snapshots", "--"  # of the hub's cache: models--OWNER--NAME/snapshots/COMMIT


def lora_name(path: str) -> str:
    """The last part of a path, less an ending that weights' files have."""
    name = _pure(path).name
    stem, _, ending = name.rpartition(".")
    return stem if stem and ending.lower() in WEIGHTS_ENDINGS else name


def name_of(path: str) -> str:
    """What users call a LoRA at a path: PEFT's by its folder, any other by its file."""
    return _peft_folder(path) or lora_name(path)


def file_or_folder(path: str) -> str:
    """A LoRA's file with its ending; of PEFT, whose files are all called alike, the folder."""
    return _peft_folder(path) or _pure(path).name


def _peft_folder(path: str) -> str:
    """Name of the folder that PEFT wrote a file into; empty for other files."""
    file = _pure(path)
    if file.name != PEFT_FILE:
        return ""
    folder = file.parent
    if folder.parent.name == _SNAPSHOTS and _JOINT in folder.parent.parent.name:
        return folder.parent.parent.name.rpartition(_JOINT)[2]
    return folder.name


def _pure(path: str) -> PurePosixPath:
    return PurePosixPath(path.replace("\\", "/"))
