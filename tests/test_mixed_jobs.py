"""One generator draws, edits and scores: kinds of tasks share jobs, workers and a folder."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core.devices.device import Device
from core.edit_settings import edit_models
from core.engine.backend import Died, Report
from core.errors import InputError
from core.messages import LoadFailed, Ready
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.settings import load_settings
from core.store.provenance import read_provenance
from core.tasks import EditTask, GenerateTask, Result, ScoreTask, task_to_json
from core.worker_spec import WorkerSpec
from tests.both_engines import ALWAYS_ON_BOTH, ON_BOTH
from tests.conftest import PATIENCE, PROJECT, Workplace, run_script, simulated
from tests.inline_backend import InlineBackend
from tests.stub_backend import StubBackend

OTHERS = {"editor": {"model": "simulated"}, "judge": {"model": "simulated"}}
SECONDS = 0.02  # of device time for one picture of 64 x 64
PACED = {"simulated": {"seconds_per_megapixel_step": SECONDS / 0.064**2}}


def settings(workplace: Workplace, **changes: Any) -> dict[str, Any]:
    """Simulated devices of all roles."""
    return workplace.simulated(**{**OTHERS, **changes})


@pytest.fixture
def source(tmp_path: Path) -> str:
    file = tmp_path / "source.png"
    Image.new("RGB", (64, 48), (200, 90, 40)).save(file)
    return str(file)


@pytest.fixture
def inline(tmp_path: Path) -> Iterator[MultiGPUImageGenerator]:
    """Two workers in the test's own process."""
    folder = tmp_path / "out"
    config = simulated(**OTHERS)
    backend = InlineBackend()
    with MultiGPUImageGenerator(2, config=config, output_dir=folder, backend=backend) as generator:
        yield generator


def mixed(source: str, count: int = 3) -> list[dict[str, Any]]:
    """So many of each kind, in turn."""
    tasks: list[dict[str, Any]] = []
    for i in range(count):
        tasks.append({"prompt": f"house {i}"})
        tasks.append({"instruction": f"edit {i}", "source_images": source})
        pictures = {"source_images": [source], "edited_image": source}
        tasks.append({"instruction": f"edit {i}", **pictures})
    return tasks


def names(results: list[Result]) -> list[str]:
    return [Path(str(result.output_path)).name for result in results]


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


# -- one job of all kinds ------------------------------------------------------


@ALWAYS_ON_BOTH
@pytest.mark.parametrize("workers", [1, 2])
def test_a_job_of_all_kinds_gives_one_result_each_in_input_order(
    workers: int, source: str, tmp_path: Path, workplace: Workplace
) -> None:
    out = tmp_path / "out"
    with MultiGPUImageGenerator(workers, config=settings(workplace), output_dir=out) as generator:
        job = generator.submit(mixed(source))
        assert {result.position for result in job.as_completed(PATIENCE)} == set(range(9))
        results = job.results()
    assert [(r.status, r.error) for r in results] == [("done", None)] * 9
    kinds = ["image_{:04d}.png", "edit_{:04d}.png", "score_{:04d}.json"]
    assert names(results) == [kinds[i % 3].format(i) for i in range(9)]
    made = [read_provenance(Path(str(r.output_path)))["task"] for r in results]
    assert [task["kind"] for task in made] == ["GenerateTask", "EditTask", "ScoreTask"] * 3
    assert [task.get("prompt", task.get("instruction")) for task in made[:3]] == [
        "house 0", "edit 0", "edit 0",
    ]  # fmt: skip


