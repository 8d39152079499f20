"""The world of the tests: tiny models, simulated devices, and the command as a user runs it."""

import atexit
import fnmatch
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TextIO

import psutil
import pytest
import yaml
from hypothesis import settings as for_hypothesis
from PIL import Image

from apps.log_lines import set_up_logging
from core.engine.backend import WorkerBackend
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.tasks import Result
from tests import births, known_paths, longest_first, rewritten_tests, slow_tests, warm_tests
from tests.inline_backend import InlineBackend
from tests.process_tree import ProcessTree, words_of
from tests.warm_commands import WarmCommand, WarmCommands
from tests.warm_server import Kind

PROJECT = Path(__file__).resolve().parent.parent
# Packages may lie in folders that it names already.
PYTHONPATH = os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
COMMAND = PROJECT / "generate_images_from_tweets.py"
BENCHMARK = PROJECT / "run_edit_benchmark.py"
EDIT_IMAGES = PROJECT / "edit_images.py"
JOBS_PROGRAM = PROJECT / "tests" / "chaos" / "jobs_program.py"  # a caller's own
for name in ("COLUMNS", "LINES"):  # set where tests run in parallel; tables go by them
    os.environ.pop(name, None)
# Threads of torch that wait for others would keep a core busy on which another test runs; it
# is read as torch is imported, here and in each worker.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# The suite is of CPUs, on a machine with GPUs, too. What needs them is in tests/cuda, and
# TEST_DEVICE=cuda tries models there that tests load in their own process.
DEVICE: Literal["cpu", "cuda"] = "cuda" if os.environ.get("TEST_DEVICE") == "cuda" else "cpu"
GPUS_ASKED_FOR = DEVICE == "cuda" or any("cuda" in argument for argument in sys.argv[1:])
GPU_THERE = Path("/dev/nvidiactl").exists()  # torch is not asked: that opens it
if GPU_THERE and not GPUS_ASKED_FOR and "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
# No test finds a daemon that it did not start.
os.environ["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="run-")
atexit.register(shutil.rmtree, os.environ["XDG_RUNTIME_DIR"], ignore_errors=True)
WARM_SCRIPTS = (COMMAND, BENCHMARK, EDIT_IMAGES, JOBS_PROGRAM)
known_paths.look_up_once()
births.take_over_simulated()
WARM = WarmCommands()
# Seconds until a test that waits for something gives up: only what never comes takes so long, and a
# process that starts on a machine with ten times as much to do may well take a minute.
PATIENCE = 180.0
OBJECTS_TO_COLLECT = 50_000  # made and not freed, in a test process; Python's own number is 700
for_hypothesis.register_profile("busy", **warm_tests.BUSY)
for_hypothesis.load_profile("busy")
pytest_plugins = ["tests.both_engines"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: Sequence[Any]) -> None:
    """Have all tests run in forks of one process that has imported what most of them need."""
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        command = warm_tests.command()
        for spec in specs:
            spec.python = command
        tests = (PROJECT / "tests").rglob("test_*.py")
        rewritten_tests.write_bytecode(config, sorted(tests))  # while that process imports


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Import all tests, and torch with them, without looking for garbage: a fifth sooner."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    slow_tests.mark(items)
    longest_first.sort(items)


def pytest_collection_finish() -> None:
    """Make tests cheap in a process that has imported torch.

    Tiny layers are faster on one thread, and each other test has a core to itself then; and no
    garbage collection, which would take half a second, looks at what was imported. It looks seldom
    at what tests make: a small model is thousands of objects, and none of them is garbage.
    """
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_TO_COLLECT, *gc.get_threshold()[1:])


@pytest.fixture(autouse=True)
def log_after_a_capture(request: pytest.FixtureRequest) -> Iterator[None]:
    """Send the log to an open stream again where a test had a command log to a captured one.

    That one is closed with its test, and servers of a whole module have more to say.
    """
    yield
    if any(name.startswith(("capfd", "capsys")) for name in request.fixturenames):
        set_up_logging("DEBUG")


