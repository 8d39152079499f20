"""A stand-in device for tests and benchmarks: `model: simulated`.

Takes a seeded time for a task, gives a result that depends on the task alone, and breaks on
request: a prompt or instruction `!fault`, `!fault:3` (only in the first 3 attempts) or
`!one,other` (one in the first attempt, another in the second) names one of

    crash      segmentation fault          kill    SIGKILL to itself
    stop       SIGSTOP to itself           hang    a loop that never ends
    stuck      a native call that never ends and holds the GIL
    error      an exception                nan     a refusal of what is asked for
    bug        an exception that a retry would not mend
    oom        out of memory, always       cuda    a lost CUDA context
    crowd      out of memory, unless it is drawn alone
    disk-full  ENOSPC from the saver       slow    30 times the time
    save-crash segmentation fault of the saver, when the next task is under way
    compile    some seconds more, of which it tells as a model does before it is compiled
"""

import errno
import os
import random
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from string import ascii_lowercase
from typing import Any, NoReturn, TypeVar

from PIL import Image

from core.errors import InputError
from core.fault_points import hold_the_gil
from core.judge import Judge
from core.judge_rows import row_of
from core.messages import Keep, Lease
from core.pictures.source_images import read_image
from core.tasks import EditTask, GenerateTask, ScoreTask
from core.worker_spec import WorkerSpec
from workers.lora_manager import LoraManager
from workers.models.base import Log, ModelFamily, Picture, Product, Verdict, model_settings
from workers.previews import LONGEST_SIDE, Sketch, TellPreview, preview_steps
from workers.steps import SECONDS_BETWEEN, TellSteps

V = TypeVar("V")
COMPILING = 4.0  # seconds
SHORTEST_SLEEP = 0.01  # seconds, in a task that is told step by step
SAVING = 0.1  # seconds until the saver crashes
USUAL_ASKS = 2  # of a judge
SIDE = 64  # pixels of a picture whose task gives no size


