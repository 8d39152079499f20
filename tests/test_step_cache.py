"""Step caches: work that steps leave out, with no trace of the picture before."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from core.errors import InputError
from core.intake.planning import Plan
from core.messages import Lease
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.store.provenance import read_provenance
from core.tasks import EditTask
from core.worker_spec import WorkerSpec
from tests import tiny_pipelines
from tests.conftest import simulated
from tests.test_native_image_generator import drawn, lease, spec_for

LONG = "a red house on the left, on grass, under a night sky, and " + "a blue tree " * 12
STEPS = 6
# Always on: with weights at random there is no "little change" to wait for.
EAGER: dict[str, dict[str, Any]] = {
    "first_block": {"first_block_cache": {"threshold": 100.0}},
    "taylorseer": {"taylorseer_cache": {"cache_interval": 3, "disable_cache_before_step": 2}},
    "mag": {"mag_cache": {"threshold": 100.0, "max_skip_steps": 2, "mag_ratios": [1.0, 0.9, 0.8]}},
}
PIPELINES = {
    "z_image": ("first_block",),
    "flux": ("first_block", "taylorseer", "mag"),
    "qwen_image": ("first_block", "taylorseer", "mag"),
}
PAIRS = [(name, kind) for name, kinds in PIPELINES.items() for kind in kinds]
# Each pipeline and each kind once: what a cache does to a pipeline's blocks is held by PAIRS.
SOME = [("z_image", "first_block"), ("flux", "taylorseer"), ("qwen_image", "mag")]
EDITED = [
    *(("flux_kontext", kind) for kind in ("taylorseer", "first_block")),
    *(("qwen_image_edit_plus", kind) for kind in ("taylorseer", "mag")),
]

Folders = Callable[[str], Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Folders:
    """Checkpoints with three blocks, so that there is something between the first and the last."""
    made: dict[str, Path] = {"z_image": tiny_model}

    def folder(name: str) -> Path:
        if name not in made:
            pipeline = getattr(tiny_pipelines, f"build_{name}")()
            old = pipeline.transformer
            torch.manual_seed(1)
            pipeline.transformer = type(old)(**{**old.config, "num_layers": 3}).eval()
            made[name] = tmp_path_factory.mktemp("models") / name
            pipeline.save_pretrained(made[name])
        return made[name]

    return folder


def cached(folder: Path, kind: str, **workers: Any) -> Any:
    return loaded(spec_for(str(folder), step_cache=kind, **EAGER.get(kind, {}), **workers))


def loaded(spec: WorkerSpec) -> Any:
    from workers.models.native_image_editor import NativeImageEditor
    from workers.models.native_image_generator import NativeImageGenerator

    kind = NativeImageEditor if spec.role == "edit" else NativeImageGenerator
    family = kind(spec, lambda level, text: None)
    family.load()
    return family


def settings(guided: bool, **fields: Any) -> dict[str, Any]:
    """Of a task with `STEPS` steps."""
    guidance = {"cfg": 4.0, "negative_prompt": "rain"} if guided else {"cfg": 1.0}
    return {"num_inference_steps": STEPS, **guidance, **fields}


# -- what they are for --------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_steps_leave_out_work_and_the_picture_says_so(
    folders: Folders, name: str, kind: str
) -> None:
    task = settings(guided=False)
    whole = drawn(loaded(spec_for(str(folders(name)))), **task).astype(int)
    family = cached(folders(name), kind)
    computed: list[int] = []
    layers = dict(family.pipeline.transformer.named_modules())
    inner = "layers.1.attention.to_q" if name == "z_image" else "transformer_blocks.1.attn.to_q"
    layers[inner].register_forward_hook(lambda *_: computed.append(1))
    [product] = family.run([lease(**task)])
    assert 0 < len(computed) < STEPS
    difference = np.abs(np.asarray(product.image).astype(int) - whole)
    assert difference.max() > 0
    assert product.used["step_cache"].startswith(kind)


def test_the_order_of_the_taylor_series_is_the_one_that_is_set(folders: Folders) -> None:
    def picture(order: int) -> Any:
        series = {**EAGER["taylorseer"]["taylorseer_cache"], "max_order": order}
        spec = spec_for(str(folders("flux")), step_cache="taylorseer", taylorseer_cache=series)
        return drawn(loaded(spec), **settings(guided=False))

    assert (picture(0) == picture(0)).all()
    assert (picture(0) != picture(2)).any()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_a_picture_is_the_same_whatever_was_drawn_before(
    folders: Folders, name: str, kind: str
) -> None:
    """Another size, prompt and number of steps, and a picture that broke off in the middle."""
    family = cached(folders(name), kind)
    for guided in (False, True):
        task = settings(guided)
        first = drawn(family, **task)
        other = settings(not guided, prompt=LONG, width=64, height=32, num_inference_steps=9)
        drawn(family, **other)
        assert np.array_equal(drawn(family, **task), first)
        break_off(family, task)
        assert np.array_equal(drawn(family, **task), first)
        assert np.array_equal(drawn(cached(folders(name), kind), **task), first)


def test_mag_fits_its_ratios_to_the_steps_of_each_picture(folders: Folders) -> None:
    mag = {**EAGER["mag"]["mag_cache"], "max_skip_steps": 100, "retention_ratio": 0.5}
    family = loaded(spec_for(str(folders("flux")), step_cache="mag", mag_cache=mag))
    computed: list[int] = []
    layers = dict(family.pipeline.transformer.named_modules())
    layers["transformer_blocks.1.attn.to_q"].register_forward_hook(lambda *_: computed.append(1))
    for steps in (8, 20, 8):
        before = len(computed)
        drawn(family, num_inference_steps=steps)
        assert len(computed) - before == steps // 2


def break_off(family: Any, task: dict[str, Any]) -> None:
    """Have a picture fail in the middle of its steps."""
    scheduler = family.pipeline.scheduler
    step, done = scheduler.step, list[int]()

    def failing(*args: Any, **kwargs: Any) -> Any:
        done.append(1)
        if len(done) == STEPS // 2 + 1:
            raise ZeroDivisionError
        return step(*args, **kwargs)

    scheduler.step = failing
    with pytest.raises(ZeroDivisionError):
        family.run([lease(**task)])
    scheduler.step = step


def test_z_image_is_guided_apart_where_the_backend_takes_no_masks(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.models import attention_dispatch
    from diffusers.models.attention_dispatch import AttentionBackendName

    monkeypatch.setattr(attention_dispatch, "_check_attention_backend_requirements", lambda b: None)
    registry = attention_dispatch._AttentionBackendRegistry._backends
    native = registry[AttentionBackendName.NATIVE]
    monkeypatch.setitem(registry, AttentionBackendName.FLASH, lambda **given: native(**given))
    family = cached(folders("z_image"), "first_block", attention_backend="flash")
    task = settings(guided=True, prompt=LONG)
    first = drawn(family, **task)
    drawn(family, **settings(guided=True, width=64))
    assert np.array_equal(drawn(family, **task), first)


@pytest.mark.parametrize(("name", "kind"), SOME)
def test_loras_come_and_go_beside_a_step_cache(
    folders: Folders, tmp_path: Path, name: str, kind: str
) -> None:
    loras = loras_for(folders(name), tmp_path)
    task = settings(guided=False)
    order = [None, loras[0], loras[1], None, loras[0]]
    family = cached(folders(name), kind, max_resident_loras=1)
    pictures = [drawn(family, lora, **task) for lora in order]
    alone = drawn(cached(folders(name), kind), loras[0], **task)
    assert np.array_equal(pictures[0], pictures[3])
    assert np.array_equal(pictures[1], alone) and np.array_equal(pictures[4], alone)
    assert not np.array_equal(pictures[0], alone) and not np.array_equal(pictures[2], alone)


def loras_for(model: Path, folder: Path) -> list[Path]:
    """Two LoRAs with random weights."""
    from diffusers import DiffusionPipeline
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipeline = DiffusionPipeline.from_pretrained(model)
    files = []
    for number in range(2):
        torch.manual_seed(number)
        config = LoraConfig(r=4, init_lora_weights=False, target_modules=["to_q", "to_v"])
        pipeline.transformer.add_adapter(config, adapter_name=f"a{number}")
        state = get_peft_model_state_dict(pipeline.transformer, adapter_name=f"a{number}")
        files.append(folder / f"{number}.safetensors")
        pipeline.save_lora_weights(folder, state, weight_name=files[-1].name)
    return files


@pytest.fixture
def source(tmp_path: Path) -> str:
    file = tmp_path / "source.png"
    Image.new("RGB", (80, 80), (200, 90, 40)).save(file)
    return str(file)


def edited(editor: Any, source: str, **fields: Any) -> Any:
    given = {
        "instruction": "make it night", "width": 32, "height": 32, "working_area": 32 * 32,
        "condition_area": 32 * 32, "num_inference_steps": STEPS, "true_cfg_scale": 4.0,
        "negative_prompt": "rain", "seed": 1, **fields,
    }  # fmt: skip
    task = EditTask(source_images=(source,), **given)
    order = Lease("id", 1, task, None, "fingerprint", "unused.png")
    return np.asarray(editor.run([order])[0].image).astype(int)


def editor_for(folder: Path, kind: str) -> Any:
    return loaded(replace(spec_for(str(folder), step_cache=kind, **EAGER[kind]), role="edit"))


@pytest.mark.parametrize(("name", "kind"), EDITED)
def test_edits_are_the_same_whatever_was_edited_before(
    folders: Folders, source: str, name: str, kind: str
) -> None:
    editor = editor_for(folders(name), kind)
    first = edited(editor, source)
    edited(editor, source, width=64, instruction=LONG, num_inference_steps=11)
    assert np.array_equal(edited(editor, source), first)
    assert np.array_equal(edited(editor_for(folders(name), kind), source), first)


@pytest.mark.parametrize(("name", "kind"), EDITED)
def test_prompt_and_negative_prompt_take_nothing_from_each_other(
    folders: Folders, source: str, name: str, kind: str
) -> None:
    """Where guidance is so weak that a negative prompt counts for nothing, it changes nothing."""
    editor = editor_for(folders(name), kind)
    weak = edited(editor, source, negative_prompt=LONG[:100], true_cfg_scale=1.0 + 1e-6)
    none = edited(editor, source, negative_prompt=None, true_cfg_scale=1.0)
    assert np.abs(weak - none).max() <= 1


# -- what is refused, what counts as changed ----------------------------------------------------


@pytest.mark.parametrize("kind", ["taylorseer", "mag"])
def test_z_image_has_but_one_step_cache(tiny_model: Path, kind: str) -> None:
    with pytest.raises(
        InputError, match=f"step_cache: for ZImage.* first_block or none .*'{kind}'"
    ):
        cached(tiny_model, kind)


def test_a_model_without_step_caches_is_refused(tmp_path: Path) -> None:
    tiny_pipelines.build_sdxl().save_pretrained(tmp_path)
    for kind in EAGER:
        with pytest.raises(InputError, match=f"step_cache: for UNet2D.* be none .*'{kind}'"):
            cached(tmp_path, kind)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"memory": "group_offload"}, "memory: group_offload"),
        ({"memory": "sequential_offload"}, "memory: sequential_offload"),
        ({"device_count": 2}, "gpus_per_worker above 1"),
    ],
)
def test_a_model_in_pieces_has_no_step_cache(
    tiny_model: Path, changed: dict[str, Any], why: str
) -> None:
    spec = replace(spec_for(str(tiny_model), step_cache="first_block"), **changed)
    with pytest.raises(InputError, match=f"step_cache: first_block cannot be used with {why}"):
        loaded(spec)


def test_mag_needs_the_ratios_of_its_model(folders: Folders) -> None:
    loaded(spec_for(str(folders("flux")), step_cache="mag"))
    with pytest.raises(InputError, match=r"workers.mag_cache.mag_ratios: QwenImagePipeline"):
        loaded(spec_for(str(folders("qwen_image")), step_cache="mag"))


@pytest.mark.parametrize(
    ("workers", "why"),
    [
        ({"step_cache": "mag", "compile": "always"}, "compile: always"),
        ({"step_cache": "first_block", "max_batch": 2}, "max_batch: 1, not 2"),
        ({"step_cache": "first_block", "max_batch": "auto"}, "max_batch: 1, not auto"),
        ({"step_cache": "teacache"}, "'taylorseer' or 'mag'"),
        ({"first_block_cache": {"threshold": 0}}, "workers.first_block_cache.threshold"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_loads(
    workers: dict[str, Any], why: str
) -> None:
    with pytest.raises(InputError, match=why):
        spec_for("-", **workers)


def test_a_picture_counts_as_changed_only_where_a_step_cache_is_on(tmp_path: Path) -> None:
    plans: list[Plan] = []
    for workers in (
        {},
        {"first_block_cache": {"threshold": 0.1}},
        {"step_cache": "first_block"},
        {"step_cache": "first_block"},
        {"step_cache": "first_block", "first_block_cache": {"threshold": 0.1}},
    ):
        config = simulated(workers=workers)
        with MultiGPUImageGenerator(1, config=config, output_dir=tmp_path) as generator:
            plans.append(generator.prepare([{"prompt": "a red house", "output_path": "a.png"}], []))
            generator.execute(plans[-1])
    assert [len(plan.tasks) for plan in plans] == [1, 0, 1, 0, 1]


def test_two_workers_draw_what_one_draws(tiny_model: Path, tmp_path: Path) -> None:
    tasks = [
        {"prompt": f"{i}", "width": 32, "height": 32, "output_path": f"{i}.png", "seed": i}
        for i in range(4)
    ]
    config = {
        "model": str(tiny_model),
        "device": "cpu",
        "defaults": {"num_inference_steps": STEPS, "guidance_scale": 2.0},
        "workers": {"step_cache": "first_block", **EAGER["first_block"]},
    }
    pictures = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        with MultiGPUImageGenerator(workers, config=config, output_dir=folder) as generator:
            results = generator.generate_batch(tasks)
        assert [r.error for r in results] == [None] * 4
        files = [Path(str(r.output_path)) for r in results]
        pictures.append([np.asarray(Image.open(file)) for file in files])
        assert read_provenance(files[0])["used"]["step_cache"] == "first_block(threshold=100.0)"
    assert np.array_equal(pictures[0], pictures[1])
