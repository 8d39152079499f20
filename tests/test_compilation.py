"""Compiled blocks and exchanged LoRAs: the same pictures, and no surprises."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.checkpoints.lora_files import content_hash
from core.messages import Keep
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from tests.conftest import simulated, wait_until
from tests.stub_backend import StubBackend
from tests.test_native_image_generator import drawn, lease, lease_of, spec_for
from workers.compilation import Compilation, compilable
from workers.lora_orders import obey
from workers.simulated_gpu import COMPILING

LONG = "a red house on the left, on grass, under a night sky, and " + "a blue tree " * 12
TOLERANCE = 2  # of 255: compiled arithmetic rounds elsewhere


def generator_for(model: Path, lines: list[str] | None = None, **workers: Any) -> Any:
    from workers.models.native_image_generator import NativeImageGenerator

    log = [] if lines is None else lines
    spec = spec_for(str(model), **workers)
    family = NativeImageGenerator(spec, lambda level, text: log.append(text))
    family.load()
    return family


def graphs() -> int:
    """Compiled so far in this process."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


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


@pytest.fixture
def code_for_any_processor() -> Iterator[None]:
    """Have torch's own compiler write plain loops, and compile them from this process.

    They are compiled sooner than those of vectors, for each kind of which the C++ compiler is
    tried first; and no processes import torch to compile side by side.
    """
    import torch._inductor.config as settings

    with settings.patch({"cpp.vec_isa_ok": False, "compile_threads": 1}):
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("code_for_any_processor")
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
    kept = obey(
        compiled, Keep(content_hash(first), str(first), "load")
    )  # before there is a picture
    for lora, strength in order:
        expected = drawn(plain, lora, lora_strength=strength).astype(int)
        found = drawn(compiled, lora, lora_strength=strength).astype(int)
        assert np.abs(found - expected).max() <= TOLERANCE, (lora, strength)
        counted.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert counted[0] > 0, "nothing was compiled"
    assert counted[1] > counted[0], "layers with LoRAs are others"
    assert counted[2:] == [counted[1]] * (len(order) - 2)
    assert announced == [0, 1], "main waits longer for a task that is compiled first"
    assert kept.lora_loads + compiled.take_lora_counts().loads == 5  # two stay in memory
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


def compile_by(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have blocks compiled by another backend of torch than the usual one."""
    usual = torch.nn.Module.compile

    def compiled(module: torch.nn.Module, *args: Any, **options: Any) -> None:
        usual(module, *args, **{**options, "backend": backend})

    monkeypatch.setattr(torch.nn.Module, "compile", compiled)


@pytest.mark.slow
def test_each_compilation_is_announced_and_captions_of_any_length_share_one(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a block is compiled anew is the same for every backend: this one makes no code."""
    compile_by("eager", monkeypatch)
    plain, compiled = generator_for(tiny_model), generator_for(tiny_model, compile="always")
    announced: list[int] = []
    compiled.before_compiling(lambda: announced.append(graphs()))
    kinds: list[dict[str, Any]] = [
        # One caption, two of different lengths (with a mask), and two of one length (without).
        {"guidance_scale": 0.0}, {"guidance_scale": 2.0, "prompt": LONG}, {"guidance_scale": 2.0},
        {"guidance_scale": 0.0, "prompt": LONG}, {"guidance_scale": 2.0, "prompt": LONG[:90]},
        {"guidance_scale": 0.0, "width": 96}, {"prompt": LONG[:150]},
    ]  # fmt: skip
    compiled_for = []
    for kind in kinds:
        before, told = graphs(), len(announced)
        found = drawn(compiled, **kind).astype(int)
        assert np.abs(found - drawn(plain, **kind).astype(int)).max() <= TOLERANCE
        compiled_for.append(graphs() > before)
        assert announced[told:] == ([before] if graphs() > before else [])
    assert not any(compiled_for[3:])


class Blocks(torch.nn.Module):
    """A denoiser of one block, which is compiled anew for every `size`."""

    _repeated_blocks = ("Blocks",)

    def forward(self, tensor: torch.Tensor, size: int) -> torch.Tensor:
        return tensor * size

    def compile_repeated_blocks(self, fullgraph: bool) -> None:
        self.compile(backend="eager", fullgraph=fullgraph, dynamic=False)


def test_a_block_may_have_more_versions_than_torch_allows_by_itself() -> None:
    allowed = torch._dynamo.config.recompile_limit
    blocks, announced = Blocks(), list[int]()
    with torch._dynamo.config.patch(recompile_limit=8):
        compilation = Compilation(blocks, "always", lambda level, text: None)
        compilation.begin()
        for size in range(2, 14):
            with compilation.announced(lambda size=size: announced.append(size)):  # type: ignore[misc]
                blocks(torch.ones(3), size)
                blocks(torch.ones(3), size)
    assert announced == list(range(2, 14))
    assert torch._dynamo.config.recompile_limit == allowed


@pytest.mark.slow
def test_beyond_all_versions_pictures_come_uncompiled(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch._dynamo.reset()
    monkeypatch.setattr("workers.compilation.MOST_VERSIONS", 1)
    lines: list[str] = []
    family = generator_for(tiny_model, lines, compile="always")
    expected = drawn(generator_for(tiny_model))
    with torch._dynamo.config.patch(recompile_limit=1):
        assert np.array_equal(drawn(family), expected)
        assert np.array_equal(drawn(family), expected)
    assert sum("not compiled" in line for line in lines) == 1
    assert "compiled" not in family.run([lease()])[0].used


def test_a_model_on_several_gpus_is_not_compiled(tiny_model: Path) -> None:
    lines: list[str] = []
    for mode, said in (("always", 1), ("never", 0)):
        spec = replace(spec_for(str(tiny_model), compile=mode), device_count=2)
        lines.clear()
        assert compilable(spec, lambda level, text: lines.append(text)) == "never"
        assert sum("gpus_per_worker" in line for line in lines) == said


def test_no_weight_waits_to_be_trained(tiny_model: Path) -> None:
    """Compiled code depends on it, and LoRAs change it for what they touch."""
    pipeline = generator_for(tiny_model).pipeline
    parts = [p for p in pipeline.components.values() if isinstance(p, torch.nn.Module)]
    assert parts and not any(w.requires_grad for part in parts for w in part.parameters())


@pytest.mark.slow
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
    tmp_path: Path,
) -> None:
    """Although others have taught main how fast tasks are."""
    backend, limit = StubBackend(), 0.3
    config = simulated(workers={"compile": "always"}, supervision={"task_timeout_minimum": limit})
    generator = MultiGPUImageGenerator(1, config=config, output_dir=tmp_path, backend=backend)
    with ThreadPoolExecutor() as executor, generator:
        batch = executor.submit(generator.generate_batch, [{"prompt": f"{i}"} for i in range(3)])
        worker = backend.worker().serve()
        worker.finish(worker.hear_lease())
        worker.hear_lease()
        worker.die()
        worker = backend.worker(incarnation=2).serve()
        lease = worker.hear_lease()
        time.sleep(3 * limit)
        assert not worker.killed
        worker.finish(lease)
        worker.hear_lease()
        wait_until(lambda: worker.killed, "the end of a second task that hangs")
        worker = backend.worker(incarnation=3).serve()
        worker.finish(worker.hear_lease())
        worker.leave_when_asked()
        assert [r.success for r in batch.result()] == [True] * 3
