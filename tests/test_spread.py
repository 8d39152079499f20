"""A model over several GPUs of one worker: the same pictures, and nothing anywhere else.

The GPUs are played by `tests.pretend_gpus`: they compute on the CPU, and refuse what CUDA refuses.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline, QwenImagePipeline
from PIL import Image
from torch import nn

from apps.edit_benchmark.settings import load_benchmark_settings
from core.checkpoints.lora_files import content_hash
from core.devices.edit_models import DEMO_EDITOR, DEMO_JUDGE
from core.devices.model_choice import DEMO_MODEL
from core.errors import InputError
from core.judge import load_judge
from core.messages import Lease
from core.model_lora import ModelLora
from core.tasks import EditTask, ScoreTask
from core.worker_spec import WorkerSpec
from tests.pretend_gpus import PretendGpus, pretend_memory
from tests.test_native_image_generator import drawn, spec_for
from tests.tiny_pipelines import build_sdxl, flux_components, qwen_image_components
from workers.spread import ROOM_TO_DECODE, ROOM_TO_WORK, check_places

KIB = 1024
ONE = [KIB * KIB, 0]  # KiB: all is on the first
LORAS = [DEMO_MODEL.parent / "loras" / f"{name}.safetensors" for name in ("snow", "neon")]


@pytest.fixture(autouse=True)
def in_this_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformers loads in threads of its own, in which no GPUs are played."""
    monkeypatch.setenv("HF_DEACTIVATE_ASYNC_LOAD", "1")


def on_gpus(
    monkeypatch: pytest.MonkeyPatch, kib: Sequence[int], spec: WorkerSpec, decodes: bool = True
) -> WorkerSpec:
    """The same for GPUs with so much room for weights."""
    free = [number * KIB + ROOM_TO_WORK for number in kib]
    free[0] += ROOM_TO_DECODE if decodes else 0
    pretend_memory(monkeypatch, free)
    properties = SimpleNamespace(name="pretended")
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda i: properties)
    return replace(spec, device="cuda", device_count=len(kib), dtype="float32", name="gpu0+1")


def generator(spec: WorkerSpec, log: Callable[[str, str], None] = lambda level, text: None) -> Any:
    from workers.models.native_image_generator import NativeImageGenerator

    family = NativeImageGenerator(spec, log)
    family.load()
    return family


def places_of(module: nn.Module) -> set[str]:
    return {str(parameter.device) for parameter in module.parameters()}


@pytest.mark.slow
def test_a_split_transformer_draws_what_it_draws_on_one_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec, lines = spec_for(str(DEMO_MODEL)), []
    asked: list[tuple[Any, ...]] = [(), (LORAS[0],), (LORAS[1],), (LORAS[0],), ()]
    settings: dict[str, Any] = {"guidance_scale": 2.0, "negative_prompt": "snow"}
    with PretendGpus():
        on_one = generator(on_gpus(monkeypatch, ONE, spec))
        assert places_of(on_one.pipeline.transformer) == {"cuda:0"}
        expected = [drawn(on_one, *loras, **settings) for loras in asked]
        on_three = on_gpus(monkeypatch, [7 * KIB, 5 * KIB, 5 * KIB], spec)
        spread = generator(on_three, lambda level, text: lines.append(text))
        assert places_of(spread.pipeline.transformer) == {"cuda:0", "cuda:1", "cuda:2"}
        assert places_of(spread.pipeline.vae) == {"cuda:0"}
        found = [drawn(spread, *loras, **settings) for loras in asked]
        adapters = {
            (name.partition(".lora_")[0], str(parameter.device))
            for name, parameter in spread.pipeline.transformer.named_parameters()
            if ".lora_" in name
        }
        layers = {
            (name, str(layer.weight.device))
            for name, layer in spread.pipeline.transformer.named_modules()
            if hasattr(layer, "lora_A")
        }
    assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))
    assert not np.array_equal(found[0], found[1])
    assert adapters == layers and len({device for _, device in layers}) == 3
    assert any("transformer split over 0, 1, 2" in line for line in lines)


def save_flux(folder: Path) -> None:
    """With blocks of both kinds."""
    FluxPipeline(**flux_components(blocks=3, single_blocks=5)).save_pretrained(folder)


def save_qwen_image(folder: Path) -> None:
    QwenImagePipeline(**qwen_image_components(blocks=6)).save_pretrained(folder)


def save_sdxl(folder: Path) -> None:
    build_sdxl().save_pretrained(folder)


@pytest.mark.parametrize(
    ("save", "kib"),
    [
        (save_flux, [550, 500, 500]),
        (save_qwen_image, [500, 600, 600]),
        (save_sdxl, [450, 450]),
    ],
)
def test_every_pipeline_draws_the_same_over_several_gpus(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    save: Callable[[Path], None],
    kib: list[int],
) -> None:
    save(tmp_path)
    settings: dict[str, Any] = {"cfg": 2.0, "negative_prompt": "dark"}
    with PretendGpus():
        on_one = generator(on_gpus(monkeypatch, ONE, spec_for(str(tmp_path))))
        expected = drawn(on_one, **settings)
        spread = generator(on_gpus(monkeypatch, kib, spec_for(str(tmp_path))))
        parts = {k: v for k, v in spread.pipeline.components.items() if isinstance(v, nn.Module)}
        found = drawn(spread, **settings)
        devices = [places_of(part) for part in parts.values()]
    assert np.array_equal(expected, found)
    assert len(set.union(*devices)) == len(kib)


