"""What the tensors of a LoRA file are, by the ends of their names, in every trainer's spelling."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Role = Literal[
    "down", "up", "mid", "alpha", "dora_scale", "magnitude",
    "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b",
]  # fmt: skip

# The first is PEFT's, then kohya's, diffusers' old ones, and PEFT's without "weight".
_FACTORS: dict[Role, tuple[str, ...]] = {
    "down": ("lora_A", "lora_down", "lora.down", "lora_linear_layer.down"),
    "up": ("lora_B", "lora_up", "lora.up", "lora_linear_layer.up"),
    "mid": ("lora_mid",),
}
_OTHERS: dict[str, Role] = {
    "alpha": "alpha",
    "lora.alpha": "alpha",
    "lora_alpha": "alpha",
    "lora_linear_layer.alpha": "alpha",
    "dora_scale": "dora_scale",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
    "lokr_w1": "lokr_w1",
    "lokr_w1_a": "lokr_w1_a",
    "lokr_w1_b": "lokr_w1_b",
    "lokr_w2": "lokr_w2",
    "lokr_w2_a": "lokr_w2_a",
    "lokr_w2_b": "lokr_w2_b",
}
_ROLES: dict[str, Role] = _OTHERS | {
    f"{word}{end}": role
    for role, words in _FACTORS.items()
    for word in words
    for end in (".weight", "")
}

# What is known by name and cannot be applied.
_UNSUPPORTED = {
    "LoHa": ("hada_w1", "hada_w1_a", "hada_w1_b", "hada_w2", "hada_w2_a", "hada_w2_b", "hada_t1",
             "hada_t2"),
    "LoKr in Tucker form": ("lokr_t2",),
    "OFT": ("oft_blocks", "oft_diag", "oft_r", "oft_R", "oft_R.weight", "oft_s", "boft_R",
            "boft_s", "rescale"),
    "GLoRA": ("a1.weight", "a2.weight", "b1.weight", "b2.weight"),
    "(IA)3": ("on_input", "ia3_l"),
    "VeRA": ("vera_lambda_b", "vera_lambda_d"),
    "full weight difference": ("diff", "diff.weight", "diff_b", "set_weight", "w_norm", "b_norm",
                               "reshape_weight"),
    "LoRA with biases": ("lora_A.bias", "lora_B.bias", "lora_down.bias", "lora_up.bias",
                         "lora.down.bias", "lora.up.bias"),
    "LoRA of an embedding": ("lora_embedding_A", "lora_embedding_B"),
}  # fmt: skip
_METHODS = {end: method for method, ends in _UNSUPPORTED.items() for end in ends}
_ADDED = ("diff", "diff.weight", "diff_b")
_TEXTUAL_INVERSION = ("bundle_emb.", "emb_params", "clip_l_emb", "clip_g_emb")
_LONGEST_END = 3  # parts between dots: `lora.down.weight`
# PEFT's name for an adapter, mostly "default", which raw state dicts keep.
_ADAPTER = re.compile(
    r"\.(lora_A|lora_B|lora_down|lora_up|lora_magnitude_vector)\.(?!weight$|bias$|alpha$)[^.]+(?=$|\.\w+$)"
)


@dataclass(frozen=True)
class TensorName:
    """A tensor's name, taken apart.

    Attributes:
        module: the layer that it changes, as the file calls it.
        role: what it is there; None for what cannot be applied.
        method: the name of that.
    """

    module: str
    role: Role | None
    method: str | None = None


def take_apart(name: str) -> TensorName:
    """The layer and the role of a tensor; neither role nor method where its name says nothing."""
    if name.startswith(_TEXTUAL_INVERSION):
        return TensorName(name, None, "textual inversion")
    parts = _ADAPTER.sub(r".\1", name).split(".")
    for count in range(_LONGEST_END, 0, -1):  # `lora.down.weight` before `weight`
        module, end = ".".join(parts[:-count]), ".".join(parts[-count:])
        if module and end in _ROLES:
            return TensorName(module, _ROLES[end])
        if module and end in _METHODS:
            return TensorName(module, None, _METHODS[end])
        # diffusers once wrote `attn1.processor.to_q_lora.down.weight`, and XLabs, where one
        # processor serves pictures and words, `processor.qkv_lora1.down.weight`.
        stem, found, stream = module.rpartition("_lora")
        if found and stream in ("", "1", "2") and f"lora.{end}" in _ROLES:
            return TensorName(stem + stream, _ROLES[f"lora.{end}"])
    return TensorName(name, None)


def is_added(name: str) -> bool:
    """Whether a tensor is added to the model's own as it is, so that zeros in it mean nothing."""
    return name.endswith(tuple(f".{end}" for end in _ADDED))


def unsupported_method(names: Iterable[str]) -> str | None:
    """How a file's author calls what cannot be applied, if the names say so beyond doubt."""
    methods: dict[str, set[str]] = {}
    for name in names:
        found = take_apart(name)
        if found.method:
            methods.setdefault(found.method, set()).add(name.removeprefix(found.module + "."))
    for method, ends in methods.items():
        # A layer of a whole model may be called a1, too.
        if method != "GLoRA" or len(ends) == len(_UNSUPPORTED["GLoRA"]):
            return method
    return None


def holds_lora(names: Iterable[str]) -> bool:
    """Whether there is anything that a LoRA is made of."""
    return any("lora" in name.lower() or "lokr_" in name.lower() for name in names)
