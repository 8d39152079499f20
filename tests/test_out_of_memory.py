"""A picture that does not fit into the device's memory is drawn in another way, and says so.

Here the decoder runs out of memory with whatever is larger than it can hold.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.hooks import CpuOffload
from PIL import Image

from core.checkpoints.lora_files import content_hash
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.processes.local_backend import LocalBackend
from core.settings import load_settings
from core.store.provenance import read_provenance
from tests.lora_layouts import FAMILIES as LORA_FAMILIES
from tests.lora_layouts import Writer, named
from tests.memory_modes import without_a_gpu
from tests.short_of_memory import short_of_memory
from tests.test_lora_layouts import Kept
from tests.test_native_image_generator import drawn, lease, spec_for
from workers.models.native_image_generator import NativeImageGenerator

FAMILIES = ["sdxl", "flux", "qwen_image", "z_image"]
LATENT = 8  # pixels
LARGE: dict[str, Any] = {"width": 640, "height": 256, "num_inference_steps": 2}
SMALL: dict[str, Any] = {"width": 192, "height": 256, "num_inference_steps": 2}


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path
) -> Path:
    from tests import tiny_pipelines

    if request.param == "z_image":
        return tiny_model
    folder: Path = tmp_path_factory.mktemp("models") / request.param
    pipeline = getattr(tiny_pipelines, f"build_{request.param}")()
    if hasattr(pipeline.vae.config, "sample_size"):
        pipeline.vae.register_to_config(sample_size=1024)  # as in FLUX's and Z-Image's
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def family(checkpoint: Path) -> Any:
    return loaded(checkpoint)


def loaded(checkpoint: Path, **changes: Any) -> Any:
    native = NativeImageGenerator(
        replace(spec_for(str(checkpoint)), **changes), lambda level, text: None
    )
    native.load()
    return native


@pytest.fixture(scope="module")
def whole(checkpoint: Path) -> Any:
    """The large picture, drawn where there is memory for it."""
    return drawn(loaded(checkpoint), **LARGE)


@contextmanager
def decoder_holds(family: Any, width: int, height: int, pictures: int = 1) -> Iterator[None]:
    """Memory for so many pixels at once, and an error for more."""

    def allocate(module: Any, inputs: tuple[Any, ...], given: dict[str, Any]) -> None:
        latents = inputs[0] if inputs else given["sample"]
        area = latents.shape[-1] * latents.shape[-2] * LATENT * LATENT
        if area * latents.shape[0] > width * height * pictures:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.25 GiB.")

    decoder = family.pipeline.vae.decoder
    hook = decoder.register_forward_pre_hook(allocate, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def remedies(family: Any, draw: Callable[[], Any]) -> tuple[Any, list[str]]:
    """What is drawn in the end, and what was done for it."""
    told: list[str] = []
    while True:
        try:
            return draw(), told
        except torch.OutOfMemoryError:
            remedy = family.free_memory(len(told) + 1)
            if remedy is None:
                return None, told
            told.append(remedy)


def test_a_picture_at_hand_is_decoded_in_tiles_that_are_smaller_than_it(
    family: Any, whole: Any
) -> None:
    with decoder_holds(family, 320, 320):
        [product], told = remedies(family, lambda: family.run([lease(**LARGE)]))
    assert len(told) == 2 and "tiles" not in told[0]
    assert "tiles of 320 x 320" in told[1]
    assert product.used["vae_tile"] == 320
    assert product.image.size == (640, 256)
    difference = np.abs(np.asarray(product.image).astype(int) - whole)
    assert difference.max() > 0 and difference.mean() < 16  # the same picture, not the same pixels


def test_what_is_still_too_large_is_cut_again_down_to_tiles_that_show_no_seams(
    family: Any,
) -> None:
    with decoder_holds(family, 256, 256):
        [product], told = remedies(
            family, lambda: family.run([lease(width=1024, height=192, num_inference_steps=2)])
        )
    assert [text.partition("tiles of ")[2][:3] for text in told] == ["", "512", "256"]
    assert product.used["vae_tile"] == 256
    with decoder_holds(family, 128, 128):
        product, told = remedies(family, lambda: family.run([lease(**LARGE)]))
    assert product is None and len(told) == 1  # tiles cannot become smaller: it is told as it is


def test_a_picture_no_larger_than_a_tile_has_the_pixels_that_it_always_had(
    family: Any, checkpoint: Path
) -> None:
    with decoder_holds(family, 320, 320):
        remedies(family, lambda: family.run([lease(**LARGE)]))
    [small] = family.run([lease(**SMALL)])
    assert "vae_tile" not in small.used
    assert np.array_equal(np.asarray(small.image), drawn(loaded(checkpoint), **SMALL))


def test_tiles_are_no_remedy_where_the_decoder_was_not_short_of_memory(
    family: Any, whole: Any
) -> None:
    denoiser = getattr(family.pipeline, "transformer", None) or family.pipeline.unet

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.25 GiB.")

    hook = denoiser.register_forward_pre_hook(fail)
    product, told = remedies(family, lambda: family.run([lease(**LARGE)]))
    hook.remove()
    assert product is None and len(told) == 1
    assert np.array_equal(drawn(family, **LARGE), whole)


def test_tiles_are_no_remedy_where_the_next_try_failed_before_the_decoder(
    family: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(stack: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.25 GiB.")

    with decoder_holds(family, 320, 320), pytest.raises(torch.OutOfMemoryError):
        family.run([lease(**LARGE)])
    monkeypatch.setattr(family._loras, "use_stack", fail)
    with pytest.raises(torch.OutOfMemoryError):
        family.run([lease(**LARGE)])
    assert family.free_memory(2) is None


def test_with_offload_the_next_try_finds_the_device_empty(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What failed left its components there, and encoding the prompt again does not fit beside."""
    without_a_gpu(monkeypatch)
    on_device: set[Any] = set()
    load, wait = CpuOffload.pre_forward, CpuOffload.init_hook

    def pre_forward(hook: Any, module: Any, *args: Any, **given: Any) -> Any:
        result = load(hook, module, *args, **given)
        on_device.add(module)
        return result

    def init_hook(hook: Any, module: Any) -> Any:
        on_device.discard(module)
        return wait(hook, module)

    monkeypatch.setattr(CpuOffload, "pre_forward", pre_forward)
    monkeypatch.setattr(CpuOffload, "init_hook", init_hook)
    family = loaded(checkpoint, memory="offload")
    shortages = [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.25 GiB.")]

    def short_once(*_: Any) -> None:
        if shortages:
            raise shortages.pop()

    def does_not_fit_beside_the_denoiser(*_: Any) -> None:
        if family._denoiser in on_device:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8 GiB.")

    before = drawn(family, **SMALL)
    for part in family._denoiser.children():  # which work once the whole is loaded
        part.register_forward_pre_hook(short_once)
    family.pipeline.text_encoder.register_forward_pre_hook(does_not_fit_beside_the_denoiser)
    [product], told = remedies(family, lambda: family.run([lease(**SMALL)]))
    assert len(told) == 1 and np.array_equal(np.asarray(product.image), before)


def test_pictures_that_are_too_many_for_the_decoder_go_through_one_by_one(family: Any) -> None:
    leases = [replace(lease(seed=seed, **SMALL), lease_id=str(seed)) for seed in (1, 2)]
    alone = [np.asarray(family.run([one])[0].image) for one in leases]
    with decoder_holds(family, 192, 256):
        with pytest.raises(torch.OutOfMemoryError):
            family.run(leases)
        family.too_many()
        again = family.run(leases)
    for product, expected in zip(again, alone, strict=True):
        assert np.abs(np.asarray(product.image).astype(int) - expected).max() <= 2
        assert "vae_tile" not in product.used


@pytest.mark.parametrize("way", ["kept", "exchanged"])
def test_fewer_loras_are_kept_from_then_on(way: str, tmp_path: Path) -> None:
    kept = Kept(LORA_FAMILIES["Z-Image"], way)
    loras = []
    for number in range(2):
        writer = Writer(LORA_FAMILIES["Z-Image"])
        writer.settings["number"] = number  # so that they differ
        named("lora_unet_", "lora_down", flat=True)(writer)
        loras.append(writer.save(tmp_path / f"{number}.safetensors"))
        kept.use(loras[-1])
    assert len(kept.loras.resident) == 2
    assert kept.loras.shrink() == (1, 1)
    for lora in loras:
        kept.use(lora)
        assert kept.loras.resident == [content_hash(lora)]
    kept.loras.use_stack([])
    kept.check({}, 1.0)


# -- in a worker process -----------------------------------------------------------------------


def test_a_run_gets_all_its_pictures_and_the_files_say_which_ones_are_of_tiles(
    tiny_model: Path, tmp_path: Path
) -> None:
    config = {"model": str(tiny_model), "device": "cpu"}
    tasks = [{"prompt": "a", **SMALL}, {"prompt": "b", **LARGE}, {"prompt": "c", **LARGE}]
    backend = LocalBackend("forkserver", load_settings(config).supervision, short_of_memory)
    with MultiGPUImageGenerator(
        1, config=config, output_dir=tmp_path / "out", backend=backend
    ) as generator:
        results = generator.generate_batch(tasks)
    assert [(r.status, r.attempts) for r in results] == [("done", 1)] * 3
    tiles = [read_provenance(Path(str(r.output_path)))["used"].get("vae_tile") for r in results]
    assert tiles in ([None, 256, 256], [None, 320, 320])
    with Image.open(str(results[1].output_path)) as picture:
        assert f"VAE tile: {tiles[1]}" in picture.info["parameters"]
