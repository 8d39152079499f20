"""Attention for training on a CPU: the same arithmetic as diffusers' Z-Image processor.

Rotary embedding in real numbers and an explicit softmax: complex numbers cannot be compiled,
and the backward pass of fused attention is slow on a CPU. Only training uses it; a test
compares it with the original.
"""

from typing import Any

import torch


class ExplicitAttention:
    """A drop-in for `ZSingleStreamAttnProcessor`; `freqs_cis` comes as (cosine, sine)."""

    _attention_backend = None
    _parallel_config = None

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        freqs_cis: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """[batch, tokens, dim] to the same; the mask is [batch, tokens], True where real."""
        query, key, value = (
            project(hidden_states).unflatten(-1, (attn.heads, -1))
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        query, key = attn.norm_q(query), attn.norm_k(key)
        if freqs_cis is not None:
            query, key = _rotate(query, *freqs_cis), _rotate(key, *freqs_cis)
        query, key, value = (x.to(value.dtype).transpose(1, 2) for x in (query, key, value))
        weights = (query @ key.transpose(-1, -2)) * query.shape[-1] ** -0.5
        if attention_mask is not None:
            weights = weights.masked_fill(~attention_mask[:, None, None, :], -1e4)
        mixed = weights.float().softmax(-1).to(value.dtype) @ value
        out: torch.Tensor = attn.to_out[0](mixed.transpose(1, 2).flatten(2))
        return out


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
        pair = (freqs.real.unsqueeze(2).contiguous(), freqs.imag.unsqueeze(2).contiguous())
        return inner(x, mask, pair, *args, **kw)

    return forward
