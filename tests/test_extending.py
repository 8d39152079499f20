"""docs/EXTENDING.md does as it says: its files, written where it says, are found and work."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import PROJECT, run_script

DOCUMENT = PROJECT / "docs" / "EXTENDING.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLACE = re.compile(r"# (\S+\.(?:py|yaml))\n")
COPIED = ("core", "apps", "workers", "config", "examples")
PATIENCE = 300  # seconds: a judge's libraries take a while to import


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this project with all that the document adds."""
    folder = tmp_path_factory.mktemp("project")
    for name in COPIED:
        # With their bytecode, which is by time and size: it is as fresh as that of the originals.
        shutil.copytree(PROJECT / name, folder / name)
    (folder / "demo_model").symlink_to(PROJECT / "demo_model")
    shutil.copy(PROJECT / "run_edit_benchmark.py", folder)
    for _, text in blocks():
        place = PLACE.match(text)
        if place:
            file = folder / place[1]
            assert not file.exists(), f"{place[1]} would replace one of ours"
            file.write_text(text, "utf-8")
    return folder


def blocks() -> list[tuple[str, str]]:
    """Language and content."""
    return [(m[1], m[2]) for m in BLOCK.finditer(DOCUMENT.read_text("utf-8"))]


def run(project: Path, *command: str) -> str:
    """What a command printed, run in the copy."""
    done = subprocess.run(
        command, cwd=project, text=True, capture_output=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def python(project: Path, script: str) -> list[str]:
    """The lines that a script printed."""
    return run(project, sys.executable, "-c", textwrap.dedent(script)).splitlines()


def test_every_block_of_code_is_a_file_or_a_command() -> None:
    for language, text in blocks():
        assert language == "sh" or PLACE.match(text), text


OF_THE_COPY = """
import sys
from tests.late_environment import forget_ours
forget_ours()
"""


def test_a_family_is_known_by_the_names_of_its_classes(project: Path) -> None:
    """The libraries are imported already, and what is ours is read in the copy."""
    script = textwrap.dedent(
        """
        from types import SimpleNamespace
        from core.tasks import GenerateTask
        from workers.models.family import denoiser_of, family_of
        from workers.models.guidance import guidance_arguments
        task = GenerateTask("a fox", cfg=4.0)
        print(guidance_arguments("SunrisePipeline", {"guidance_scale"}, task))
        pipeline = SimpleNamespace(tokenizer=SimpleNamespace(model_max_length=1024))
        print(family_of("SunrisePipeline").sequence_length(pipeline))
        print([family_of(f"Sunrise{x}Pipeline").several_pictures for x in ("", "Edit")])
        print(sorted(denoiser_of(type("SunriseTransformer2DModel", (), {})()).step_caches))
        print(family_of("ZImagePipeline").guidance)
        """
    )
    done = run_script(OF_THE_COPY + script, project, "models")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-5:] == [
        "{'guidance_scale': 3.0}",
        "{'max_sequence_length': 1024}",
        "[False, True]",
        "['first_block']",
        "offset",
    ]


@pytest.mark.slow
def test_a_judge_scores_a_benchmark(project: Path) -> None:
    """The libraries are imported already, also in the fork server."""
    [command] = [text for language, text in blocks() if language == "sh"]
    program, *line = shlex.split(command)
    assert program == "python"
    script = f"import runpy\nsys.argv[:] = {line}\nrunpy.run_path({line[0]!r}, run_name='__main__')"
    done = run_script(OF_THE_COPY + script, project, "models")
    assert done.returncode == 0, done.stdout + done.stderr
    [results] = (project / "out").glob("*/results.jsonl")
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    verdicts = [json.loads(file.read_text()) for file in results.parent.glob("scores/*/*/*.json")]
    assert len(rows) == len(verdicts) == 2
    for verdict in verdicts:
        assert verdict["used"]["judge"].startswith("vlm_mean-demo-")
        for call in verdict["calls"]:
            parts = call["parts"].values()
            assert call["value"] == sum(parts) / len(parts)


def test_a_data_set_is_told_by_its_mark(project: Path, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    table = (
        "picture,instruction,category\na.png,make it night,sky\n../b.png,make it day,\na.png,,\n"
    )
    (tmp_path / "pairs.csv").write_text(table)
    said = python(
        project,
        f"""
        from pathlib import Path
        from apps.edit_benchmark.pairs import read_pairs
        for pair in read_pairs({str(tmp_path)!r}, Path("work")).pairs:
            print(pair.name, pair.instruction, pair.problem)
        print(len(read_pairs("examples/edit_pairs", Path("work")).pairs))
        """,
    )
    assert said == [
        "sky/row_0000 make it night None",
        f"unsorted/row_0001  picture: '../b.png' leads out of {tmp_path}.",
        "unsorted/row_0002  instruction: is missing or empty.",
        "50",
    ]


CAPTIONS = """
    import json
    from functools import partial
    from pathlib import Path
    from core.devices.device import choose_devices
    from core.devices.model_choice import ModelChoice
    from core.devices.worker_specs import spec_for
    from core.engine.engine import Engine
    from core.engine.served_model import ServedModel
    from core.intake.admission import Admission, Admitted
    from core.intake.task_kinds import KINDS
    from core.processes.local_backend import LocalBackend
    from core.session import Session
    from core.settings import load_settings

    settings = load_settings({{"workers": {{"max_batch": 2}}}})
    rules, devices = settings.supervision, choose_devices(2, None, "cpu")
    kind = KINDS["CaptionTask"]()
    role = kind.task.role
    model = ModelChoice("simulated", "mean colour", "as the document has it")
    spec = partial(spec_for, role=role, model=model, settings=settings, threads=1)
    served = ServedModel(role, devices, spec, rules, settings.workers.concurrent_loads)
    backend = LocalBackend(settings.workers.start_method, rules)
    engine = Engine(devices, [served], backend, rules, settings.scheduling)
    engine.start()
    session = Session(Path("captions"), with_tables=False)
    admission = Admission(kind, "mean colour", "auto", session.root, "{{:02d}}.json".format, 0)
    plan = session.begin(
        session.planner(), [admission.admit(i, task) for i, task in enumerate({given!r})]
    )
    job = session.submit(engine, plan, plan.tasks, plan.settled)
    for result in job.results(timeout=60):
        said = result.error or json.loads(Path(result.output_path).read_text())["caption"]
        print(result.status, said)
    engine.stop()
    session.close()
"""


@pytest.mark.slow
def test_a_kind_of_task_runs_and_resumes_as_all_others(project: Path, tmp_path: Path) -> None:
    for name, colour in (("light", "white"), ("dark", "black")):
        Image.new("RGB", (32, 32), colour).save(tmp_path / f"{name}.png")
    light, dark = (str(tmp_path / f"{name}.png") for name in ("light", "dark"))
    given = [{"picture": light}, {"picture": dark}, {"picture": dark, "words": 2}, {"words": 3}]
    lost = "failed picture: is missing or empty."
    assert python(project, CAPTIONS.format(given=given)) == [
        "done a light picture",
        "done a dark picture",
        "done a dark",
        lost,
    ]
    given[2] = {"picture": light, "words": 2}  # what it looks at has changed
    assert python(project, CAPTIONS.format(given=given)) == [
        "skipped a light picture",
        "skipped a dark picture",
        "done a light",
        lost,
    ]
