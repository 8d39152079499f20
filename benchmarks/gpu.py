"""What a GPU does, within a time: `python -m benchmarks.gpu --budget 560 --out FOLDER [--only …]`.

What matters most comes first, each part in a process of its own: first that workers start and
draw right (fork server, tests marked `cuda`), then Z-Image at full size with random weights, then
Qwen-Image-Edit and Qwen3-VL. FOLDER/fork-server.log says which threads a fork server has, what they
came with and what they wait for. A row is in
FOLDER/rows.jsonl as soon as it is measured, and FOLDER/results.md shows them all: a run that is
killed, or a part that fails, costs no other row. No two pipelines are held at once, and the one
checkpoint that is written takes 20 GB, in memory (/dev/shm) where there is room, else in
FOLDER, or in `--work`. `--tiny` tries the benchmark itself on a CPU.

Without a network: `make gpu-wheels` gathers, on a machine with one, the pure and small wheels
that a machine with torch, transformers and numpy still lacks, for Python 3.12, in `wheels/`.
There, install them beside what is installed, and run:

    python3 -m pip install --no-index --no-deps --upgrade --target /tmp/site wheels/*.whl
    PYTHONPATH=/tmp/site python3 -m benchmarks.gpu --budget 560 --out results

No model is asked of a hub: the demo models are folders, the large ones are made here.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from benchmarks.gpu_parts import PARTS, Part
from benchmarks.gpu_rows import Row, add, read, shown, write_results
from core.settings import PROJECT_DIR

CHECKPOINT_BYTES = 26 * 10**9
MEMORY_BACKED = Path("/dev/shm")
LEAVING = 5.0  # seconds for a part's processes to be gone


def work_folder(given: Path | None, out: Path, tiny: bool) -> Path:
    """Where checkpoints go: as asked for, else in memory, else below `out`."""
    folder = given or out / "work"
    if given is None and not tiny and _free(MEMORY_BACKED) > CHECKPOINT_BYTES:
        folder = MEMORY_BACKED / "gpu-benchmark"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free if folder.is_dir() else 0


def run_part(part: Part, out: Path, work: Path, tiny: bool, seconds: float) -> None:
    """One part in its own process group, ended when its time is up."""
    line = [sys.executable, "-m", "benchmarks.gpu_parts", part.name]
    line += ["--out", str(out), "--work", str(work), *(["--tiny"] if tiny else [])]
    started, known = time.monotonic(), len(read(out))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    keep_bytecode(environment, work)
    with (out / f"{part.name}.log").open("w") as log:
        process = subprocess.Popen(
            line,
            cwd=PROJECT_DIR,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            code: int | str = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = f"ended after {seconds:.0f} s"
        finally:
            _end_group(process)
    for row in read(out)[known:]:
        print(shown(row), flush=True)
    took = time.monotonic() - started
    verdict = "ok" if code == 0 else f"failed: {code}; {_last_line(out / f'{part.name}.log')}"
    add(out, Row("Parts", part.name, {"seconds": round(took, 1), "result": verdict}))


def keep_bytecode(environment: dict[str, str], work: Path) -> None:
    """Let Python compile torch and the others once, and not in each process: 15 s every time.

    Where packages lie in a folder that cannot be written, bytecode is kept in `work`.
    """
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    torch = find_spec("torch")
    if torch is not None and torch.origin and not os.access(Path(torch.origin).parent, os.W_OK):
        environment.setdefault("PYTHONPYCACHEPREFIX", str(work / "bytecode"))


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    """Whatever the part left running holds memory that the next one needs."""
    try:
        os.killpg(process.pid, 9)
    except ProcessLookupError:
        return
    process.wait(LEAVING)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no output"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("--budget", type=float, default=560, help="seconds for all of it")
    parser.add_argument("--out", type=Path, required=True, help="folder of rows and results")
    parser.add_argument("--work", type=Path, help="folder for checkpoints (26 GB)")
    parser.add_argument("--only", help="these parts, in this order: fork-server,engine", default="")
    parser.add_argument("--tiny", action="store_true", help="tiny models on a CPU")
    options = parser.parse_args()
    names = [name for name in options.only.split(",") if name]
    parts = {part.name: part for part in PARTS}
    unknown = set(names) - set(parts)
    if unknown:
        parser.error(f"--only: {sorted(unknown)[0]}: there are {', '.join(parts)}")
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + options.budget
    work = work_folder(options.work, out, options.tiny)
    title = "tiny models on a CPU" if options.tiny else "One GPU"
    try:
        for part in [parts[name] for name in names] or PARTS:
            left = end - time.monotonic()
            if left < part.least:
                add(out, Row("Parts", part.name, {"result": f"left out: {left:.0f} s were left"}))
            else:
                run_part(part, out, work, options.tiny, min(left, part.most))
            write_results(out, title)
    finally:
        shutil.rmtree(work / "checkpoints", ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
