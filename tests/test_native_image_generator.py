"""Real diffusers pipelines in real workers: pixels, LoRAs, guidance, and what cannot be loaded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.checkpoints.lora_files import content_hash
from core.devices import worker_specs
from core.devices.device import choose_devices
from core.devices.model_choice import ModelChoice
from core.errors import InputError, LoraError, MultiGPUError
from core.memory_modes import Dtype
from core.messages import Lease, decode, encode
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.settings import load_settings
from core.store.provenance import read_provenance
from core.tasks import GenerateTask, Lora
from core.worker_spec import WorkerSpec
from tests.conftest import DEVICE

SMALL: dict[str, Any] = {"width": 32, "height": 32, "num_inference_steps": 2}


def pixels(path: str | None) -> np.ndarray[Any, Any]:
    assert path is not None
    return np.asarray(Image.open(path))


def draw(
    model: Path, folder: Path, tasks: list[dict[str, Any]], workers: int
) -> list[np.ndarray[Any, Any]]:
    config = {"model": str(model), "defaults": SMALL}
    with MultiGPUImageGenerator(workers, config=config, output_dir=folder) as generator:
        results = generator.generate_batch(tasks)
    assert [r.error for r in results] == [None] * len(tasks)
    return [pixels(r.output_path) for r in results]


def test_pixels_depend_on_the_task_and_not_on_the_number_of_workers(
    tiny_model: Path, tiny_loras: list[Path], tmp_path: Path
) -> None:
    loras = [{}, {"lora_path": str(tiny_loras[0])}, {"lora_path": str(tiny_loras[1])}]
    tasks = [{"prompt": f"a {c} house", **loras[i % 3]} for i, c in enumerate(["red", "blue"] * 6)]
    one, two, four = (draw(tiny_model, tmp_path / str(n), tasks, n) for n in (1, 2, 4))
    for a, b, c in zip(one, two, four, strict=True):
        assert np.array_equal(a, b) and np.array_equal(a, c)
    assert not np.array_equal(one[0], one[2])


def test_a_picture_beyond_the_positions_of_the_model_is_refused_by_name(
    tiny_model: Path, tmp_path: Path
) -> None:
    """On a GPU it would end the worker's process, and each one that tries it again."""
    config = {"model": str(tiny_model), "defaults": SMALL}
    tasks: list[dict[str, Any]] = [
        {"prompt": "wide", "width": 1040},
        {"prompt": "high", "height": 2048},
        {"prompt": "x"},
    ]
    with MultiGPUImageGenerator(1, config=config, output_dir=tmp_path) as generator:
        wide, high, small = generator.generate_batch(tasks)
    assert "width: " in str(wide.error) and "1024 pixels at most (found 1040)" in str(wide.error)
    assert "height: " in str(high.error) and "(found 2048)" in str(high.error)
    assert (wide.attempts, high.attempts, small.status) == (1, 1, "done")


def test_provenance_says_how_the_picture_was_made(tiny_model: Path, tmp_path: Path) -> None:
    task = {"prompt": "a red house — ☃", "negative_prompt": "rain", "cfg": 1.0, "seed": 5}
    draw(tiny_model, tmp_path, [{**task, "metadata": {"mood": "calm"}}], 1)
    [file] = tmp_path.glob("*.png")
    with Image.open(file) as image:
        text = image.info["parameters"]
        assert "prompt" not in image.info and "workflow" not in image.info
    lines = text.splitlines()
    assert lines[:2] == ["a red house — ☃", "Negative prompt: rain"]
    assert lines[2].startswith(
        "Steps: 2, Sampler: FlowMatchEulerDiscrete, CFG scale: 1.0, Seed: 5, Size: 32x32, "
        "Model: tiny, Model hash: "
    )
    full = read_provenance(file)
    assert full["task"]["metadata"] == {"mood": "calm"} and full["task"]["seed"] == 5
    assert full["used"]["pipeline"] == "ZImagePipeline"


# -- the same class inside this process, where its pipeline can be looked into -----------------


@pytest.fixture
def family(tiny_model: Path) -> Any:
    from workers.models.native_image_generator import NativeImageGenerator

    native = NativeImageGenerator(spec_for(str(tiny_model)), lambda level, text: None)
    native.load()
    return native


def spec_for(model: str, **workers: Any) -> WorkerSpec:
    """One CPU worker's, with changed settings of the section `workers`."""
    settings = load_settings(
        {"workers": {"max_resident_loras": 2, "max_cached_prompts": 4, **workers}}
    )
    [device] = choose_devices(1, None, DEVICE)
    dtype: Dtype = "auto" if DEVICE == "cpu" else "float32"
    chosen = ModelChoice(model, "tiny#0", "for a test", dtype=dtype)
    return worker_specs.spec_for(device, "generate", chosen, settings, threads=1)


