"""Z-Image: its guidance, its layers' other names, prompts encoded at their own length.

A checkpoint's table of positions may be shorter than a caption of 512 tokens: there diffusers' own
length would break it.

Its pipeline fills every prompt up to 512 tokens, has the text encoder work on all of them, and
throws away what it made of the filling. No token sees those behind it, so a prompt that is
filled up less comes out the same, at a sixth of the time: on a CPU bit by bit, on a GPU but for
the last bits, because kernels are chosen by the number of tokens.
"""

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from diffusers.hooks._helpers import TransformerBlockRegistry

from core.errors import InputError
from workers import lora_aliases
from workers.attention import as_the_last
from workers.calls import Call
from workers.models.family import DENOISERS, FAMILIES, Denoiser, Family
from workers.prompt_cuts import PromptCuts

USUAL_LENGTH = 512  # diffusers' default of `max_sequence_length`
CAPTION_BUCKET = 32  # tokens: the transformer fills captions up to multiples, and attends to it
ROOM = 32  # tokens that the chat template may add to a prompt
LENGTH_STEP = 64  # tokens


def encode_at_own_length(pipeline: Any, cuts: PromptCuts) -> None:
    """Put that in front of the pipeline's own encoding."""
    del cuts
    encode, tokenizer = pipeline._encode_prompt, pipeline.tokenizer
    if tokenizer.padding_side != "right":  # filling in front would move the prompt
        return

    def encoded(
        prompt: str | Sequence[str],
        device: torch.device | None = None,
        prompt_embeds: list[torch.Tensor] | None = None,
        max_sequence_length: int = 512,
    ) -> Any:
        texts = [prompt] if isinstance(prompt, str) else list(prompt or [])
        if prompt_embeds is None:
            longest = max(len(tokens) for tokens in tokenizer(texts).input_ids)
            length = -(-(longest + ROOM) // LENGTH_STEP) * LENGTH_STEP
            if length < max_sequence_length:
                embeddings = encode(list(texts), device, None, length)
                if all(len(e) < length for e in embeddings):  # nothing was cut off
                    return embeddings
        return encode(texts, device, prompt_embeds, max_sequence_length)

    pipeline._encode_prompt = encoded


def sequence_length(pipeline: Any) -> dict[str, int]:
    """The checkpoint's own, where it takes less than diffusers thinks."""
    room = caption_room(pipeline)
    return {"max_sequence_length": room} if room < USUAL_LENGTH else {}


def caption_room(pipeline: Any) -> int:
    """Tokens of a caption for which a Z-Image checkpoint has positions.

    Position 0 stays free, the caption follows, filled up to a whole bucket, and the picture
    takes the position behind it.
    """
    table = int(pipeline.transformer.config.axes_lens[0])
    encoder = getattr(pipeline.text_encoder.config, "max_position_embeddings", None) or table
    return int(min((table - 2) // CAPTION_BUCKET * CAPTION_BUCKET, encoder))


def check_size(pipeline: Any, width: int, height: int) -> None:
    """Refuse a picture with more rows or columns than a Z-Image checkpoint has positions for.

    On a GPU a look beyond the table ends the whole process.
    """
    token = 2 * pipeline.vae_scale_factor  # pixels that a position stands for
    _, rows, columns = pipeline.transformer.config.axes_lens
    for name, side, positions in (("width", width, columns), ("height", height, rows)):
        if side > positions * token:
            raise InputError(
                f"{name}: this checkpoint has positions for {positions * token} pixels at most "
                f"(found {side})."
            )


def encode_alone(pipeline: Any, text: str, device: torch.device) -> torch.Tensor:
    """Encode one caption by itself, as [tokens, width]."""
    embeddings: torch.Tensor = pipeline._encode_prompt([text], device, **sequence_length(pipeline))[
        0
    ]
    return embeddings


def name_argument() -> None:
    """Tell diffusers' caches that the blocks call `x` what these know as `hidden_states`."""
    from diffusers.models.transformers.transformer_z_image import ZImageTransformerBlock

    metadata = TransformerBlockRegistry.get(ZImageTransformerBlock)
    metadata._cached_parameter_indices = {"hidden_states": 0, "x": 0}


def captions_apart(forward: Call) -> Call:
    """Run captions of unlike lengths apart, though they come in one batch."""

    @functools.wraps(forward)
    def apart(x: Any, t: Any, cap_feats: Any, *args: Any, **kwargs: Any) -> Any:
        like: dict[Any, list[int]] = {}
        for index, (picture, caption) in enumerate(zip(x, cap_feats, strict=True)):
            if isinstance(picture, list):  # of the model that sees pictures
                return forward(x, t, cap_feats, *args, **kwargs)
            bucket = -(-len(caption) // CAPTION_BUCKET)
            like.setdefault((picture.shape, bucket), []).append(index)
        if len(like) == 1:
            return forward(x, t, cap_feats, *args, **kwargs)
        drawn: list[Any] = [None] * len(x)
        for indices in like.values():
            part = forward(
                [x[i] for i in indices],
                t[indices],
                [cap_feats[i] for i in indices],
                *args,
                **kwargs,
            )
            for index, sample in zip(indices, part[0], strict=True):
                drawn[index] = sample
        return as_the_last(part, drawn)

    return apart


# It encodes prompt and negative prompt in one call; its inner method one by one.
_RELATIVE = Family(guidance="offset", encoder="_encode_prompt", sequence_length=sequence_length)
FAMILIES.add("ZImage", _RELATIVE)  # which encode in ways of their own
FAMILIES.add(
    "ZImagePipeline",
    replace(
        _RELATIVE,
        prepare=encode_at_own_length,
        check_size=check_size,
        encode_alone=encode_alone,
        caption_bucket=CAPTION_BUCKET,
    ),
)
DENOISERS.add(
    "ZImageTransformer2DModel",
    Denoiser(
        any_length=True,
        step_caches=frozenset({"first_block"}),
        before_caching=name_argument,
        apart=captions_apart,
        other_names=lora_aliases.z_image,
    ),
)
