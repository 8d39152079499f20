"""Each recipe runs with its own settings on a tiny checkpoint of the true classes.

Only what cannot be had here is replaced, in the settings' own way: the checkpoint, the LoRA's
file (another in the published file's layout), and the size of pictures.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from apps.edit_benchmark.settings import load_benchmark_settings
from core.checkpoints.lora_files import LoraInspector
from core.checkpoints.model_loras import find_model_loras
from core.devices import worker_specs
from core.devices.device import choose_devices
from core.devices.model_choice import choose_model
from core.intake.kinds.edit import EditKind
from core.intake.kinds.generate import GenerateKind
from core.intake.task_kinds import LoraFinder
from core.messages import Lease
from core.settings import load_settings
from core.store.provenance import read_provenance
from core.tasks import EditTask, GenerateTask
from tests import tiny_pipelines, tiny_recent_pipelines
from tests.conftest import DEVICE, PROJECT, Project
from tests.edit_world import Bench, pair
from tests.hub_server import HubServer
from tests.test_hub import lines
from workers.models.registry import create_family

FOLDER = PROJECT / "config" / "recipes"
SMALL: dict[str, Any] = {"width": 32, "height": 32}
LIGHTNING = {
    "base_shift": 1.0986122886681098,
    "max_shift": 1.0986122886681098,
    "shift": 1.0,
    "shift_terminal": None,
    "use_dynamic_shifting": True,
    "time_shift_type": "exponential",
}
TRAILING = {"class": "EulerDiscreteScheduler", "timestep_spacing": "trailing"}


@dataclass(frozen=True)
class Recipe:
    """What a recipe has to come to.

    Attributes:
        checkpoint: which tiny one stands in for its model.
        passes: of the denoiser, per step; pictures of one call count one by one.
        sizes: of pictures, as the recipe gives them.
        scheduler: what is changed of the checkpoint's.
        lora: how its published LoRA calls a layer's tensors, less their ends; empty for none.
    """

    checkpoint: str
    steps: int
    guidance: dict[str, float]
    sizes: dict[str, int]
    passes: int = 1
    scheduler: dict[str, Any] = field(default_factory=dict)
    lora: str = ""
    sampler: str = "FlowMatchEulerDiscrete"


_NONE, _SQUARE = {"cfg": 1.0}, {"width": 1024, "height": 1024}
_EDITED = {"working_area": 1048576}
_QWEN_EDITED = {**_EDITED, "condition_area": 147456}
_QWEN, _KOHYA = "{layer}", "lora_unet_{flat}"

RECIPES = {
    "generate-z-image-turbo": Recipe("z_image", 8, _NONE, _SQUARE),
    "generate-qwen-image": Recipe(
        "qwen_image", 50, {"cfg": 4.0}, {"width": 1328, "height": 1328}, passes=2
    ),
    **{
        f"generate-qwen-image-{steps}step": Recipe(
            "qwen_image", steps, _NONE, {"width": 1328, "height": 1328},
            scheduler=LIGHTNING, lora=_QWEN,
        )
        for steps in (4, 8)
    },
    "generate-qwen-image-2.1": Recipe("qwen_image_21", 40, _NONE, _SQUARE),
    "generate-flux.2-dev": Recipe("flux2", 50, {"cfg": 1.0, "distilled_cfg": 4.0}, _SQUARE),
    "generate-flux.2-klein-4b": Recipe("flux2_klein", 4, _NONE, _SQUARE),
    "generate-sdxl": Recipe("sdxl", 50, {"cfg": 5.0}, _SQUARE, passes=2, sampler="EulerDiscrete"),
    "generate-sdxl-lightning-4step": Recipe(
        "sdxl", 4, _NONE, _SQUARE, scheduler=TRAILING, lora=_KOHYA, sampler="EulerDiscrete"
    ),
    "edit-qwen-image-edit-2511": Recipe(
        "qwen_image_edit_plus", 40, {"cfg": 4.0}, _QWEN_EDITED, passes=2
    ),
    **{
        f"edit-qwen-image-edit-2511-{steps}step": Recipe(
            "qwen_image_edit_plus", steps, _NONE, _QWEN_EDITED, scheduler=LIGHTNING, lora=_QWEN
        )
        for steps in (4, 8)
    },
    "edit-qwen-image-2.1": Recipe("qwen_image_21", 40, _NONE, _EDITED),
    "edit-flux.1-kontext": Recipe("flux_kontext", 28, {"cfg": 1.0, "distilled_cfg": 2.5}, _EDITED),
    "edit-flux.2-dev": Recipe("flux2", 50, {"cfg": 1.0, "distilled_cfg": 4.0}, _EDITED),
    "edit-flux.2-klein-4b": Recipe("flux2_klein", 4, _NONE, _EDITED),
}  # fmt: skip


def test_every_recipe_is_run_here() -> None:
    assert {file.stem for file in FOLDER.iterdir()} == set(RECIPES)
    assert all(file.suffix == ".yaml" for file in FOLDER.iterdir())


@pytest.fixture(scope="module")
def checkpoint(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @cache
    def made(name: str) -> Path:
        folder = tmp_path_factory.mktemp("checkpoints") / f"tiny_{name}"
        if name == "z_image":
            return tiny_model
        if name == "flux2":
            tiny_recent_pipelines.save_flux2(folder)
        else:
            module = tiny_recent_pipelines if name in ("qwen_image_21", "flux2_klein") else None
            build = getattr(module or tiny_pipelines, f"build_{name}")
            variant = {"variant": "fp16"} if name == "sdxl" else {}  # as that one is published
            build().save_pretrained(folder, **variant)
        return folder

    return made


def content(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text("utf-8"))
    return found


def write_lora(file: Path, model: Path, names: str) -> dict[str, torch.Tensor]:
    """A LoRA for the attention of a checkpoint's denoiser, and the changes of its layers."""
    index = json.loads((model / "model_index.json").read_text("utf-8"))
    part = "transformer" if "transformer" in index else "unet"
    variant = "fp16" if part == "unet" else None
    denoiser = getattr(diffusers, index[part][1]).from_pretrained(
        model, subfolder=part, variant=variant
    )
    torch.manual_seed(0)
    tensors, deltas = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
    for layer, module in denoiser.named_modules():
        if isinstance(module, torch.nn.Linear) and layer.endswith(("to_q", "to_k", "to_out.0")):
            down, up = torch.randn(4, module.in_features), torch.randn(module.out_features, 4)
            key = names.format(layer=layer, flat=layer.replace(".", "_"))
            tensors |= {
                f"{key}.lora_down.weight": down.bfloat16(),
                f"{key}.lora_up.weight": up.bfloat16(),
                f"{key}.alpha": torch.tensor(0.5),
            }
            deltas[layer] = 0.5 / 4 * (up.bfloat16().float() @ down.bfloat16().float())
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file)
    return deltas


