"""What models need: from the real models' public configs, and from what torch itself counts."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FluxTransformer2DModel,
    QwenImageTransformer2DModel,
    ZImageTransformer2DModel,
)

from benchmarks import needs, published_models
from benchmarks.needs import checkpoint_of_modules
from core.checkpoints.checkpoint import Checkpoint, checkpoint_of_files, checkpoint_of_folder
from core.checkpoints.hub_index import checkpoint_of_hub
from core.checkpoints.known_models import FILE, known_checkpoint
from core.devices.edit_models import EDITOR_DEMAND, JUDGE_DEMAND
from core.devices.memory_needs import GIB, left_as_they_are, need_of
from core.devices.model_choice import GENERATOR, ModelChoice, checkpoint_of
from core.devices.working_memory import Demand, working_bytes
from tests.conftest import PROJECT
from tests.fake_memory import peak_bytes, zeros
from tests.hub_server import MODEL, HubServer
from tests.paper_models import layers, write_header, write_pipeline
from tests.tiny_pipelines import build_flux, build_sdxl

Z_IMAGE, EDITOR = "Tongyi-MAI/Z-Image-Turbo", "Qwen/Qwen-Image-Edit-2511"


def known(hub_id: str) -> Checkpoint:
    found = known_checkpoint(hub_id)
    assert found is not None
    return found


def test_z_image_needs_about_22_gib() -> None:
    need = need_of(known(Z_IMAGE), "full", Demand(guided=False))
    parts = {name: round(size / GIB, 1) for name, size in need.weights}
    assert parts == {"transformer": 11.5, "text_encoder": 7.5, "vae": 0.2}
    assert 21 < need.total / GIB < 22.5
    assert GENERATOR.needs(["full"], "auto", 1)[0] == need


@pytest.mark.parametrize(
    ("hub_id", "demand", "gigabytes", "need"),
    [
        (EDITOR, EDITOR_DEMAND, 57.7, 58),
        ("black-forest-labs/FLUX.1-dev", Demand(), 33.7, 34),
        ("stabilityai/stable-diffusion-xl-base-1.0", Demand(), 6.9, 9),
        ("Qwen/Qwen3-VL-8B-Instruct", JUDGE_DEMAND, 17.5, 18),
    ],
)
def test_needs_of_published_models(
    hub_id: str, demand: Demand, gigabytes: float, need: int
) -> None:
    checkpoint = known(hub_id)
    weights = sum(component.weights.numbers for component in checkpoint.components)
    assert weights * 2 / 1e9 == pytest.approx(gigabytes, abs=0.1)
    assert round(need_of(checkpoint, "full", demand).total / GIB) == need


def test_what_is_written_down_is_what_the_public_configs_give() -> None:
    assert json.loads(FILE.read_text("utf-8")) == json.loads(json.dumps(needs.published()))


def test_learned_tokens_are_no_layers_that_fp8_does_not_take() -> None:
    assert left_as_they_are(known(Z_IMAGE), "fp8") == ""


def test_the_tables_of_the_docs_are_the_commands() -> None:
    assert needs.tables() in (PROJECT / "docs" / "GPUS.md").read_text("utf-8")


def test_every_mode_needs_less_than_the_whole_model() -> None:
    for hub_id in (Z_IMAGE, EDITOR):
        total = {m: need_of(known(hub_id), m, Demand(guided=False)).total for m in needs.MODES}
        assert total["full"] > total["fp8"] >= total["fp8_cast"] > total["nf4"]
        assert total["full"] > total["offload"] > total["group_offload"]
        assert total["group_offload"] >= total["sequential_offload"]


# -- what is worked with, against what torch counts -------------------------------------------


def _flux(side: int) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    tokens = (side // 16) ** 2
    return (
        lambda: FluxTransformer2DModel(num_layers=1, num_single_layers=1, guidance_embeds=True),
        lambda model: model(
            hidden_states=zeros(1, tokens, 64),
            encoder_hidden_states=zeros(1, 512, 4096),
            pooled_projections=zeros(1, 768),
            timestep=zeros(1),
            img_ids=zeros(tokens, 3),
            txt_ids=zeros(512, 3),
            guidance=zeros(1),
        ),
    )


def _qwen(side: int) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    return (
        lambda: QwenImageTransformer2DModel(num_layers=1),
        lambda model: model(
            hidden_states=zeros(1, (side // 16) ** 2, 64),
            encoder_hidden_states=zeros(1, 512, 3584),
            timestep=zeros(1),
            img_shapes=[[(1, side // 16, side // 16)]],
        ),
    )


def _z_image(side: int) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    return (
        lambda: ZImageTransformer2DModel(n_layers=1, n_refiner_layers=1),
        lambda model: model([zeros(16, 1, side // 8, side // 8)], zeros(1), [zeros(512, 2560)]),
    )


def _sdxl(side: int) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    return (
        published_models.sdxl_unet,
        lambda model: model(
            zeros(2, 4, side // 8, side // 8),  # with and without the prompt
            zeros(1),
            zeros(2, 77, 2048),
            added_cond_kwargs={"text_embeds": zeros(2, 1280), "time_ids": zeros(2, 6)},
        ),
    )


def _kl(side: int) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    return (
        lambda: published_models.vae(16),
        lambda vae: vae.decode(zeros(1, 16, side // 8, side // 8)),
    )


def _kl_qwen(side: int) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    return AutoencoderKLQwenImage, lambda vae: vae.decode(zeros(1, 16, 1, side // 8, side // 8))


SIDES = (512, 1024)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hub_id", "component", "model"),
    [
        ("black-forest-labs/FLUX.1-dev", "transformer", _flux),
        (EDITOR, "transformer", _qwen),
        (Z_IMAGE, "transformer", _z_image),
        ("stabilityai/stable-diffusion-xl-base-1.0", "unet", _sdxl),
        (Z_IMAGE, "vae", _kl),
        (EDITOR, "vae", _kl_qwen),
    ],
)
def test_the_estimate_of_working_memory_is_above_what_torch_counts_and_below_three_times_that(
    hub_id: str, component: str, model: Callable[[int], Any]
) -> None:
    checkpoint = known(hub_id)
    [part] = [c for c in checkpoint.components if c.name == component]
    guided = component == "unet"
    build, _ = model(SIDES[0])
    for side, counted in zip(SIDES, peak_bytes(build, [model(s)[1] for s in SIDES]), strict=True):
        estimate = working_bytes(part, checkpoint, Demand(side, side, guided=guided), 2)
        assert counted <= estimate <= 3 * counted, side


# -- the checkpoint's own index ---------------------------------------------------------------


@pytest.mark.parametrize("shard", ["10GB", "20kB"])
@pytest.mark.parametrize("variant", [None, "fp16"])
def test_a_folder_tells_its_weights_whole_or_in_shards(
    tmp_path: Path, shard: str, variant: str | None
) -> None:
    pipeline = build_flux()
    pipeline.save_pretrained(tmp_path, variant=variant, max_shard_size=shard)
    found = checkpoint_of_folder(tmp_path, variant)
    assert found == _as_stored_of(found, checkpoint_of_modules(pipeline))


def _as_stored_of(found: Checkpoint | None, expected: Checkpoint) -> Checkpoint:
    """`expected` with configs and stored sizes of `found`, in its order."""
    assert found is not None
    by_name = {c.name: c for c in expected.components}
    assert {c.name for c in found.components} == set(by_name)
    for component in found.components:
        other = by_name[component.name].weights
        for name in ("numbers", "matrices", "filters", "largest_layer", "width", "widest"):
            assert getattr(component.weights, name) == getattr(other, name), (component.name, name)
        assert component.weights.as_stored == 4 * other.numbers
        for key, value in by_name[component.name].config.items():
            assert component.config[key] == value
    return found


def test_files_of_a_variant_do_not_count_beside_those_without(tmp_path: Path) -> None:
    pipeline = build_sdxl()
    pipeline.save_pretrained(tmp_path)
    alone = checkpoint_of_folder(tmp_path)
    pipeline.to(torch.float16).save_pretrained(tmp_path, variant="fp16")
    both, half = checkpoint_of_folder(tmp_path), checkpoint_of_folder(tmp_path, "fp16")
    assert alone is not None and both is not None and half is not None
    assert both.as_stored == alone.as_stored
    assert half.as_stored == pytest.approx(alone.as_stored / 2, rel=0.01)


def test_a_judges_folder_tells_its_weights() -> None:
    found = checkpoint_of_folder(PROJECT / "demo_model" / "judge")
    assert found is not None and [c.kind for c in found.components] == ["judge"]
    assert found.components[0].weights.numbers == 1_629_952


def test_a_folder_that_is_not_whole_tells_nothing(tmp_path: Path) -> None:
    folder = write_pipeline(tmp_path / "a")
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    assert checkpoint_of_folder(folder) is None
    folder = write_pipeline(tmp_path / "b")
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").write_bytes(b"\xff" * 9)
    assert checkpoint_of_folder(folder) is None
    folder = write_pipeline(tmp_path / "c")
    shard = folder / "transformer" / "diffusion_pytorch_model-00001-of-00002.safetensors"
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").rename(shard)
    assert checkpoint_of_folder(folder) is None
    (folder / "model_index.json").write_text("[]")
    assert checkpoint_of_folder(folder) is None
    assert checkpoint_of_folder(tmp_path / "nowhere") is None


def test_weights_that_are_quantised_already_count_as_they_are(tmp_path: Path) -> None:
    folder = write_pipeline(tmp_path)
    config = {"in_channels": 16, "patch_size": 2, "quantization_config": {"quant_method": "bnb"}}
    (folder / "transformer" / "config.json").write_text(json.dumps(config))
    name = "diffusion_pytorch_model.safetensors"
    write_header(folder / "transformer" / name, {"layers.0.weight": (GIB, 3)}, "U8")
    found = checkpoint_of_folder(folder)
    assert found is not None
    for need in (need_of(found, "full", Demand()), need_of(found, "nf4", Demand())):
        assert dict(need.weights)["transformer"] == 3 * GIB


def test_files_by_component_stand_for_a_folder(tmp_path: Path) -> None:
    write_header(tmp_path / "any name.safetensors", layers(2.0), "F16")
    found = checkpoint_of_files({"transformer": [tmp_path / "any name.safetensors"]})
    assert need_of(found, "full", Demand()).weights == (("transformer", 2 * GIB),)


# -- the hub ----------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    import huggingface_hub.constants as constants

    server = HubServer(write_pipeline(tmp_path / "model"))
    template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", server.url)
    monkeypatch.setattr("core.checkpoints.hub_index.HfApi", lambda: _api(server.url))
    monkeypatch.setenv("NO_PROXY", "*")
    yield server
    server.close()


def _api(url: str) -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=url)


def test_the_hub_is_asked_for_headers_and_not_for_weights(hub: HubServer) -> None:
    found = checkpoint_of_hub(MODEL, None, None)
    expected = checkpoint_of_folder(hub.folder)
    assert found is not None and expected is not None
    assert found.pipeline == expected.pipeline
    assert {c.name: c for c in found.components} == {c.name: c for c in expected.components}


@pytest.mark.parametrize("status", [0, 401, 404, 503])
def test_a_hub_that_refuses_or_does_not_answer_is_no_failure(
    hub: HubServer, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.checkpoints.hub_index.REQUEST_TIMEOUT", 0.2)
    hub.refusal = lambda n, path: (status, {})
    started = time.monotonic()
    assert checkpoint_of_hub(MODEL, None, None) is None
    assert time.monotonic() - started < 20
    model = ModelChoice(Z_IMAGE, Z_IMAGE, "")
    assert checkpoint_of(model) == known_checkpoint(Z_IMAGE)  # as it is written down
    assert checkpoint_of(ModelChoice("someone/else", "someone/else", "")) is None


def test_a_model_in_the_cache_needs_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "models--someone--model" / "snapshots" / "abc"
    write_pipeline(snapshot)
    os.makedirs(snapshot.parent.parent / "refs")
    (snapshot.parent.parent / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("core.checkpoints.hub_index.HfApi", lambda: pytest.fail("asked the hub"))
    assert checkpoint_of_hub(MODEL, None, None) == checkpoint_of_folder(snapshot)
