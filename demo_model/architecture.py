"""The parts of the demo model, built from config with random weights.

The classes are those of Z-Image; only the sizes are small. Tests build still smaller ones.
"""

from dataclasses import dataclass

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

from demo_model.vocabulary import WORDS

LATENT_CHANNELS = 16  # of an autoencoder that makes pictures eight times as small
HEAD_DIM = 32
ROPE_AXES = [8, 12, 12]  # caption position, row, column; they add up to HEAD_DIM
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|> {{ m['role'] }} {{ m['content'] }} <|im_end|> "
    "{% endfor %}{% if add_generation_prompt %}<|im_start|> assistant{% endif %}"
)


@dataclass(frozen=True)
class Sizes:
    """How large the parts are; the autoencoder halves a picture between two of its widths."""

    dim: int
    layers: int
    vae_widths: tuple[int, ...]
    latent_channels: int

    @property
    def token(self) -> int:
        """Pixels along a side of what the transformer sees as one token: 2 x 2 latents."""
        return int(2 ** len(self.vae_widths))


# What is trained: 16 x 16 tokens of a usual picture. The narrower, 8x smaller latents of the
# builders' own defaults gave 8 x 8 tokens, and soft outlines.
TRAINED = Sizes(dim=160, layers=6, vae_widths=(16, 32, 64), latent_channels=8)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer over `vocabulary.WORDS`; other words become `<unk>`."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unk>"]
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(pattern=Regex(r"[^\w<|>]+"), behavior="removed"),
        ]
    )
    tokenizer.add_special_tokens(
        [AddedToken(s, special=True, normalized=False) for s in special[:3]]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        unk_token="<unk>",
        padding_side="right",
        model_max_length=512,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def build_text_encoder(vocabulary_size: int, width: int = 128) -> Qwen3Model:
    """Two layers; the pipeline reads the output of the first (`hidden_states[-2]`)."""
    config = Qwen3Config(
        vocab_size=vocabulary_size,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        use_cache=False,
    )
    return Qwen3Model(config)


def build_transformer(
    dim: int = 128,
    layers: int = 6,
    text_width: int = 128,
    latent_channels: int = LATENT_CHANNELS,
) -> ZImageTransformer2DModel:
    """`dim` is a multiple of 32, the width of an attention head."""
    return ZImageTransformer2DModel(
        all_patch_size=(2,),
        all_f_patch_size=(1,),
        in_channels=latent_channels,
        dim=dim,
        n_layers=layers,
        n_refiner_layers=1,
        n_heads=dim // HEAD_DIM,
        n_kv_heads=dim // HEAD_DIM,
        norm_eps=1e-5,
        qk_norm=True,
        cap_feat_dim=text_width,
        rope_theta=256.0,
        t_scale=1000.0,
        axes_dims=ROPE_AXES,
        axes_lens=[512, 64, 64],
    )


def build_vae(
    widths: tuple[int, ...] = (16, 32, 48, 64), latent_channels: int = LATENT_CHANNELS
) -> AutoencoderKL:
    """Halves a picture between two widths; by default 8x to 16 channels, Z-Image's geometry."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=["DownEncoderBlock2D"] * len(widths),
        up_block_types=["UpDecoderBlock2D"] * len(widths),
        block_out_channels=list(widths),
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=8,
        sample_size=128,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=1.0,
        shift_factor=0.0,
    )


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Z-Image-Turbo's schedule: a static shift of 3."""
    return FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000, shift=3.0, use_dynamic_shifting=False
    )


def build_pipeline(
    dim: int = 128,
    layers: int = 6,
    vae_widths: tuple[int, ...] = (16, 32, 48, 64),
    seed: int = 0,
    latent_channels: int = LATENT_CHANNELS,
) -> ZImagePipeline:
    """A whole pipeline with random weights; the same seed gives the same weights."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    return ZImagePipeline(
        scheduler=build_scheduler(),
        vae=build_vae(vae_widths, latent_channels).eval(),
        text_encoder=build_text_encoder(len(tokenizer)).eval(),
        tokenizer=tokenizer,
        transformer=build_transformer(dim, layers, latent_channels=latent_channels).eval(),
    )
