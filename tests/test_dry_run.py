"""`--dry-run` and `generator.plan`: what a run would do, while nothing is touched."""

import base64
import hashlib
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from apps.edit_benchmark.command import main as benchmark
from apps.tweets.command import main as draw
from core.devices.gpu import Gpu
from core.dry_run.measured import Maker, Measured, measure
from core.dry_run.run_plan import RunPlan
from core.dry_run.simulation import Outcome, SizedTask, play
from core.errors import InputError
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.remote.protocol import PROTOCOL
from core.store.ledger import Entry, Ledger
from tests.conftest import PROJECT, simulated, write_safetensors
from tests.hub_server import MODEL, HubServer
from tests.inline_backend import InlineBackend
from tests.inline_command import InlineCommand

GIB = 1024**3
Tree = dict[str, tuple[int, int, str]]


def tree(folder: Path) -> Tree:
    """Everything below a folder: time of its last change, inode, and content."""
    found = {}
    for place in (folder, *sorted(folder.rglob("*"))):
        stat = place.lstat()
        content = hashlib.sha256(place.read_bytes()).hexdigest() if place.is_file() else ""
        found[str(place)] = (stat.st_mtime_ns, stat.st_ino, content)
    return found


@pytest.fixture
def command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> InlineCommand:
    return InlineCommand(tmp_path, capfd)


def dry_run(
    command: InlineCommand, capfd: pytest.CaptureFixture[str], file: Path, *arguments: str
) -> tuple[int, str]:
    """Exit code and standard output; whatever lies in the test's folder has to stay as it is."""
    before = tree(command.folder)
    given = ["--config", str(command.folder / "settings.yaml"), "--output-dir", str(command.out)]
    code = draw([str(file), "1", *given, "--dry-run", *arguments], backend=InlineBackend())
    assert tree(command.folder) == before
    return code, capfd.readouterr().out


def tweets(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"picture {i}", "output_path": f"{i}.png", **fields} for i in range(count)]


def test_a_plan_says_what_is_new_changed_unchanged_and_unusable_and_touches_nothing(
    command: InlineCommand, capfd: pytest.CaptureFixture[str]
) -> None:
    content = tweets(3)
    file = command.write("tweets.json", content)
    assert command.run(file)[0] == 0
    content[0]["steps"] = 4
    content += [{"prompt": "one more"}, {"prompt": "too small", "width": 3}]
    command.write("tweets.json", content)
    code, said = dry_run(command, capfd, file)
    assert code == 2
    assert "Plan: 1 new, 1 changed (steps 1 -> 4), 1 unusable, 2 unchanged." in said
    assert "  unusable  " in said and ": width: " in said
    command.write("tweets.json", content[:-1])
    code, said = dry_run(command, capfd, file)
    assert code == 0 and said.endswith("Nothing stands in the way of the run.\n")
    assert command.plan(file) == (
        "1 new, 1 changed (steps 1 -> 4), 2 unchanged. What is replaced is kept in .replaced."
    )


def test_a_plan_of_a_first_run_makes_no_folder(
    command: InlineCommand, capfd: pytest.CaptureFixture[str]
) -> None:
    file = command.write("tweets.json", tweets(2))
    (command.folder / "settings.yaml").write_text("model: simulated\n")
    code, said = dry_run(command, capfd, file)
    assert code == 0 and "Plan: 2 new." in said and not command.out.exists()


def test_a_folder_is_still_that_of_its_input(
    command: InlineCommand, capfd: pytest.CaptureFixture[str]
) -> None:
    command.run(command.write("tweets.json", tweets(1)))
    other = command.write("other/tweets.json", tweets(2))
    given = ["--config", str(command.folder / "settings.yaml"), "--output-dir", str(command.out)]
    assert draw([str(other), "--dry-run", *given], backend=InlineBackend()) == 2
    assert "holds the results of" in capfd.readouterr().err


def test_what_a_killed_run_left_is_looked_at_and_left(
    command: InlineCommand, capfd: pytest.CaptureFixture[str]
) -> None:
    file = command.write("tweets.json", tweets(4))
    assert command.run_until("main.after-rename", 3, file)
    assert (command.out / "tweets" / "ledger.sqlite-wal").exists()
    code, said = dry_run(command, capfd, file)
    assert code == 0 and "unchanged" in said
    plan = said.splitlines()[1].removeprefix("Plan: ")
    assert command.plan(file) == plan


def test_a_damaged_ledger_is_left_and_results_are_recognised(
    command: InlineCommand, capfd: pytest.CaptureFixture[str]
) -> None:
    file = command.write("tweets.json", tweets(2))
    command.run(file)
    ledger = command.out / "tweets" / "ledger.sqlite"
    for beside in command.out.rglob("ledger.sqlite-*"):
        beside.unlink()
    ledger.write_bytes(ledger.read_bytes()[:5000])
    code, said = dry_run(command, capfd, file)
    assert code == 0 and "Plan: 2 unchanged." in said
    assert "Note: the folder's ledger cannot be used (" in said