def test_an_editor_over_several_gpus_edits_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers.models.native_image_editor import NativeImageEditor

    source = tmp_path / "source.png"
    Image.effect_noise((96, 96), 80).convert("RGB").save(source)

    def edited(spec: WorkerSpec) -> tuple[Any, Any]:
        editor = NativeImageEditor(replace(spec, role="edit"), lambda level, text: None)
        editor.load()
        task = EditTask(
            "add snow",
            (str(source),),
            width=32,
            height=32,
            working_area=32 * 32,
            condition_area=32 * 32,
            num_inference_steps=2,
            true_cfg_scale=2.0,
            negative_prompt=" ",
            seed=1,
        )
        [product] = editor.run([Lease("id", 1, task, None, "fingerprint", "unused.png")])
        assert hasattr(product, "image")
        return np.asarray(product.image), editor.pipeline

    spec = spec_for(str(DEMO_EDITOR))
    with PretendGpus():
        expected, _ = edited(on_gpus(monkeypatch, ONE, spec))
        found, pipeline = edited(on_gpus(monkeypatch, [14 * KIB, 8 * KIB, 8 * KIB], spec))
        assert len(places_of(pipeline.transformer)) > 1
    assert np.array_equal(expected, found)


@pytest.mark.slow
@pytest.mark.parametrize("kib", [[3 * KIB] * 3, [100 * KIB] * 2])
def test_a_judge_over_several_gpus_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kib: list[int]
) -> None:
    from workers.judges.registry import create_judge

    pictures = [tmp_path / f"{i}.png" for i in range(2)]
    for picture in pictures:
        Image.effect_noise((64, 64), 80).convert("RGB").save(picture)
    settings = load_benchmark_settings({"judge": {"prompts": "demo.yaml"}}).judge
    judge = load_judge(settings.model_copy(update={"max_new_tokens": 12}))

    def verdict(spec: WorkerSpec) -> Any:
        family: Any = create_judge(
            replace(spec, role="score", judge=judge), lambda level, text: None
        )
        family.load()
        task = ScoreTask("add snow", (str(pictures[0]),), str(pictures[1]), seed=1)
        [said] = family.run([Lease("id", 1, task, None, "fingerprint", "unused.json")])
        used = {name: value for name, value in said.used.items() if name != "device"}
        return used, said.details, family.model

    spec = spec_for(str(DEMO_JUDGE))
    with PretendGpus():
        expected = verdict(on_gpus(monkeypatch, ONE, spec, decodes=False))
        found = verdict(on_gpus(monkeypatch, kib, spec, decodes=False))
        split = len(places_of(found[2])) > 1
    assert expected[:2] == found[:2]
    assert split == (kib[0] < 100 * KIB)  # one GPU is enough where the judge fits into it


def test_a_model_too_large_for_all_gpus_names_the_part_and_what_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with (
        PretendGpus(),
        pytest.raises(InputError, match=r"gpus_per_worker: 2: transformer .* needs .* GiB"),
    ):
        generator(on_gpus(monkeypatch, [8 * KIB, 5 * KIB], spec_for(str(DEMO_MODEL))))


def test_a_memory_mode_over_several_gpus_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = replace(spec_for(str(DEMO_MODEL)), memory="offload")
    with PretendGpus(), pytest.raises(InputError, match=r"memory: offload is for workers with one"):
        generator(on_gpus(monkeypatch, [90 * KIB, 90 * KIB], spec))


def test_what_is_compiled_by_wish_is_not_where_tensors_change_their_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[str] = []
    spec = replace(spec_for(str(DEMO_MODEL)), compile="always")
    with PretendGpus():
        spec = on_gpus(monkeypatch, [90 * KIB, 90 * KIB], spec)
        spread = generator(spec, lambda level, text: lines.append(text))
        assert drawn(spread).any()
    assert any("workers.compile: nothing is compiled" in line for line in lines)


def test_a_tensor_that_is_on_no_gpu_is_named() -> None:
    part = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device="meta"))
    with pytest.raises(InputError, match=r"2 tensors of unet .* 1.weight, are on meta"):
        check_places({"unet": part}, [torch.device("cpu")])


def test_the_pretended_gpus_refuse_what_real_ones_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the tests here could not fail."""
    from workers import spread

    monkeypatch.setattr(spread, "connect", lambda model, at, devices: None)
    with PretendGpus():
        spec = on_gpus(monkeypatch, [7 * KIB, 5 * KIB, 5 * KIB], spec_for(str(DEMO_MODEL)))
        unconnected = generator(spec)
        with pytest.raises(RuntimeError, match="expected all tensors on one device"):
            drawn(unconnected)


@pytest.mark.slow
def test_loras_of_the_model_are_fused_into_layers_on_every_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = LORAS[0]
    lora = ModelLora(str(path), path.name, content_hash(path), 0.8)
    spec = replace(spec_for(str(DEMO_MODEL)), model_loras=(lora,))
    with PretendGpus():
        expected = drawn(generator(on_gpus(monkeypatch, ONE, spec)))
        on_three = on_gpus(monkeypatch, [7 * KIB, 5 * KIB, 5 * KIB], spec)
        spread = generator(on_three)
        assert np.array_equal(expected, drawn(spread))
        assert len(places_of(spread.pipeline.transformer)) == 3
        plain = generator(replace(on_three, model_loras=()))
        assert not np.array_equal(expected, drawn(plain))
