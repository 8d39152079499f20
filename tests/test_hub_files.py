"""Which files of a repository are fetched: what the libraries would choose, and load."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import ModelLoadError
from tests.conftest import PROJECT
from tests.hub_server import MODEL, HubServer
from tests.test_native_image_generator import drawn
from tests.test_single_files import LAYOUTS, family_of
from workers.hub_files import Given, pipeline_files, transformers_files

FILE = "model.safetensors"
WEIGHTS = "diffusion_pytorch_model"
INDEX: dict[str, Any] = {
    "_class_name": "StableDiffusionXLPipeline",
    "_diffusers_version": "0.42.1",
    "force_zeros_for_empty_prompt": True,
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
SMALL = [
    *("README.md", ".gitattributes", "model_index.json", "picture.png"),
    *("scheduler/scheduler_config.json", "tokenizer/vocab.json", "tokenizer/merges.txt"),
    *("tokenizer/tokenizer_config.json", "text_encoder/config.json"),
    *("unet/config.json", "vae/config.json"),
]
USUAL = [f"unet/{WEIGHTS}.safetensors", f"vae/{WEIGHTS}.safetensors"]
USUAL += ["text_encoder/model.safetensors"]
FP16 = [name.replace(".safetensors", ".fp16.safetensors") for name in USUAL]
SHARDED = [f"unet/{WEIGHTS}-0000{n}-of-00002.safetensors" for n in (1, 2)]
SHARDED += [f"unet/{WEIGHTS}.safetensors.index.json", *USUAL[1:]]
SHARDED_FP16 = [f"unet/{WEIGHTS}.fp16-0000{n}-of-00002.safetensors" for n in (1, 2)]
SHARDED_FP16 += [f"unet/{WEIGHTS}.safetensors.index.fp16.json"]
OLD_FP16 = [f"unet/{WEIGHTS}-0000{n}-of-00002.fp16.safetensors" for n in (1, 2)]
OLD_FP16 += [f"unet/{WEIGHTS}.safetensors.fp16.index.json"]
OTHERS = [name.replace(".safetensors", ".bin") for name in USUAL]
OTHERS += ["text_encoder/pytorch_model.bin", f"unet/{WEIGHTS}.fp16.bin"]
OTHERS += ["unet/model.onnx", "unet/weights.pb", f"unet/{WEIGHTS}.msgpack", "flax_model.msgpack"]
OTHERS += ["sd_xl_base_1.0.safetensors", f"unet/{WEIGHTS}.bin.index.json"]
OTHERS += ["text_encoder/openvino_model.bin", "text_encoder/openvino_model.xml"]
OTHERS += ["unet/model.onnx_data", f"unet/{WEIGHTS}.non_ema.safetensors"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub that the libraries in this process ask."""
    from huggingface_hub import constants, hf_api

    server = HubServer(tmp_path / "repository")
    template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(hf_api.api, "endpoint", server.url)
    yield server
    server.close()


def fill(folder: Path, names: list[str], index: dict[str, Any]) -> None:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(index) if name == "model_index.json" else "x")


@pytest.mark.parametrize(
    ("names", "variant"),
    [
        ([*USUAL, *FP16, *OTHERS], None),
        ([*USUAL, *FP16, *OTHERS], "fp16"),
        ([*SHARDED, *SHARDED_FP16, *OTHERS], None),
        ([*SHARDED, *SHARDED_FP16, *OTHERS], "fp16"),
        ([*SHARDED, *OLD_FP16], "fp16"),
        ([*USUAL, FP16[0]], "fp16"),  # of one part only
        ([*USUAL[:2], "model.safetensors", "tokenizer.json", "config.json"], None),
    ],
)
def test_a_pipelines_files_are_those_that_diffusers_downloads(
    hub: HubServer, tmp_path: Path, names: list[str], variant: str | None
) -> None:
    from diffusers import DiffusionPipeline

    in_root = "model.safetensors" in names  # as the text encoder's, which has no folder then
    small = [n for n in SMALL if not (in_root and n.startswith("text_encoder"))]
    fill(hub.folder, [*small, *names], INDEX)
    cache = tmp_path / "cache"
    folder = Path(
        DiffusionPipeline.download(MODEL, use_safetensors=True, variant=variant, cache_dir=cache)
    )
    theirs = {f.relative_to(folder).as_posix() for f in folder.rglob("*") if not f.is_dir()}
    assert set(pipeline_files([*small, *names], INDEX, variant)) == theirs


def test_folders_and_parts_that_a_pipeline_does_not_load_are_left_out() -> None:
    names = [*SMALL, *USUAL, f"vae_1_0/{WEIGHTS}.safetensors", "safety_checker/pytorch_model.bin"]
    index = {**INDEX, "safety_checker": [None, None]}
    assert set(pipeline_files(names, index)) == set(pipeline_files([*SMALL, *USUAL], INDEX))


