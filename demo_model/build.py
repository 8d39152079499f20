"""Trains the demo's models anew: `python -m demo_model.build [--device cuda] [--only PART...]`.

Each stage is a module and a process of its own. A finished stage is kept in the work folder and
not repeated; an unfinished one goes on where it was killed. On a GPU all that can run side by
side does, against a clock; on a CPU every stage takes its full course. Nothing is shipped here:
that is for `demo_model.gate` to decide.
"""

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from demo_model.stage import check_device, publish
from demo_model.styles import STYLES

HERE = Path(__file__).resolve().parent
WORK = HERE.parent / "outputs" / "demo_model_build"
PARTS = ("generator", "editor", "judge")
GPU_SECONDS = 300.0
REPORT_EVERY = 30.0  # seconds
ENDLESS = ("--steps", 1_000_000)  # where the clock ends it


@dataclass(frozen=True)
class Stage:
    """One process of the training.

    Attributes:
        name: of its result in the work folder.
        needs: stages whose results it takes.
        until: share of the time on a GPU, counted from the start of all, at which it has to end.
        options: of its command line; `@name` stands for the path of that stage's result.
        course: added to the seed, so that a second course sees something else than the first.
    """

    name: str
    module: str
    part: str
    needs: tuple[str, ...] = ()
    until: float = 1.0
    options: tuple[str | int, ...] = ()
    course: int = 0


def stages(parts: Sequence[str], timed: bool) -> list[Stage]:
    """In an order in which they can run one after another.

    Args:
        timed: by the clock, with less to prepare and a shorter way to a judge.
    """
    found = [
        Stage(
            "vae", "train_generator_vae", "generator", (), 0.22,
            (*ENDLESS, "--decoder-steps", 1_000_000) if timed else (),
        ),
        Stage(
            "editor_vae", "train_editor_vae", "editor", (), 0.22,
            (*ENDLESS, "--decoder-steps", 1_000_000) if timed else (),
        ),
        Stage(
            "transformer", "train_transformer", "generator", ("vae",), 0.8,
            ("--vae", "@vae")
            + ((*ENDLESS, "--more-steps", 1_000_000, "--scenes", 14_000) if timed else ()),
        ),
        Stage(
            "editor", "train_editor", "editor", ("editor_vae",), 0.62,
            ("--vae", "@editor_vae", *((*ENDLESS, "--edits", 16_000) if timed else ())),
        ),
        *(
            Stage(
                f"lora_{style}", "train_loras", "generator", ("transformer",), 1.0,
                ("--model", "@transformer", "--style", style),
            )
            for style in STYLES
        ),
        *(_judge_by_the_clock() if timed else _whole_judge()),
    ]  # fmt: skip
    return [stage for stage in found if stage.part in parts]


def _judge_by_the_clock() -> list[Stage]:
    """The shipped judge goes on with pictures that the new editor made."""
    shipped = str(HERE / "judge")
    options = ("--vae", "@editor_vae", "--pictures", "@pictures", "--first", shipped)
    return [
        Stage(
            "pictures", "editor_pictures", "judge", ("editor",), 0.72,
            ("--editors", "@editor", "--count", 800),
        ),
        Stage(
            "judge", "train_judge", "judge", ("editor_vae", "pictures"), 1.0,
            (*options, *ENDLESS, "--examples", 2_000, "--peak-rate", "3e-4"),
        ),
    ]  # fmt: skip