class SimulatedGpu(ModelFamily):
    """A simulated model. It needs no torch, so a worker is up in a fraction of a second."""

    def __init__(self, spec: WorkerSpec, log: Log) -> None:
        self.spec = spec
        self._times = spec.simulated
        self._tell_compiling: Callable[[], None] = lambda: None
        self._tell_steps: TellSteps = lambda done, total: None
        self._tell_preview: TellPreview = lambda sketch: None
        pipeline = _SimulatedPipeline(self._times.lora_load_seconds)
        self._loras = LoraManager(
            pipeline, spec.max_resident_loras, log, _SimulatedLoader(pipeline)
        )

    def device_identity(self) -> tuple[str, str]:
        return "simulated GPU", f"SIM-{os.environ.get('CUDA_VISIBLE_DEVICES')}"

    def before_compiling(self, tell: Callable[[], None]) -> None:
        self._tell_compiling = tell

    def on_steps(self, tell: TellSteps) -> None:
        self._tell_steps = tell

    def on_previews(self, tell: TellPreview) -> None:
        self._tell_preview = tell

    def load(self) -> str:
        self._break_if_lost()
        time.sleep(self._times.load_seconds)
        return type(self).__name__

    def run(self, leases: Sequence[Lease]) -> list[Product]:
        self._break_if_lost()
        for lease in leases:
            fault = _fault(_words(lease), lease.attempt)
            if fault == "crowd" and len(leases) > 1:
                raise MemoryError("simulated")
            if fault == "compile":
                self._tell_compiling()
                time.sleep(COMPILING)
            _break_if_asked(fault)
        if isinstance(leases[0].task, ScoreTask):
            time.sleep(self._times.score_seconds)
            return [_verdict(lease, self.spec.judge) for lease in leases]
        return [self._picture(lease) for lease in leases]

    def _break_if_lost(self) -> None:
        flag = _of_worker(self._times.lost_while, self.spec.name)
        if flag is not None and os.path.exists(flag):
            raise RuntimeError("CUDA error: device lost (simulated)")

    def _picture(self, lease: Lease) -> Picture:
        task = lease.task
        assert isinstance(task, GenerateTask | EditTask)
        for path, sha256 in lease.files.items():
            read_image(lease.at(path), sha256)
        self._loras.use_stack(lease.loras)
        width, height = task.width or SIDE, task.height or SIDE
        colour = tuple(bytes.fromhex(lease.fingerprint[:6]))
        image = Image.new("RGB", (width, height), colour)
        self._draw(lease, self._seconds(lease), task.num_inference_steps or 1, image)
        fault = _fault(_words(lease), lease.attempt)
        if fault in _SAVING_FAULTS:
            image.save = _SAVING_FAULTS[fault]  # type: ignore[method-assign]
        return Picture(self._used(task, width, height), image)

    def _draw(self, lease: Lease, seconds: float, steps: int, image: Image.Image) -> None:
        """Take that long, in steps. Many short ones are one: a sleep for each would be work."""
        shown = preview_steps(lease.previews, steps)
        is_short = seconds < SECONDS_BETWEEN
        many = steps if is_short else max(1, int(steps * SHORTEST_SLEEP / seconds))
        started, at_once = time.monotonic(), 1 if shown else many
        for done in [*range(at_once, steps, at_once), steps]:
            time.sleep(max(0.0, started + seconds * done / steps - time.monotonic()))
            self._tell_steps(done, steps)
            if done in shown:
                picture = partial(_greyed, image, done / steps)
                self._tell_preview(Sketch(lease, shown[done], done, steps, picture))

    def resident_loras(self) -> list[str]:
        return self._loras.resident

    def take_lora_counts(self) -> Any:
        return self._loras.take_counts()

    def keep_lora(self, order: Keep) -> None:
        self._break_if_lost()
        self._loras.obey(order)

    def _seconds(self, lease: Lease) -> float:
        task = lease.task
        assert isinstance(task, GenerateTask | EditTask)
        megapixels = (task.width or SIDE) * (task.height or SIDE) / 1e6
        steps = task.num_inference_steps or 1
        spread = random.Random(lease.fingerprint).uniform(-1, 1) * self._times.jitter
        slowness = _of_worker(self._times.slowness, self.spec.name) or 1.0
        if _fault(_words(lease), lease.attempt) == "slow":
            slowness *= 30
        rate = self._times.seconds_per_megapixel_step * slowness
        return rate * megapixels * steps * (1 + spread)

    def _used(self, task: GenerateTask | EditTask, width: int, height: int) -> dict[str, Any]:
        return {
            "model": "simulated",
            "sampler": "none",
            "num_inference_steps": task.num_inference_steps or 1,
            "guidance_scale": task.guidance_scale or 0.0,
            "width": width,
            "height": height,
            **model_settings(self.spec),
            "visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "pid": os.getpid(),
        }


def _of_worker(values: Mapping[str, V], name: str) -> V | None:
    """Look up a setting by the worker's name, on one node or any, or by the GPU that it shares.

    Of the worker node/gpu0b: node/gpu0b, gpu0b, gpu0.
    """
    on_its_node = name.rpartition("/")[2]
    names = (name, on_its_node, on_its_node.rstrip(ascii_lowercase))
    return next((values[known] for known in names if known in values), None)


def _greyed(image: Image.Image, drawn: float) -> Image.Image:
    """A small version of a picture of which a part, 0..1, is drawn, the rest of it grey."""
    small = image.copy()
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return Image.blend(Image.new("RGB", small.size, "grey"), small, drawn)


def _words(lease: Lease) -> str:
    task = lease.task
    if isinstance(task, GenerateTask):
        return task.prompt
    assert isinstance(task, EditTask | ScoreTask)
    return task.instruction


