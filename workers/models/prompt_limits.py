"""How long a prompt a checkpoint takes, where diffusers does not settle that itself.

Three kinds of model break, or lose words that they could take, if diffusers' own lengths stand:
Z-Image checkpoints whose table of positions is shorter than a caption of 512 tokens, CLIP
tokenizers that do not know their encoder's positions, and Qwen-Image, whose pipeline encodes
1024 tokens and then drops those behind 512 unless told otherwise.
"""

from typing import Any

from workers.models.z_image import CAPTION_BUCKET

_USUAL_LENGTH = 512  # diffusers' default of `max_sequence_length` for Z-Image


def sequence_length(pipeline: Any) -> dict[str, int]:
    """The pipeline's `max_sequence_length`, as an argument; nothing where its default is right."""
    name = type(pipeline).__name__
    if name.startswith("ZImage"):
        room = z_image_room(pipeline)
        return {"max_sequence_length": room} if room < _USUAL_LENGTH else {}
    if name == "QwenImagePipeline":
        return {"max_sequence_length": pipeline.tokenizer_max_length}
    return {}


def z_image_room(pipeline: Any) -> int:
    """Tokens of a caption for which a Z-Image checkpoint has positions.

    Position 0 stays free, the caption follows, filled up to a whole bucket, and the picture
    takes the position behind it.
    """
    table = int(pipeline.transformer.config.axes_lens[0])
    encoder = getattr(pipeline.text_encoder.config, "max_position_embeddings", None) or table
    return int(min((table - 2) // CAPTION_BUCKET * CAPTION_BUCKET, encoder))


def fit_clip_tokenizers(pipeline: Any) -> None:
    """Have tokenizers cut where their CLIP encoder's table of positions ends."""
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