def lease(lora: Path | None = None, sha256: str | None = None, **fields: Any) -> Lease:
    import hashlib

    if lora is not None and sha256 is None:
        sha256 = hashlib.sha256(lora.read_bytes()).hexdigest()
    task = GenerateTask(
        **{"prompt": "a red house", "seed": 1, **SMALL, **fields},
        lora_path=str(lora) if lora else None,
    )
    return Lease("id", 1, task, sha256, "fingerprint", "unused.png")


def lease_of(*loras: tuple[Path, float]) -> Lease:
    """Of a task with a stack, as it comes to a worker."""
    stack = tuple(Lora(str(file), strength) for file, strength in loras)
    task = GenerateTask("a red house", seed=1, **SMALL, loras=stack)
    hashes = tuple(content_hash(file) for file, _ in loras)
    sent = Lease("id", 1, task, None, "fingerprint", "unused.png", loras_sha256=hashes)
    came: Lease = decode(encode(sent))
    assert came == sent
    return came


def drawn(family: Any, *args: Any, **fields: Any) -> np.ndarray[Any, Any]:
    return np.asarray(family.run([lease(*args, **fields)])[0].image)


def test_a_task_without_a_lora_never_feels_the_one_before(
    family: Any, tiny_loras: list[Path]
) -> None:
    before = drawn(family)
    styled = drawn(family, tiny_loras[0])
    after = drawn(family)
    assert np.array_equal(before, after)
    assert not np.array_equal(before, styled)


def test_the_strength_belongs_to_the_task(family: Any, tiny_loras: list[Path]) -> None:
    plain = drawn(family)
    whole = drawn(family, tiny_loras[0])
    half = drawn(family, tiny_loras[0], lora_strength=0.5)
    none = drawn(family, tiny_loras[0], lora_strength=0.0)
    assert np.array_equal(plain, none)
    assert not np.array_equal(whole, half) and not np.array_equal(half, plain)
    assert np.array_equal(whole, drawn(family, tiny_loras[0]))


def test_adapters_stay_until_their_place_is_needed(
    tiny_model: Path, tiny_loras: list[Path]
) -> None:
    from workers.models.native_image_generator import NativeImageGenerator

    family = NativeImageGenerator(
        spec_for(str(tiny_model), max_resident_loras=1), lambda level, text: None
    )
    family.load()
    first, second = (drawn(family, lora) for lora in tiny_loras)
    assert np.array_equal(first, drawn(family, tiny_loras[0]))
    assert family.take_lora_counts().loads == 3 and len(family.resident_loras()) == 1
    assert np.array_equal(second, drawn(family, tiny_loras[1]))
    drawn(family, tiny_loras[1], lora_strength=0.3)
    counts = family.take_lora_counts()
    assert (counts.loads, counts.switches) == (1, 1)


