"""Admission: what is bad is refused with its field; what is good is complete and fingerprinted."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from core.checkpoints.lora_files import LoraInspector
from core.intake.admission import Admission, Admitted, Rejected, fingerprint
from core.intake.kinds.edit import EditKind
from core.intake.kinds.generate import GenerateKind
from core.intake.task_kinds import Contents, LoraFinder
from core.settings import load_settings
from core.store.outputs import MOST_SEEN, OutputRoot
from core.tasks import EditTask, GenerateTask, Lora, task_to_json
from tests.conftest import write_safetensors


def admission(folder: Path, confined: bool = True, **changes: Any) -> Admission:
    settings = load_settings(changes)
    layers = [settings.defaults, settings.defaults_for("org/some-model")]
    return Admission(
        GenerateKind(layers, LoraFinder([folder], LoraInspector())),
        "org/some-model",
        settings.dtype,
        OutputRoot(folder, confined),
        lambda position: f"image_{position:04d}.png",
        settings.seed,
    )


def admit(folder: Path, **fields: Any) -> Admitted | Rejected:
    return admission(folder).admit(0, {"prompt": "a", **fields})


def accepted(result: Admitted | Rejected) -> Admitted:
    assert isinstance(result, Admitted), result
    return result


HOSTILE: list[tuple[dict[str, Any], str]] = [
    ({"prompt": ""}, "prompt: is missing"),
    ({"prompt": "   "}, "prompt"),
    ({"prompt": None}, "prompt: is missing"),
    ({"prompt": 5}, "prompt: input should be a valid string"),
    ({"prompt": ["a"]}, "prompt"),
    ({"prompt": "a\0b"}, "prompt: contains a NUL"),
    ({"prompt": "\ud800"}, "prompt: contains half of a surrogate pair"),
    ({"prompt": "x" * 40_000}, "32768"),
    ({"promt": "a"}, "'promt': unknown key; did you mean 'prompt'?"),
    ({"lora_stength": 1}, "did you mean 'lora_strength'?"),
    ({"width": -512}, "width: input should be greater than or equal to 16 (found -512)"),
    ({"width": 0}, "width"),
    ({"width": 1000}, "width: input should be a multiple of 16 (found 1000)"),
    ({"width": 1e999}, "width"),
    ({"width": float("nan")}, "width"),
    ({"width": True}, "width: expected a number, not true or false"),
    ({"prompt": "", "promt": "a"}, "prompt: is missing or empty; is 'promt' misspelt?"),
    ({"width": "wide"}, "width"),
    ({"width": 16_000}, "width: input should be less than or equal to 8192"),
    ({"height": 64.5}, "height"),
    ({"num_inference_steps": 0}, "num_inference_steps"),
    ({"num_inference_steps": 10**9}, "num_inference_steps"),
    ({"guidance_scale": float("inf")}, "guidance_scale: input should be"),
    ({"guidance_scale": -1}, "guidance_scale"),
    ({"cfg": float("nan")}, "cfg"),
    ({"cfg": 1.0, "guidance_scale": 0.0}, "either cfg or guidance_scale"),
    ({"seed": -2}, "seed: expected a whole number from 0 to 18446744073709551615, or -1"),
    ({"seed": 2**64}, "seed"),
    ({"seed": 1.5}, "seed"),
    ({"lora_strength": 1e999}, "lora_strength"),
    ({"lora_strength": "strong"}, "lora_strength"),
    ({"lora_path": "absent.safetensors"}, "lora_path: 'absent.safetensors' is not a file"),
    ({"lora_path": "x" * 5000}, "has a name of 5000 bytes; 255 is the most"),
    ({"lora_path": 5}, "lora_path"),
    ({"task_id": "a\nb"}, "task_id"),
    ({"task_id": "x" * 201}, "task_id"),
    ({"metadata": {"a": float("nan")}}, "metadata: must be plain JSON"),
    ({"metadata": {"a": object()}}, "metadata: must be plain JSON"),
    ({"metadata": {"a": Lock()}}, "metadata: must be plain JSON"),
    ({"metadata": {"a": {"b"}}}, "metadata: must be plain JSON"),
    ({"metadata": {"a": "x" * 40_000}}, "32768"),
    ({"metadata": [1]}, "metadata"),
    ({"output_path": "../a.png"}, "leads outside with '..'"),
    ({"output_path": "a/../../b.png"}, "leads outside with '..'"),
    ({"output_path": "/etc/a.png"}, "is absolute"),
    ({"output_path": "..\\a.png"}, "backslash"),
    ({"output_path": "C:/a.png"}, "drive letter"),
    ({"output_path": "a\0.png"}, "output_path"),
    ({"output_path": "x" * 300 + ".png"}, "a name of 304 bytes is too long; 255 is the most"),
    ({"output_path": "ü" * 200 + ".png"}, "a name of 404 bytes"),
    ({"output_path": "/".join(["d" * 200] * 30) + "/a.png"}, "too long a path"),
    ({"output_path": "a.gif"}, "must end in .png"),
    ({"picture_quality": 80}, "is lossless"),
    ({"picture_quality": 0, "output_path": "a.jpg"}, "greater than or equal to 1"),
    ({"output_path": "png"}, "must end in .png"),
    ({"output_path": "."}, "is not a file name"),
    ({"output_path": "folder.png"}, "is a folder"),
    ({"output_path": "out/link/a.png"}, "symbolic link"),
    ({"output_path": "link.png"}, "symbolic link"),
    ({"output_path": ".partial-0.png"}, "may not begin"),
    ({"output_path": 7}, "output_path"),
]


@pytest.mark.parametrize(("fields", "message"), HOSTILE, ids=lambda v: str(v)[:40])
def test_a_hostile_task_is_refused_with_its_field(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    root = tmp_path / "root"
    (root / "out").mkdir(parents=True)
    (root / "folder.png").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (root / "out" / "link").symlink_to(tmp_path / "elsewhere")
    (root / "link.png").symlink_to(tmp_path / "elsewhere" / "x.png")
    result = admit(root, **fields)
    assert isinstance(result, Rejected), result
    assert message in result.error
    assert "\n" not in result.error and len(result.error) < 1000
    assert "?." not in result.error


@pytest.mark.parametrize("given_", [None, 5, "text", [], b"x"])
def test_what_is_no_task_is_refused(tmp_path: Path, given_: Any) -> None:
    assert isinstance(admission(tmp_path).admit(3, given_), Rejected)


@pytest.mark.parametrize(
    ("first", "second"),
    [("a.png", "a.png"), ("a.png", "./a.png"), ("a.png", "A.PNG"), ("é.png", "e\u0301.png")],
)
def test_two_tasks_never_share_an_output(tmp_path: Path, first: str, second: str) -> None:
    admit_ = admission(tmp_path).admit
    assert isinstance(admit_(0, {"prompt": "a", "output_path": first}), Admitted)
    result = admit_(1, {"prompt": "b", "output_path": second})
    assert isinstance(result, Rejected) and "also the output of task 0" in result.error


BAD_LORAS: list[tuple[bytes, str]] = [
    (b"", "not a safetensors file"),
    (b"\x80\x04\x95pickle", "pickle"),
    (b"PK\x03\x04zip of torch.save", "pickle"),
    (b"\xff" * 64, "not a safetensors file"),
    ((10).to_bytes(8, "little") + b"not json!!", "damaged"),
    ((2).to_bytes(8, "little") + b"[]", "damaged"),
    ((2).to_bytes(8, "little") + b"{}", "no LoRA tensors"),
]


@pytest.mark.parametrize(("content", "message"), BAD_LORAS)
def test_a_file_that_is_no_lora_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "bad.safetensors").write_bytes(content)
    result = admit(tmp_path, lora_path="bad.safetensors")
    assert isinstance(result, Rejected) and message in result.error


def test_a_truncated_lora_is_refused(tmp_path: Path) -> None:
    file = write_safetensors(tmp_path / "l.safetensors", size=100)
    file.write_bytes(file.read_bytes()[:-1])
    result = admit(tmp_path, lora_path="l.safetensors")
    assert isinstance(result, Rejected) and "cut short or damaged" in result.error


def test_a_whole_model_is_no_lora(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "m.safetensors", name="model.weight")
    result = admit(tmp_path, lora_path="m.safetensors")
    assert isinstance(result, Rejected) and "no LoRA tensors" in result.error


def test_settings_fill_what_a_task_leaves_open(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "defaults": {"width": 64, "cfg": 2.0},
        "model_defaults": [{"match": "*some-model", "height": 96, "guidance_scale": 0.5}],
        "seed": 100,
    }
    job = accepted(admission(tmp_path, **settings).admit(7, {"prompt": "a"}))
    task = job.task
    assert isinstance(task, GenerateTask)
    assert (task.width, task.height, task.seed) == (64, 96, 107)
    # cfg and guidance_scale are one setting: the nearer layer's spelling wins.
    assert (task.cfg, task.guidance_scale) == (2.0, None)
    assert (job.task_id, job.output.shown) == ("image_0007", "image_0007.png")


def test_the_fingerprint_is_of_what_decides_the_pixels(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "one.safetensors", "a.lora_A.weight")
    write_safetensors(tmp_path / "same.safetensors", "a.lora_A.weight")
    write_safetensors(tmp_path / "two.safetensors", "b.lora_A.weight")

    def of(**fields: Any) -> str:
        return accepted(admit(tmp_path, **{"seed": 1, **fields})).fingerprint

    base = of(lora_path="one.safetensors")
    assert base == of(lora_path="same.safetensors")
    assert base == of(lora_path="one.safetensors", output_path="b.png", metadata={"x": 1})
    others = [
        of(lora_path="two.safetensors"),
        of(),
        of(lora_path="one.safetensors", lora_strength=0.5),
        of(lora_path="one.safetensors", seed=2),
        of(lora_path="one.safetensors", width=64),
        of(lora_path="one.safetensors", cfg=1.0),
        of(lora_path="one.safetensors", negative_prompt="b"),
    ]
    assert len({base, *others}) == len(others) + 1


def test_a_task_with_one_lora_keeps_the_fingerprint_that_it_always_had(tmp_path: Path) -> None:
    """Or everything that is done would be drawn again. The hashes are of versions before stacks."""
    one: dict[str, Any] = {"seed": 1, "lora_path": "l", "lora_strength": 0.5}
    known = {
        fingerprint(GenerateTask("a", **one), Contents("ab" * 32), "m", "float32", 3):
            "7e5fec6946bbfc05d75c8e8fd7437a91c8f42dabe41f0b8ba06a5de07604daa3",
        fingerprint(
            EditTask("a", ("x",), **one), Contents("ab" * 32, {"x": "cd" * 32}), "m", "float32", 3
        ): "5af4a7bcf0f93140c1afda3ef76cc72f550fca425d7d82b1432dc4d9c0eb54d2",
    }  # fmt: skip
    assert list(known) == list(known.values())
    write_safetensors(tmp_path / "one.safetensors", "a.lora_A.weight")
    tasks: list[dict[str, Any]] = [
        {"lora_path": "one.safetensors", "lora_strength": 0.5},
        {"loras": [{"path": "one.safetensors", "strength": 0.5}]},
        {"loras": (Lora("one.safetensors", 0.5),)},
        {"loras": [(tmp_path / "one.safetensors", 0.5)]},
        {"loras": "one.safetensors", "lora_strength": 0.5},
    ]
    jobs = [accepted(admit(tmp_path, **task)) for task in tasks]
    task = GenerateTask("a", loras=(Lora("one.safetensors", 0.5),))
    jobs.append(accepted(admission(tmp_path).admit(0, task)))
    assert len({job.fingerprint for job in jobs}) == 1
    assert len({json.dumps(task_to_json(job.task)) for job in jobs}) == 1
    assert "loras" not in task_to_json(jobs[0].task)


def test_a_stacks_fingerprint_is_of_contents_and_strengths_in_any_order(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        write_safetensors(tmp_path / f"{name}.safetensors", f"{name}.lora_A.weight")
    write_safetensors(tmp_path / "same.safetensors", "one.lora_A.weight")

    def of(*loras: tuple[str, float]) -> str:
        stack = [{"path": f"{name}.safetensors", "strength": s} for name, s in loras]
        return accepted(admit(tmp_path, seed=1, loras=stack)).fingerprint

    base = of(("one", 1.0), ("two", 0.5))
    assert base == of(("two", 0.5), ("one", 1.0)) == of(("two", 0.5), ("same", 1.0))
    assert base == of(("one", 1.0), ("three", 0.0), ("two", 0.5))
    others = [
        of(("one", 0.5), ("two", 1.0)), of(("one", 1.0), ("two", 0.6)), of(("one", 1.0)),
        of(("one", 1.0), ("three", 0.5)), of(("one", 1.0), ("two", 0.5), ("three", 0.1)),
    ]  # fmt: skip
    assert len({base, *others}) == len(others) + 1
    assert of(("one", 1.0), ("two", 0.0)) == of(("one", 1.0))
    without = accepted(admit(tmp_path, seed=1)).fingerprint
    assert of(("one", 0.0), ("two", 0.0)) == without


def stack_of(*loras: Any, **fields: Any) -> dict[str, Any]:
    return {"loras": list(loras), **fields}


BAD_STACKS: list[tuple[dict[str, Any], str]] = [
    (stack_of("a.st", "b.st", lora_path="a.st"), "give either loras or lora_path, not both"),
    (stack_of("a.st", lora_path="a.st"), "give either loras or lora_path, not both"),
    (stack_of("a.st", "b.st", "a.st"), "loras[2]: 'a.st' is the same LoRA as loras[0]"),
    (stack_of("a.st", "copy.st"), "loras[1]: 'copy.st' is the same LoRA as loras[0]"),
    (stack_of("a.st", "absent.st"), "loras[1]: 'absent.st' is not a file"),
    (stack_of("a.st", {"path": "b.st", "strength": 11}), "loras.1.strength: input should be less"),
    (stack_of("a.st", {"path": "b.st", "strength": "x"}), "loras.1.strength"),
    (stack_of("a.st", {"path": 5}), "loras.1.path"),
    (stack_of("a.st", "b.st", lora_strength=0.5), "lora_strength: 0.5"),
    (stack_of(*(f"{n}.st" for n in range(17))), "loras: "),
]


@pytest.mark.parametrize(("fields", "message"), BAD_STACKS)
def test_a_stack_that_cannot_be_is_refused_in_one_sentence(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    write_safetensors(tmp_path / "a.st", "a.lora_A.weight")
    write_safetensors(tmp_path / "b.st", "b.lora_A.weight")
    write_safetensors(tmp_path / "copy.st", "a.lora_A.weight")
    results = [admit(tmp_path, **fields)]
    if all(isinstance(lora, str) for lora in fields["loras"]):
        loras = tuple(Lora(lora) for lora in fields["loras"])
        task = GenerateTask(prompt="a", **{**fields, "loras": loras})
        results.append(admission(tmp_path).admit(0, task))
    for result in results:
        assert isinstance(result, Rejected) and message in result.error, result
        assert "\n" not in result.error


def test_an_editor_takes_stacks_as_a_generator_does(tmp_path: Path) -> None:
    for name in "ab":
        write_safetensors(tmp_path / f"{name}.st", f"{name}.lora_A.weight")
    Image.new("RGB", (32, 32)).save(tmp_path / "s.png")
    kind = EditKind([], LoraFinder([tmp_path], LoraInspector()))
    root = OutputRoot(tmp_path)
    admit_edit = Admission(kind, "m", "float32", root, lambda position: f"{position}.png", 1).admit
    given = {"instruction": "x", "source_images": str(tmp_path / "s.png"), "seed": 1}
    forms: list[Any] = [
        [["a.st", 0.5], "b.st"], [{"path": "b.st"}, Lora("a.st", 0.5)],
        (Path("b.st"), ("a.st", 0.5)),
    ]  # fmt: skip
    jobs = [accepted(admit_edit(i, {**given, "loras": loras})) for i, loras in enumerate(forms)]
    assert len({job.fingerprint for job in jobs}) == 1
    assert jobs[0].loads == set(jobs[0].contents.loras) and len(jobs[0].loads) == 2
    both = admit_edit(9, {**given, "loras": ["a.st", "b.st"], "lora_path": "a.st"})
    assert isinstance(both, Rejected) and "they are one setting" in both.error


def test_the_folders_of_many_jobs_take_no_more_memory_than_those_of_some(tmp_path: Path) -> None:
    root = OutputRoot(tmp_path)

    def place(first: int, count: int) -> int:
        """Place a result in each of so many folders; returns how many objects there are then."""
        for number in range(first, first + count):
            root.place(f"jobs/job_{number:032x}/0.png")
        return sys.getallocatedblocks()

    some = place(0, MOST_SEEN)
    many = place(MOST_SEEN, 3 * MOST_SEEN)
    assert many - some < 500, f"{many - some} objects more for {3 * MOST_SEEN} folders"


def test_a_task_object_is_checked_like_a_dict(tmp_path: Path) -> None:
    good = GenerateTask(prompt="a", width=64)
    assert isinstance(admission(tmp_path).admit(0, good), Admitted)
    bad = admission(tmp_path).admit(0, replace(good, width=65, task_id="mine"))
    assert isinstance(bad, Rejected) and bad.task_id == "mine"


@pytest.mark.parametrize("as_task", [False, True])
def test_what_the_caller_does_to_its_metadata_later_changes_no_task(
    tmp_path: Path, as_task: bool
) -> None:
    tags = ["calm"]
    fields: dict[str, Any] = {"prompt": "a", "metadata": {"tags": tags}}
    job = accepted(admission(tmp_path).admit(0, GenerateTask(**fields) if as_task else fields))
    tags.append("wild")
    assert job.task.metadata == {"tags": ["calm"]}


def test_python_code_may_give_any_path(tmp_path: Path) -> None:
    path = tmp_path / "elsewhere" / "a.png"
    job = accepted(admission(tmp_path / "x", confined=False).admit(0, {
        "prompt": "a", "output_path": path,
    }))  # fmt: skip
    assert job.output.file == path


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
task_fields = st.sampled_from(list(GenerateTask.__dataclass_fields__)) | st.text()


@given(st.dictionaries(task_fields, json_values, max_size=6) | json_values)
def test_no_input_can_raise(tmp_path_factory: pytest.TempPathFactory, given_: Any) -> None:
    result = admission(Path("/nonexistent-root")).admit(0, given_)
    assert isinstance(result, Admitted | Rejected)
    if isinstance(result, Admitted):
        assert result.output.file.is_relative_to("/nonexistent-root")
        json.dumps(result.task.metadata, allow_nan=False)


@pytest.mark.parametrize(
    ("partial", "goes"),
    [
        (".partial-1", True),
        ("sub/.partial-1", True),
        ("precious.png", False),
        ("../.partial-1", False),
        ("link/.partial-1", False),
    ],
)
def test_a_sweep_removes_unfinished_files_of_the_run_alone(
    tmp_path: Path, partial: str, goes: bool
) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (root / "link").symlink_to(tmp_path / "elsewhere")
    file = root / partial
    file.write_text("x")
    OutputRoot(root).sweep(partial)
    assert file.exists() is not goes


@pytest.mark.parametrize("partial", ["file/.partial-a", "loop/.partial-a", "sub\0/.partial-a"])
def test_a_sweep_passes_over_what_it_cannot_look_at(tmp_path: Path, partial: str) -> None:
    """Or no later run could begin in this folder."""
    (tmp_path / "file").write_text("where a folder was")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    OutputRoot(tmp_path).sweep(partial)


def test_a_root_given_with_dots_is_the_folder_that_they_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    place = OutputRoot(Path("../out/run")).place("sub/a.png")
    assert (place.shown, place.key) == ("sub/a.png", "sub/a.png")
    assert place.file == tmp_path / "out" / "run" / "sub" / "a.png"