def _whole_judge() -> list[Stage]:
    """From nothing: what pictures show and what changed, then how well an editor's are drawn."""
    pictures = ("--vae", "@editor_vae", "--pictures", "@pictures", "--examples", 6_000)
    return [
        Stage("judge_first", "train_judge", "judge", ("editor_vae",), 1, ("--vae", "@editor_vae")),
        Stage("pictures", "editor_pictures", "judge", ("editor",), 1, ("--editors", "@editor")),
        Stage(
            "judge_second", "train_judge", "judge", ("judge_first", "pictures", "editor_vae"), 1,
            (*pictures, "--first", "@judge_first", "--steps", 7_000, "--quality-first", 300), 1,
        ),
        Stage(
            "judge", "train_judge", "judge", ("judge_second", "pictures", "editor_vae"), 1,
            (*pictures, "--first", "@judge_second", "--steps", 14_000), 2,
        ),
    ]  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How stages are run: where, on what, with how many threads each, how many at once."""

    work: Path
    device: str
    seed: int
    threads: int
    jobs: int
    seconds: float | None

    def line(self, stage: Stage, began: float) -> list[str]:
        """The stage's command line.

        Args:
            began: the start of all, in the seconds of `time.time`.
        """
        given = [
            str(self.work / option[1:]) if option.startswith("@") else option
            for option in map(str, stage.options)
        ]
        ends: list[str] = []
        if self.seconds is not None:
            ends = ["--until", f"{began + stage.until * self.seconds:.1f}"]
        device = [] if stage.module == "editor_pictures" else ["--device", self.device]
        shared = {
            "--out": self.work / stage.name,
            "--seed": self.seed + stage.course,
            "--threads": self.threads,
            "--parent": os.getpid(),
        }
        options = [str(word) for pair in shared.items() for word in pair]
        module = f"demo_model.{stage.module}"
        return [sys.executable, "-m", module, *options, *device, *ends, *given]


class Failed(Exception):
    """A stage that ended badly."""


def run(todo: Sequence[Stage], plan: Plan) -> None:
    """Run stages, several at once, until all results are there.

    Raises:
        Failed: a stage failed; the others were stopped, and what they had reached is kept.
    """
    clock = _Clock(plan.work / "seconds")
    running: dict[str, tuple[subprocess.Popen[bytes], Stage]] = {}
    waiting = [stage for stage in todo if not (plan.work / stage.name).exists()]
    if plan.seconds is not None and waiting and clock.spent >= plan.seconds:
        raise Failed(
            f"Of {plan.seconds:.0f} s, {clock.spent:.0f} are spent, and there is no "
            f"{', '.join(stage.name for stage in waiting)} yet. Give it more --seconds."
        )
    reported = 0.0
    try:
        while waiting or running:
            for stage in list(waiting):
                ready = all((plan.work / need).exists() for need in stage.needs)
                if ready and len(running) < plan.jobs:
                    waiting.remove(stage)
                    running[stage.name] = (_start(stage, plan, clock), stage)
            if not running:
                lacking = {n for s in waiting for n in s.needs if not (plan.work / n).exists()}
                raise Failed(f"There is no {', '.join(sorted(lacking))} in {plan.work}.")
            for name, (process, _) in list(running.items()):
                if process.poll() is not None:
                    del running[name]
                    _check(name, process, plan)
            if clock.spent - reported >= REPORT_EVERY:
                reported = clock.spent
                for name in running:
                    print(f"  {clock.spent:.0f} s  {_last_line(plan.work, name)}", flush=True)
            clock.tick()
    finally:
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.wait()


def gather_loras(work: Path) -> None:
    """Put all styles into one folder, as they are shipped, once there are all."""
    files = [work / f"lora_{style}" / f"{style}.safetensors" for style in STYLES]
    if all(file.exists() for file in files) and not (work / "loras").exists():
        publish(lambda folder: _copy(files, folder), work / "loras")


def _copy(files: Sequence[Path], folder: Path) -> None:
    folder.mkdir()
    for file in files:
        shutil.copy(file, folder)


def _start(stage: Stage, plan: Plan, clock: "_Clock") -> subprocess.Popen[bytes]:
    (plan.work / stage.name).parent.mkdir(parents=True, exist_ok=True)
    line = plan.line(stage, clock.began)
    print(f"  {clock.spent:.0f} s  {stage.name} begins", flush=True)
    with _log(plan.work, stage.name).open("ab") as log:
        log.write(f"$ {' '.join(line[1:])}\n".encode())
        log.flush()
        return subprocess.Popen(line, cwd=HERE.parent, stdout=log, stderr=subprocess.STDOUT)


def _check(name: str, process: subprocess.Popen[bytes], plan: Plan) -> None:
    if process.returncode or not (plan.work / name).exists():
        log = _log(plan.work, name)
        raise Failed(
            f"{name} ended with {process.returncode}: {_last_line(plan.work, name)} ({log})"
        )
    print(f"  {name} is done", flush=True)


def _log(work: Path, name: str) -> Path:
    return work / f"{name}.log"


def _last_line(work: Path, name: str) -> str:
    lines = _log(work, name).read_text("utf-8", "replace").splitlines()
    return lines[-1] if lines else name


class _Clock:
    """Seconds that the training has taken so far, kept in a file: a kill does not reset it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        before = float(file.read_text()) if file.exists() else 0.0
        self.began = time.time() - before

    @property
    def spent(self) -> float:
        return time.time() - self.began

    def tick(self) -> None:
        draft = self._file.with_suffix(".draft")
        draft.write_text(f"{self.spent:.1f}")
        draft.replace(self._file)
        time.sleep(0.5)


@contextmanager
def alone_in(work: Path) -> Iterator[None]:
    """Two builds would write the same files."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"Another build works in {work}. Wait for it, or name another --work.")
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--seconds", type=float, help=f"to be done in; by default {GPU_SECONDS:.0f} on a GPU"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, help="stages at once; by default 2, on a GPU all")
    options = parser.parse_args()
    check_device(options.device)
    on_gpu, cores = options.device == "cuda", os.cpu_count() or 1
    plan = Plan(
        work=options.work.resolve(),
        device=options.device,
        seed=options.seed,
        threads=max(1, cores // 2) if on_gpu else 1,
        jobs=options.jobs or (len(PARTS) + 2 if on_gpu else 2),
        seconds=options.seconds or (GPU_SECONDS if on_gpu else None),
    )
    with alone_in(plan.work):
        try:
            run(stages(options.only, timed=plan.seconds is not None), plan)
            gather_loras(plan.work)
        except Failed as failed:
            sys.exit(str(failed))
    print(f"Trained, in {plan.work}. Now: python -m demo_model.gate --work {plan.work}")


if __name__ == "__main__":
    main()
