"""Several small pictures in one call: who may go together, and what it does to the pixels."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.engine.pending import Pending, Worker
from core.engine.scheduler import Scheduler
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.store.provenance import read_provenance
from tests.both_engines import ON_BOTH
from tests.conftest import Workplace
from tests.test_native_image_generator import lease, spec_for

LONG = "a red house on the left, on grass, under a night sky, and " + "a blue tree " * 12
TOLERANCE = 1  # of 255: how far a pixel may move with its company, in float32


@pytest.fixture(scope="module")
def family(tiny_model: Path) -> Any:
    from workers.models.native_image_generator import NativeImageGenerator

    native = NativeImageGenerator(spec_for(str(tiny_model)), lambda level, text: None)
    native.load()
    return native


def pixels(products: list[Any]) -> list[Any]:
    return [np.asarray(product.image).astype(int) for product in products]


@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_a_picture_is_the_same_alone_and_in_company(
    family: Any, tiny_loras: list[Path], guidance: float
) -> None:
    """Captions of different length are not filled up to the longest."""
    prompts = ["a red house", LONG, "a blue tree", "a white cat", LONG + " at night"]
    shared: dict[str, Any] = {"guidance_scale": guidance, "negative_prompt": "rain"}
    leases = [
        replace(lease(tiny_loras[0], prompt=p, seed=i, **shared), lease_id=str(i))
        for i, p in enumerate(prompts)
    ]
    calls: list[int] = []
    original = family.pipeline.__class__.__call__

    def counted(pipeline: Any, *args: Any, **kwargs: Any) -> Any:
        output = original(pipeline, *args, **kwargs)
        calls.append(len(output.images))
        return output

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(family.pipeline.__class__, "__call__", counted)
        together = family.run(leases)
    assert sorted(calls) == [2, 3]
    alone = [family.run([one])[0] for one in leases]
    for a, b in zip(pixels(together), pixels(alone), strict=True):
        assert np.abs(a - b).max() <= TOLERANCE
    assert [p.used["pictures_at_once"] for p in together] == [3, 2, 3, 3, 2]
    assert "pictures_at_once" not in alone[0].used


def test_words_are_encoded_once_alone_and_in_company(family: Any) -> None:
    family.free_memory()
    seen: list[int] = []
    hook = family.pipeline.text_encoder.register_forward_hook(lambda *_: seen.append(1))
    one, other, longer = (
        replace(lease(prompt=p, guidance_scale=0.0), lease_id=p) for p in ("a", "b", LONG)
    )
    family.run([one, other, longer])  # the longer one is drawn by itself
    family.run([one])
    hook.remove()
    assert len(seen) == 3


def test_like_pictures_are_drawn_together_when_asked_for(
    tiny_model: Path, tiny_loras: list[Path], tmp_path: Path
) -> None:
    tasks: list[dict[str, Any]] = [
        {"prompt": f"{i}", "width": 48, "height": 48 if i % 2 else 32} for i in range(8)
    ]
    tasks += [{**tasks[0], "prompt": "styled", "lora_path": str(tiny_loras[0])}]
    config = {"model": str(tiny_model), "device": "cpu", "workers": {"max_batch": 3}}
    config["defaults"] = {"num_inference_steps": 2, "guidance_scale": 0.0}
    with MultiGPUImageGenerator(1, config=config, output_dir=tmp_path) as generator:
        results = generator.generate_batch(tasks)
    assert [r.error for r in results] == [None] * 9
    used = [read_provenance(Path(str(r.output_path)))["used"] for r in results]
    at_once = [u.get("pictures_at_once", 1) for u in used]
    assert max(at_once) == 3 and at_once[8] == 1
    assert {(u["width"], u["height"]) for u in used} == {(48, 48), (48, 32)}


@ON_BOTH
def test_one_bad_picture_of_a_batch_leaves_the_others_alone(
    tmp_path: Path, workplace: Workplace
) -> None:
    tasks = [{"prompt": p, "width": 32, "height": 32} for p in ("a", "b", "!nan", "c", "d")]
    config = workplace.simulated(workers={"max_batch": 5})
    with MultiGPUImageGenerator(1, config=config, output_dir=tmp_path) as generator:
        results = generator.generate_batch(tasks)
    assert [r.status for r in results] == ["done", "done", "failed", "done", "done"]


@ON_BOTH
@pytest.mark.parametrize("fault", ["cuda", "crash", "hang"])
def test_a_poisonous_picture_fails_alone(tmp_path: Path, fault: str, workplace: Workplace) -> None:
    """What broke with it in one batch is tried again without it."""
    tasks = [{"prompt": p, "width": 32, "height": 32} for p in ("a", "b", f"!{fault}", "c", "d")]
    config = workplace.simulated(
        workers={"max_batch": 5},
        supervision={"restart_backoff": 0.01, "restarts_before_retirement": 50, "task_timeout": 2},
    )
    with MultiGPUImageGenerator(1, config=config, output_dir=tmp_path) as generator:
        results = generator.generate_batch(tasks)
    bad = "quarantined" if fault == "crash" else "failed"
    assert [r.status for r in results] == ["done", "done", bad, "done", "done"]


def test_only_tasks_of_one_group_go_together() -> None:
    groups = ["a", "b", None, "a", "b", "a"]
    scheduler = Scheduler()
    scheduler.open(0)
    for i, group in enumerate(groups):
        scheduler.add(Pending(0, i, 1.0, group=group))
    worker = Worker("w0")
    first = scheduler.take(worker)
    assert first is not None and first.position == 0
    company = [scheduler.take_with(first, worker) for _ in range(3)]
    assert [task.position if task else None for task in company] == [3, 5, None]
    second = scheduler.take(worker)
    assert second is not None and second.position == 1
    assert scheduler.take_with(Pending(0, 9, 1.0), worker) is None
    assert len(scheduler) == 2
