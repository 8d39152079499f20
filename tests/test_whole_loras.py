"""A LoRA file is applied whole, or its task fails and nothing of it is left behind."""

import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.checkpoints.lora_files import LoraInspector, content_hash
from core.errors import LoraError
from tests.lora_layouts import (
    FAMILIES,
    Lora,
    Writer,
    build,
    family_with_loras,
    named,
    only,
    original,
)
from tests.test_lora_layouts import Kept
from tests.test_native_image_generator import drawn
from workers.lora_manager import LoraManager, check_unchanged

Tensors = dict[str, Tensor]
LAYER = "transformer.layers.0.attention.to_q"


@pytest.fixture(params=["kept", "exchanged"])
def family(tiny_model: Path, request: pytest.FixtureRequest) -> Any:
    """With LoRAs kept as adapters of their own, or exchanged in place as for compiled blocks."""
    return family_with_loras(tiny_model, exchanged=request.param == "exchanged")


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {k: v for k, v in tensors.items() if k != name}


def renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {k.replace(old, new): v for k, v in tensors.items()}


def with_value(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {k: change(v) if k == name else v for k, v in tensors.items()}


def one_is(number: float) -> Callable[[Tensor], Tensor]:
    def changed(tensor: Tensor) -> Tensor:
        tensor = tensor.clone()
        tensor[0, -1] = number
        return tensor

    return changed


def more(**tensors: Tensor) -> Callable[[Tensors], Tensors]:
    return lambda found: found | {k.replace("__", "."): v for k, v in tensors.items()}


# What is done to a healthy file of 12 layers, and what is said then.
DAMAGE: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "no lora_A": (without(f"{LAYER}.lora_A.weight"), rf"1 of \d+ modules .*{LAYER} .*lora_A is mi"),
    "no lora_B": (without(f"{LAYER}.lora_B.weight"), rf"1 of \d+ modules .*{LAYER} .*lora_B is mi"),
    "a layer that the model has not": (
        renamed(LAYER, "transformer.layers.7.attention.to_q"),
        r"1 of \d+ modules .*transformer\.layers\.7\.attention\.to_q \(no layer of the model",
    ),
    "another shape": (
        with_value(f"{LAYER}.lora_A.weight", lambda t: torch.cat([t, t], dim=1)),
        rf"1 of \d+ modules .*{LAYER} \(lora_A of \[4, 128\] for a layer of \[64, 64\]",
    ),
    "more outputs": (
        with_value(f"{LAYER}.lora_B.weight", lambda t: torch.cat([t, t])),
        rf"1 of \d+ modules .*{LAYER} \(has 128 outputs, the model 64",
    ),
    "ranks that differ": (
        with_value(f"{LAYER}.lora_B.weight", lambda t: t[:, :2].contiguous()),
        rf"1 of \d+ modules .*{LAYER} \(factors of \[4, 64\] and \[64, 2\]",
    ),
    "a layer twice": (
        lambda t: (
            t | {k.replace("transformer.", "unet."): v + 1 for k, v in t.items() if LAYER in k}
        ),
        rf"1 of \d+ modules .*the same layer as {LAYER}",
    ),
    "NaN": (
        with_value(f"{LAYER}.lora_A.weight", one_is(float("nan"))),
        rf"1 of \d+ tensors hold NaN or infinite numbers: {LAYER}\.lora_A",
    ),
    "infinity": (
        with_value(f"{LAYER}.lora_B.weight", one_is(float("-inf"))),
        rf"1 of \d+ tensors hold NaN or infinite numbers: {LAYER}\.lora_B",
    ),
    "an alpha that is none": (
        more(**{f"{LAYER.replace('.', '__')}__alpha": torch.tensor(float("nan"))}),
        r"hold NaN or infinite numbers: .*alpha",
    ),
    "integers": (
        with_value(f"{LAYER}.lora_A.weight", lambda t: t.to(torch.int8)),
        rf"{LAYER}\.lora_A\.weight holds int8, expected floating point",
    ),
    "a norm's weight": (
        more(transformer__layers__0__attention_norm1__weight=torch.ones(64)),
        r"1 of \d+ tensors are none of a LoRA: transformer\.layers\.0\.attention_norm1\.weight",
    ),
    "both DoRA and LoKr": (
        more(
            transformer__layers__1__attention__to_k__lokr_w1=torch.ones(2, 2),
            transformer__layers__1__attention__to_k__lokr_w2=torch.ones(32, 32),
            transformer__layers__1__attention__to_k__dora_scale=torch.ones(64, 1),
        ),
        r"to_k \(DoRA is not supported for LoKr",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_cannot_be_applied_whole_fails_and_leaves_no_trace(
    family: Any, tiny_loras: list[Path], tmp_path: Path, what: str
) -> None:
    change, message = DAMAGE[what]
    plain, styled = drawn(family), drawn(family, tiny_loras[1])
    damaged = tmp_path / "damaged.safetensors"
    save_file(change(load_file(tiny_loras[0])), damaged)
    for _ in range(2):  # the second time from memory
        with pytest.raises(LoraError, match=message) as caught:
            drawn(family, damaged)
        assert "does not fit ZImagePipeline" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert np.array_equal(plain, drawn(family))
    assert np.array_equal(styled, drawn(family, tiny_loras[1]))
    assert drawn(family, tiny_loras[0]).std() > 0


def test_at_most_the_first_names_are_told(
    family: Any, tiny_loras: list[Path], tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign.safetensors"
    save_file(renamed("attention", "elsewhere")(load_file(tiny_loras[0])), foreign)
    with pytest.raises(LoraError, match=r": (\d+) of \1 modules .*, …$") as caught:
        drawn(family, foreign)
    assert str(caught.value).count("no layer of the model") == 3


# -- text encoders -----------------------------------------------------------------------------


def sdxl_writer() -> Writer:
    writer = Writer(FAMILIES["SDXL"], torch.float32)
    named("lora_unet_", "lora_down", alpha=True, flat=True)(writer)
    return writer


ENCODERS = {
    "kohya": (
        "lora_te1_text_model_encoder_layers_{n}_{flat}",
        "lora_te2_text_model_encoder_layers_{n}_{flat}",
        ("lora_down", "lora_up"),
    ),
    "diffusers": (
        "text_encoder.text_model.encoder.layers.{n}.{dotted}",
        "text_encoder_2.text_model.encoder.layers.{n}.{dotted}",
        ("lora_A", "lora_B"),
    ),
    "ComfyUI": (
        "text_encoders.clip_l.transformer.text_model.encoder.layers.{n}.{dotted}",
        "text_encoders.clip_g.transformer.text_model.encoder.layers.{n}.{dotted}",
        ("lora_A", "lora_B"),
    ),
}


@pytest.mark.parametrize("way", ["kept", "exchanged"])
@pytest.mark.parametrize("layout", ENCODERS)
def test_text_encoders_get_their_share(layout: str, way: str, tmp_path: Path) -> None:
    *names, (down, up) = ENCODERS[layout]
    writer = sdxl_writer()
    for part, name in zip(("text_encoder", "text_encoder_2"), names, strict=True):
        level = "" if part == "text_encoder" else "text_model."  # as transformers has it today
        for n, layer in ((0, "self_attn.q_proj"), (0, "mlp.fc1"), (1, "self_attn.out_proj")):
            lora = writer.lora(f"{level}encoder.layers.{n}.{layer}", 2 + 2 * n, 1.0 + n, part)
            start = str(name).format(n=n, dotted=layer, flat=layer.replace(".", "_"))
            writer.tensors |= {
                f"{start}.{down}.weight": lora.down,
                f"{start}.{up}.weight": lora.up,
                f"{start}.alpha": torch.tensor(lora.alpha),
            }
    kept = Kept(FAMILIES["SDXL"], way)
    file = writer.save(tmp_path / "words.safetensors")
    for strength in (1.0, 0.5):
        kept.use(file, strength)
        kept.check(writer.deltas, strength)
    kept.loras.use_stack([])
    kept.check({}, 1.0)
    assert not [line for line in kept.log if "WARNING" in line]


@pytest.mark.parametrize("way", ["kept", "exchanged"])
@pytest.mark.parametrize("prefix", ["lora_te_", "lora_te1_", "text_encoder.", "text_encoders.x."])
def test_words_for_a_model_without_such_layers_are_named_in_one_warning(
    prefix: str, way: str, tmp_path: Path
) -> None:
    writer = Writer(FAMILIES["Z-Image"])
    named("lora_unet_", "lora_down", alpha=True, flat=True)(writer)
    name = f"{prefix}model.layers.0.self_attn.q_proj".replace("." if "lora" in prefix else "?", "_")
    writer.tensors |= {
        f"{name}.lora_down.weight": torch.ones(2, 128),
        f"{name}.lora_up.weight": torch.ones(128, 2),
    }
    kept = Kept(FAMILIES["Z-Image"], way)
    file = writer.save(tmp_path / "words.safetensors")
    other = tmp_path / "other.safetensors"
    other.write_bytes(file.read_bytes())
    for _ in range(2):
        kept.use(file)
        kept.check(writer.deltas, 1.0)
        kept.loras.use_stack([])
        kept.loras.shrink()
    [warning] = [line for line in kept.log if line.startswith("WARNING")]
    assert f"2 of {len(writer.tensors)} tensors" in warning
    assert "words.safetensors" in warning and f"{name}.lora_down.weight" in warning


def test_a_file_for_nothing_but_words_is_refused_where_words_take_no_lora(tmp_path: Path) -> None:
    file = tmp_path / "words.safetensors"
    name = "lora_te_model_layers_0_self_attn_q_proj"
    factors = {"lora_down": torch.ones(2, 128), "lora_up": torch.ones(128, 2)}
    save_file({f"{name}.{k}.weight": v for k, v in factors.items()}, file)
    with pytest.raises(LoraError, match="none of its tensors belongs to this model"):
        Kept(FAMILIES["Z-Image"], "kept").use(file)


def test_words_of_an_encoder_that_takes_no_lora_are_not_left_out_of_one_that_does(
    tmp_path: Path,
) -> None:
    """FLUX's CLIP takes LoRAs; its T5 has layers, too, and none can be put there."""
    writer = Writer(FAMILIES["FLUX"])
    named("lora_unet_", "lora_down", flat=True)(writer)
    name = "lora_te2_encoder_block_0_layer_0_SelfAttention_q"
    writer.tensors |= {
        f"{name}.lora_down.weight": torch.ones(2, 32),
        f"{name}.lora_up.weight": torch.ones(16, 2),
    }
    with pytest.raises(LoraError, match=f"1 of .* modules .*{name}"):
        Kept(FAMILIES["FLUX"], "kept").use(writer.save(tmp_path / "t5.safetensors"))


@pytest.mark.parametrize("way", ["kept", "exchanged"])
def test_what_peft_saves_counts_with_the_settings_beside_it(way: str, tmp_path: Path) -> None:
    """Written by PEFT itself. alpha stands in its settings alone, so equal tensors may differ."""
    kept = Kept(FAMILIES["Z-Image"], way)
    torch.manual_seed(3)
    config = LoraConfig(
        r=4,
        lora_alpha=6,
        alpha_pattern={r"layers\.\d+\.attention\.to_k": 2},
        rank_pattern={"feed_forward.w1": 2},
        target_modules=["to_q", "to_k", "w1"],
        init_lora_weights=False,
    )
    model = get_peft_model(build("Z-Image").transformer, config)
    deltas = {
        f"transformer.{name.removeprefix('base_model.model.')}": layer.get_delta_weight("default")
        for name, layer in model.named_modules()
        if hasattr(layer, "lora_A")
    }
    folders = [tmp_path / "half", tmp_path / "whole"]
    for folder, factor in zip(folders, (1, 2), strict=True):
        model.save_pretrained(folder)
        settings = json.loads((folder / "adapter_config.json").read_text())
        settings["lora_alpha"] *= factor
        settings["alpha_pattern"] = {k: v * factor for k, v in settings["alpha_pattern"].items()}
        (folder / "adapter_config.json").write_text(json.dumps(settings))
    for folder, strength in zip([*folders, folders[0]], (1.0, 2.0, 1.0), strict=True):
        kept.use(folder / "adapter_model.safetensors")
        kept.check(deltas, strength)
    assert not [line for line in kept.log if line.startswith("WARNING")]
    (folders[0] / "adapter_config.json").rename(tmp_path / "moved.json")
    kept.use(folders[0] / "adapter_model.safetensors")
    [warning] = [line for line in kept.log if line.startswith("WARNING")]
    assert "adapter_config.json is not beside it, so alpha counts as equal to the rank" in warning
    for settings, why in (
        ('{"peft_type": "LOKR", "alpha": 3}', "PEFT's LOKR is not supported"),
        ("[]", "PEFT's settings of it are no JSON object"),
    ):
        (folders[0] / "adapter_config.json").write_text(settings)
        with pytest.raises(LoraError, match=why):
            kept.use(folders[0] / "adapter_model.safetensors")
    seen = content_hash(folders[1] / "adapter_model.safetensors")
    (folders[1] / "adapter_config.json").write_text("{}")
    with pytest.raises(LoraError, match="changed during the run"):
        kept.loras.use_stack([])
        kept.loras.shrink()
        check_unchanged(folders[1] / "adapter_model.safetensors", seen)


@pytest.mark.parametrize("way", ["kept", "exchanged"])
def test_a_fused_layer_beside_its_parts_counts_once_if_they_say_the_same(
    way: str, tmp_path: Path
) -> None:
    kept, writer = Kept(FAMILIES["Z-Image"], way), Writer(FAMILIES["Z-Image"])
    loras = [writer.lora(f"layers.0.attention.to_{x}") for x in "qkv"]
    for lora, name in zip(loras, "qkv", strict=True):
        layer = f"layers.0.attention.to_{name}"
        writer.change(layer, Lora(loras[0].down.float(), lora.up.float(), 4.0).delta())
        name = f"lora_unet_{layer.replace('.', '_')}"
        writer.tensors |= {
            f"{name}.lora_down.weight": loras[0].down.clone(),
            f"{name}.lora_up.weight": lora.up.clone(),
        }
    name = "lora_unet_layers_0_attention_qkv"
    writer.tensors |= {
        f"{name}.lora_down.weight": loras[0].down,
        f"{name}.lora_up.weight": torch.cat([lora.up for lora in loras]),
    }
    kept.use(writer.save(tmp_path / "twice.safetensors"))
    kept.check(writer.deltas, 1.0)
    writer.tensors[f"{name}.alpha"] = torch.tensor(2.0)
    with pytest.raises(LoraError, match="the same layer as lora_unet_layers_0_attention_"):
        kept.use(writer.save(tmp_path / "differing.safetensors"))


def test_differences_that_are_zero_are_taken_and_others_refused(tmp_path: Path) -> None:
    """ComfyUI saves those of biases and norms, too, which mostly nobody trained."""
    kept, writer = Kept(FAMILIES["FLUX"], "kept"), Writer(FAMILIES["FLUX"])
    original("diffusion_model.")(writer)
    block = "diffusion_model.double_blocks.0.img_attn"
    zeros = {f"{block}.proj.diff_b": 32, f"{block}.norm.key_norm.diff": 16}
    writer.tensors |= {name: torch.zeros(size) for name, size in zeros.items()}
    file = writer.save(tmp_path / "comfy.safetensors")
    assert LoraInspector().sha256(file) == content_hash(file)
    kept.use(file)
    kept.check(writer.deltas, 1.0)
    for name in zeros:
        writer.tensors[name][-1] = 1e-6
        file = writer.save(tmp_path / "trained.safetensors")
        with pytest.raises(LoraError, match="full weight difference is not supported"):
            LoraInspector().sha256(file)
        with pytest.raises(LoraError, match="full weight difference is not supported"):
            kept.use(file)
        writer.tensors[name][-1] = 0


@pytest.mark.parametrize(
    "name",
    [
        "transformer._orig_mod.layers.0.attention.to_q",  # saved from a compiled model
        "_orig_mod.layers.0._orig_mod.attention.to_q",
        "lora_unet_layers_0_attention_to_q_",
    ],
)
def test_what_saving_leaves_in_names_does_not_matter(name: str, tmp_path: Path) -> None:
    kept, writer = Kept(FAMILIES["Z-Image"], "kept"), Writer(FAMILIES["Z-Image"])
    lora = writer.lora("layers.0.attention.to_q")
    writer.tensors = {f"{name}.lora_A.weight": lora.down, f"{name}.lora_B.weight": lora.up}
    kept.use(writer.save(tmp_path / "style.safetensors"))
    kept.check(writer.deltas, 1.0)


@contextmanager
def logged() -> Iterator[list[logging.LogRecord]]:
    """What libraries log: those that hand it on, and those that do not."""
    records: list[logging.LogRecord] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    handler = Handler()
    loggers = [logging.getLogger(name) for name in ("", "diffusers", "transformers")]
    for logger in loggers:
        logger.addHandler(handler)
    yield records
    for logger in loggers:
        logger.removeHandler(handler)


@pytest.mark.parametrize("way", ["kept", "exchanged"])
@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_{}", "encoder.layers.0.mlp.fc1"),
        (
            "text_encoder.text_model.encoder.layers.1.self_attn.to_out_lora.{}",
            "encoder.layers.1.self_attn.out_proj",
        ),
    ],
)
def test_a_few_layers_of_a_text_encoder_are_a_lora_too(
    name: str, layer: str, way: str, tmp_path: Path
) -> None:
    kept, writer = Kept(FAMILIES["SDXL"], way), sdxl_writer()
    file = tmp_path / "words.safetensors"
    with logged() as records:
        for number in range(2):  # with another one held
            lora = writer.lora(layer, 2, 2.0, "text_encoder")
            ends = {"down": lora.down, "up": lora.up}
            writer.tensors |= {name.format(end) + ".weight": t for end, t in ends.items()}
            kept.use(writer.save(file.with_stem(f"words{number}")))
            kept.check(writer.deltas, 1.0)
    assert [r.getMessage() for r in records if r.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("way", ["kept", "exchanged"])
def test_what_is_written_to_a_file_later_changes_no_lora_that_is_held(
    way: str, tmp_path: Path
) -> None:
    """As `cp` does: into the same file. The next load says that it changed."""
    kept, writer = Kept(FAMILIES["Z-Image"], way), Writer(FAMILIES["Z-Image"], torch.float32)
    named("transformer.", ranks=(40,))(writer)
    file = writer.save(tmp_path / "style.safetensors")
    kept.use(file)
    sha256, content = content_hash(file), file.read_bytes()
    with file.open("r+b") as stream:
        stream.seek(len(content) // 2)
        stream.write(bytes(len(content) - len(content) // 2))
    kept.loras.use_stack(only(file, 0.5, sha256))
    kept.check(writer.deltas, 0.5)


# -- exchange in place -------------------------------------------------------------------------


def test_loras_of_other_ranks_alphas_and_layouts_are_exchanged_in_place(tmp_path: Path) -> None:
    """Another slot would have blocks compiled again."""
    kept = Kept(FAMILIES["FLUX"], "exchanged")
    for number, layout in enumerate(
        [
            named("transformer.", ranks=(8, 2)),
            named("lora_unet_", "lora_down", alpha=True, flat=True, ranks=(4, 16, 2)),
            named("", "default", ranks=(1,)),
        ]
    ):
        writer = Writer(FAMILIES["FLUX"])
        layout(writer)
        kept.use(writer.save(tmp_path / f"{number}.safetensors"), 0.5)
        kept.check(writer.deltas, 0.5)
    slots = [line for line in kept.log if "slot" in line]
    assert len(slots) == 1, slots


def test_a_lora_that_is_held_is_itself_again_after_another(tmp_path: Path) -> None:
    """In the model's own type and with nothing to fill up, its tensors could become the model's."""
    kept = Kept(FAMILIES["FLUX"], "exchanged")
    files = []
    for number, rank in enumerate((40, 4)):
        writer = Writer(FAMILIES["FLUX"], torch.float32)
        torch.manual_seed(number)
        named("transformer.", ranks=(rank,))(writer)
        files.append((writer.save(tmp_path / f"{number}.safetensors"), writer.deltas))
    for place in (0, 1, 0, 1):
        file, deltas = files[place]
        kept.use(file)
        kept.check(deltas, 1.0)


def test_a_refused_file_is_read_once(
    tiny_loras: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many tasks as use it fail without a look at the model."""
    kept = Kept(FAMILIES["FLUX"], "kept")
    reads: list[str] = []

    def counted(path: str) -> Any:
        reads.append(path)
        return load_file(path)

    monkeypatch.setattr("workers.lora_adapter.load_file", counted)
    sha256 = hashlib.sha256(tiny_loras[0].read_bytes()).hexdigest()
    for _ in range(3):
        with pytest.raises(
            LoraError, match=r"does not fit FluxPipeline: .*\(no layer of the model"
        ):
            kept.loras.use_stack(only(tiny_loras[0], 1.0, sha256))
    assert len(reads) == 1


@pytest.mark.parametrize("way", ["kept", "exchanged"])
def test_nothing_is_warned_of_where_nothing_is_wrong(way: str, tmp_path: Path) -> None:
    """Such warnings would hide those that mean something."""
    kept = Kept(FAMILIES["FLUX"], way)
    with warnings.catch_warnings(record=True) as warned, logged() as records:
        warnings.simplefilter("always")
        for layer in ("proj_out", "x_embedder"):  # each alone; one ends as other layers do
            writer = Writer(FAMILIES["FLUX"])
            lora = writer.lora(layer)
            writer.tensors = {
                f"{layer}.lora_A.weight": lora.down,
                f"{layer}.lora_B.weight": lora.up,
            }
            kept.use(writer.save(tmp_path / f"{layer}.safetensors"))
            kept.check(writer.deltas, 1.0)
        for number, prefix in enumerate(["transformer.", "", "pipe.dit.", "unet."]):
            writer = Writer(FAMILIES["FLUX"])
            named(prefix, ranks=(2 + number,))(writer)
            kept.use(writer.save(tmp_path / f"{number}.safetensors"))
    for_users = (UserWarning, RuntimeWarning)
    assert [str(w.message) for w in warned if issubclass(w.category, for_users)] == []
    assert [r for r in records if r.name.startswith(("diffusers", "peft"))] == []


# -- other models ------------------------------------------------------------------------------


@pytest.fixture
def flux2() -> Any:
    """A pipeline of a family whose other names are known to diffusers' converters alone."""
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        Flux2KleinPipeline,
        Flux2Transformer2DModel,
    )

    torch.manual_seed(0)
    transformer = Flux2Transformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
    )
    others = {"vae": None, "text_encoder": None, "tokenizer": None}
    scheduler = FlowMatchEulerDiscreteScheduler()
    return Flux2KleinPipeline(scheduler=scheduler, transformer=transformer.eval(), **others)


def test_other_models_take_what_diffusers_converts_whole(
    flux2: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    qkv = "diffusion_model.double_blocks.0.img_attn.qkv"
    down, up = torch.randn(4, 32), torch.randn(96, 4)
    tensors = {f"{qkv}.lora_A.weight": down, f"{qkv}.lora_B.weight": up}
    loras = LoraManager(flux2, 2, lambda level, text: None)

    def use(name: str) -> None:
        file = tmp_path / name
        save_file(tensors, file)
        loras.use_stack(only(file, 0.5))

    use("style.safetensors")
    for place, name in enumerate(("to_q", "to_k", "to_v")):
        layer = flux2.transformer.get_submodule(f"transformer_blocks.0.attn.{name}")
        x = torch.randn(3, 32)
        change = 0.5 * up[32 * place : 32 * place + 32] @ down
        assert torch.allclose(layer(x) - layer.base_layer(x), x @ change.T, atol=1e-4)
    whole = type(flux2).lora_state_dict

    def passing_over(state: Tensors) -> Tensors:
        return {k: v for k, v in whole(state).items() if "to_v" not in k}

    monkeypatch.setattr(flux2, "lora_state_dict", passing_over)
    tensors[f"{qkv}.lora_A.weight"] = down + 1
    with pytest.raises(LoraError, match=f"1 of 1 modules cannot be applied: {qkv}"):
        use("other.safetensors")