@pytest.fixture(autouse=True, scope="module")
def surroundings_as_before() -> Iterator[None]:
    """Fail a file of tests that leaves its process changed: no later command would be warm."""
    before = WARM.changed()
    yield
    assert WARM.changed() == before


def merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with some changed; sections merge."""
    values = dict(settings)
    for key, value in changes.items():
        section = values.get(key)
        values[key] = {**section, **value} if isinstance(section, dict) else value
    return values


def simulated(**changes: Any) -> dict[str, Any]:
    """Settings for simulated devices that restart without delay; sections merge with `changes`.

    Workers are forks, as those of real models are: a fork takes a tenth of the time of an
    interpreter that is started anew.
    """
    settings: dict[str, Any] = {
        "model": "simulated",
        "workers": {"start_method": "forkserver"},
        "supervision": {"restart_backoff": 0.01},
    }
    return merged(settings, changes)


def forking(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a command whose simulated workers are forks, as `simulated` has them."""
    workers = settings.get("workers", {})
    forks = {"start_method": "forkserver", **workers} if isinstance(workers, dict) else workers
    return {**settings, "workers": forks}


def kind_of(*models: object, engine: object = None) -> Kind:
    """What the workers of a command are: of its models and engine, as the settings name them."""
    if set(models) != {"simulated"}:
        return "models"
    return "ray" if engine == "ray" else "simulated"


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Poll until `condition` is true; returns its value.

    What takes longer is looked at less often: a look at all processes takes milliseconds of a core.
    """
    end, pause = time.monotonic() + PATIENCE, 0.01
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(pause)
        pause = min(1.1 * pause, 0.05)
    raise AssertionError(f"waited {PATIENCE:g} s for {what}")


def found_below(folder: Path, pattern: str) -> list[Path]:
    """Files below a folder in which others make and delete folders meanwhile: `rglob` may fail."""
    found = os.walk(folder)
    return [Path(place, n) for place, _, names in found for n in fnmatch.filter(names, pattern)]


def wait_for_workers(generator: MultiGPUImageGenerator) -> None:
    """Wait until all workers that draw are ready, so that none is late for the first tasks."""
    generator.start()

    def states() -> set[str]:
        return {worker.state for worker in generator.snapshot().result(PATIENCE).workers}

    wait_until(lambda: states() == {"ready"}, "all workers")


def run_script(
    script: str, folder: Path, kind: Kind | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run Python code, as indented as it stands, in a process of its own.

    Args:
        kind: what its workers are, if all that it needs shall be imported already.
    """
    script = textwrap.dedent(script)
    file = folder / "script.py"
    if kind is not None:
        file.write_text(script, "utf-8")
        with (folder / "script-errors.txt").open("w+") as errors:
            warm = WARM.start(file, [], folder, errors, {}, kind=kind)
            if warm is not None:
                said, _ = warm.communicate(2 * PATIENCE)
                errors.seek(0)
                return subprocess.CompletedProcess([str(file)], warm.wait(), said, errors.read())
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        text=True,
        capture_output=True,
        timeout=2 * PATIENCE,
    )


def worker_processes(main_pid: int) -> list[psutil.Process]:
    """The worker processes of a main process (not multiprocessing's own helpers)."""
    tree = ProcessTree()
    try:
        spawned = [child for child in tree.children(main_pid) if "spawn_main" in words_of(child)]
        servers = fork_servers(main_pid, tree)
        return spawned + [fork for server in servers for fork in tree.children(server.pid)]
    except psutil.Error:
        return []


def fork_servers(main_pid: int, tree: ProcessTree | None = None) -> list[psutil.Process]:
    """The fork servers of a main process: there may be one of simulated devices, and others."""
    try:
        known = (tree or ProcessTree()).children(main_pid)
        return [child for child in known if "forkserver" in words_of(child)]
    except psutil.Error:
        return []


def fork_server(main_pid: int) -> psutil.Process | None:
    """The fork server of a main process: of several, one that has workers now."""
    tree = ProcessTree()
    servers = fork_servers(main_pid, tree)
    busy = (server for server in servers if tree.children(server.pid))
    return next(busy, servers[0] if servers else None)