def test_pictures_are_in_the_table_of_pictures_and_everything_in_that_of_results(
    source: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    batches = [[{"prompt": "first"}], mixed(source, 1), [{"prompt": "last"}]]
    with MultiGPUImageGenerator(
        1, config=simulated(**OTHERS), output_dir=out, backend=InlineBackend()
    ) as generator:
        for batch in batches:
            generator.generate_batch(batch)
        rows = lines(out / "metadata.jsonl")
        [*_, verdict] = generator.generate_batch(mixed(source, 1))
    assert [row["file_name"] for row in rows] == [
        "image_0000.png", "image_0001.png", "edit_0002.png", "image_0004.png",
    ]  # fmt: skip
    assert len({tuple(row) for row in rows}) == 1
    assert [row["instruction"] for row in rows] == [None, None, "edit 0", None]
    assert rows[2]["source_images"] == '["source.png"]'
    results = lines(out / "results.jsonl")
    assert [Path(r["output_path"]).suffix for r in results] == [".png", ".png", ".json"]
    content = json.loads(Path(str(verdict.output_path)).read_text("utf-8"))
    assert content["task"]["edited_image"] == source and content["used"]["scores"]


@ON_BOTH
def test_a_second_run_does_only_what_changed_of_each_kind(
    source: str, tmp_path: Path, workplace: Workplace
) -> None:
    def run(tasks: list[dict[str, Any]]) -> list[str]:
        with MultiGPUImageGenerator(
            2, config=settings(workplace), output_dir=tmp_path / "out"
        ) as generator:
            return [result.status for result in generator.generate_batch(tasks)]

    tasks = mixed(source, 2)
    assert run(tasks) == ["done"] * 6
    assert run(tasks) == ["skipped"] * 6
    tasks[1] = {**tasks[1], "instruction": "another edit"}
    tasks[5] = {**tasks[5], "instruction": "another edit"}
    assert run(tasks) == ["skipped", "done", "skipped", "skipped", "skipped", "done"]


@ON_BOTH
def test_a_picture_that_was_drawn_is_edited_and_the_edit_scored(
    tmp_path: Path, workplace: Workplace
) -> None:
    def run() -> list[Result]:
        with MultiGPUImageGenerator(
            1, config=settings(workplace), output_dir=tmp_path / "out"
        ) as generator:
            [drawn] = generator.generate_batch([{"prompt": "a house"}])
            edit = {"instruction": "make it blue", "source_images": drawn.output_path}
            [edited] = generator.generate_batch([edit])
            score = {**edit, "edited_image": edited.output_path}
            return [drawn, edited, *generator.generate_batch([score])]

    assert [result.status for result in run()] == ["done"] * 3
    assert [result.status for result in run()] == ["skipped"] * 3


# -- which kind it is ----------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        ({"prompt": "a house"}, "GenerateTask"),
        ({"positive_prompt": "a house", "steps": 4}, "GenerateTask"),
        ({"prompt": "a house", "instruction": "", "edited_image": None}, "GenerateTask"),
        ({"instruction": "blue", "source_images": "SOURCE"}, "EditTask"),
        (
            {"instruction": "blue", "source_images": "SOURCE", "edited_image": "SOURCE"},
            "ScoreTask",
        ),
        ({"kind": "edit", "instruction": "blue", "source_images": "SOURCE"}, "EditTask"),
        ({"kind": "GenerateTask", "prompt": "a house"}, "GenerateTask"),
        (GenerateTask("a house"), "GenerateTask"),
        (EditTask("blue", ("SOURCE",)), "EditTask"),
        (ScoreTask("blue", ("SOURCE",), "SOURCE"), "ScoreTask"),
    ],
)
def test_a_task_says_its_kind_or_its_fields_do(
    task: Any, kind: str, source: str, inline: MultiGPUImageGenerator
) -> None:
    if isinstance(task, dict):
        task = {name: source if value == "SOURCE" else value for name, value in task.items()}
    else:
        stored = json.dumps(task_to_json(task)).replace("SOURCE", source)
        task = json.loads(stored)  # as it is stored: it says its kind
    [result] = inline.generate_batch([task])
    assert result.error is None
    assert read_provenance(Path(str(result.output_path)))["task"]["kind"] == kind


@pytest.mark.parametrize(
    ("task", "error"),
    [
        (
            {"kind": "draw", "prompt": "x"},
            "no kind of task 'draw'; there are edit, generate, score",
        ),
        ({"kind": 3, "prompt": "x"}, "no kind of task 3"),
        ({"source_images": "a.png"}, "instruction: is missing or empty"),
        ({"kind": "score", "prompt": "a house"}, "instruction: is missing or empty"),
        ({"instruction": "x", "source_images": "/none.png"}, "/none.png"),
        (
            {"instruction": "x", "source_images": "/none.png", "prompt": "y"},
            "'prompt': unknown key",
        ),
        ({"kind": "edit", "instruction": "x", "source_images": []}, "source_images"),
        ({"kind": "score", "instruction": "x", "output_path": "a.png"}, "source_images"),
    ],
)
def test_a_task_that_is_none_of_its_kind_fails_alone(
    task: Any, error: str, inline: MultiGPUImageGenerator
) -> None:
    bad, good = inline.generate_batch([task, {"prompt": "a house"}])
    assert bad.status == "failed" and error in str(bad.error)
    assert good.success


