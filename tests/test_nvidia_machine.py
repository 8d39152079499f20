"""What happens on a machine with an NVIDIA driver, played by a library of NVML's name."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from loguru import logger

from core.devices.device import Device
from core.devices.model_choice import DEMO_MODEL
from core.events import Event, WorkerState
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from tests.conftest import PROJECT, run_script

GPU = Device("cuda", 0, "GPU-0000", 80 * 1024**3)

# As much of NVML as torch asks: users are counted, and the device is open while there are any.
DRIVER = r"""
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static int users = 0, device = -1;
int nvmlInit(void) {
    if (users++ == 0) device = open(getenv("STAND_IN_DEVICE"), O_RDWR | O_CREAT, 0600);
    return 0;
}
int nvmlInit_v2(void) { return nvmlInit(); }
int nvmlShutdown(void) {
    if (users == 0 || getenv("STAND_IN_STAYS_OPEN")) return 1;
    if (--users == 0) close(device);
    return 0;
}
int nvmlDeviceGetCount_v2(int *count) { *count = 2; return 0; }
"""
# A CPU build of torch that answers as a build with CUDA does: it asks NVML.
CUDA_BUILD = """
import os, torch
torch.cuda._is_compiled = lambda: True
torch._C._cuda_getCurrentRawStream = lambda device: 0
torch.accelerator.is_available = torch.cuda.is_available
torch.accelerator.current_accelerator = lambda check_available=False: torch.device("cuda")
os.environ.update(PYTORCH_NVML_BASED_CUDA_CHECK="1", WORKER_PRELOAD_ROLE="generate")
os.environ["WORKER_PRELOAD_PARENT"] = str(os.getppid())
import workers.preload
from diffusers.utils.torch_utils import get_device
opened = {os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")}
print(get_device(), workers.preload.complete, workers.preload.refusal)
print(*(name for name in opened if "nvidia" in name))
import sys
from diffusers.utils import is_bitsandbytes_available, is_torchao_available
from peft.import_utils import is_bnb_available
print(sys.modules["torchao"], sys.modules["bitsandbytes"])
print(is_torchao_available(), is_bitsandbytes_available(), is_bnb_available(), flush=True)
if not (child := os.fork()):
    from pathlib import Path
    from diffusers import ZImageTransformer2DModel
    from diffusers.utils.constants import HF_ENABLE_PARALLEL_LOADING
    from core.devices.model_choice import DEMO_MODEL
    whole = ZImageTransformer2DModel.from_pretrained(DEMO_MODEL / "transformer")
    whole.save_pretrained("shards", max_shard_size="1MB")
    loaded = ZImageTransformer2DModel.from_pretrained("shards", device_map="cpu")
    same = all(torch.equal(a, b) for a, b in zip(whole.parameters(), loaded.parameters()))
    files = len(list(Path("shards").glob("*.safetensors")))
    print(HF_ENABLE_PARALLEL_LOADING, same, files > 2, flush=True)
    os._exit(0)
os.waitpid(child, 0)
# Once more, as if the libraries were imported only now, with a driver that closes nothing.
import importlib, workers.boot
workers.boot.fork_server = None
os.environ.update(STAND_IN_STAYS_OPEN="1", WORKER_PRELOAD_ROLE="generate")
os.environ["WORKER_PRELOAD_PARENT"] = str(os.getppid())
torch.cuda.device_count()
importlib.reload(workers.preload)
print(workers.preload.complete, workers.preload.refusal)
"""

# A library that, in a fork server alone, keeps a thread as a driver's library may: it waits for
# something that never comes, or looks after something again and again.
THREAD = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>
static void *work(void *unused) {
    for (;;) {
        if (getenv("STAND_IN_THREAD_RUNS")) usleep(1000);
        else pause();
    }
}
__attribute__((constructor)) static void begin(void) {
    pthread_t thread;
    if (!getenv("WORKER_PRELOAD_ROLE")) return;
    pthread_create(&thread, NULL, work, NULL);
    pthread_setname_np(thread, "driver-events");
}
"""
FORKS = """
import psutil
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from loguru import logger

logger.remove()
logger.add(lambda line: print("warned:", line, end=""), level="WARNING", format="{message}")
config = {"model": "simulated", "workers": {"start_method": "forkserver"}}
with MultiGPUImageGenerator(1, config=config, output_dir="out") as generator:
    [result] = generator.generate_batch([{"prompt": "a red house"}])
    children = psutil.Process().children()
    children = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
    servers = [child for child in children if "forkserver" in " ".join(child.cmdline())]
    forks = [fork for server in servers for fork in server.children()]
    print([server.num_threads() for server in servers], len(forks), result.status)
"""


def built(source: str, library: Path) -> Path:
    """A shared library from C."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    file = library.with_suffix(".c")
    file.write_text(source)
    line = [compiler, "-shared", "-fPIC", "-pthread", "-o", str(library), str(file)]
    subprocess.run(line, check=True)
    return library


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the driver's library and device are there."""
    folder = tmp_path_factory.mktemp("driver")
    (folder / "dev").mkdir()
    built(DRIVER, folder / "libnvidia-ml.so.1")
    inherited = {name: v for name, v in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return {
        **inherited,
        "LD_LIBRARY_PATH": str(folder),
        "STAND_IN_DEVICE": str(folder / "dev" / "nvidiactl"),
        "PYTHONPATH": str(PROJECT),
        "OMP_NUM_THREADS": "1",  # as main starts the server
        "OPENBLAS_NUM_THREADS": "1",
        "HF_ENABLE_PARALLEL_LOADING": "1",
    }


@pytest.fixture(scope="module")
def warmed_up(driver: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a fork server says of itself."""
    done = subprocess.run(
        [sys.executable, "-c", CUDA_BUILD],
        env=driver,
        cwd=tmp_path_factory.mktemp("warmed"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stderr
    return done.stdout.split("\n")


@pytest.mark.slow
def test_a_fork_server_sees_the_gpus_and_leaves_no_device_open(warmed_up: list[str]) -> None:
    assert warmed_up[0] == "cuda True None"
    assert warmed_up[1] == ""


def test_a_fork_server_reads_files_side_by_side_and_sees_no_package_that_would_open_a_gpu(
    warmed_up: list[str],
) -> None:
    """diffusers reads the variable as it is imported; its threads come and go with each load."""
    assert warmed_up[2:5] == ["None None", "False False False", "True True True"]


def test_a_fork_server_with_an_open_device_refuses_and_says_which(warmed_up: list[str]) -> None:
    assert warmed_up[5].startswith("False") and "nvidiactl is open" in warmed_up[5]


@pytest.fixture
def thread_in_the_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A library in every process of the test that starts a thread in a fork server."""
    monkeypatch.setenv("LD_PRELOAD", str(built(THREAD, tmp_path / "libdriver.so")))


@pytest.mark.usefixtures("thread_in_the_server")
def test_a_fork_server_whose_librarys_thread_sleeps_has_forks(tmp_path: Path) -> None:
    done = run_script(FORKS, tmp_path)
    assert done.stdout == "[2] 1 done\n", done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("thread_in_the_server")
def test_a_fork_server_whose_librarys_thread_runs_is_not_forked_and_names_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STAND_IN_THREAD_RUNS", "1")
    done = run_script(FORKS, tmp_path)
    refused = "warned: The fork server cannot be used: its thread driver-events ("
    assert done.stdout.startswith(refused), done.stdout + done.stderr
    assert done.stdout.endswith("\n[] 0 done\n")


@pytest.mark.usefixtures("thread_in_the_server")
def test_the_check_of_a_gpu_tells_a_librarys_thread_and_what_it_waits_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WORKER_PRELOAD_ROLE", "generate")
    done = run_script("from benchmarks.gpu_threads import show; show('a test')", tmp_path)
    assert re.search(
        r"^threads after a test: python\S* .*; driver-events \(\d+\) S \(sleeping\), waits in \S+, "
        r"system call \S+, switches \d+ \+ \d+$",
        done.stdout,
        re.M,
    ), done.stdout + done.stderr


def test_a_gpu_that_torch_cannot_use_is_said_in_one_line_and_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("core.engine_choice.choose_devices", lambda *_: [GPU])
    told: list[str] = []
    sink = logger.add(lambda line: told.append(str(line)), level="WARNING", format="{message}")
    generator = MultiGPUImageGenerator(
        gpu_ids=[0], config={"model": str(DEMO_MODEL)}, output_dir=tmp_path
    )
    starts: list[Event] = []
    generator.listener = starts.append
    with generator:
        results = generator.generate_batch([{"prompt": "a red house"}])
    logger.remove(sink)
    assert results[0].status == "failed"
    assert "gpu0: it cannot start" in str(results[0].error)
    assert "not compiled with CUDA" in str(results[0].error)
    assert "Traceback" not in "".join(told)
    assert starts.count(WorkerState("gpu0", "starting", "generate")) == 1


def test_a_package_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    # diffusers' place is taken by one that cannot be imported, as where its own needs are missing.
    (tmp_path / "diffusers").mkdir()
    (tmp_path / "diffusers" / "__init__.py").write_text("import no_such_package")
    script = """
        from core.events import WorkerState
        from core.devices.model_choice import DEMO_MODEL
        from core.multi_gpu_image_generator import MultiGPUImageGenerator

        starts = []
        config = {"model": str(DEMO_MODEL), "device": "cpu", "workers": {"start_method": "spawn"}}
        with MultiGPUImageGenerator(config=config, output_dir="out") as generator:
            generator.listener = starts.append
            [result] = generator.generate_batch([{"prompt": "a red house"}])
        started = starts.count(WorkerState("cpu0", "starting", "generate"))
        print(result["status"], started, result["error"])
    """
    done = run_script(script, tmp_path)
    assert done.stdout.startswith("failed "), done.stderr
    assert int(done.stdout.split()[1]) <= 1
    assert "No module named 'no_such_package'" in done.stdout
    assert "Traceback" not in done.stderr
