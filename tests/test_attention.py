"""Attention backends by diffusers' names: for one model alone, and right without masks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models import attention_dispatch
from diffusers.models.attention_dispatch import AttentionBackendName

from core.errors import InputError
from core.intake.planning import Plan
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.worker_spec import WorkerSpec
from tests import tiny_pipelines
from tests.conftest import simulated
from tests.test_native_image_generator import drawn, lease, spec_for

LONG = "a red house on the left, on grass, under a night sky, and " + "a blue tree " * 12
TOLERANCE = 1  # of 255: sums in another order
WITHOUT_MASKS = ("flash", "_flash_3_hub", "flash_varlen", "sage", "xformers")


def generator_for(model: Path, lines: list[str] | None = None, **workers: Any) -> Any:
    return loaded(spec_for(str(model), **workers), lines)


def loaded(spec: WorkerSpec, lines: list[str] | None = None) -> Any:
    from workers.models.native_image_generator import NativeImageGenerator

    log = [] if lines is None else lines
    family = NativeImageGenerator(spec, lambda level, text: log.append(text))
    family.load()
    return family


Counted = Callable[[str], list[tuple[int, ...]]]


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """Makes a backend count its calls; those that this machine lacks are stood in for.

    A stand-in refuses masks, as FlashAttention does.
    """
    for name in ("_check_attention_backend_requirements", "_maybe_download_kernel_for_backend"):
        monkeypatch.setattr(attention_dispatch, name, lambda backend: None)
    registry = attention_dispatch._AttentionBackendRegistry

    def counted(name: str) -> list[tuple[int, ...]]:
        calls: list[tuple[int, ...]] = []
        real = registry._backends[AttentionBackendName(name)]
        native = registry._backends[AttentionBackendName.NATIVE]

        def compute(query: Any, key: Any, value: Any, attn_mask: Any = None, **given: Any) -> Any:
            calls.append(tuple(query.shape))
            if "native" in name:
                return real(query, key, value, attn_mask, **given)
            if attn_mask is not None:
                raise ValueError(f"`attn_mask` is not supported for {name}")
            return native(query, key, value)

        monkeypatch.setitem(registry._backends, AttentionBackendName(name), compute)
        return calls

    return counted


# -- which model --------------------------------------------------------------------------------


def test_attention_backends_go_by_diffusers_names(tiny_model: Path) -> None:
    assert np.array_equal(
        drawn(generator_for(tiny_model, attention_backend="native")),
        drawn(generator_for(tiny_model)),
    )
    with pytest.raises(InputError, match=r"workers.attention_backend: 'nativ': .*native"):
        generator_for(tiny_model, attention_backend="nativ")


def test_a_picture_of_another_attention_backend_counts_as_changed(tmp_path: Path) -> None:
    plans: list[Plan] = []
    for backend in ("auto", "auto", "native"):
        settings = simulated(workers={"attention_backend": backend})
        with MultiGPUImageGenerator(1, config=settings, output_dir=tmp_path) as generator:
            plans.append(generator.prepare([{"prompt": "a red house", "output_path": "a.png"}], []))
            generator.execute(plans[-1])
    assert [len(plan.tasks) for plan in plans] == [1, 0, 1]


def test_a_backend_of_one_model_is_not_that_of_the_next(
    tiny_model: Path, backends: Counted
) -> None:
    math = backends("_native_math")
    first = generator_for(tiny_model, attention_backend="_native_math")
    second = generator_for(tiny_model)
    drawn(second)
    assert not math
    drawn(first)
    assert math


def test_a_backend_that_was_refused_leaves_nothing_behind(
    tiny_model: Path, backends: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    flash = backends("flash")

    def missing(backend: object) -> None:
        raise RuntimeError("not usable because of missing package")

    monkeypatch.setattr(attention_dispatch, "_check_attention_backend_requirements", missing)
    before = drawn(generator_for(tiny_model))
    with pytest.raises(InputError, match=r"workers.attention_backend: 'flash': not usable"):
        generator_for(tiny_model, attention_backend="flash")
    assert np.array_equal(drawn(generator_for(tiny_model)), before) and not flash


def test_a_model_that_lets_nobody_choose_is_refused(tmp_path: Path, backends: Counted) -> None:
    tiny_pipelines.build_sdxl().save_pretrained(tmp_path)
    backends("flash")
    with pytest.raises(InputError, match="attention_backend: 'flash': UNet2DConditionModel"):
        generator_for(tmp_path, attention_backend="flash")
    generator_for(tmp_path, attention_backend="native")


# -- masks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", WITHOUT_MASKS)
def test_z_image_is_guided_where_prompts_differ_in_length(
    tiny_model: Path, backends: Counted, backend: str
) -> None:
    lines: list[str] = []
    guided: dict[str, Any] = {"prompt": LONG, "negative_prompt": "rain", "guidance_scale": 4.0}
    expected = drawn(generator_for(tiny_model), **guided).astype(int)
    native, chosen = backends("native"), backends(backend)
    family = generator_for(tiny_model, lines, attention_backend=backend)
    found = drawn(family, **guided).astype(int)
    assert np.abs(found - expected).max() <= TOLERANCE
    assert found.std() > 0 and np.abs(found - drawn(family, prompt=LONG)).max() > TOLERANCE
    assert len(native) == len(chosen), "every layer, and nothing but the stand-in"
    assert any(f"{backend} takes no masks" in line for line in lines)


def test_z_image_pays_nothing_where_prompts_are_of_one_length(
    tiny_model: Path, backends: Counted
) -> None:
    chosen = backends("flash")
    drawn(generator_for(tiny_model, attention_backend="flash"), guidance_scale=4.0)
    assert {shape[0] for shape in chosen} == {2}, "prompt and negative prompt go together"


def test_qwen_image_draws_captions_of_different_length_at_once(
    tmp_path: Path, backends: Counted
) -> None:
    tiny_pipelines.build_qwen_image().save_pretrained(tmp_path)
    guided: dict[str, Any] = {"negative_prompt": "rain", "cfg": 4.0}
    leases = [
        replace(lease(prompt=p, seed=i, **guided), lease_id=str(i))
        for i, p in enumerate(("a red house", LONG, "a cat"))
    ]
    expected = generator_for(tmp_path, max_batch=3).run(leases)
    native, chosen = backends("native"), backends("flash")
    found = generator_for(tmp_path, max_batch=3, attention_backend="flash").run(leases)
    assert len(native) == len(chosen), "every layer, and nothing but the stand-in"
    assert {shape[0] for shape in chosen} == {1, 3}, "those of one length stay together"
    assert [p.used["pictures_at_once"] for p in found] == [3, 3, 3]
    for one, other in zip(found, expected, strict=True):
        difference = np.asarray(one.image).astype(int) - np.asarray(other.image).astype(int)
        assert np.abs(difference).max() <= TOLERANCE


@pytest.mark.parametrize("compiled", [False, True])
def test_a_layer_that_needs_a_mask_is_computed_with_torch(
    backends: Counted, compiled: bool
) -> None:
    """In models of which nothing is known here, too."""
    from diffusers import ZImageTransformer2DModel
    from diffusers.models.attention_processor import Attention
    from diffusers.models.transformers.transformer_z_image import ZSingleStreamAttnProcessor

    from workers.attention import choose_attention

    class Unknown(ZImageTransformer2DModel):  # type: ignore[misc]  # untyped
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            torch.manual_seed(0)
            self.layer = Attention(16, heads=2, dim_head=8, processor=ZSingleStreamAttnProcessor())

    model, chosen = Unknown(), backends("flash")
    hidden, mask = torch.randn(2, 5, 16), torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    layer = torch.compile(model.layer, backend="eager", fullgraph=True) if compiled else model.layer
    expected = [model.layer(hidden), model.layer(hidden, attention_mask=mask)]
    choose_attention(model, "flash", lambda level, text: None)
    assert torch.allclose(layer(hidden, attention_mask=mask), expected[1], atol=1e-6)
    assert not chosen
    assert torch.allclose(layer(hidden), expected[0], atol=1e-6)
    assert chosen


def test_what_is_in_front_of_a_module_outlasts_offloading() -> None:
    """Its hooks take the place of `forward`, and give it back as they found it."""
    from accelerate.hooks import (
        ModelHook,
        add_hook_to_module,
        remove_hook_from_module,
    )

    from workers.calls import put_in_front

    first, second = torch.nn.Identity(), torch.nn.Identity()
    add_hook_to_module(first, ModelHook())
    put_in_front(first, lambda call: lambda tensor: call(tensor) + 1)
    assert first(torch.zeros(1)) == 1
    remove_hook_from_module(first)
    assert first(torch.zeros(1)) == 1
    assert second(torch.zeros(1)) == 0, "another module of its class"
    assert isinstance(first, torch.nn.Identity) and type(first).__name__ == "Identity"