@pytest.mark.parametrize(
    ("names", "variant", "said"),
    [
        ([*USUAL[1:], f"unet/{WEIGHTS}.bin"], None, "its unet has no weights in safetensors"),
        (USUAL, "fp8", "none of its parts has weights of the variant 'fp8'"),
    ],
)
def test_a_pipeline_without_such_weights_is_refused(
    names: list[str], variant: str | None, said: str
) -> None:
    with pytest.raises(ModelLoadError, match=said):
        pipeline_files([*SMALL, *names], INDEX, variant)


def test_weights_that_the_user_has_in_a_file_are_left_out() -> None:
    names = [*SMALL, *FP16, f"unet/{WEIGHTS}.bin"]  # the unet in another form only
    names.remove(FP16[0])
    rest = {*names} - {f"unet/{WEIGHTS}.bin", "README.md", ".gitattributes", "picture.png"}
    assert set(pipeline_files(names, INDEX, "fp16", given="denoiser")) == rest
    everything = set(pipeline_files(names, INDEX, "fp16", given="everything"))
    assert everything == rest - {*FP16}


def test_a_hostile_index_names_nothing_but_files_of_the_repository() -> None:
    index = {**INDEX, "..": ["diffusers", "X"], "": [], "/etc": [7], "*": [None], "a": "b"}
    files = set(pipeline_files([*SMALL, *USUAL], index))
    assert files <= {*SMALL, *USUAL}


def test_a_judge_loads_from_the_files_that_are_chosen_for_it(tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText

    from workers.processors import load_processor

    judge = PROJECT / "demo_model" / "judge"
    names = [f.relative_to(judge).as_posix() for f in judge.rglob("*") if f.is_file()]
    others = ["pytorch_model.bin", "model.fp16.safetensors", "onnx/model.onnx", "consolidated.pth"]
    chosen = transformers_files([*names, *others], lambda name: {})
    assert not {*others} & {*chosen}
    for name in chosen:
        shutil.copy(judge / name, tmp_path / name)
    assert AutoModelForImageTextToText.from_pretrained(tmp_path, use_safetensors=True)
    assert load_processor(str(tmp_path)).tokenizer


def test_a_sharded_judges_weights_are_those_of_its_index() -> None:
    names = ["config.json", "model-1.safetensors", "model-2.safetensors", "old-1.safetensors"]
    index = "model.safetensors.index.json"
    names += ["tokenizer.json", "merges.txt", "pytorch_model.bin.index.json", index]
    read = {index: {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}}
    expected = {*names} - {"old-1.safetensors", "pytorch_model.bin.index.json"}
    assert set(transformers_files(names, read.__getitem__)) == expected
    with pytest.raises(ModelLoadError, match=r"lacks model-2\.safetensors, which model\.saf"):
        transformers_files([n for n in names if n != "model-2.safetensors"], read.__getitem__)
    with pytest.raises(ModelLoadError, match="no weights in safetensors format"):
        transformers_files(["config.json", "pytorch_model.bin"], read.__getitem__)


def test_a_judges_variant_is_fetched_alone() -> None:
    names = ["config.json", "model.safetensors", "model.fp16.safetensors"]
    expected = ["config.json", "model.fp16.safetensors"]
    assert transformers_files(names, lambda name: {}, "fp16") == expected
    with pytest.raises(ModelLoadError, match="no weights of the variant 'bf16' in safetensors"):
        transformers_files(names, lambda name: {}, "bf16")


@pytest.mark.parametrize(
    ("name", "given"),
    [("Z-Image, its own names", "denoiser"), ("SDXL, the whole checkpoint", "everything")],
)
def test_a_model_in_one_file_loads_with_what_is_fetched_for_it(
    name: str, given: Given, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    build, layout = LAYOUTS[name]
    pipeline = build()
    base = tmp_path / "base"
    pipeline.save_pretrained(base)
    save_file({k: v.contiguous().clone() for k, v in layout(pipeline).items()}, tmp_path / FILE)
    names = [f.relative_to(base).as_posix() for f in base.rglob("*") if f.is_file()]
    index = json.loads((base / "model_index.json").read_text())
    fetched = pipeline_files(names, index, given=given)
    weights = [n for n in fetched if n.endswith(".safetensors")]
    assert bool(weights) == (given == "denoiser") and not any("transformer" in n for n in weights)
    for part in fetched:
        (tmp_path / "fetched" / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(base / part, tmp_path / "fetched" / part)
    expected = drawn(family_of(base))
    assert np.array_equal(drawn(family_of(tmp_path / FILE, tmp_path / "fetched")), expected)
