"""Which memory mode a run takes, by what its model needs and what its GPUs have free."""

from dataclasses import replace
from pathlib import Path

import pytest

from core.checkpoints.checkpoint import Checkpoint, checkpoint_of_folder
from core.devices.device import Device
from core.devices.host_memory import free_host_memory, host_memory
from core.devices.memory_abilities import Abilities, Form
from core.devices.memory_fit import MemoryFit, fit_memory
from core.devices.working_memory import Demand
from core.errors import DeviceError, InputError
from core.memory_modes import Memory, Mode
from tests.paper_models import GIB, layers, write_header, write_pipeline

# Of the model on paper: 12 + 6 GiB of weights, 0.5 of CUDA, and 2 to decode a picture of 1024².
FULL = 21.0  # GiB; 13.3 offloaded, 12.0 in 8 bits
ADA, AMPERE = (8, 9), (8, 6)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    found = checkpoint_of_folder(write_pipeline(tmp_path_factory.mktemp("model")))
    assert found is not None
    return found


def gpus(*free: float, total: float = 24.0) -> list[Device]:
    return [
        Device("cuda", i, f"GPU-{i}", int(total * GIB), free=int(f * GIB), capability=AMPERE)
        for i, f in enumerate(free)
    ]


def fitted(
    model: Checkpoint | None,
    devices: list[Device],
    memory: Memory = "auto",
    *,
    packages: tuple[str, ...] = (),
    capability: tuple[int, int] | None = AMPERE,
    host: float = 256.0,
    kept: Mode | None = None,
    role: str = "generate",
    demand: Demand = Demand(guided=False),  # noqa: B008
) -> MemoryFit:
    capabilities = (capability,) * len(devices)
    spread = devices[0].count
    there = frozenset(packages)
    abilities = Abilities(role, "auto", capabilities, there, int(host * GIB), spread)
    return fit_memory("model", memory, model, demand, devices, abilities, kept)