def _verdict(lease: Lease, judge: Judge | None) -> Verdict:
    """Scores that depend on instruction and seed, of the names that the judge's protocol has.

    `!unparsed` in an instruction gives none, `!unparsed:3` none in the first 3 asks.
    """
    for path, sha256 in lease.files.items():
        read_image(lease.at(path), sha256)
    unparsed = re.search(r"!unparsed(?::(\d+))?", _words(lease))
    assert isinstance(lease.task, ScoreTask)
    if unparsed and (unparsed[1] is None or USUAL_ASKS + lease.task.more_asks <= int(unparsed[1])):
        call = {"name": "SC", "value": None, "problem": "no JSON object", "raw": "no idea"}
        return Verdict({"scores": None}, {"calls": [call]})
    draw = random.Random(f"{_words(lease)} {lease.task.seed}")
    if judge is not None and judge.prompts.score_names != ["SC", "PQ", "O"]:
        row = row_of(lease.task)
        answers = []
        for asked in judge.prompts.asked(row):
            parts = {p: float(draw.randint(*map(int, asked.range))) for p in asked.parts}
            told = {"name": asked.name, "parts": parts, "value": asked.value_of(parts)}
            answers.append({**told, "problem": None, "raw": []})
        return Verdict({"scores": judge.prompts.scores_of(row, answers)}, {"calls": answers})
    consistency, quality = draw.randint(0, 10), draw.randint(0, 10)
    scores = {"SC": consistency, "PQ": quality, "O": (consistency * quality) ** 0.5}
    return Verdict({"scores": scores}, {"calls": []})


class _SimulatedPipeline:
    """A stand-in for a diffusers pipeline, with what the LoRA manager needs of one."""

    def __init__(self, load_seconds: float) -> None:
        self._load_seconds = load_seconds
        self._names: set[str] = set()

    def load_lora_weights(self, name: str) -> None:
        time.sleep(self._load_seconds)
        self._names.add(name)

    def delete_adapters(self, name: str) -> None:
        self._names.discard(name)

    def set_adapters(self, names: list[str], weights: list[float]) -> None:
        assert set(names) <= self._names

    def enable_lora(self) -> None: ...

    def disable_lora(self) -> None: ...


class _SimulatedLoader:
    """Takes every file for a LoRA."""

    def __init__(self, pipeline: _SimulatedPipeline) -> None:
        self._pipeline = pipeline

    def read(self, path: Path) -> "_SimulatedLoader":
        return self

    def put_on(self, name: str) -> None:
        self._pipeline.load_lora_weights(name)

    def remove(self, name: str) -> None:
        self._pipeline.delete_adapters(name)


def _fault(prompt: str, attempt: int) -> str:
    """The fault that a task asks for in this attempt; empty for none."""
    if not prompt.startswith("!"):
        return ""
    asked, _, attempts = prompt.split(maxsplit=1)[0].removeprefix("!").partition(":")
    if "," in asked:
        return dict(enumerate(asked.split(","), start=1)).get(attempt, "")
    return "" if attempts and attempt > int(attempts) else asked


def _break_if_asked(fault: str) -> None:
    match fault:
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "hang":
            _hang()
        case "stuck":
            hold_the_gil()
        case "error":
            raise RuntimeError("a simulated failure")
        case "bug":
            raise KeyError("a simulated defect")
        case "nan":
            raise InputError("a simulated failure that a retry would repeat")
        case "oom":
            raise MemoryError("simulated")
        case "cuda":
            raise RuntimeError("CUDA error: an illegal memory access was encountered (simulated)")


def _hang() -> NoReturn:
    os.nice(19)  # a device that spins takes no core from the others; this machine may have few
    while True:
        pass


def _disk_full(*_: Any, **__: Any) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _crash_late(*_: Any, **__: Any) -> None:
    time.sleep(SAVING)
    signal.raise_signal(signal.SIGSEGV)  # to this thread, so that it does nothing more


_SAVING_FAULTS: dict[str, Callable[..., None]] = {
    "disk-full": _disk_full,
    "save-crash": _crash_late,
}
