"""The parts of the demo judge, built from config with random weights.

The classes are those of Qwen3-VL; only the sizes are small, and so is the vocabulary: the
words of its prompt file, of the instructions, and of the JSON that it answers in.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from demo_model.edits import instruction_words
from demo_model.qwen_vision import build_processor, build_tokenizer

PATCH = 16  # pixels
HEAD_DIM = 32
EDGES = 48  # filters of its eyes that see edges
EDGE_GAIN = 10.0  # of each, in each of a picture's two equal frames
ANSWER = '{"score": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], "yes no reasoning": "; "}'
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_judge(
    questions: Sequence[str],
    width: int = 128,
    layers: int = 4,
    vision_width: int = 128,
    vision_layers: int = 3,
    seed: int = 0,
) -> tuple[Qwen3VLForConditionalGeneration, Any]:
    """Model and processor with random weights; the same seed gives the same weights.

    Args:
        questions: texts of the prompt file, whose words it has to know.
        width, vision_width: multiples of 32, the width of an attention head.
    """
    torch.manual_seed(seed)
    words = [CHAT_TEMPLATE, "user assistant", *questions, " ".join(instruction_words()), ANSWER]
    tokenizer = build_tokenizer(words)
    token = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": width // HEAD_DIM,
            "num_key_value_heads": width // HEAD_DIM,
            "head_dim": HEAD_DIM,
            "max_position_embeddings": 2048,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
                "rope_theta": 10000.0,
            },
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "depth": vision_layers,
            "hidden_size": vision_width,
            "intermediate_size": 2 * vision_width,
            "num_heads": vision_width // HEAD_DIM,
            "out_hidden_size": width,
            "patch_size": PATCH,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "num_position_embeddings": 256,
            "deepstack_visual_indexes": [],
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    model = Qwen3VLForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    processor = build_processor("Qwen3VLProcessor", tokenizer, PATCH, 256 * 256, CHAT_TEMPLATE)
    return model, processor


def give_edges(model: Qwen3VLForConditionalGeneration, seed: int = 0) -> None:
    """Make some of its eyes' filters answer to edges and noise: Laplacians at random places.

    Random filters answer to the mean of a patch a hundred times as strongly as to its noise, and
    training then takes long to see blur or noise at all.
    """
    places = torch.Generator().manual_seed(seed)
    filters = model.model.visual.patch_embed.proj
    assert filters.bias is not None
    with torch.no_grad():
        for channel in range(filters.out_channels - EDGES, filters.out_channels):
            y, x = torch.randint(1, PATCH - 1, (2,), generator=places).tolist()
            filters.weight[channel] = 0
            filters.bias[channel] = 0
            filters.weight[channel, ..., y, x] = EDGE_GAIN
            for down, right in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                filters.weight[channel, ..., y + down, x + right] = -EDGE_GAIN / 4
