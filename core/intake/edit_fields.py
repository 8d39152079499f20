"""What the fields of an edit are called, here, in other programs and in data sets.

Names are compared as those of pictures are (`core.intake.spellings`), whose settings edits share.
docs/EDITING.md shows these tables to users.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from core.errors import InputError
from core.intake import spellings
from core.intake.picture_settings import named_fields
from core.intake.setting_values import is_empty, is_set
from core.tasks import EditTask
from core.validation import shown

REFERENCES = "references"  # pictures beside the one that is edited, which follow it
NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {  # field of EditTask, or REFERENCES: names for it, the usual one first
        "source_images": (
            "picture", "pictures", "source", "sources", "source_image", "source_images", "image",
            "images", "input", "inputs", "input_image", "input_images", "input_file_name",
            "input_file_names", "file", "file_name", "image_path", "source_path", "input_path",
            "init_image", "original_image", "img", "图片", "原图",
        ),
        "instruction": (
            "instruction", "edit_instruction", "editing_instruction", "instruction_en", "edit",
            "指令", "编辑指令", "prompt", "edit_prompt", "positive_prompt", "text", "caption",
            "提示词",
        ),
        "mask": ("mask", "mask_image", "mask_path", "mask_file", "mask_file_name", "蒙版", "遮罩"),
        REFERENCES: (
            "references", "reference", "reference_image", "reference_images", "with", "参考图",
        ),
        "working_area": ("working_area",),
        "condition_area": ("condition_area",),
    }
)  # fmt: skip
USUAL = {"cfg": "true_cfg_scale", "prompt": "instruction"}  # what a picture's fields are of an edit
USUAL_NAMES = [names[0] for names in NAMES.values()]  # that messages suggest
_FIELDS = {spellings.plain(name): field for field, names in NAMES.items() for name in names}
_TEXTS = NAMES["instruction"][7:]  # that say something else where another name gives it
_PLAIN = set(EditTask.__dataclass_fields__) - {"loras"}  # those whose values have one form


def edit_field(key: Any) -> str | None:
    """The field of EditTask that a key means; also `size`, `lora` and REFERENCES."""
    own = _FIELDS.get(spellings.compared(key))
    if own is not None:
        return own
    if spellings.container(key) == "lora":
        return "lora"
    found = spellings.setting(key)
    return USUAL.get(str(found), found)


def other_texts(given: Mapping[Any, Any]) -> set[Any]:
    """Keys such as `prompt` or `caption` that are not the instruction, as another key is.

    The first of these names counts where there is nothing better.
    """
    named = {
        key: spellings.compared(key)
        for key, value in given.items()
        if edit_field(key) == "instruction" and is_set(value)
    }
    order = [spellings.plain(name) for name in NAMES["instruction"]]
    texts = {spellings.plain(name) for name in _TEXTS}
    if not named:
        return set()
    best = min(named.values(), key=order.index)
    return {key for key, name in named.items() if name in texts and name != best}


def meant(key: str) -> str | None:
    """The name of ours of which an unknown key may be a misspelling."""
    from difflib import get_close_matches

    if spellings.is_foreign(key) or edit_field(key) is not None:
        return None
    near = get_close_matches(key.casefold(), USUAL_NAMES, 1, spellings.ALIKE)
    return near[0] if near else spellings.meant(key)


def read_edit(given: Mapping[Any, Any]) -> dict[Any, Any]:
    """The fields of EditTask that an edit means; keys that mean nothing stay as they are.

    Raises:
        InputError: it says one thing twice, in two ways.
    """
    if given.keys() <= _PLAIN:
        return dict(given)
    fields: dict[Any, Any] = {}
    keys: dict[str, Any] = {}
    others: dict[Any, Any] = {}
    unknown = other_texts(given)
    for key, value in given.items():
        if key in unknown:
            continue
        field = _FIELDS.get(spellings.compared(key))
        if field is None:
            others[key] = value
        elif is_set(value) and not is_empty(value):
            if field in fields and fields[field] != value:
                raise InputError(
                    f"{keys[field]} and {key} are one field, the {NAMES[field][0]}, and say "
                    f"different things ({shown(fields[field])}, {shown(value)}); leave one out."
                )
            fields[field], keys[field] = value, key
    settings = {USUAL.get(key, key): value for key, value in named_fields(others).items()}
    settings |= _blanks(others)
    fields = {**settings, **fields}
    fields |= {key: given[key] for key in unknown}
    references = fields.pop(REFERENCES, None)
    if references is not None:
        fields["source_images"] = [*_listed(fields.get("source_images")), *_listed(references)]
    return fields


def _blanks(given: Mapping[Any, Any]) -> dict[str, Any]:
    """A negative prompt of blanks: it says nothing, and still switches guidance on."""
    for key, value in given.items():
        blank = isinstance(value, str) and value.isspace()
        if blank and "negative_prompt" in named_fields({key: "any"}):
            return {"negative_prompt": value}
    return {}


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
