"""Attention for training: the arithmetic of Z-Image, Qwen-Image and Qwen3-VL.

Rotary embedding in real numbers and, on a CPU, an explicit softmax: complex numbers cannot be
compiled, and the backward pass of fused attention is slow on a CPU. Only training uses it; tests
compare it with the originals.
"""

from typing import Any

import torch
import torch.nn.functional as F
from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb_vision


class _Processor:
    """What diffusers looks for in every attention processor."""

    _attention_backend = None
    _parallel_config = None


class ExplicitAttention(_Processor):
    """A drop-in for `ZSingleStreamAttnProcessor`; `freqs_cis` comes as (cosine, sine)."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        freqs_cis: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """[batch, tokens, dim] to the same; the mask is [batch, tokens], True where real."""
        query, key, value = _heads(attn, hidden_states, attn.to_q, attn.to_k, attn.to_v)
        query, key = attn.norm_q(query), attn.norm_k(key)
        if freqs_cis is not None:
            query, key = _rotate(query, *freqs_cis), _rotate(key, *freqs_cis)
        mixed = _attend(query, key, value, attention_mask)
        out: torch.Tensor = attn.to_out[0](mixed.flatten(2))
        return out


class ExplicitJointAttention(_Processor):
    """A drop-in for `QwenDoubleStreamAttnProcessor2_0`; frequencies come as (cosine, sine)."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        encoder_hidden_states_mask: torch.Tensor | None = None,
        attention_mask: None = None,  # never given
        image_rotary_emb: Any = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Image [batch, tokens, dim] and text [batch, words, dim] to the same."""
        image = _heads(attn, hidden_states, attn.to_q, attn.to_k, attn.to_v)
        text = _heads(
            attn, encoder_hidden_states, attn.add_q_proj, attn.add_k_proj, attn.add_v_proj
        )
        image_at, text_at = image_rotary_emb
        query = torch.cat(
            [
                _rotate(attn.norm_added_q(text[0]), *text_at),
                _rotate(attn.norm_q(image[0]), *image_at),
            ],
            1,
        )
        key = torch.cat(
            [
                _rotate(attn.norm_added_k(text[1]), *text_at),
                _rotate(attn.norm_k(image[1]), *image_at),
            ],
            1,
        )
        mask = encoder_hidden_states_mask
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(hidden_states.shape[:2])], 1)
        mixed = _attend(query, key, torch.cat([text[2], image[2]], 1), mask).flatten(2)
        words = encoder_hidden_states.shape[1]
        return attn.to_out[0](mixed[:, words:]), attn.to_add_out(mixed[:, :words])


def _heads(attn: Any, x: torch.Tensor, *projections: Any) -> list[torch.Tensor]:
    """[batch, tokens, heads, head_dim] each."""
    return [project(x).unflatten(-1, (attn.heads, -1)) for project in projections]


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """[batch, tokens, heads, head_dim] each, and the result; the mask is True where real."""
    query, key, value = (x.to(value.dtype).transpose(1, 2) for x in (query, key, value))
    if query.is_cuda:
        where = None if mask is None else mask[:, None, None, :]
        return F.scaled_dot_product_attention(query, key, value, where).transpose(1, 2)
    weights = (query @ key.transpose(-1, -2)) * query.shape[-1] ** -0.5
    if mask is not None:
        weights = weights.masked_fill(~mask[:, None, None, :], -1e4)
    mixed: torch.Tensor = weights.float().softmax(-1).to(value.dtype) @ value
    return mixed.transpose(1, 2)


def _rotate(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], -1).flatten(3)


def install(transformer: Any, compiled: bool = True) -> None:
    """Give every block of a ZImageTransformer2DModel the explicit attention, for good."""
    torch._dynamo.config.cache_size_limit = 64  # one entry per shape
    for block in (
        *transformer.noise_refiner,
        *transformer.context_refiner,
        *transformer.layers,
    ):
        block.attention.set_processor(ExplicitAttention())
        inner = torch.compile(block.forward, dynamic=False) if compiled else block.forward
        block.forward = _with_real_frequencies(inner)


def _with_real_frequencies(inner: Any) -> Any:
    def forward(
        x: torch.Tensor, mask: torch.Tensor, freqs: torch.Tensor, *args: Any, **kw: Any
    ) -> Any:
        pair = _real(freqs.unsqueeze(2))
        return inner(x, mask, pair, *args, **kw)

    return forward


def install_joint(transformer: Any, compiled: bool = True) -> None:
    """Give every block of a QwenImageTransformer2DModel the explicit attention, for good."""
    for block in transformer.transformer_blocks:
        block.attn.set_processor(ExplicitJointAttention())
        inner = torch.compile(block.forward, dynamic=False) if compiled else block.forward
        block.forward = _with_real_pairs(inner)


def _with_real_pairs(inner: Any) -> Any:
    def forward(*args: Any, image_rotary_emb: Any, **kw: Any) -> Any:
        real = tuple(_real(f.unsqueeze(1)) for f in image_rotary_emb)
        return inner(*args, image_rotary_emb=real, **kw)

    return forward


def _real(frequencies: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of complex rotary frequencies."""
    return frequencies.real.contiguous(), frequencies.imag.contiguous()


def install_vision(visual: Any, patches: int) -> None:
    """Let Qwen3-VL's vision tower take pictures of one size in one go, for good.

    Args:
        patches: of every picture.
    """
    for block in visual.blocks:
        block.attn.forward = _attention_of_equals(block.attn, patches)
    # Kernel and stride are one: a matrix product, and ten times as fast on the way back.
    cut = visual.patch_embed.proj
    cut.forward = lambda x: F.linear(x.flatten(1), cut.weight.flatten(1), cut.bias)


def _attention_of_equals(attn: Any, patches: int) -> Any:
    def forward(hidden_states: torch.Tensor, position_embeddings: Any, **_: Any) -> torch.Tensor:
        heads = attn.qkv(hidden_states).unflatten(-1, (3, attn.num_heads, -1))
        query, key, value = heads.unbind(1)
        query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
        query, key, value = (x.unflatten(0, (-1, patches)) for x in (query, key, value))
        mixed = _attend(query, key, value, None).reshape(hidden_states.shape)
        out: torch.Tensor = attn.proj(mixed)
        return out

    return forward
