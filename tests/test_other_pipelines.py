"""Families that nobody listed: SDXL, FLUX and Qwen-Image run by their signature alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.test_native_image_generator import drawn, lease, spec_for
from tests.tiny_pipelines import save

GUIDED = {  # the denoiser, and the argument that carries cfg
    "sdxl": ("unet", "guidance_scale"),
    "flux": ("transformer", "true_cfg_scale"),
    "qwen_image": ("transformer", "true_cfg_scale"),
}


@pytest.fixture(scope="module", params=list(GUIDED))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from workers.models.native_image_generator import NativeImageGenerator

    folder = save(request.param, tmp_path_factory.mktemp("models"))
    native = NativeImageGenerator(spec_for(str(folder)), lambda level, text: None)
    native.load()
    return request.param, native


def test_it_draws_the_size_and_the_seed_that_were_asked_for(family: Any) -> None:
    _, native = family
    first = drawn(native, width=64, height=32, seed=1)
    assert first.shape == (32, 64, 3)
    assert np.array_equal(first, drawn(native, width=64, height=32, seed=1))
    assert not np.array_equal(first, drawn(native, width=64, height=32, seed=2))


def test_cfg_reaches_the_argument_that_guides(family: Any) -> None:
    name, native = family
    component, argument = GUIDED[name]
    for cfg, passes in ((1.0, 1), (3.0, 2)):
        seen = 0

        def count(module: Any, args: Any, kwargs: Any, output: Any) -> None:
            nonlocal seen
            batch = args[0] if args else kwargs["hidden_states"]
            seen += len(batch)

        denoiser = getattr(native._pipeline, component)
        hook = denoiser.register_forward_hook(count, with_kwargs=True)
        used = native.generate(lease(cfg=cfg)).used
        hook.remove()
        assert used[argument] == cfg
        assert seen == passes * used["num_inference_steps"]


def test_a_pipeline_that_draws_nothing_from_a_prompt_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import DiffusionPipeline

    from core.errors import InputError
    from workers.models.native_image_generator import NativeImageGenerator

    class NeedsAnImage:
        def set_progress_bar_config(self, **_: Any) -> None: ...
        def __call__(self, prompt: str, image: Any) -> None: ...

    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", lambda *a, **k: NeedsAnImage())
    native = NativeImageGenerator(spec_for(str(tmp_path)), lambda level, text: None)
    with pytest.raises(InputError, match="NeedsAnImage, which draws nothing from a prompt"):
        native.load()
