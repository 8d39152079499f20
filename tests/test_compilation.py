"""Compiled blocks, exchanged LoRAs, attention backends: the same pictures, and no surprises."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.errors import InputError
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.planning import Plan
from tests.conftest import simulated, wait_until
from tests.stub_workers import StubStarter
from tests.test_native_image_generator import drawn, lease, lease_of, spec_for
from workers.compilation import JUDGED_AFTER, LIKELY_COST, LIKELY_GAIN, MARGIN, Compilation
from workers.simulated_gpu import COMPILING

TOLERANCE = 2  # of 255: compiled arithmetic rounds elsewhere
GPU = torch.device("cuda")


def generator_for(model: Path, lines: list[str] | None = None, **workers: Any) -> Any:
    from workers.models.native_image_generator import NativeImageGenerator

    log = [] if lines is None else lines
    spec = spec_for(str(model), **workers)
    family = NativeImageGenerator(spec, lambda level, text: log.append(text))
    family.load()
    return family


@pytest.fixture(scope="module")
def lora_of_another_rank(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With fewer layers than `tiny_loras`, too."""
    from diffusers import ZImagePipeline
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    torch.manual_seed(9)
    transformer = ZImagePipeline.from_pretrained(tiny_model).transformer
    config = LoraConfig(r=8, lora_alpha=2, init_lora_weights=False, target_modules=["to_q"])
    transformer.add_adapter(config, adapter_name="a")
    state = get_peft_model_state_dict(transformer, adapter_name="a")
    folder = tmp_path_factory.mktemp("rank")
    ZImagePipeline.save_lora_weights(folder, state, weight_name="eight.safetensors")
    return folder / "eight.safetensors"


def test_compiled_pictures_are_the_same_and_loras_are_exchanged_without_compiling_again(
    tiny_model: Path, tiny_loras: list[Path], lora_of_another_rank: Path
) -> None:
    plain = generator_for(tiny_model)
    compiled = generator_for(tiny_model, compile="always", max_resident_loras=2)
    first, second, third = *tiny_loras, lora_of_another_rank
    order: list[tuple[Path | None, float]] = [
        (None, 1.0), (first, 1.0), (second, 0.7), (None, 1.0), (third, 1.0), (first, 0.3),
        (first, 1.0), (third, 0.5), (second, 1.0), (first, 0.0),
    ]  # fmt: skip
    counted, announced = list[int](), list[int]()
    compiled.before_compiling(lambda: announced.append(len(counted)))
    for lora, strength in order:
        expected = drawn(plain, lora, lora_strength=strength).astype(int)
        found = drawn(compiled, lora, lora_strength=strength).astype(int)
        assert np.abs(found - expected).max() <= TOLERANCE, (lora, strength)
        counted.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert counted[0] > 0, "nothing was compiled"
    assert counted[1] > counted[0], "layers with LoRAs are others"
    assert counted[2:] == [counted[1]] * (len(order) - 2)
    assert announced == [0, 1], "main waits longer for a task that is compiled first"
    assert compiled.take_lora_counts().loads == 5  # two stay in memory
    assert len(compiled.resident_loras()) == 2
    styled = drawn(compiled, first).astype(int)
    assert np.abs(styled - drawn(compiled).astype(int)).max() > TOLERANCE
    stacks: list[list[tuple[Path, float]]] = [
        [(first, 1.0), (second, 0.7)], [(second, 0.7), (first, 0.3)], [(third, 0.5), (second, 1.0)],
        [(first, 1.0), (third, 0.0)], [(first, 1.0), (second, -0.5), (third, 1.0)],
    ]  # fmt: skip
    for stack in stacks:
        pictures = [np.asarray(f.run([lease_of(*stack)])[0].image) for f in (plain, compiled)]
        assert np.abs(pictures[0].astype(int) - pictures[1]).max() <= TOLERANCE, stack
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == counted[1]
    used = compiled.run([lease(first)])[0].used
    assert used["compiled"] is True and "compiled" not in plain.run([lease(first)])[0].used


