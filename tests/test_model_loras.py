"""LoRAs and noise schedules that belong to the model: for every picture, below tasks' own LoRAs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.checkpoints.lora_files import content_hash
from core.errors import InputError
from core.model_lora import ModelLora
from tests.lora_layouts import FAMILIES, LAYOUTS, Writer, build, layers_of, only
from tests.test_lora_layouts import NO_SUCH_LAYER
from tests.test_native_image_generator import drawn, lease, spec_for
from workers.lora_hotswap import HotswapLoras
from workers.lora_manager import LoraManager
from workers.model_loras import put_on_model_loras
from workers.models.base import Picture
from workers.models.native_image_generator import NativeImageGenerator

CPU = torch.device("cpu")
STRENGTH = 0.6


def model_lora(file: Path, strength: float = 1.0) -> ModelLora:
    return ModelLora(str(file), file.name, content_hash(file), strength)


def written(family: str, layout: str, file: Path) -> Writer:
    writer = Writer(FAMILIES[family])
    LAYOUTS[layout](writer)
    writer.save(file)
    return writer


def silent(level: str, text: str) -> None: ...


# -- what is fused -----------------------------------------------------------------------------

# What is read from a file is the same as for tasks: here each kind of change is tried once.
KINDS = (
    "`diffusion_model.`, mixed ranks, alpha by layer",
    "kohya: `lora_unet_`, alpha",
    "the model's own names, fused `qkv`, three LoRAs in one",
    "the same with PEFT's settings, alpha by layer",
    "fp8 (e4m3)",
    "convolutions with `lora_mid`",
    "DoRA: `dora_scale`",
    "DoRA: `dora_scale` by inputs",
    "DoRA: `lora_magnitude_vector`",
    "DoRA of fused `qkv`",
    "LoKr, whole factors",
    "LoKr, `lycoris_`, factors of factors",
    "LoKr of fused `qkv`",
)
FUSED = [(f, k) for f in ("FLUX", "SDXL") for k in KINDS if (f, k) not in NO_SUCH_LAYER]


@pytest.mark.parametrize(("family", "layout"), FUSED)
def test_fused_weights_are_those_of_the_file_in_float32(
    family: str, layout: str, tmp_path: Path
) -> None:
    writer = written(family, layout, tmp_path / "turbo.safetensors")
    assert writer.deltas
    pipeline = build(family)
    before = {key: layer.weight.detach().clone() for key, layer in layers_of(pipeline).items()}
    put_on_model_loras(
        pipeline, [model_lora(tmp_path / "turbo.safetensors", STRENGTH)], CPU, silent
    )
    after = layers_of(pipeline)
    for key, weight in before.items():
        expected = weight.double()
        if key in writer.deltas:
            expected = expected + STRENGTH * writer.deltas[key].double().reshape(expected.shape)
            assert not torch.equal(after[key].weight, weight), key
        off = (after[key].weight.double() - expected).abs().max() / expected.abs().max()
        assert off < 1e-6, f"{key}: off by {off:.1e}"


def test_in_bfloat16_a_fused_layer_is_as_near_to_the_exact_result_as_an_adapter() -> None:
    """The reason to fuse in 16 bits: whatever the LoRA's size, nothing is lost by it."""
    torch.manual_seed(0)
    size, rank = 256, 8
    weight, x = (torch.randn(size, size) * 0.03).bfloat16(), torch.randn(64, size).bfloat16()
    for share in (0.3, 0.03, 0.003):
        down, up = torch.randn(rank, size).bfloat16(), torch.randn(size, rank)
        up = (up * 0.03 * share / (up @ down.float()).std()).bfloat16()
        change = up.float() @ down.float()
        exact = x.double() @ (weight.double() + change.double()).T
        fused = x @ (weight.float() + change).bfloat16().T
        beside = x @ weight.T + (x @ down.T) @ up.T
        off = [(y.double() - exact).norm() / exact.norm() for y in (fused, beside)]
        assert off[0] < 1.1 * off[1], share


# -- below the LoRAs of tasks ------------------------------------------------------------------

Prepared = Callable[[Any], None]


def as_they_are(pipeline: Any) -> None: ...


def stored_in_8_bits(pipeline: Any) -> None:
    pipeline.transformer.enable_layerwise_casting(
        storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32
    )


def quantised(pipeline: Any) -> None:
    torchao = pytest.importorskip("torchao.quantization")
    torchao.quantize_(
        pipeline.transformer,
        torchao.Int8WeightOnlyConfig(),
        lambda module, name: "attention.to_" in name and isinstance(module, torch.nn.Linear),
    )


