"""What results go by stays: fingerprints, stored forms and judges' names of earlier releases."""

import pickle

import pytest

from apps.edit_benchmark.settings import load_benchmark_settings
from core.intake.admission import fingerprint
from core.intake.task_kinds import KINDS, Contents
from core.judge import load_judge
from core.messages import Lease, decode, encode
from core.tasks import (
    ROLES,
    TASKS,
    EditTask,
    GenerateTask,
    Lora,
    ScoreTask,
    Task,
    task_from_json,
    task_to_json,
)

A, B, C, D, E = (letter * 64 for letter in "abcde")
DRAWN = GenerateTask(
    "a red fox", negative_prompt="blur", width=512, height=768, num_inference_steps=8,
    guidance_scale=0.0, seed=7, lora_path="/l/a.safetensors", lora_strength=0.5,
    output_path="o/a.png", task_id="a", metadata={"k": [1]}, seed_is_random=True,
)  # fmt: skip
STACKED = GenerateTask("a red fox", seed=7, loras=(Lora("/l/a", 0.5), Lora("/l/b", 1.0)))
EDITED = EditTask(
    "make it night", ("/p/a.png", "/p/b.png"), working_area=512 * 512, true_cfg_scale=4.0, seed=3,
    output_path="e.png", metadata={"c": "x"},
)  # fmt: skip
SCORED = ScoreTask(
    "make it night", ("/p/a.png",), "/p/e.png", seed=3, more_asks=2, output_path="s.json",
    task_id="s",
)  # fmt: skip
BEFORE = [  # as the release before the registry made them, at its version and at version 1
    (
        DRAWN,
        Contents(A),
        "17b16e007cf0185b9fe9584461c07bda0898ad062afea02ce91f8f39f42b7e79",
        "ad87343fa326e2842d6480f1276053c9d4acafa78739b4722b97b9100d428925",
    ),
    (
        STACKED,
        Contents(None, loras=(A, B)),
        "958e41a65e1678d7faa21722977500df116aebefeab6014bdf4203621ccb8b04",
        "d1a0e265725de96e1e1d31e97bcc6a77167a569c718f554b8b826489b9f56473",
    ),
    (
        EDITED,
        Contents(None, {"/p/a.png": C, "/p/b.png": D}, ("icc-1",)),
        "58af0f9a89b5046fdf4c86b580940b3bceabed96b388ea58c797f00d5e59041c",
        "aaa236281cd8ff1ea213cc668d3ee02a65421e09ccfb91211df816b8410e4f08",
    ),
    (
        SCORED,
        Contents(None, {"/p/a.png": C, "/p/e.png": E}),
        "b2df5aa503fd0c88ae85a0e789a309b057f0d087a16cd276dac95b4341506b14",
        "d3706e2d2f86da99cc997c3d2d25a3231f80ce5c0870f2859f11d58f1c4a07f1",
    ),
]
KINDS_OF_TASK = pytest.mark.parametrize("task", [DRAWN, STACKED, EDITED, SCORED])


@pytest.mark.parametrize(("task", "contents", "newest", "oldest"), BEFORE)
def test_results_of_earlier_releases_are_known_again(
    task: Task, contents: Contents, newest: str, oldest: str
) -> None:
    assert fingerprint(task, contents, "model#abc cache=none", "bfloat16") == newest
    assert fingerprint(task, contents, "m", "float32", 1) == oldest


@KINDS_OF_TASK
def test_a_task_comes_out_of_its_stored_form_as_it_went_in(task: Task) -> None:
    assert task_from_json(task_to_json(task)) == task
    assert pickle.loads(pickle.dumps(task)) == task


@KINDS_OF_TASK
def test_a_worker_is_given_the_task_that_main_leased(task: Task) -> None:
    hashes = (A, B)[: len(getattr(task, "loras", ()))]
    one = A if getattr(task, "lora_path", None) else None
    lease = Lease("l", 1, task, one, "f", "/o/p", loras_sha256=hashes)
    assert decode(encode(lease)) == lease
    assert len(lease.loras) == len(task.lora_stack)


def test_every_kind_of_task_is_known_by_class_role_and_to_intake() -> None:
    for name in ("GenerateTask", "EditTask", "ScoreTask"):
        assert KINDS[name].task is TASKS[name] is ROLES[TASKS[name].role]


@pytest.mark.parametrize(
    ("settings", "identity"),
    [
        ({"type": "vlm", "prompts": "viescore.yaml"}, "845e753783041b88"),
        ({"type": "vlm_logits", "prompts": "viescore_logits.yaml"}, "3c01c47679ce33db"),
        ({"type": "clip", "prompts": None}, "d96dbbcd95b5a826"),
    ],
)
def test_verdicts_of_earlier_releases_are_known_again(
    settings: dict[str, str | None], identity: str
) -> None:
    judge = load_judge(load_benchmark_settings({"judge": settings}).judge)
    assert judge.identity("model") == f"model {identity}"


def test_a_users_own_class_below_a_kind_is_a_task_of_that_kind() -> None:
    class Fox(GenerateTask):
        """A task of whoever calls this program."""

    task = KINDS["GenerateTask"]().parse(Fox("a fox"))
    assert task == GenerateTask("a fox")
    assert TASKS["GenerateTask"] is GenerateTask