def test_a_lora_that_fits_no_layer_fails_and_leaves_no_trace(
    family: Any, tiny_loras: list[Path], tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    plain, styled = drawn(family), drawn(family, tiny_loras[0])
    tensors = load_file(tiny_loras[1])
    wrong_size = tmp_path / "wrong_size.safetensors"
    save_file({k: torch.cat([v, v], dim=-1) for k, v in tensors.items()}, wrong_size)
    wrong_names = tmp_path / "wrong_names.safetensors"
    save_file({k.replace("attention", "elsewhere"): v for k, v in tensors.items()}, wrong_names)
    for file in (wrong_size, wrong_names):
        with pytest.raises(LoraError, match="does not fit ZImagePipeline"):
            drawn(family, file)
        assert np.array_equal(plain, drawn(family))
        assert np.array_equal(styled, drawn(family, tiny_loras[0]))


def test_a_lora_that_changed_during_the_run_is_refused(family: Any, tiny_loras: list[Path]) -> None:
    with pytest.raises(LoraError, match="changed during the run"):
        drawn(family, tiny_loras[0], sha256="0" * 64)


@pytest.mark.parametrize(
    ("fields", "passes_per_step"),
    [({"cfg": 1.0}, 1), ({"cfg": 0.5}, 1), ({"cfg": 3.0}, 2), ({"guidance_scale": 0.0}, 1)],
)
def test_cfg_1_runs_one_forward_pass_per_step(
    family: Any, fields: dict[str, Any], passes_per_step: int
) -> None:
    images = 0

    def count(module: Any, args: Any, output: Any) -> None:
        nonlocal images
        images += len(args[0])

    hook = family.pipeline.transformer.register_forward_hook(count)
    drawn(family, **fields)
    hook.remove()
    assert images == passes_per_step * SMALL["num_inference_steps"]


def test_cfg_is_comfyuis_scale(family: Any) -> None:
    assert np.array_equal(drawn(family, cfg=3.0), drawn(family, guidance_scale=2.0))


def test_numbers_that_are_no_picture_are_a_failure(family: Any) -> None:
    import torch

    for parameter in family.pipeline.vae.decoder.conv_out.parameters():
        torch.nn.init.constant_(parameter, float("nan"))
    with pytest.raises(MultiGPUError, match="NaN instead of a picture"):
        drawn(family)


def test_weights_in_pickle_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    import shutil

    import torch
    from safetensors.torch import load_file

    from workers.models.native_image_generator import NativeImageGenerator

    folder = tmp_path / "pickled"
    shutil.copytree(tiny_model, folder)
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    native = NativeImageGenerator(spec_for(str(folder)), lambda level, text: None)
    with pytest.raises((OSError, InputError)):
        native.load()


def test_the_same_words_are_encoded_once(family: Any) -> None:
    seen: list[int] = []
    family.pipeline.text_encoder.register_forward_hook(lambda *_: seen.append(1))

    task = {"prompt": "a red house", "negative_prompt": "rain", "guidance_scale": 2.0}
    first = drawn(family, **task)
    assert len(seen) == 2  # the prompt and its negative
    assert not np.array_equal(drawn(family, **{**task, "seed": 2}), first)
    drawn(family, **{**task, "prompt": "a blue house"})
    assert len(seen) == 3
    assert np.array_equal(drawn(family, **task), first)
    assert len(seen) == 3
    family.free_memory()
    assert np.array_equal(drawn(family, **task), first)
    assert len(seen) == 5


def test_only_so_many_prompts_are_kept(family: Any) -> None:
    for n in range(9):
        family.run([lease(prompt=f"{n}")])
    assert len(family._prompts) == family.spec.max_cached_prompts == 4


# The tiny tokenizer makes at least a token of a word; the pipeline cuts off behind 512.
@pytest.mark.parametrize(
    ("words", "length"),
    [(0, 64), (5, 64), (40, 128), (450, 512), (2000, 512)],
)
def test_a_prompt_is_encoded_at_its_own_length_to_the_same_bits(
    family: Any, words: int, length: int
) -> None:
    import torch

    lengths: list[int] = []

    def note(module: Any, args: Any, given: dict[str, Any]) -> None:
        lengths.append(given["input_ids"].shape[1])

    family.pipeline.text_encoder.register_forward_pre_hook(note, with_kwargs=True)
    texts = [" ".join(["house"] * words), "a red house"]
    found = family.pipeline._encode_prompt(texts, family._device)
    assert lengths == [length]
    expected = type(family.pipeline)._encode_prompt(family.pipeline, list(texts), family._device)
    assert [len(e) for e in found] == [len(e) for e in expected]
    assert all(map(torch.equal, found, expected))


def test_a_prompt_that_its_template_makes_long_is_encoded_whole(
    family: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More words of the template than room was left for: nothing may be cut off for it."""
    import torch

    monkeypatch.setattr("workers.models.families.z_image.ROOM", -60)
    found = family.pipeline._encode_prompt(" ".join(["house"] * 100), family._device)
    monkeypatch.undo()
    expected = family.pipeline._encode_prompt(" ".join(["house"] * 100), family._device)
    assert torch.equal(found[0], expected[0])


def test_a_relative_of_z_image_encodes_in_its_own_way(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from diffusers import DiffusionPipeline, ZImageOmniPipeline, ZImagePipeline

    from workers.models.native_image_generator import NativeImageGenerator

    plain = ZImagePipeline.from_pretrained(tiny_model, dtype=torch.float32)
    omni = ZImageOmniPipeline(**plain.components, siglip=None, siglip_processor=None)
    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", lambda *_, **__: omni)
    native = NativeImageGenerator(spec_for(str(tiny_model)), lambda level, text: None)
    assert native.load() == "ZImageOmniPipeline"
    pictures = [drawn(native, prompt=prompt) for prompt in ("a red house", "a blue house")]
    assert pictures[0].shape == (32, 32, 3) and not np.array_equal(pictures[0], pictures[1])
    assert np.array_equal(drawn(native), pictures[0]), "from the remembered prompt"
