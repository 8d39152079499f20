"""Memory modes: what they do to weights and pictures, what is said of them, and what is refused."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from apps.edit_benchmark.runner import EditBenchmark
from apps.edit_benchmark.settings import load_benchmark_settings
from core.devices.model_choice import ModelChoice
from core.devices.optional_packages import saved_with
from core.errors import InputError
from core.memory_modes import FACTS, Mode, changes_pixels, fp8_mode, is_kept, part_of
from core.model_identity import Identity
from core.processes.forking import Forking
from core.processes.spawning import Spawning
from core.store.provenance import encode_picture, read_provenance
from tests import tiny_pipelines
from tests.conftest import PATIENCE, PROJECT
from tests.inline_command import InlineCommand
from tests.memory_modes import (
    CPU,
    MODES,
    OFFLOADED,
    QUANTISED,
    dtype_for,
    no_log,
    saved,
    spec_in,
    without_a_gpu,
)
from tests.test_editors import edited
from tests.test_native_image_generator import drawn, lease
from tests.test_plan_line import KEPT, command, model_folder, tweets
from workers.base_layers import weight_of
from workers.models.loading import load_pipeline

__all__ = ["command"]  # a fixture


def generator(mode: Mode, model: Path, log: list[str] | None = None, **changes: Any) -> Any:
    from workers.models.native_image_generator import NativeImageGenerator

    lines = [] if log is None else log
    spec = spec_in(mode, model, **changes)
    family = NativeImageGenerator(spec, lambda level, text: lines.append(f"{level} {text}"))
    family.load()
    return family


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of checkpoints that no test changes."""
    return tmp_path_factory.mktemp("models")