def worker_forks(server: psutil.Process) -> list[psutil.Process]:
    """The workers that a fork server has now."""
    return ProcessTree().children(server.pid)


# Begins a prompt whose worker stands still, until the test has it go on. With it stands what it
# saves of the task before.
HELD = "!stop:1"


def standing_still(workers: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those of them that are stopped, as a task has them that begins with `HELD`."""
    found = []
    for worker in workers:
        with suppress(psutil.Error):
            if worker.status() == psutil.STATUS_STOPPED:
                found.append(worker)
    return found


@contextmanager
def going_on(workers: Callable[[], Sequence[psutil.Process]]) -> Iterator[None]:
    """Have workers that stand still go on, those that come to do so meanwhile, too."""
    over = threading.Event()

    def resume() -> None:
        while not over.wait(0.02):
            for worker in standing_still(workers()):
                with suppress(psutil.Error):
                    worker.resume()

    thread = threading.Thread(target=resume, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Workplace:
    """Whose workers do the work of a test, and where a test finds them: this machine's own.

    Attributes:
        settings: with which a command, a daemon or a generator works there.
        grace: seconds more than here for the workers of a main process that was killed to be gone.
    """

    settings: Mapping[str, Any] = MappingProxyType({})
    grace = 0.0

    def simulated(self, **changes: Any) -> dict[str, Any]:
        """Settings for simulated devices there."""
        return simulated(**merged(self.settings, changes))

    def inline(self) -> WorkerBackend | None:
        """Workers in the test's own process, if these are what there is to be tested here."""
        return InlineBackend()

    def workers(self, main: int) -> list[psutil.Process]:
        """Workers of a main process."""
        return worker_processes(main)

    def fork_server(self, main: int) -> psutil.Process | None:
        """A fork server of a main process: of several, one that has workers now."""
        return fork_server(main)

    def others(self) -> list[psutil.Process]:
        """Processes of runs that are no descendants of their main processes."""
        return []

    def arm(self, faults: Mapping[str, str]) -> None:
        """Have workers to come born with faults, where they do not have them from main."""


LOCAL = Workplace()


class Run:
    """One run of the command in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str] | WarmCommand", errors_file: Path) -> None:
        self.process = process
        self.output = ""
        self._errors_file = errors_file

    @property
    def errors(self) -> str:
        """Standard error so far."""
        return self._errors_file.read_text("utf-8")

    def finish(self) -> int:
        """Wait for the end; returns the exit code."""
        self.output, _ = self.process.communicate(timeout=PATIENCE)
        return self.process.wait()

    def interrupt(self, acknowledged: str = "Interrupted") -> None:
        """Ctrl-C, as a terminal sends it: to the whole process group."""
        os.killpg(self.process.pid, signal.SIGINT)
        wait_until(
            lambda: acknowledged in self.errors or self.process.poll() is not None, acknowledged
        )


class Project:
    """A folder with tweet files, settings and outputs, and the command to run there."""

    def __init__(self, folder: Path, workplace: Workplace = LOCAL) -> None:
        self.folder = folder
        self.workplace = workplace
        self.pictures = folder / "out" / "tweets"
        self.environment: dict[str, str] = {}  # of the runs, beyond the tests' own
        self._runs = 0

    def write_tweets(self, tweets: Any, name: str = "tweets.json") -> Path:
        file = self.folder / name
        file.write_text(tweets if isinstance(tweets, str) else json.dumps(tweets), "utf-8")
        return file

    def write_settings(self, settings: Mapping[str, Any]) -> Path:
        file = self.folder / "settings.yaml"
        file.write_text(yaml.safe_dump(dict(settings)), "utf-8")
        return file

    def start(
        self, arguments: Sequence[str | int | Path], settings: Mapping[str, Any] | None = None
    ) -> Run:
        settings = merged(settings or simulated(), self.workplace.settings)
        config = self.write_settings(forking(settings))
        line = [*map(str, arguments), "--config", str(config)]
        line += ["--output-dir", str(self.folder / "out")]
        kind = kind_of(settings.get("model", "auto"), engine=settings.get("engine"))
        return self.execute(COMMAND, line, kind)

    def execute(
        self, script: Path, arguments: Sequence[str], kind: Kind | None = "simulated"
    ) -> Run:
        """Start one of the scripts in a process of its own.

        Args:
            kind: what its workers are; None to start it as a user does, with all imports to come.
        """
        self._runs += 1
        errors_file = self.folder / f"stderr-{self._runs}.txt"
        with errors_file.open("w") as errors:
            process = self._warm(script, arguments, errors, kind) or subprocess.Popen(
                [sys.executable, str(script), *arguments],
                cwd=self.folder,
                env={**os.environ, **self.environment},
                text=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                # A process group of its own, so that a test can interrupt it as a terminal does.
                start_new_session=True,
            )
        _started.append(process)
        return Run(process, errors_file)

    def _warm(
        self, script: Path, arguments: Sequence[str], errors: TextIO, kind: Kind | None
    ) -> WarmCommand | None:
        if kind is None or (kind == "simulated" and script not in WARM_SCRIPTS):
            return None
        environment = self.environment
        return WARM.start(script, arguments, self.folder, errors, environment, kind=kind)

    def run(
        self, arguments: Sequence[str | int | Path], settings: Mapping[str, Any] | None = None
    ) -> Run:
        run = self.start(arguments, settings)
        run.finish()
        return run

    def records(self) -> list[dict[str, Any]]:
        """results.jsonl: one record per input."""
        lines = (self.pictures / "results.jsonl").read_text("utf-8").split("\n")
        return [json.loads(line) for line in lines if line]

    def workers(self, run: Run) -> list[psutil.Process]:
        """Worker processes of a run."""
        return self.workplace.workers(run.process.pid)

    def leftovers(self) -> list[Path]:
        """Unfinished files anywhere below the output folder."""
        return list((self.folder / "out").rglob(".partial*"))


_started: list["subprocess.Popen[str] | WarmCommand"] = []


@pytest.fixture
def project(tmp_path: Path, workplace: Workplace) -> Iterator[Project]:
    yield Project(tmp_path, workplace)
    for process in _started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    _started.clear()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Z-Image checkpoint with random weights, small enough to draw in milliseconds."""
    from tests.tiny_pipelines import build_z_image

    folder = tmp_path_factory.mktemp("models") / "tiny"
    build_z_image().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_loras(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two LoRAs for `tiny_model`, with random weights."""
    import torch
    from diffusers import ZImagePipeline
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    folder = tmp_path_factory.mktemp("loras")
    files = []
    for number in range(2):
        torch.manual_seed(number)
        transformer = ZImagePipeline.from_pretrained(tiny_model).transformer
        config = LoraConfig(
            r=4, lora_alpha=4, init_lora_weights=False, target_modules=["to_q", "to_v"]
        )
        transformer.add_adapter(config, adapter_name="a")
        name = f"style{number}.safetensors"
        ZImagePipeline.save_lora_weights(
            folder, get_peft_model_state_dict(transformer, adapter_name="a"), weight_name=name
        )
        files.append(folder / name)
    return files


def write_safetensors(file: Path, name: str = "x.lora_A.weight", size: int = 4) -> Path:
    """A minimal safetensors file with one tensor; content differs with `name`."""
    header = {name: {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    raw = json.dumps(header).encode()
    file.write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(size))
    return file


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    """Threads that a test does not wait for."""
    executor = ThreadPoolExecutor()
    yield executor
    executor.shutdown(wait=False)


def submitted(
    executor: ThreadPoolExecutor, generator: MultiGPUImageGenerator, n: int
) -> "Future[list[Result]]":
    """A batch of `n` tasks, on its way."""
    tasks = [{"prompt": f"{i}", "output_path": f"{i}.png"} for i in range(n)]
    return executor.submit(generator.generate_batch, tasks)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two pictures to be edited, of one colour each."""
    folder = tmp_path_factory.mktemp("sources")
    files = [folder / f"{i}.png" for i in range(2)]
    for i, file in enumerate(files):
        Image.new("RGB", (80, 80), (200 * i, 90, 40)).save(file)
    return [str(file) for file in files]