def test_a_folder_in_which_a_run_is_at_work_is_read_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    asked = [{"prompt": "a", "output_path": "a.png"}, {"prompt": "b", "output_path": "b.png"}]

    def generator(**options: Any) -> MultiGPUImageGenerator:
        config = simulated()
        return MultiGPUImageGenerator(
            1, config=config, output_dir=folder, backend=InlineBackend(), **options
        )

    with generator() as running:
        running.generate_batch(asked[:1])
        before = tree(folder)
        plan = generator(dry_run=True).plan(asked)
        assert tree(folder) == before
        assert [task.standing for task in plan.tasks] == ["unchanged", "new"]
        assert plan.in_use_by is not None and "a run is at work in this folder" in str(plan)
        assert [r.status for r in running.generate_batch(asked)] == ["skipped", "done"]
        own = running.plan(asked)  # of what it has drawn itself
        assert [task.standing for task in own.tasks] == ["unchanged", "unchanged"]
        assert own.in_use_by is None and own.to_do == 0
    assert generator(dry_run=True).plan(asked).in_use_by is None
    with pytest.raises(InputError, match="can only plan"):
        generator(dry_run=True).generate_batch(asked)


def test_time_and_loads_of_simulated_devices_are_as_set(tmp_path: Path) -> None:
    loras = [str(write_safetensors(tmp_path / f"{n}.safetensors", f"{n}.lora_A")) for n in "ab"]
    asked = [
        {"prompt": "x", "width": 1024, "height": 1024, "steps": 10, "lora_path": loras[i % 2]}
        for i in range(40)
    ]
    times = {
        "load_seconds": 3.0,
        "lora_load_seconds": 1.0,
        "seconds_per_megapixel_step": 0.1,
        "jitter": 0.0,
    }
    plan = MultiGPUImageGenerator(2, config=simulated(simulated=times), dry_run=True).plan(asked)
    [model] = plan.models
    one = 1024 * 1024 / 1e6 * 10 * 0.1
    assert model.working is not None and model.loading is not None
    assert model.loads == 2  # each worker has a LoRA of its own
    assert model.working.likely == pytest.approx(20 * one + 1.0)
    assert [lora.tasks for lora in model.loras] == [20, 20]
    assert model.loading.low == 3.0 and len(model.workers) == 2


