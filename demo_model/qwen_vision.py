"""Tokenizer, image processor and processor that the demo editor and the demo judge share.

A word-level tokenizer over the words of their templates and instructions, punctuation marks as
tokens of their own, and Pillow's image processor: nothing here needs torchvision.
"""

import re
from collections.abc import Sequence
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
)
from transformers import PreTrainedTokenizerFast, Qwen2VLImageProcessorPil

from workers.processors import videoless_processor

SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|image_pad|>", "<|video_pad|>", "<unk>",
)  # fmt: skip
_PIECES = re.compile(r"\n|\w+|[^\w\s]")


def build_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Knows the words and marks of `texts`; others become `<unk>`."""
    pieces = [piece for text in texts for piece in _PIECES.findall(text.lower())]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys([*SPECIAL, *pieces]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n"), "isolated"),
            pre_tokenizers.Split(Regex(r"[^\S\n]+"), "removed"),
            pre_tokenizers.Split(Regex(r"[^\s\w]"), "isolated"),
        ]
    )
    tokenizer.decoder = decoders.Fuse()  # JSON comes out as JSON; words run together
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        unk_token="<unk>",
        padding_side="right",
        model_max_length=2048,
    )


def build_processor(
    name: str,
    tokenizer: PreTrainedTokenizerFast,
    patch_size: int,
    max_pixels: int,
    chat_template: str | None = None,
) -> Any:
    """A processor of the class `name`; pictures of more than `max_pixels` are made smaller."""
    side = 2 * patch_size
    image_processor = Qwen2VLImageProcessorPil(
        min_pixels=side * side, max_pixels=max_pixels, patch_size=patch_size, merge_size=2
    )
    return videoless_processor(name, image_processor, tokenizer, chat_template)
