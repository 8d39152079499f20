"""Models as people have them from other tools: in one file, or in files of a variant."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from loguru import logger
from PIL import Image
from safetensors.torch import save_file

from apps.edit_benchmark.command import edited_by
from apps.edit_benchmark.runner import EditBenchmark
from apps.edit_benchmark.settings import load_benchmark_settings
from core.devices.device import Device, choose_devices
from core.devices.edit_models import judge_model
from core.devices.model_choice import choose_model
from core.errors import InputError
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.store.provenance import read_provenance
from tests import original_layouts, tiny_pipelines
from tests.lora_layouts import FAMILIES, layers_of
from tests.lora_layouts import LAYOUTS as LORA_LAYOUTS
from tests.test_memory_mode_loras import OfMode
from tests.test_native_image_generator import drawn, spec_for
from workers.models.native_image_generator import NativeImageGenerator

SMALL = {"width": 32, "height": 32, "num_inference_steps": 2}
Layout = Callable[[Any], Mapping[str, torch.Tensor]]


def _diffusers(pipeline: Any) -> dict[str, torch.Tensor]:
    return dict(pipeline.transformer.state_dict())


def _comfy(pipeline: Any) -> dict[str, torch.Tensor]:
    return {original_layouts.DENOISER + k: v for k, v in _diffusers(pipeline).items()}


def build_sdxl() -> Any:
    # The two text encoders are told apart by their widths.
    return StableDiffusionXLPipeline(**tiny_pipelines.sdxl_components(second_width=48))


LAYOUTS: dict[str, tuple[Callable[[], Any], Layout]] = {
    "Z-Image, its own names": (tiny_pipelines.build_z_image, original_layouts.z_image),
    "Z-Image, diffusers' names": (tiny_pipelines.build_z_image, _diffusers),
    "FLUX, diffusers' names": (tiny_pipelines.build_flux, _diffusers),
    "Qwen-Image, diffusers' names": (tiny_pipelines.build_qwen_image, _diffusers),
    "SDXL, the whole checkpoint": (build_sdxl, original_layouts.sdxl),
}
DENOISERS = [name for name in LAYOUTS if "whole" not in name]


@dataclass(frozen=True)
class Made:
    """A model in both forms: `folder` is whole, `base` the same with zeros in what `file` gives."""

    folder: Path
    base: Path
    state: dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    known: dict[str, Made] = {}

    def make(name: str) -> Made:
        if name not in known:
            place = tmp_path_factory.mktemp("models")
            build, layout = LAYOUTS[name]
            pipeline = build()
            pipeline.save_pretrained(place / "whole")
            state = {k: v.contiguous().clone() for k, v in layout(pipeline).items()}
            given = pipeline.components if "whole" in name else {"": pipeline.transformer}
            for part in given.values():
                for parameter in getattr(part, "parameters", list)():
                    parameter.data.zero_()
            pipeline.save_pretrained(place / "base")
            known[name] = Made(place / "whole", place / "base", state)
        return known[name]

    return make


def family_of(model: Path, base: Path | None = None, **changes: Any) -> NativeImageGenerator:
    spec = replace(spec_for(str(model)), base_model=str(base) if base else None, **changes)
    native = NativeImageGenerator(spec, lambda level, text: None)
    native.load()
    return native


def write_gguf(state: Mapping[str, torch.Tensor], file: Path) -> Path:
    """Matrices in blocks of 8 bits, as converters write them; the rest as it is."""
    writer = gguf.GGUFWriter(str(file), "lumina2")
    for name, tensor in state.items():
        array = tensor.float().numpy()
        name = name.removeprefix(original_layouts.DENOISER)
        if array.ndim == 2 and array.shape[1] % 32 == 0 and array.size > 512:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_model_in_one_file_draws_what_its_folder_draws(
    name: str, made: Callable[[str], Made], tmp_path: Path
) -> None:
    model = made(name)
    file = tmp_path / "model.safetensors"
    save_file(model.state, file)
    expected = drawn(family_of(model.folder))
    assert np.array_equal(drawn(family_of(file, model.base)), expected)
    assert not np.array_equal(drawn(family_of(model.base)), expected)


@pytest.mark.parametrize("name", ["Z-Image, its own names", "Qwen-Image, diffusers' names"])
def test_a_gguf_file_draws_nearly_the_same(
    name: str, made: Callable[[str], Made], tmp_path: Path
) -> None:
    model = made(name)
    file = write_gguf(model.state, tmp_path / "model.gguf")
    expected = drawn(family_of(model.folder)).astype(int)
    found = drawn(family_of(file, model.base)).astype(int)
    assert np.abs(found - expected).mean() < 0.05 * expected.std()


def test_loras_work_on_a_gguf_file(
    made: Callable[[str], Made], tiny_loras: list[Path], tmp_path: Path
) -> None:
    model = made("Z-Image, its own names")
    whole = family_of(model.folder)
    family = family_of(write_gguf(model.state, tmp_path / "m.gguf"), model.base)
    plain, expected = drawn(whole).astype(int), drawn(whole, tiny_loras[0]).astype(int)
    before = drawn(family)
    found = drawn(family, tiny_loras[0]).astype(int)
    assert np.abs(found - expected).mean() < 0.1 * np.abs(plain - expected).mean()
    assert np.array_equal(drawn(family), before)


@pytest.mark.parametrize("layout", ["DoRA: `dora_scale`", "DoRA: `dora_scale` by inputs"])
def test_a_dora_knows_the_weights_of_a_gguf_file(
    layout: str, made: Callable[[str], Made], tmp_path: Path
) -> None:
    model = made("Z-Image, its own names")
    whole = family_of(model.folder)
    family = family_of(write_gguf(model.state, tmp_path / "m.gguf"), model.base)
    writer = OfMode(
        FAMILIES["Z-Image"], {k: v.weight for k, v in layers_of(whole.pipeline).items()}
    )
    LORA_LAYOUTS[layout](writer)
    file = writer.save(tmp_path / "dora.safetensors")
    plain, expected = drawn(whole).astype(int), drawn(whole, file).astype(int)
    found = drawn(family, file).astype(int)
    assert np.abs(found - expected).mean() < 0.1 * np.abs(plain - expected).mean()


def test_what_a_checkpoint_says_of_its_training_sets_the_scheduler(
    made: Callable[[str], Made], tmp_path: Path
) -> None:
    model = made("SDXL, the whole checkpoint")
    file = tmp_path / "v.safetensors"
    marks = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    save_file({**model.state, **marks}, file)
    config = family_of(file, model.base).pipeline.scheduler.config
    assert config.prediction_type == "v_prediction"
    assert config.rescale_betas_zero_snr and config.timestep_spacing == "trailing"


def test_weights_that_are_missing_are_named(made: Callable[[str], Made], tmp_path: Path) -> None:
    model = made("Z-Image, diffusers' names")
    state = {k: v for k, v in model.state.items() if "layers.1.attention.to_q" not in k}
    file = tmp_path / "m.safetensors"
    save_file(state, file)
    with pytest.raises(InputError, match="lacks weights that a ZImagePipeline"):
        family_of(file, model.base)


# -- as a setting ------------------------------------------------------------------------------


def refusal(tmp_path: Path, **settings: Any) -> str:
    with pytest.raises(InputError) as caught:
        MultiGPUImageGenerator(1, config={"device": "cpu", **settings}, output_dir=tmp_path / "out")
    return str(caught.value)


def test_pictures_know_the_file_and_its_base_and_what_is_done_stays_done(
    made: Callable[[str], Made], tmp_path: Path
) -> None:
    model, other = made("Z-Image, its own names"), made("Z-Image, diffusers' names")
    file = tmp_path / "my z.safetensors"
    save_file(model.state, file)
    tasks = [{"prompt": "a red house", "seed": 1, **SMALL}]

    def generator(**changes: Any) -> MultiGPUImageGenerator:
        config = {"device": "cpu", "model": str(file), "base_model": str(model.base), **changes}
        return MultiGPUImageGenerator(1, config=config, output_dir=tmp_path / "out")

    def run(**changes: Any) -> Any:
        with generator(**changes) as running:
            return running.generate_batch(tasks)[0]

    first = run()
    assert first.status == "done", first.error
    used = read_provenance(Path(first.output_path))["used"]
    assert used["model"] == "my z.safetensors" and len(used["model_hash"]) == 16
    assert used["base_model"].startswith(f"{model.base.name}#")
    with Image.open(first.output_path) as picture:
        assert np.array_equal(np.asarray(picture), drawn(family_of(model.folder), **SMALL))
    assert run().status == "skipped"
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    assert run(base_model=str(other.folder)).status == "done"  # other parts, another picture
    logger.remove(sink)
    [plan] = [line for line in lines if line.startswith("Plan: ")]
    assert f"base model {used['base_model']} -> {other.folder.name}#" in plan


def test_a_revision_is_the_base_models_and_decides_its_parts(
    made: Callable[[str], Made], tmp_path: Path
) -> None:
    save_file(made("Z-Image, its own names").state, tmp_path / "z.safetensors")

    def deciding(revision: str | None) -> str:
        name, base = str(tmp_path / "z.safetensors"), "owner/base"
        return choose_model(
            name, revision, "auto", [Device("cpu", 0, "")], base_model=base
        ).deciding

    assert deciding("v1").endswith("base_model=owner/base@v1")
    assert deciding(None).endswith("base_model=owner/base")


def test_the_line_about_the_model_says_its_memory_mode(
    made: Callable[[str], Made], tmp_path: Path
) -> None:
    model, file = made("Z-Image, its own names"), tmp_path / "m.safetensors"
    save_file(model.state, file)
    devices, base = choose_devices(1, kind="cpu"), str(model.base)
    choice = choose_model(str(file), None, "auto", devices, memory="fp8", base_model=base)
    assert choice.reason == (
        f"Model: {file} (as asked for; memory mode fp8_cast), the other parts from {base}."
    )


def test_defaults_of_the_base_model_count_where_the_files_name_says_nothing(
    made: Callable[[str], Made], tmp_path: Path
) -> None:
    model = made("Z-Image, its own names")
    file = tmp_path / "m.safetensors"
    save_file(model.state, file)
    config = {
        "device": "cpu",
        "model": str(file),
        "base_model": str(model.base),
        "model_defaults": [{"match": f"*{model.base.parent.name}/base", **SMALL}],
    }
    with MultiGPUImageGenerator(1, config=config, output_dir=tmp_path / "out") as generator:
        [result] = generator.generate_batch([{"prompt": "a"}])
    assert read_provenance(Path(str(result.output_path)))["used"]["num_inference_steps"] == 2


def test_a_file_that_cannot_be_a_model_is_refused_in_one_line(
    made: Callable[[str], Made], tiny_loras: list[Path], tmp_path: Path
) -> None:
    model = made("Z-Image, its own names")
    file = tmp_path / "m.safetensors"
    save_file(model.state, file)
    base = {"base_model": str(model.base)}
    assert "Tongyi-MAI/Z-Image-Turbo" in refusal(tmp_path, model=str(file))  # base_model is needed
    assert "does not exist" in refusal(tmp_path, model=str(tmp_path / "no.safetensors"), **base)
    assert "is a LoRA" in refusal(tmp_path, model=str(tiny_loras[0]), **base)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(file.read_bytes()[:-100])
    assert "cut short" in refusal(tmp_path, model=str(cut), **base)
    pickled = tmp_path / "m.ckpt"
    torch.save({"a": torch.zeros(1)}, pickled)
    assert "pickle" in refusal(tmp_path, model=str(pickled), **base)
    disguised = tmp_path / "p.safetensors"
    disguised.write_bytes(pickled.read_bytes())
    assert "pickle" in refusal(tmp_path, model=str(disguised), **base)
    no_gguf = tmp_path / "m.gguf"
    no_gguf.write_bytes(file.read_bytes())
    assert "not a GGUF" in refusal(tmp_path, model=str(no_gguf), **base)
    scaled = tmp_path / "scaled.safetensors"
    name = next(iter(model.state)).rpartition(".")[0] + ".scale_weight"
    save_file({**model.state, name: torch.ones(1)}, scaled)
    assert "scales beside them" in refusal(tmp_path, model=str(scaled), **base)
    assert "base_model" in refusal(tmp_path, model=str(model.folder), **base)
    assert "base_model" in refusal(tmp_path, model=str(file), base_model="not a model")
    assert "model_index.json" in refusal(tmp_path, model=str(file), base_model=str(tmp_path))


def test_a_file_is_not_spread_over_several_gpus(
    made: Callable[[str], Made], tmp_path: Path
) -> None:
    model = made("Z-Image, its own names")
    save_file(model.state, tmp_path / "z.safetensors")
    pair = Device("cuda", 0, "0,1", more_ids=(1,))
    with pytest.raises(InputError, match=r"gpus_per_worker: .* a model in one file, which cannot"):
        choose_model(
            str(tmp_path / "z.safetensors"), None, "auto", [pair], base_model=str(model.base)
        )


def test_the_benchmarks_table_names_the_base_model(
    made: Callable[[str], Made], tmp_path: Path
) -> None:
    model = made("Z-Image, its own names")
    save_file(model.state, tmp_path / "z.safetensors")
    editor = {"model": str(tmp_path / "z.safetensors"), "base_model": str(model.base)}
    run = EditBenchmark(
        load_benchmark_settings({"device": "cpu", "editor": editor}), tmp_path / "out"
    )
    try:
        assert f"base_model '{model.base.name}#" in edited_by(run).line
    finally:
        run.close()


def test_a_judge_is_no_single_file() -> None:
    settings = load_benchmark_settings({"judge": {"model": "judge.gguf"}})
    with pytest.raises(InputError, match="a judge is a folder or a hub id"):
        judge_model(settings, choose_devices(1, None, "cpu"))


# -- variants ----------------------------------------------------------------------------------


def test_weights_of_a_variant_are_loaded_when_they_are_asked_for(
    made: Callable[[str], Made], tmp_path: Path
) -> None:
    whole = made("Z-Image, its own names").folder
    folder = tmp_path / "model"
    from diffusers import ZImagePipeline

    ZImagePipeline.from_pretrained(whole).save_pretrained(folder, variant="fp16")
    settings = {"device": "cpu", "model": str(folder)}
    assert "fp16 alone, and no variant is set" in refusal(tmp_path, **settings)
    assert "it has fp16" in refusal(tmp_path, variant="bf16", **settings)
    assert "leave it out" in refusal(tmp_path, model=str(whole), variant="fp16")
    config = {**settings, "variant": "fp16"}
    with MultiGPUImageGenerator(1, config=config, output_dir=tmp_path / "out") as generator:
        [result] = generator.generate_batch([{"prompt": "a red house", "seed": 1, **SMALL}])
    with Image.open(str(result.output_path)) as picture:
        assert np.array_equal(np.asarray(picture), drawn(family_of(whole), **SMALL))