# -- pictures ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_loras(tiny_model: Path, tiny_loras: list[Path]) -> Callable[[Any], Any]:
    """LoRAs in turn, each with the picture that all weights in a number type draw with it."""
    order = [None, tiny_loras[0], None, tiny_loras[1], tiny_loras[0]]

    @cache
    def pictures(dtype: Any) -> list[tuple[Path | None, Any]]:
        full = generator("full", tiny_model, dtype=dtype)
        assert "memory" not in full.run([lease()])[0].used
        return [(lora, drawn(full, lora).astype(int)) for lora in order]

    return pictures


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_draws_and_says_so_in_the_picture(
    mode: Mode, tiny_model: Path, with_loras: Callable[[Any], Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    without_a_gpu(monkeypatch)
    expected_with = with_loras(dtype_for(mode))
    family = generator(mode, tiny_model)
    for lora, expected in expected_with:
        off = np.abs(drawn(family, lora).astype(int) - expected)
        assert (off.max() > 0) == changes_pixels(mode)
        assert off.mean() < 20, "another picture altogether"
    assert np.array_equal(drawn(family), drawn(family)), "nothing is left behind by LoRAs"
    task = lease()
    [picture] = family.run([task])
    assert picture.used["memory"] == mode
    file = tmp_path / "picture.png"
    file.write_bytes(encode_picture(picture.image, task, picture.used))
    assert f"Memory mode: {mode}" in Image.open(file).info["parameters"]
    assert read_provenance(file)["used"]["memory"] == mode


@pytest.fixture(scope="module")
def in_full(models: Path) -> Callable[[str], Any]:
    """The picture that a family draws with all weights where they are needed."""
    return cache(lambda family: drawn(generator("full", saved(family, models))))


@pytest.mark.parametrize("mode", OFFLOADED)
@pytest.mark.parametrize("family", ["SDXL", "FLUX", "Qwen-Image"])
def test_where_weights_wait_pictures_are_those_of_full(
    family: str,
    mode: Mode,
    models: Path,
    in_full: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_a_gpu(monkeypatch)
    found = drawn(generator(mode, saved(family, models)))
    assert np.array_equal(found, in_full(family))


@pytest.mark.parametrize("name", ["qwen_image_edit_plus", "flux_kontext"])
def test_an_editor_edits_in_every_mode(
    name: str, pictures: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers.models.native_image_editor import NativeImageEditor

    without_a_gpu(monkeypatch)
    getattr(tiny_pipelines, f"build_{name}")().save_pretrained(tmp_path / name)

    def edit(mode: Mode, dtype: Any) -> Any:
        spec = replace(spec_in(mode, tmp_path / name), role="edit", dtype=dtype)
        editor = NativeImageEditor(spec, lambda level, text: None)
        editor.load()
        return edited(editor, pictures[:1])

    in_full = {dtype: edit("full", dtype) for dtype in {dtype_for(mode) for mode in MODES}}
    for mode in MODES:
        found, full = edit(mode, dtype_for(mode)), in_full[dtype_for(mode)]
        assert found.used["memory"] == mode
        off = np.abs(np.asarray(found.image).astype(int) - np.asarray(full.image).astype(int))
        assert off.mean() < 20 and (off.max() > 0) <= changes_pixels(mode), mode


def test_several_pictures_at_once_come_out_in_every_mode(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_a_gpu(monkeypatch)
    leases = [replace(lease(seed=n), lease_id=str(n)) for n in range(3)]
    for mode in MODES:
        family = generator(mode, tiny_model)
        alone = [np.asarray(family.run([one])[0].image).astype(int) for one in leases]
        together = [np.asarray(p.image).astype(int) for p in family.run(leases)]
        moved = max(np.abs(a - b).mean() for a, b in zip(alone, together, strict=True))
        assert moved < 2, mode


# -- weights -----------------------------------------------------------------------------------


def layers(model: nn.Module) -> Mapping[str, Any]:
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}


def stored_bytes(weight: Any) -> float:
    """With all that belongs to it."""
    inner = [getattr(weight, name, None) for name in ("qdata", "scale")]
    state = getattr(weight, "quant_state", None)
    tensors = [t for t in inner if torch.is_tensor(t)] or [weight]
    tensors += [state.absmax] if state is not None else []
    return float(sum(t.numel() * t.element_size() for t in tensors))


def computes_with(layer: nn.Linear, weight: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether this is the weight of a layer, whatever it stores."""
    x = torch.randn(3, layer.in_features).to(dtype)
    bias = None if layer.bias is None else layer.bias.float()
    expected = nn.functional.linear(x.float(), weight, bias)
    off = (layer(x).float() - expected).abs().max() / expected.abs().max()
    return bool(off < (0.1 if dtype == torch.bfloat16 else 1e-4))


@pytest.fixture(scope="module")
def whole(models: Path) -> Callable[[str], Any]:
    """A family's pipeline with its weights as they were saved; not to be changed."""
    return cache(lambda family: load_pipeline(spec_in("full", saved(family, models)), CPU, no_log))


@pytest.mark.parametrize("mode", QUANTISED)
def test_weights_take_the_bytes_that_main_counts_on(
    mode: Mode, models: Path, whole: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_a_gpu(monkeypatch)
    facts = FACTS[mode]
    assert facts.weight_bytes is not None
    for family in ("Z-Image", "Qwen-Image", "FLUX", "SDXL"):
        pipeline: Any = load_pipeline(spec_in(mode, saved(family, models)), CPU, no_log)
        full = whole(family)
        for name, component in pipeline.components.items():
            if not isinstance(component, nn.Module):
                continue
            part = part_of(name, type(component).__name__)
            before = layers(getattr(full, name))
            for layer, module in layers(component).items():
                count = before[layer].weight.numel()
                small = part is not None and not is_kept(part, layer)
                small &= facts.convolutions or isinstance(module, nn.Linear)
                if mode == "nf4" and layer == "proj_out":
                    continue  # kept where no block has one, too
                sizes = before[layer].weight.shape
                if mode == "fp8" and any(size % 16 for size in sizes[:2]):
                    continue  # torchao leaves those of sizes that no large model has
                plain = before[layer].weight.dtype if mode != "fp8" else torch.bfloat16
                expected = facts.weight_bytes if small else plain.itemsize
                # Tiny rows make more of scales than large ones.
                scales = 4 * len(module.weight) + 8 if small else 0
                found = stored_bytes(module.weight)
                assert count * expected <= found + 1 <= count * expected + scales + 1, layer
                weight, original = weight_of(module), before[layer].weight.float()
                if (
                    mode != "nf4" or count >= 4096
                ):  # bitsandbytes' kernel for a CPU is for large ones
                    off = (weight - original).abs().mean()
                    assert off <= 0.15 * original.abs().mean(), layer
                if isinstance(module, nn.Linear):
                    assert computes_with(module, weight, plain), layer


def test_what_diffusers_keeps_from_being_cast_is_kept() -> None:
    import diffusers

    seen = 0
    for name in ("ZImageTransformer2DModel", "QwenImageTransformer2DModel",
                 "FluxTransformer2DModel", "Flux2Transformer2DModel", "SD3Transformer2DModel",
                 "UNet2DConditionModel"):  # fmt: skip
        kind = getattr(diffusers, name)
        with torch.device("meta"):
            model = kind()
        patterns = kind._skip_layerwise_casting_patterns or ["norm"]
        for layer in layers(model):
            if any(pattern in layer for pattern in patterns):
                assert is_kept("denoiser", layer), f"{name}: {layer}"
                seen += 1
        sizes = {layer: module.weight.numel() for layer, module in layers(model).items()}
        kept = sum(size for layer, size in sizes.items() if is_kept("denoiser", layer))
        assert kept < 0.35 * sum(sizes.values()), f"{name} would hardly become smaller"
    assert seen > 100


@pytest.mark.parametrize("mode", [m for m in MODES if not FACTS[m].compiles])
def test_a_mode_that_cannot_be_compiled_says_so_and_draws(
    mode: Mode, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_a_gpu(monkeypatch)
    log: list[str] = []
    family = generator(mode, tiny_model, log, compile="always")
    drawn(family)
    assert "compiled" not in family.run([lease()])[0].used
    [line] = [line for line in log if "compile" in line]
    assert line.startswith(f"WARNING compile: blocks are not compiled with memory: {mode}")


# -- what is said ------------------------------------------------------------------------------


def test_a_plan_says_that_the_memory_mode_changed(command: InlineCommand) -> None:
    file = command.write("tweets.json", tweets(3))
    model = model_folder(command.folder / "b")
    command.plan(file, model=model)
    assert command.plan(file, model=model, memory="full") == "3 unchanged."
    assert command.plan(file, model=model, memory="fp8") == (
        f"3 changed (memory mode full -> fp8_cast).{KEPT}"
    )
    assert command.plan(file, model=model, variant="fp16") == (
        f"3 changed (memory mode fp8_cast -> full, variant none -> fp16).{KEPT}"
    )
    attention = {"attention_backend": "flash"}
    assert command.plan(file, model=model, memory="int8", workers=attention) == (
        f"3 changed (variant fp16 -> none, memory mode full -> int8, "
        f"attention backend auto -> flash).{KEPT}"
    )


def test_modes_of_the_same_arithmetic_leave_pictures_as_they_are() -> None:
    model = ModelChoice("m", "m#0123456789abcdef", "why")
    known = {replace(model, memory=mode).deciding for mode in OFFLOADED}
    assert known == {model.deciding} == {"m#0123456789abcdef"}
    assert len({replace(model, memory=mode).deciding for mode in QUANTISED}) == len(QUANTISED)


@pytest.mark.parametrize(
    "text",
    [
        "demo-model#0123456789abcdef",
        "a folder with = and spaces#0123456789abcdef memory=nf4",
        "org/name@main variant=fp16 memory=int8 step_cache=0.1 flash",
        "inline flash",
    ],
)
def test_what_decides_is_read_as_it_was_written(text: str) -> None:
    assert str(Identity.read(text)) == text
    assert not {" ", "#"} & set("".join(Identity.read(text).beside.values()))


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["nf4", "offload", "group_offload", "sequential_offload"])
def test_a_mode_that_needs_a_gpu_is_refused_without_one(
    mode: str, command: InlineCommand, tiny_model: Path
) -> None:
    file = command.write("tweets.json", tweets(1))
    code, errors = command.run(file, model=str(tiny_model), memory=mode)
    assert code == 2
    [line] = errors.splitlines()
    assert f"memory: {mode} needs a GPU, and this run has none" in line


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"editor": {"memory": "offload"}}, "editor.memory: offload needs a GPU"),
        ({"judge": {"memory": "nf4"}}, "judge.memory: nf4 needs a GPU"),
        (
            {"judge": {"memory": "int8", "type": "clip", "model": "a/clip"}},
            "judge.memory: int8 is for chat models",
        ),
    ],
)
def test_the_benchmark_names_the_role_whose_mode_is_refused(
    section: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        EditBenchmark(load_benchmark_settings(section), tmp_path)


def test_a_judge_is_one_component_and_cannot_wait_as_such() -> None:
    from core.memory_modes import refuse_unusable

    with pytest.raises(InputError, match=r"judge.memory: offload keeps one component .* group_off"):
        refuse_unusable("offload", "score", on_cpu=False, key="judge.memory")
    refuse_unusable("offload", "edit", on_cpu=False)


def test_what_was_saved_in_fewer_bits_is_not_stored_so_again(tmp_path: Path) -> None:
    model = saved("Z-Image", tmp_path)
    file = model / "transformer" / "config.json"
    said = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    file.write_text(json.dumps({**json.loads(file.read_text()), "quantization_config": said}))
    with pytest.raises(InputError, match=r"memory: int8 cannot be used with .* whose transf"):
        load_pipeline(spec_in("int8", model), CPU, no_log)


WITHOUT = "import sys; [sys.modules.setdefault(p, None) for p in ('torchao', 'bitsandbytes')]; "


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("mode", ["int8", "nf4"])
def test_a_missing_package_is_one_line_with_the_command_that_installs_it(
    mode: str, tiny_model: Path
) -> None:
    package = FACTS[mode].package  # type: ignore[index]
    code = (
        f"{WITHOUT} from core.memory_modes import refuse_unusable\n"
        f"try: refuse_unusable({mode!r}, 'generate', on_cpu=False)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    said = python(code)
    assert said.startswith("InputError") and len(said.splitlines()) == 1
    assert f"{mode} needs {package}, which is missing: pip install {package}==" in said
    pinned = re.findall(r"^(\S+==\S+)", (PROJECT / "requirements-extra.txt").read_text(), re.M)
    assert said.split()[-1] in pinned


def test_fp8_computes_in_8_bits_only_where_all_can() -> None:
    ada, ampere = (8, 9), (8, 6)
    assert fp8_mode("auto", [ada, (9, 0)]) == "fp8"
    assert fp8_mode("auto", [ada, ampere]) == fp8_mode("auto", [None]) == "fp8_cast"
    assert fp8_mode("float16", [ada]) == "fp8_cast"
    code = f"{WITHOUT} from core.memory_modes import fp8_mode; print(fp8_mode('auto', [(9, 0)]))"
    assert python(code).strip() == "fp8_cast"


# -- packages that are installed, and not needed -----------------------------------------------


def checkpoint(folder: Path, **config: Any) -> ModelChoice:
    (folder / "transformer").mkdir(parents=True)
    (folder / "transformer" / "config.json").write_text(json.dumps(config))
    return ModelChoice(str(folder), "m#0123456789abcdef", "why")


def test_a_worker_gets_the_packages_of_its_mode_and_of_its_checkpoint(tmp_path: Path) -> None:
    plain = checkpoint(tmp_path / "plain", _class_name="ZImageTransformer2DModel")
    method = {"quant_method": "bitsandbytes"}
    quantised = checkpoint(tmp_path / "quantised", quantization_config=method)
    file = tmp_path / "one.safetensors"
    file.touch()
    simulated = ModelChoice("simulated", "simulated", "why")
    in_file = replace(plain, path_or_id=str(file), base_model=plain.path_or_id)
    for model in (plain, simulated, in_file):
        assert saved_with(model) == frozenset()
    for model in (quantised, replace(in_file, base_model=quantised.path_or_id)):
        assert saved_with(model) == frozenset({"bitsandbytes"})
    unknown = ModelChoice("nobody/never-downloaded", "nobody/never-downloaded", "why")
    assert saved_with(unknown) is None, "its configs say, once it is here"
    spec = spec_in("full", Path(plain.path_or_id))
    assert spec.packages == frozenset()
    assert replace(spec, memory="int8").packages == {"torchao"}
    for known in (saved_with(quantised), saved_with(unknown)):
        later = replace(spec, memory="int8", saved_with=known)
        assert later.packages == {"torchao", "bitsandbytes"}


def test_a_worker_that_comes_to_need_a_package_is_not_forked_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its memory ended while it loaded in a mode that needed none."""
    started = object()
    monkeypatch.setattr(Spawning, "start", lambda *args: started)
    ready = threading.Event()
    forking = Forking("simulated", PATIENCE, ready.set, {})
    spec = replace(spec_in("full", tmp_path), memory="int8")
    assert forking.start(lambda *args: None, (spec, None, None), "gpu0", {}) is started
    assert ready.wait(PATIENCE), "this process's environment is another while a server starts"