def with_files(section: dict[str, Any], model: Path, names: str, folder: Path) -> dict[str, Any]:
    """A recipe's settings with a checkpoint and a LoRA of this machine."""
    changed: dict[str, Any] = {"model": str(model)}
    if names:
        [lora] = section["model_loras"]
        file = folder / lora["file"]
        write_lora(file, model, names)
        changed["model_loras"] = [{"path": str(file), "strength": lora["strength"]}]
    return {**section, **changed}


def loaded(name: str, model: Path, folder: Path) -> tuple[Any, Any, Any]:
    """The family that a worker loads for a recipe, its defaults, and the same without the LoRA."""
    recipe, edits = RECIPES[name], name.startswith("edit")
    raw = content(name)
    given = with_files(raw["editor"] if edits else raw, model, recipe.lora, folder)
    [device] = choose_devices(1, None, DEVICE)
    if edits:
        run: Any = load_benchmark_settings({**raw, "editor": given})
        settings = run.editor
        layers = settings.layers(str(model))
    else:
        run = settings = load_settings(given)
        layers = [settings.defaults, settings.defaults_for(str(model))]
    loras = find_model_loras(settings.model_loras, [], LoraInspector())
    choice = choose_model(
        settings.model, settings.revision, settings.dtype, [device], variant=settings.variant
    ).drawing(loras, settings.scheduler)
    role: Any = "edit" if edits else "generate"
    spec = worker_specs.spec_for(device, role, choice, run, threads=1)
    family: Any = create_family(spec, lambda level, text: None)
    family.load()
    plain: Any = create_family(replace(spec, model_loras=()), lambda level, text: None)
    plain.load()
    return family, layers, plain


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_with_its_own_settings(
    name: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    recipe = RECIPES[name]
    family, layers, plain = loaded(name, checkpoint(recipe.checkpoint), tmp_path)
    for side, value in recipe.sizes.items():
        assert getattr(layers[0], side) == value
    loras = LoraFinder([], LoraInspector())
    if name.startswith("edit"):
        source = tmp_path / "source.png"
        Image.new("RGB", (80, 80), (200, 90, 40)).save(source)
        areas: dict[str, Any] = {"working_area": 64 * 64, "condition_area": 32 * 32}
        edit = EditTask("make it night", (str(source),), seed=1, **SMALL, **areas)
        task: Any = EditKind(layers, loras).complete(edit)[0]
    else:
        task = GenerateKind(layers, loras).complete(GenerateTask("a house", seed=1, **SMALL))[0]

    passes = 0

    def count(module: Any, args: Any, given: Any, output: Any) -> None:
        nonlocal passes
        first = args[0] if args else given["hidden_states"]
        passes += len(first)

    denoiser = getattr(family.pipeline, "transformer", None) or family.pipeline.unet
    denoiser.register_forward_hook(count, with_kwargs=True)
    [picture] = family.run([Lease("id", 1, task, None, "fingerprint", "unused.png")])
    used = picture.used
    assert picture.image.size == (32, 32)
    assert used["num_inference_steps"] == recipe.steps
    assert passes == recipe.steps * recipe.passes
    assert {k: used[k] for k in ("cfg", "distilled_cfg") if k in used} == recipe.guidance
    assert used["sampler"] == recipe.sampler
    assert used.get("scheduler", {}) == recipe.scheduler
    settings = {k: v for k, v in recipe.scheduler.items() if k != "class"}
    config = family.pipeline.scheduler.config
    assert {k: config[k] for k in settings} == settings
    assert len(used.get("model_loras", ())) == bool(recipe.lora)
    _check_weights(name, family, plain, checkpoint(recipe.checkpoint), tmp_path)


def _check_weights(name: str, family: Any, plain: Any, model: Path, folder: Path) -> None:
    """The LoRA is in the weights, all of it and nothing else."""
    recipe = RECIPES[name]
    deltas = write_lora(folder / "again", model, recipe.lora) if recipe.lora else {}
    denoisers = [
        getattr(f.pipeline, "transformer", None) or f.pipeline.unet for f in (family, plain)
    ]
    for layer, module in denoisers[0].named_modules():
        if isinstance(module, torch.nn.Linear):
            expected = denoisers[1].get_submodule(layer).weight + deltas.get(layer, 0)
            assert torch.allclose(module.weight, expected, atol=1e-6), layer
    assert bool(deltas) == bool(recipe.lora)


# -- through the commands ----------------------------------------------------------------------


@pytest.mark.slow
def test_a_recipe_draws_by_command_with_its_lora_from_the_hub(
    project: Project, checkpoint: Callable[[str], Path]
) -> None:
    """Only the model is another; the LoRA is asked for by the ids that the recipe has."""
    raw, model = content("generate-qwen-image-4step"), checkpoint("qwen_image")
    [lora] = raw["model_loras"]
    hub = HubServer(project.folder / "hub")
    write_lora(hub.folder / lora["file"], model, _QWEN)
    project.environment |= {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(project.folder / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "*",
    }
    settings = {**raw, "model": str(model), "defaults": {**raw["defaults"], **SMALL}}
    tweets = project.write_tweets([{"prompt": f"house {n}"} for n in range(3)])
    try:
        run = project.run((tweets, 2), settings)
        assert run.finish() == 0, run.errors
        assert any(lora["path"] in request for request in hub.requests)
    finally:
        hub.close()
    said = [line for line in run.errors.splitlines() if "model LoRAs fused into" in line]
    assert said and all(line.endswith(f"{lora['file']} at 1") for line in said), run.errors
    files = sorted((project.folder / "out").rglob("*.png"))
    assert len(files) == 3
    used = read_provenance(files[0])["used"]
    assert (used["num_inference_steps"], used["cfg"]) == (4, 1.0)
    assert used["scheduler"] == LIGHTNING and used["model_loras"][0]["name"] == lora["file"]
    text = Image.open(files[0]).info["parameters"]
    assert f"<lora:{lora['file'].removesuffix('.safetensors')}:1>" in text
    run = project.run((tweets, 2), settings)  # without the hub, from its cache
    assert run.finish() == 0 and "3 unchanged" in run.errors, run.errors
    none = [{**lora, "file": "none.safetensors"}]
    run = project.run((tweets, 2), {**settings, "model_loras": none})
    assert run.finish() == 2
    [error] = lines(run, "ERROR")
    assert f"model_loras.0: none.safetensors of {lora['path']}: " in error


def test_a_recipe_edits_by_command(project: Project, checkpoint: Callable[[str], Path]) -> None:
    name = "edit-qwen-image-edit-2511-4step"
    bench, recipe = Bench(project), RECIPES[name]
    bench.write_pairs([pair(0), pair(1)])
    editor = with_files(
        content(name)["editor"], checkpoint(recipe.checkpoint), recipe.lora, project.folder
    )
    areas = {"working_area": 64 * 64, "condition_area": 32 * 32}
    editor["defaults"] = {**editor["defaults"], **areas}
    run = bench.run(editor=editor, cpu_workers=1)
    assert run.finish() == 0, run.errors
    used = read_provenance(bench.edits()[0])["used"]
    assert (used["num_inference_steps"], used["true_cfg_scale"]) == (4, 1.0)
    assert used["scheduler"] == LIGHTNING and len(used["model_loras"]) == 1
    edited_by = bench.summary()["edited_by"]
    assert edited_by["scheduler"] == LIGHTNING and edited_by["model_loras"] == used["model_loras"]
    assert edited_by["settings"]["num_inference_steps"] == 4
