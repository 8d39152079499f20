"""Lengths of prompts that CLIP encoders take, where their tokenizers do not know."""

from typing import Any


def fit_clip_tokenizers(pipeline: Any) -> None:
    """Cut prompts where the CLIP encoder's table of positions ends."""
    for number in ("", "_2", "_3"):
        tokenizer: Any = getattr(pipeline, f"tokenizer{number}", None)
        encoder: Any = getattr(pipeline, f"text_encoder{number}", None)
        if tokenizer is None or not type(encoder).__name__.startswith("CLIPText"):
            continue
        positions = encoder.config.max_position_embeddings
        if tokenizer.model_max_length > positions:
            tokenizer.model_max_length = positions
            if number == "" and hasattr(pipeline, "tokenizer_max_length"):
                pipeline.tokenizer_max_length = positions
