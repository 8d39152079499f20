"""Memory modes of editor and judge, each decided for itself, on GPUs that are not there."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from apps.edit_benchmark.pairs import PairSet
from apps.edit_benchmark.runner import EditBenchmark
from apps.edit_benchmark.settings import load_benchmark_settings
from core.devices.device import Device
from core.errors import DeviceError, InputError
from core.intake.planning import Plan
from core.store.ledger import Ledger
from tests.edit_world import made_pair, settings
from tests.paper_models import GIB, write_judge, write_pipeline


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    monkeypatch.setattr("core.devices.memory_abilities.free_host_memory", lambda: 256 * GIB)
    for module in ("core.devices.memory_abilities", "core.memory_modes"):
        monkeypatch.setattr(f"{module}.installed", lambda package: False)
    said: list[str] = []
    sink = logger.add(lambda line: said.append(str(line).rstrip()), format="{message}")
    yield said
    logger.remove(sink)


def prepared(
    folder: Path, monkeypatch: pytest.MonkeyPatch, free: float, **judge: Any
) -> tuple[EditBenchmark, Plan]:
    """A benchmark of one pair, and the plan of its edit."""
    gpu = Device("cuda", 0, "GPU-0", 24 * GIB, free=int(free * GIB), capability=(8, 6))
    monkeypatch.setattr("core.engine_choice.choose_devices", lambda *_: [gpu])
    editor = write_pipeline(folder / "editor", _class_name="QwenImageEditPlusPipeline")
    models = {
        "editor": {"model": str(editor), "defaults": {"working_area": 1024**2}},
        "judge": {"model": str(write_judge(folder / "judge")), **judge},
    }
    benchmark = EditBenchmark(load_benchmark_settings(settings(**models)), folder / "out")
    try:
        plan = benchmark.prepare(PairSet("pairs", [made_pair(folder / "a.png", 1)]))
    finally:
        benchmark.close()
    return benchmark, plan


def test_editor_and_judge_have_modes_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    benchmark, _ = prepared(tmp_path, monkeypatch, 20.0)
    assert benchmark.editor is not None
    assert (benchmark.editor.memory, benchmark.judge_model.memory) == ("fp8_cast", "full")
    tables = [line for line in lines if line.startswith("GPU memory that")]
    assert [table.split()[3] for table in tables] == ["editor", "judge"]
    assert "  offload" in tables[0] and "  offload" not in tables[1]


def test_what_is_wrong_names_the_setting_of_the_role(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    with pytest.raises(DeviceError, match=r"^judge\.memory: judge: full needs 1[67]\.\d GiB and"):
        prepared(tmp_path, monkeypatch, 13.0, memory="full")
    with pytest.raises(InputError, match=r"^judge\.memory: offload .* a judge is one component"):
        prepared(tmp_path, monkeypatch, 23.0, memory="offload")


def test_finished_edits_keep_their_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    _, plan = prepared(tmp_path, monkeypatch, 20.0)
    [edit] = plan.tasks
    edit.output.file.parent.mkdir(parents=True)
    edit.output.file.write_bytes(b"an edit")
    ledger = Ledger.open(tmp_path / "out")
    [entry] = ledger.entries().values()
    ledger.set_state(replace(entry, state="done", size=len(b"an edit")), 1)
    ledger.close()
    second, plan = prepared(tmp_path, monkeypatch, 23.9)
    assert second.editor is not None and second.editor.memory == "fp8_cast"
    assert not plan.tasks