def test_a_lora_of_another_model_is_found_before_it_is_drawn_with(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    down = {"dtype": "F32", "shape": [1, 77], "data_offsets": [0, 308]}
    header = json.dumps({"transformer.layers.0.attention.to_q.lora_A.weight": down}).encode()
    other.write_bytes(len(header).to_bytes(8, "little") + header + bytes(308))
    own = PROJECT / "demo_model" / "loras" / "snow.safetensors"
    asked = [{"prompt": "a", "lora_path": str(file)} for file in (own, other)]
    plan = MultiGPUImageGenerator(1, config={"device": "cpu"}, dry_run=True).plan(asked)
    assert not plan.is_valid
    [problem] = plan.all_problems
    assert "other.safetensors cannot be put on demo-model: 1 of its 1 layers" in problem
    assert "such as transformer.layers.0.attention.to_q (77 inputs)" in problem
    assert [lora.checked for lora in plan.models[0].loras] == [True, True]


def on_gpus(monkeypatch: pytest.MonkeyPatch, *free: float) -> None:
    """Have the driver list GPUs of 80 GiB, with so many GiB free."""
    gpus = [
        Gpu(i, f"GPU-{i}", "H", 80 * GIB, free=int(f * GIB), capability=(9, 0))
        for i, f in enumerate(free)
    ]
    monkeypatch.setattr("core.devices.nvml.list_gpus", lambda: gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def with_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str = "http://127.0.0.1:9"
) -> Path:
    """Have the hub's client ask there, with an empty cache, which is returned."""
    from huggingface_hub import constants

    cache = tmp_path / "cache"
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("core.checkpoints.hub_index.checkpoint_of_hub", lambda *a, **k: None)
    return cache


def planned_on_gpus(**config: Any) -> RunPlan:
    return MultiGPUImageGenerator(config=config, dry_run=True).plan([{"prompt": "a house"}] * 3)


def test_memory_and_placement_are_told_by_gpu_and_mode(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on_gpus(monkeypatch, 70, 30)
    with_hub(monkeypatch, tmp_path)
    plan = planned_on_gpus(model="Tongyi-MAI/Z-Image-Turbo")
    [model] = plan.models
    assert [(w.name, w.free) for w in model.workers] == [("gpu0", 70 * GIB), ("gpu1", 30 * GIB)]
    assert model.memory.startswith("full; it needs ")
    assert "gpu1 has 30.0 of 80.0 GiB free" in model.memory_table
    assert 20 * GIB < model.needs["full"] < 25 * GIB
    assert model.working is not None and 0 < model.working.low < model.working.high
    assert model.basis.endswith("at what GPUs of compute capability 9.0 usually reach")


def test_too_little_memory_is_a_problem_with_need_and_have(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on_gpus(monkeypatch, 1)
    with_hub(monkeypatch, tmp_path)
    plan = planned_on_gpus(model="Tongyi-MAI/Z-Image-Turbo", memory="full")
    assert any("full needs 2" in p and "gpu0 has 1.0 of 80.0" in p for p in plan.all_problems)
    assert "GPU memory that Tongyi-MAI/Z-Image-Turbo needs" in plan.models[0].memory_table


def test_a_models_files_are_cached_downloaded_gated_or_out_of_reach(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(PROJECT / "demo_model" / "checkpoint", folder)
    hub = HubServer(folder)
    with closing(hub):
        cache = with_hub(monkeypatch, tmp_path, hub.url)
        config: dict[str, Any] = {"model": MODEL, "device": "cpu"}
        plan = planned_on_gpus(**config)
        assert plan.models[0].files == "downloaded first" and not cache.exists()
        assert plan.is_valid and plan.models[0].fetch is None  # bytes that the hub did not say
        for code, said in (("GatedRepo", "the model is gated"), ("RepoNotFound", "no such model")):
            headers = {"X-Error-Code": code}
            hub.refusal = lambda n, path, headers=headers: (403, headers)  # type: ignore[misc]
            [problem] = planned_on_gpus(**config).all_problems
            assert said in problem
        snapshot = cache / "models--someone--model" / "snapshots" / hub.commit
        shutil.copytree(folder, snapshot)
        (cache / "models--someone--model" / "refs").mkdir()
        (cache / "models--someone--model" / "refs" / "main").write_text(hub.commit)
        assert planned_on_gpus(**config).models[0].files == f"in the cache: {snapshot}"
        shutil.rmtree(cache)
        monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: True)
        [problem] = planned_on_gpus(**config).all_problems
        assert "HF_HUB_OFFLINE is set, and the model is not whole in the cache" in problem


def test_a_full_disk_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("core.dry_run.planner.shutil.disk_usage", lambda place: usage)
    plan = MultiGPUImageGenerator(
        1, config=simulated(), output_dir=tmp_path / "out", dry_run=True
    ).plan([{"prompt": "a", "width": 1024, "height": 1024}])
    [problem] = plan.all_problems
    assert problem.startswith(f"the disk of {tmp_path / 'out'} has 1.0 kB free, and the run needs")


def test_the_figures_of_earlier_runs_of_this_machine_are_taken(tmp_path: Path) -> None:
    entries = [_entry(i, 10.0 + i, 3 * 512 * 512) for i in range(9)]
    ledger = Ledger.in_memory()
    ledger.begin_batch([*entries, _entry(20, 99.0, 5, model="another#1")])
    folder = tmp_path / "out"
    folder.mkdir()
    maker = Maker("generate", "model#1", "full", "cuda")
    assert measure(maker, ledger, folder).rates == []  # nothing says which machine they are of
    (folder / "ledger.lock").write_text(json.dumps({"host": "elsewhere"}))
    assert measure(maker, ledger, folder).rates == []
    (folder / "ledger.lock").write_text(json.dumps({"host": socket.gethostname()}))
    found = measure(maker, ledger, folder)
    work = 512 * 512 / 1e6 * 4
    assert found.here == 9 and found.rate is not None and found.size is not None
    assert found.rate.likely == pytest.approx(14.0 / work)
    assert found.size.likely == 3.0
    offloaded, on_cpu = Measured(), Measured()
    offloaded.take(entries, Maker("generate", "model#1", "offload", "cuda"))
    on_cpu.take(entries, Maker("generate", "model#1", "full", "cpu"))
    assert offloaded.rates == on_cpu.rates == []


def _entry(number: int, elapsed: float, size: int, model: str = "model#1") -> Entry:
    name, _, content = model.partition("#")
    task = {"kind": "GenerateTask", "prompt": "a", "width": 512, "height": 512, "seed": 1}
    return Entry(
        f"{number}.png",
        number,
        f"{number}",
        f"{number}.png",
        "f",
        "done",
        {**task, "num_inference_steps": 4},
        worker="gpu0",
        elapsed=elapsed,
        size=size,
        used={"model": name, "model_hash": content, "width": 512, "height": 512},
    )


def test_a_run_is_played_through_by_the_scheduler() -> None:
    equal = [SizedTask(1.0)] * 100
    assert play(equal, 4, 0.5, 0.0, 8, 32) == Outcome(12.5, 0)
    assert play([], 4, 0.5, 0.0, 8, 32) == Outcome(0.0, 0)
    with_loras = [SizedTask(1.0, f"lora {i % 2}") for i in range(100)]
    assert play(with_loras, 2, 1.0, 5.0, 8, 32) == Outcome(55.0, 2)
    assert play(with_loras, 1, 1.0, 5.0, 1, 10).loads > 2  # one place, and nobody starves
    many = play([SizedTask(1.0)] * 50_000, 8, 1.0, 0.0, 8, 32)
    assert many.seconds == pytest.approx(6250, rel=0.01)


# -- with a daemon, and of a benchmark ----------------------------------------------------------


@pytest.fixture
def daemon() -> Iterator[tuple[str, list[str]]]:
    """The URL of a daemon that says what it serves, and what it was asked."""
    asked: list[str] = []
    config = simulated(use_server="never")
    with MultiGPUImageGenerator(2, config=config, backend=InlineBackend()) as generator:
        served = generator.served("generate").as_json(names_only=False)
    answer = json.dumps({"protocol": PROTOCOL, "max_tasks": 100, **served}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"GET {self.path}")
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def do_POST(self) -> None:
            asked.append(f"POST {self.path}")
            self.send_error(500)

        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_a_daemon_is_asked_what_it_serves_and_is_given_nothing(
    command: InlineCommand, capfd: pytest.CaptureFixture[str], daemon: tuple[str, list[str]]
) -> None:
    url, asked = daemon
    file = command.write("tweets.json", tweets(2))
    (command.folder / "settings.yaml").write_text("model: simulated\n")
    given = ["--config", str(command.folder / "settings.yaml"), "--output-dir", str(command.out)]
    before = tree(command.folder)
    assert draw([str(file), *given, "--server", url, "--dry-run"]) == 0
    said = capfd.readouterr().out
    assert tree(command.folder) == before
    assert f"Server: {url} would do the work" in said and "workers   cpu0, cpu1" in said
    assert {line.partition("?")[0] for line in asked} == {"GET /v1/engine"}


def test_a_batch_file_is_planned_and_its_pictures_are_kept_elsewhere(
    command: InlineCommand, capfd: pytest.CaptureFixture[str]
) -> None:
    source = base64.b64encode((PROJECT / "docs" / "edit_sheet.png").read_bytes()).decode()
    bodies = [
        ("/v1/images/generations", {"prompt": "a red house", "size": "64x64"}),
        ("/v1/images/edits", {"prompt": "noon", "images": [f"data:image/png;base64,{source}"]}),
    ]
    lines = [
        json.dumps({"custom_id": f"{i}", "method": "POST", "url": url, "body": body})
        for i, (url, body) in enumerate(bodies)
    ]
    file = command.folder / "batch.jsonl"
    file.write_text("\n".join(lines))
    settings = {"model": "simulated", "editor": {"model": "simulated"}}
    (command.folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    code, said = dry_run(command, capfd, file)
    assert code == 0 and "Plan: 2 new." in said
    assert "Generate: 1 task." in said and "Edit: 1 task." in said
    file.write_text("\n".join([*lines, "{"]))
    code, said = dry_run(command, capfd, file)
    assert code == 2 and "Plan: 2 new." in said


def test_a_benchmark_is_planned_edits_and_scores(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = {
        "data": str(PROJECT / "examples" / "edit_pairs"),
        "output_dir": str(tmp_path / "out"),
        "use_server": "never",
        "editor": {"model": "simulated"},
        "judge": {"model": "simulated"},
    }
    file = tmp_path / "bench.yaml"
    file.write_text(yaml.safe_dump(config))
    command = ["--config", str(file), "--limit", "3"]
    assert benchmark([*command, "--dry-run"], backend=InlineBackend()) == 0
    said = capfd.readouterr().out
    assert "Plan for edits: 3 new." in said and "Plan for scores: 3 new." in said
    assert "Edit: 3 tasks." in said and "Score: 3 tasks." in said
    assert "Note: The data is read as imagefolder" in said
    assert "Note: Edits are judged by vlm with the protocol viescore.yaml." in said
    assert not (tmp_path / "out").exists()
    assert benchmark(command, backend=InlineBackend()) == 0
    assert "The data is read as imagefolder" in capfd.readouterr().err
    before = tree(tmp_path)
    assert benchmark([*command, "--dry-run"], backend=InlineBackend()) == 0
    assert tree(tmp_path) == before
    said = capfd.readouterr().out
    assert "Plan for scores: 3 unchanged." in said and "There is nothing to do." in said