class Layers:
    """Outputs of the layers of a tiny Z-Image, and what they have to be."""

    def __init__(self, prepare: Prepared, folder: Path, model_lora_at: float | None) -> None:
        self.pipeline = build("Z-Image")
        self.log: list[str] = []
        files = [folder / "turbo.safetensors", folder / "style.safetensors"]
        layout = "`diffusion_model.`, `lora_A/B`"
        self.turbo = written("Z-Image", layout, files[0]).deltas
        tensors = load_file(files[0])
        torch.manual_seed(5)
        save_file({k: torch.randn_like(v.float()) for k, v in tensors.items()}, files[1])
        self.turbo_file, self.style_file = files
        if model_lora_at is None:
            prepare(self.pipeline)
            return
        prepare(self.pipeline)
        lora = model_lora(files[0], model_lora_at)
        put_on_model_loras(self.pipeline, [lora], CPU, lambda level, text: self.log.append(text))

    def outputs(self) -> dict[str, Tensor]:
        found = {}
        transformer = self.pipeline.transformer
        for key in self.turbo:
            layer = transformer.get_submodule(key.partition(".")[2])
            base = getattr(layer, "base_layer", layer)
            torch.manual_seed(3)
            with torch.no_grad():
                found[key] = layer(torch.randn(2, base.in_features))
        return found