@pytest.mark.parametrize(
    ("free", "packages", "capability", "host", "mode"),
    [
        (23.0, (), AMPERE, 256.0, "full"),
        (14.0, (), AMPERE, 256.0, "fp8_cast"),
        (14.0, ("torchao",), ADA, 256.0, "fp8"),
        (14.0, ("torchao",), AMPERE, 256.0, "fp8_cast"),
        (14.0, ("torchao",), None, 256.0, "fp8_cast"),  # what it computes is not known
        (9.0, ("bitsandbytes",), AMPERE, 256.0, "nf4"),
        (9.0, (), AMPERE, 256.0, "group_offload"),
        (14.0, ("torchao",), ADA, 1.0, "fp8"),
        (14.0, ("torchao",), AMPERE, 1.0, "int8"),  # to store weights in 8 bits, they come first
    ],
)
def test_the_first_mode_that_fits_is_taken(
    model: Checkpoint,
    free: float,
    packages: tuple[str, ...],
    capability: tuple[int, int] | None,
    host: float,
    mode: Mode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("core.memory_modes.installed", lambda package: package in packages)
    fit = fitted(model, gpus(free), packages=packages, capability=capability, host=host)
    assert fit.mode == mode
    if mode != "full":
        assert fit.reason == (
            f"Memory: {mode}, because full needs {FULL} GiB and gpu0 has {free} of 24.0 GiB free."
        )


def test_layers_that_fp8_does_not_take_are_counted_whole_and_told(tmp_path: Path) -> None:
    even, uneven = (write_pipeline(tmp_path / name, transformer=8.0) for name in ("a", "b"))
    for folder, side in ((even, 8192), (uneven, 8200)):
        more = {f"more.{n}.ff.weight": (side, 8192) for n in range(32)}
        file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
        write_header(file, {**layers(8.0), **more})
    found = []
    for folder in (even, uneven):
        checkpoint = checkpoint_of_folder(folder)
        found.append(fitted(checkpoint, gpus(18.0), packages=("torchao",), capability=ADA))
    assert [fit.mode for fit in found] == ["fp8", "fp8"]
    longer = found[1].needs["fp8"] - found[0].needs["fp8"]
    assert 1.9 * GIB < longer < 2.1 * GIB, "4 GiB take 4 GiB, and not 2"
    of_any_size = found[1].needs["int8"] - found[0].needs["int8"]
    assert of_any_size < 0.01 * GIB
    assert "linear layer" not in found[0].reason
    assert found[1].reason.endswith(
        "has 18.0 of 24.0 GiB free. 32 linear layers (4.0 GiB) stay in bfloat16: fp8 takes sizes "
        "that are multiples of 16."
    )


def test_the_worst_gpu_decides_for_all(model: Checkpoint) -> None:
    fit = fitted(model, gpus(23.0, 14.0, 22.0))
    assert fit.mode == "fp8_cast"
    assert "gpu1 has 14.0 of 24.0 GiB free" in fit.reason


def test_the_table_shows_need_and_have_for_every_mode_and_gpu(model: Checkpoint) -> None:
    table = fitted(model, gpus(23.0, 14.0)).table.splitlines()
    assert table[0] == "GPU memory that model needs, in GiB:"
    [full] = [line for line in table if line.split()[0] == "full"]
    assert full.split()[1] == str(FULL)
    assert "(transformer 12.0, text_encoder 6.0, vae 0.0, work 2.5, CUDA 0.5)" in full
    [offload] = [line for line in table if line.split()[0] == "offload"]
    assert "(transformer 12.0, work " in offload
    assert offload.endswith("; host memory 20.0)")
    assert table[-3].startswith("  gpu0 has 23.0 of 24.0 GiB free: full, fp8_cast, ")
    assert table[-2].startswith("  gpu1 has 14.0 of 24.0 GiB free: fp8_cast, offload, ")
    assert table[-1] == "  host memory: 256.0 GiB free for 2 workers"


def test_a_mode_by_name_that_does_not_fit_is_refused_with_one_that_would(
    model: Checkpoint,
) -> None:
    said = r"memory: model: full needs 21\.0 GiB and gpu0 has 12\.5 of 24\.0 GiB free; "
    with pytest.raises(DeviceError, match=said + r"memory: fp8 would fit\."):
        fitted(model, gpus(12.5), "full")
    with pytest.raises(DeviceError, match=r"and no other mode would fit\."):
        fitted(model, gpus(1.0), "full")
    assert fitted(model, gpus(14.0), "offload").mode == "offload"


def test_a_need_close_to_what_is_free_is_tried_with_a_warning(
    model: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("core.devices.memory_fit.logger.warning", said.append)
    assert fitted(model, gpus(20.0), "full").mode == "full"
    assert "full needs 21.0 GiB and gpu0 has 20.0 of 24.0 GiB free" in said[0]
    assert fitted(model, gpus(20.0)).mode == "fp8_cast"  # auto has something better


def test_fp8_by_name_is_computed_in_where_gpus_can_and_else_stored_in(
    model: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.memory_modes.installed", lambda package: True)
    there = ("torchao", "bitsandbytes")
    assert fitted(model, gpus(23.0), "fp8", packages=there, capability=ADA).mode == "fp8"
    assert fitted(model, gpus(23.0), "fp8", packages=there).mode == "fp8_cast"


def test_weights_wait_in_host_memory_only_where_that_has_room(model: Checkpoint) -> None:
    assert fitted(model, gpus(9.0), host=256.0).mode == "group_offload"
    # 18 GiB of weights and 2 of its own for each of two workers.
    with pytest.raises(DeviceError, match=r"needs 40\.0 GiB of host memory and 30\.0 are free"):
        fitted(model, gpus(9.0, 9.0), "group_offload", host=30.0)
    with pytest.raises(DeviceError, match="no mode of model fits"):
        fitted(model, gpus(9.0, 9.0), host=30.0)


def test_the_mode_that_all_change_to_may_need_a_package(model: Checkpoint) -> None:
    fit = fitted(model, gpus(23.0), packages=("torchao",), capability=ADA, host=1.0)
    assert (fit.mode, fit.same_pixels, fit.other_pixels) == ("full", (), "fp8")


def test_a_judge_is_one_component_and_not_offloaded_in_parts(model: Checkpoint) -> None:
    assert "offload" not in fitted(model, gpus(23.0), role="score").smaller
    assert fitted(model, gpus(9.0), role="score").mode == "group_offload"


@pytest.mark.parametrize(
    ("form", "modes"),
    [
        ("file", ["full", "fp8_cast", "offload", "group_offload", "sequential_offload"]),
        ("gguf", ["full", "offload"]),
        ("clip", ["full", "offload", "group_offload", "sequential_offload"]),
    ],
)
def test_some_models_have_fewer_modes(form: Form, modes: list[Mode]) -> None:
    there = frozenset({"torchao", "bitsandbytes"})
    assert Abilities("generate", "auto", (ADA,), there, 0, form=form).modes() == modes


def test_what_nobody_knows_the_need_of_is_loaded_whole_and_said_to_be(model: Checkpoint) -> None:
    fit = fitted(None, gpus(23.0))
    assert (fit.mode, fit.same_pixels[0], fit.table) == ("full", "offload", "")
    assert fitted(None, gpus(23.0), role="score").same_pixels == ("group_offload",)
    assert fit.reason == "Memory: full; neither its files nor the hub say how much model needs."
    silent = [Device("cuda", 3, "GPU-3")]
    assert "gpu3 does not say how much memory it has free" in fitted(model, silent).reason


def test_configs_of_another_form_are_no_failure(tmp_path: Path) -> None:
    folder = write_pipeline(tmp_path)
    (folder / "text_encoder" / "config.json").write_text('{"text_config": "large", "layers": []}')
    strange = checkpoint_of_folder(folder)
    assert strange is not None
    assert "neither its files nor the hub say" in fitted(strange, gpus(23.0)).reason


def test_larger_pictures_and_loras_count(model: Checkpoint) -> None:
    assert fitted(model, gpus(23.0), demand=Demand(2048, 2048, guided=False)).mode == "fp8_cast"
    assert fitted(model, gpus(23.0), demand=Demand(lora_bytes=3 * GIB)).mode == "fp8_cast"


def test_several_gpus_of_a_worker_hold_the_whole_model_together(model: Checkpoint) -> None:
    def pair(free: float) -> list[Device]:
        return [Device("cuda", 0, "0,1", 24 * GIB, (1,), int(free * GIB), AMPERE)]

    assert fitted(model, pair(21.6)).mode == "full"  # 0.5 more for the second CUDA context
    with pytest.raises(
        DeviceError, match=r"no mode of model fits: full needs 21\.5 GiB and gpu0\+1"
    ):
        fitted(model, pair(18.0))
    with pytest.raises(InputError, match="fp8 is for workers with one GPU; with 2 GPUs per worker"):
        fitted(model, pair(23.0), "fp8")
    with pytest.raises(DeviceError, match="made in mode fp8_cast, which is for workers with one"):
        fitted(model, pair(23.0), kept="fp8_cast")


def test_what_is_in_fewer_bits_already_is_refused_another_such_mode(model: Checkpoint) -> None:
    parts = (
        replace(part, config={**part.config, "quantization_config": {"quant_method": "bnb"}})
        for part in model.components
    )
    quantised = replace(model, components=tuple(parts))
    with pytest.raises(InputError, match="memory: fp8 cannot be used with model, which was saved"):
        fitted(quantised, gpus(23.0), "fp8")
    assert fitted(quantised, gpus(23.0), "offload").mode == "offload"
    assert fitted(quantised, gpus(14.0)).mode == "offload"


def test_a_gpu_without_any_free_memory_is_one_that_says_so(model: Checkpoint) -> None:
    with pytest.raises(DeviceError, match=r"gpu0 has 0\.0 of 24\.0 GiB free"):
        fitted(model, gpus(0.0))


@pytest.mark.parametrize(
    ("kept", "free", "mode"),
    [
        ("full", 23.0, "full"),
        ("full", 15.0, "offload"),  # the same pictures; fp8 would come first, and draw them again
        ("fp8_cast", 23.0, "fp8_cast"),
    ],
)
def test_finished_pictures_keep_their_mode(
    model: Checkpoint, kept: Mode, free: float, mode: Mode
) -> None:
    assert fitted(model, gpus(free), kept=kept).mode == mode


def test_a_mode_of_finished_pictures_that_does_not_fit_is_refused(model: Checkpoint) -> None:
    said = (
        r"finished pictures of this folder were made in mode full, and full needs 21\.0 GiB and "
        r"gpu0 has 14\.0 of 24\.0 GiB free\. .* memory: fp8 would fit, and draw them again\."
    )
    with pytest.raises(DeviceError, match=said):
        fitted(model, gpus(14.0, 15.0), kept="full", host=30.0)
    with pytest.raises(DeviceError, match=r"made in mode nf4, which needs bitsandbytes and GPUs"):
        fitted(model, gpus(23.0), kept="nf4")


def test_cpus_have_no_table_and_one_warning_where_host_memory_will_not_do(
    model: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("core.devices.memory_fit.logger.warning", said.append)
    cpus = [Device("cpu", 0, ""), Device("cpu", 1, "")]
    fit = fitted(model, cpus, capability=None, host=64.0)
    assert (fit.mode, fit.table, fit.reason) == ("full", "", "")
    assert len(said) == 1
    assert "needs 72.0 GiB of host memory (2 workers with 36.0 each), and 64.0 GiB" in said[0]
    fitted(model, cpus, capability=None, host=80.0)
    assert len(said) == 1
    assert fitted(model, cpus, capability=None, kept="fp8_cast").mode == "fp8_cast"
    with pytest.raises(DeviceError, match="made in mode nf4, which needs bitsandbytes and GPUs"):
        fitted(model, cpus, capability=None, kept="nf4")


def test_a_containers_limit_counts_as_host_memory(tmp_path: Path) -> None:
    everything = host_memory(tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert host_memory(tmp_path) == everything
    (tmp_path / "memory.max").write_text("1000000\n")
    assert (host_memory(tmp_path), free_host_memory(tmp_path)) == (1_000_000, 999_000)