@pytest.mark.parametrize("kind", ["TorchDynamoException", "FailOnRecompileLimitHit"])
def test_without_a_working_compiler_pictures_come_all_the_same(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    error: type[Exception] = getattr(torch._dynamo.exc, kind)

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise error("no compiler here")

    lines: list[str] = []
    family = generator_for(tiny_model, lines, compile="always")
    monkeypatch.setattr(type(family._denoiser), "forward", broken)
    with pytest.raises(error):
        family.run([lease()])  # not the compiler's fault: it fails uncompiled, too
    monkeypatch.undo()
    assert any("not compiled: no compiler here" in line for line in lines)
    expected = drawn(generator_for(tiny_model))
    assert np.array_equal(drawn(family), expected)


class Blocks(torch.nn.Module):
    """A denoiser that counts how often it was compiled."""

    _repeated_blocks = ("Block",)

    def __init__(self) -> None:
        super().__init__()
        self.compiled = 0

    def compile_repeated_blocks(self, **kwargs: Any) -> None:
        self.compiled += 1


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("workers.compilation.time.monotonic", lambda: self.now)

    def draw(self, compilation: Compilation, seconds: float, count: int = 1) -> None:
        for _ in range(count):
            with compilation.timed(1.0):
                self.now += seconds


def enough(seconds: float) -> int:
    """Pictures ahead that make compiling pay by the rule of thumb."""
    return int(MARGIN * LIKELY_COST / (LIKELY_GAIN * seconds)) + 1


def test_auto_compiles_only_when_the_work_ahead_earns_it_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, lines = Clock(monkeypatch), list[str]()
    auto = Compilation(Blocks(), "auto", GPU, lambda level, text: lines.append(text))
    assert not auto.due(10_000, 1.0), "nothing is known yet"
    clock.draw(auto, 30.0)  # the first picture warms up and says nothing
    assert not auto.due(10_000, 1.0)
    clock.draw(auto, 1.0)
    assert not auto.due(enough(1.0) - 2, 1.0)
    assert auto.due(enough(1.0), 1.0)
    assert auto.due(enough(1.0) // 4 + 1, 4.0), "four times the size, a quarter of the pictures"


def test_auto_goes_back_where_pictures_come_no_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    for compiled_seconds, stays in ((0.8, True), (1.1, False)):
        clock, lines = Clock(monkeypatch), list[str]()
        auto = Compilation(Blocks(), "auto", GPU, lambda level, text: lines.append(text))  # noqa: B023
        clock.draw(auto, 1.0, count=3)
        auto.begin()
        clock.draw(auto, 40.0)
        clock.draw(auto, compiled_seconds, count=JUDGED_AFTER - 1)
        assert auto.active is stays
        assert "compiled in 39 s" in lines[0] and "instead of 1.00 s" in lines[0]
        assert not auto.due(10**9, 1.0)


def test_on_a_cpu_only_always_compiles() -> None:
    cpu = torch.device("cpu")
    assert not Compilation(Blocks(), "auto", cpu, lambda level, text: None).due(10**9, 1.0)
    assert not Compilation(Blocks(), "never", GPU, lambda level, text: None).due(10**9, 1.0)
    assert Compilation(Blocks(), "always", cpu, lambda level, text: None).due(0, 1.0)


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
    assert [len(plan.jobs) for plan in plans] == [1, 0, 1]


def test_compiling_is_announced_and_is_not_taken_for_hanging(tmp_path: Path) -> None:
    """It begins when plain pictures have taught main how fast they come."""
    rules = {"task_timeout_minimum": COMPILING / 2}
    tasks = [{"prompt": p} for p in ("a", "b", "c", "d", "e")]
    with MultiGPUImageGenerator(
        1, config=simulated(supervision=rules), output_dir=tmp_path
    ) as generator:
        assert all(r.success for r in generator.generate_batch(tasks))
        [result] = generator.generate_batch([{"prompt": "!compile"}])
    assert result.success and result.attempts == 1


def test_the_first_task_of_each_process_that_may_compile_has_the_time_of_a_first_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although others have taught main how fast tasks are."""
    starter, limit = StubStarter.installed(monkeypatch), 0.3
    config = simulated(workers={"compile": "always"}, supervision={"task_timeout_minimum": limit})
    generator = MultiGPUImageGenerator(1, config=config, output_dir=tmp_path)
    with ThreadPoolExecutor() as executor, generator:
        batch = executor.submit(generator.generate_batch, [{"prompt": f"{i}"} for i in range(3)])
        worker = starter.worker().serve()
        worker.finish(worker.hear_lease())
        worker.hear_lease()
        worker.die()
        worker = starter.worker(incarnation=2).serve()
        lease = worker.hear_lease()
        time.sleep(3 * limit)
        assert not worker.killed
        worker.finish(lease)
        worker.hear_lease()
        wait_until(lambda: worker.killed, "the end of a second task that hangs")
        worker = starter.worker(incarnation=3).serve()
        worker.finish(worker.hear_lease())
        worker.leave_when_asked()
        assert [r.success for r in batch.result()] == [True] * 3