def change_of(layers: Layers, deltas: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for key, delta in deltas.items():
        torch.manual_seed(3)
        found[key] = torch.randn(2, delta.shape[1]) @ delta.float().T
    return found


def style_deltas(file: Path) -> dict[str, Tensor]:
    tensors = load_file(file)
    return {
        f"transformer.{k.removeprefix('diffusion_model.').removesuffix('.lora_A.weight')}": (
            tensors[k.replace("lora_A", "lora_B")] @ tensors[k]
        )
        for k in tensors
        if "lora_A" in k
    }


@pytest.mark.parametrize("prepare", [as_they_are, quantised])
@pytest.mark.parametrize("way", ["kept", "exchanged"])
def test_a_style_comes_and_goes_above_the_models_own_lora(
    prepare: Prepared, way: str, tmp_path: Path
) -> None:
    """At any strength, however tasks' LoRAs are kept, and however the weights are stored."""
    plain = Layers(prepare, tmp_path, None).outputs()
    layers = Layers(prepare, tmp_path, STRENGTH)
    pipeline, transformer = layers.pipeline, layers.pipeline.transformer
    loras: Any = (
        LoraManager(pipeline, 1, silent)
        if way == "kept"
        else HotswapLoras(pipeline, transformer, 1, CPU, silent)
    )
    turbo = change_of(layers, layers.turbo)
    style = change_of(layers, style_deltas(layers.style_file))
    files = {None: None, "style": layers.style_file, "other": layers.turbo_file}
    order: list[tuple[str | None, float]] = [
        (None, 1.0), ("style", 1.0), ("style", 0.3), (None, 1.0), ("other", 1.0), ("style", -0.5),
        ("style", 0.0),
    ]  # fmt: skip
    for name, at in order:
        file = files[name]
        loras.use_stack(only(file, at) if file else [])
        for key, found in layers.outputs().items():
            expected = plain[key] + STRENGTH * turbo[key]
            if name is not None:
                expected = expected + at * (style if name == "style" else turbo)[key]
            off = (found - expected).abs().max() / expected.abs().max()
            assert off < 2e-5, f"{key} with {name} at {at}: off by {off:.1e}"
    loras.shrink()
    for key, found in layers.outputs().items():
        assert torch.allclose(found, plain[key] + STRENGTH * turbo[key], rtol=1e-4, atol=1e-4)


def test_weights_in_8_bits_stay_as_they_are_and_have_the_lora_beside_them(tmp_path: Path) -> None:
    plain = Layers(stored_in_8_bits, tmp_path, None)
    layers = Layers(stored_in_8_bits, tmp_path, STRENGTH)
    before, turbo = plain.outputs(), change_of(layers, layers.turbo)
    for key, found in layers.outputs().items():
        assert torch.allclose(found, before[key] + STRENGTH * turbo[key], rtol=1e-4, atol=1e-4)
        names = key.partition(".")[2]
        stored = [x.pipeline.transformer.get_submodule(names).weight for x in (plain, layers)]
        if stored[0].dtype == torch.float8_e4m3fn:  # embedders and norms are left in full
            assert torch.equal(stored[0].float(), stored[1].float())


@pytest.mark.parametrize(
    ("prepare", "said"),
    [(as_they_are, "fused into 16 layers"), (stored_in_8_bits, "beside the weights of ")],
)
def test_the_log_says_in_one_line_how_the_loras_are_on(
    prepare: Prepared, said: str, tmp_path: Path
) -> None:
    [line] = Layers(prepare, tmp_path, 0.6).log
    assert said in line and line.endswith(": turbo.safetensors at 0.6")


def test_a_dora_that_cannot_be_fused_is_refused_by_name(tmp_path: Path) -> None:
    pipeline = build("Z-Image")
    stored_in_8_bits(pipeline)
    written("Z-Image", "DoRA: `dora_scale`", tmp_path / "dora.safetensors")
    with pytest.raises(
        InputError, match=r"dora\.safetensors is a DoRA, .* \(torch\.float8_e4m3fn\)"
    ):
        put_on_model_loras(pipeline, [model_lora(tmp_path / "dora.safetensors")], CPU, silent)


def test_several_are_added_up_before_they_are_rounded(tmp_path: Path) -> None:
    layers = Layers(as_they_are, tmp_path, None)
    before = {k: v.weight.double() for k, v in layers_of(layers.pipeline).items()}
    loras = [model_lora(layers.turbo_file, 0.5), model_lora(layers.style_file, -0.25)]
    put_on_model_loras(layers.pipeline, loras, CPU, silent)
    style = style_deltas(layers.style_file)
    for key, delta in layers.turbo.items():
        expected = before[key] + 0.5 * delta.double() - 0.25 * style[key].double()
        found = layers_of(layers.pipeline)[key].weight.double()
        assert (found - expected).abs().max() < 1e-5, key


def test_pictures_with_a_fused_lora_are_those_with_the_same_lora_of_the_task(
    tiny_model: Path, tiny_loras: list[Path]
) -> None:
    turbo, style = tiny_loras
    plain = NativeImageGenerator(spec_for(str(tiny_model)), silent)
    fused = NativeImageGenerator(
        replace(spec_for(str(tiny_model)), model_loras=(model_lora(turbo),)), silent
    )
    for generator in (plain, fused):
        generator.load()
    assert not np.array_equal(drawn(plain), drawn(fused))
    off = np.abs(drawn(plain, turbo).astype(int) - drawn(fused).astype(int))
    assert off.max() <= 1
    assert not np.array_equal(drawn(fused), drawn(fused, style))
    assert np.array_equal(drawn(fused), drawn(fused)), "the style left no trace"


@pytest.mark.parametrize(
    "scheduler", [{"class": "FlowMatchLCMScheduler"}, {"stochastic_sampling": True}]
)
def test_noise_that_is_added_in_the_steps_is_of_the_pictures_seed(
    scheduler: dict[str, Any], tiny_model: Path
) -> None:
    """Whatever was drawn before, and whatever is drawn at the same time."""
    family = NativeImageGenerator(
        replace(spec_for(str(tiny_model)), scheduler=scheduler, group_size=2), silent
    )
    family.load()
    first, other = drawn(family, seed=1), drawn(family, seed=2)
    assert not np.array_equal(first, other)
    assert np.array_equal(drawn(family, seed=1), first)
    leases = [replace(lease(seed=seed), lease_id=str(seed)) for seed in (1, 2)]
    for product, alone in zip(family.run(leases), (first, other), strict=True):
        assert isinstance(product, Picture)
        assert np.abs(np.asarray(product.image).astype(int) - alone).max() <= 2


def test_compiled_blocks_share_their_code_and_each_has_its_own_lora_beside_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch takes the code of a block for the next, whatever hooks there are on the layers."""
    monkeypatch.setattr("workers.model_loras.EXACT_TYPES", ())
    pipeline = build("Z-Image")
    transformer = pipeline.transformer
    blocks = [transformer.noise_refiner[0].feed_forward, transformer.layers[0].feed_forward]
    without = transformer.context_refiner[0].feed_forward
    tensors = {}
    for place in ("noise_refiner.0", "layers.0"):
        for name in ("w1", "w2", "w3"):
            layer = transformer.get_submodule(f"{place}.feed_forward.{name}")
            lora = f"transformer.{place}.feed_forward.{name}"
            tensors[f"{lora}.lora_A.weight"] = torch.randn(4, layer.in_features)
            tensors[f"{lora}.lora_B.weight"] = torch.randn(layer.out_features, 4)
    save_file(tensors, tmp_path / "turbo.safetensors")
    put_on_model_loras(pipeline, [model_lora(tmp_path / "turbo.safetensors")], CPU, silent)
    x = torch.randn(2, blocks[0].w1.in_features)
    torch._dynamo.reset()
    counted: dict[str, Any] = torch._dynamo.utils.counters["stats"]
    with torch.no_grad():
        expected = [block(x) for block in (without, *blocks)]
        for block in (without, *blocks):
            block.compile(fullgraph=True, backend="eager")  # what cannot be traced is refused
        before = counted["unique_graphs"]
        for block, wanted in zip((without, *blocks), expected, strict=True):
            assert torch.allclose(block(x), wanted, rtol=1e-4, atol=1e-4)
    assert counted["unique_graphs"] - before == 2, "without and with"