def test_no_two_tasks_of_any_kinds_have_one_output(
    source: str, inline: MultiGPUImageGenerator
) -> None:
    edit = {"instruction": "blue", "source_images": source, "output_path": "a.png"}
    first, second = inline.generate_batch([{"prompt": "a house", "output_path": "a.png"}, edit])
    assert first.success
    assert second.error is not None and "also the output of task 0" in second.error


# -- models --------------------------------------------------------------------


def test_defaults_of_editors_are_those_of_the_users_settings(source: str, tmp_path: Path) -> None:
    config = simulated(
        editor={"model": "simulated", "defaults": {"num_inference_steps": 7}},
        judge={"model": "simulated"},
        seed=-1,
    )
    with MultiGPUImageGenerator(
        1, config=config, output_dir=tmp_path / "out", backend=InlineBackend()
    ) as generator:
        drawn, edited, _ = generator.generate_batch(mixed(source, 1))
    task = read_provenance(Path(str(edited.output_path)))["task"]
    assert task["num_inference_steps"] == 7
    assert edited.seed == 1  # no seed of an edit is drawn at random
    assert read_provenance(Path(str(drawn.output_path)))["task"]["seed_is_random"]


def test_settings_of_editors_leave_all_others_as_they_are() -> None:
    plain, more = load_settings(), load_settings({"judge": {"type": "vlm_logits"}})
    assert more.model_copy(update={"judge": None}) == plain
    models = edit_models(more)
    assert models.judge.type == "vlm_logits" and models.judge.batch_size == 8
    assert models.editor == edit_models(plain).editor


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"editor": {"modle": "x"}}, "'editor.modle': unknown key; did you mean 'model'"),
        ({"judge": {"type": "oracle"}}, "judge.type"),
        ({"judge": 3}, "judge"),
    ],
)
def test_settings_of_editors_and_judges_are_read_before_anything_runs(
    section: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        MultiGPUImageGenerator(1, config=simulated(**section))


def test_a_model_that_cannot_be_chosen_fails_its_own_tasks(source: str, tmp_path: Path) -> None:
    config = simulated(editor={"model": "simulated"}, judge={"model": "no such judge"})
    with MultiGPUImageGenerator(
        1, config=config, output_dir=tmp_path / "out", backend=InlineBackend()
    ) as generator:
        results = generator.generate_batch(mixed(source, 2))
    assert [r.status for r in results] == ["done", "done", "failed"] * 2
    assert {str(r.error).partition(" is neither")[0] for r in results[2::3]} == {
        "model: 'no such judge'"
    }


def test_a_judge_that_cannot_be_loaded_fails_the_scores_alone(source: str, tmp_path: Path) -> None:
    backend = StubBackend()
    out = tmp_path / "out"
    with MultiGPUImageGenerator(
        1, config=simulated(**OTHERS), output_dir=out, backend=backend
    ) as generator:
        drawing = generator.submit([{"prompt": "a house"}])
        backend.worker().serve().finish_all(1)
        assert drawing.results(PATIENCE)[0].success
        scoring = generator.submit(mixed(source, 1)[2:])
        judge = backend.worker(incarnation=2)
        assert judge.spec.role == "score"
        judge.say(Ready(judge.pid, "stub", "STUB", None, 0.0))
        judge.hear()
        judge.say(LoadFailed("input", "no weights", everywhere=True))
        [score] = scoring.results(PATIENCE)
        assert score.status == "failed" and "no weights" in str(score.error)
        drawing = generator.submit([{"prompt": "another house"}])
        backend.worker(incarnation=3).serve().finish_all(1)
        assert drawing.results(PATIENCE)[0].success
        [again] = generator.generate_batch(mixed(source, 1)[2:])
        assert again.status == "failed" and "no weights" in str(again.error)


def test_who_only_draws_gets_nothing_of_editors_and_judges(tmp_path: Path) -> None:
    done = run_script(
        """
        import sys
        from core import MultiGPUImageGenerator
        config = {"model": "simulated"}
        with MultiGPUImageGenerator(1, config=config, output_dir="out") as generator:
            assert generator.generate_batch([{"prompt": "a house"}])[0].success
        of_others = ("core.edit_", "core.devices.edit_models", "core.judges")
        print([name for name in sys.modules if name.startswith(of_others)])
        """,
        tmp_path,
    )
    assert done.stdout == "[]\n", done.stderr
    assert "edit" not in done.stderr.lower() and "judge" not in done.stderr.lower()


# -- sharing -------------------------------------------------------------------


@ON_BOTH
@pytest.mark.parametrize("workers", [1, 2])
def test_a_few_edits_behind_many_pictures_do_not_wait_for_all_of_them(
    workers: int, source: str, tmp_path: Path, workplace: Workplace
) -> None:
    edits = [{"instruction": f"edit {i}", "source_images": source} for i in range(3)]
    many = [{"prompt": f"house {i}"} for i in range(2000)]
    with MultiGPUImageGenerator(
        workers, config=settings(workplace, **PACED), output_dir=tmp_path / "out"
    ) as generator:
        drawing = generator.submit(many)
        next(drawing.as_completed(PATIENCE))
        small: list[Result] = []
        thread = threading.Thread(target=lambda: small.extend(generator.generate_batch(edits)))
        thread.start()
        thread.join(PATIENCE)
        assert [result.status for result in small] == ["done"] * 3
        assert not drawing.finished
        drawing.cancel()
        assert {result.status for result in drawing.results(PATIENCE)} == {"done", "interrupted"}


class Watched(InlineBackend):
    """Notes which slots have workers at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: set[str] = set()
        self.together: set[frozenset[str]] = set()

    def start(self, slot: str, device: Device, spec: WorkerSpec) -> None:
        super().start(slot, device, spec)
        self.alive.add(slot)
        self.together.add(frozenset(self.alive))

    def forget(self, slot: str) -> None:
        super().forget(slot)
        self.alive.discard(slot)

    def poll(self, timeout: float) -> list[Report]:
        reports = super().poll(timeout)
        self.alive -= {report.slot for report in reports if isinstance(report, Died)}
        return reports


def test_roles_that_share_gpus_out_in_other_ways_take_turns_on_them(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = [Device("cuda", i, f"GPU-{i}", 24 * 1024**3) for i in range(2)]
    monkeypatch.setattr("core.engine_choice.choose_devices", lambda *_: gpus)
    config = simulated(
        workers_per_gpu=2,
        editor={"model": "simulated", "gpus_per_worker": 2},
        judge={"model": "simulated"},
    )
    backend = Watched()
    out = tmp_path / "out"
    with MultiGPUImageGenerator(config=config, output_dir=out, backend=backend) as generator:
        drawing = generator.submit([{"prompt": f"house {i}"} for i in range(300)])
        others = generator.submit([task for task in mixed(source, 4) if "prompt" not in task])
        results = others.results(PATIENCE)
        assert [(r.status, r.error) for r in results] == [("done", None)] * 8
        assert {r.worker for r in results[::2]} == {"gpu0+1"}
        assert {r.worker for r in drawing.results(PATIENCE)} <= {"gpu0a", "gpu0b", "gpu1a", "gpu1b"}
    sizes = ({"gpu0a", "gpu0b", "gpu1a", "gpu1b"}, {"gpu0+1"}, {"gpu0", "gpu1"})
    for together in backend.together:
        by_gpu = [{name for name in together if name[3] == n or n in name[4:]} for n in "01"]
        assert all(any(on_one <= size for size in sizes) for on_one in by_gpu), together


# -- the example of docs/PYTHON.md ---------------------------------------------


@pytest.mark.slow
def test_the_example_of_the_page_draws_edits_and_scores(tmp_path: Path) -> None:
    text = (PROJECT / "docs" / "PYTHON.md").read_text("utf-8")
    examples = [code.partition("```")[0] for code in text.split("```python\n")[1:]]
    [example] = [code for code in examples if "edited_image" in code]
    done = run_script(example, tmp_path, "models")
    assert done.returncode == 0, done.stderr
    assert {"SC", "PQ", "O"} <= json.loads(done.stdout.replace("'", '"')).keys()
