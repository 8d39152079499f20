"""What users say of a model's own LoRAs and noise schedule, and what they are told of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
from huggingface_hub import constants
from loguru import logger
from PIL import Image

from apps.edit_benchmark.editing import EditedBy
from core.checkpoints.lora_files import LoraInspector, content_hash
from core.checkpoints.model_loras import find_model_loras
from core.errors import InputError
from core.model_identity import Identity
from core.model_lora import ModelLora
from core.noise_schedule import CLASSES
from core.settings import load_settings
from core.store.provenance import read_provenance
from tests.conftest import Project, write_safetensors
from tests.edit_world import Bench, pair
from tests.hub_server import HubServer
from tests.inline_command import InlineCommand
from tests.test_native_image_generator import drawn, lease, spec_for
from workers.models.native_image_generator import NativeImageGenerator


def silent(level: str, text: str) -> None: ...


def found(folder: Path, *wanted: Any) -> tuple[ModelLora, ...]:
    settings = load_settings({"model_loras": list(wanted)})
    return find_model_loras(settings.model_loras, [folder], LoraInspector())


def test_a_path_alone_is_a_lora_at_full_strength_and_one_at_zero_is_none(tmp_path: Path) -> None:
    file = write_safetensors(tmp_path / "turbo.safetensors")
    [lora] = found(tmp_path, "turbo.safetensors", {"path": str(file), "strength": 0})
    assert (lora.path, lora.name, lora.strength) == (str(file), "turbo.safetensors", 1.0)
    assert lora.sha256 == content_hash(file)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("none.safetensors", r"model_loras\.0: 'none\.safetensors' is not a file \(looked in "),
        ("owner/name", r"model_loras\.0: .* give model_loras\.0\.file, too\."),
        ("model.safetensors", r"model_loras\.0: .*holds no LoRA tensors; is it a whole model\?"),
        ("pickle.safetensors", r"model_loras\.0: .* is a pickle file whatever its name says"),
        ({"path": "a", "file": "x.safetensors"}, r"with `file`, `path` is a repository on the hub"),
        ({"path": "a/b", "file": "x.bin"}, r"model_loras\.0\.file: .*\(found 'x\.bin'\)"),
        ({"path": "a.safetensors", "revision": "main"}, r"`revision` is of a file on the hub"),
        ({"path": "a", "strenght": 1}, r"unknown key; did you mean 'strength'\?|unknown key"),
        ({"path": "a", "strength": 99}, r"model_loras\.0\.strength: .*less than or equal to 10"),
    ],
)
def test_what_cannot_be_used_is_said_with_its_place(tmp_path: Path, wanted: Any, said: str) -> None:
    write_safetensors(tmp_path / "model.safetensors", "layer.weight")
    (tmp_path / "pickle.safetensors").write_bytes(b"\x80\x04" + bytes(40))
    with pytest.raises(InputError, match=said):
        found(tmp_path, wanted)


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (
            401,
            "GatedRepo",
            r"the repository is gated\. Accept its licence at http.*/owner/name, then",
        ),
        (404, "RepoNotFound", r"there is no such repository, or it is private\."),
        (404, "RevisionNotFound", r"the repository has no revision 'v9'\. See http"),
        (
            404,
            "EntryNotFound",
            r"the repository has no such file\. See http.*/owner/name/tree/v9\.",
        ),
        (
            0,
            "",
            r"HF_HUB_OFFLINE is set, and the file is not in the cache .*`hf download owner/name",
        ),
    ],
)
def test_what_the_hub_refuses_is_said_with_the_file_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, code: str, said: str
) -> None:
    """A status of 0 is a run that may not ask it."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", status == 0)
    hub = HubServer(tmp_path)
    hub.refusal = lambda n, path: (status, {"X-Error-Code": code} if code else {})
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    wanted = {"path": "owner/name", "file": "turbo.safetensors", "revision": "v9"}
    try:
        with pytest.raises(InputError, match=rf"model_loras\.0: turbo.* of owner/name: {said}"):
            found(tmp_path, wanted)
    finally:
        hub.close()


def test_a_download_that_stands_still_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "turbo.safetensors").write_bytes(bytes(100_000))
    hub = HubServer(tmp_path)
    hub.ends = lambda name, sent: sent > 0
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    try:
        with pytest.raises(InputError, match=r"model_loras\.0: turbo.*: the hub stopped answering"):
            found(tmp_path, {"path": "owner/name", "file": "turbo.safetensors"})
    finally:
        hub.close()


def test_a_hub_that_cannot_be_reached_is_asked_again_in_the_runs_own_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level="WARNING", format="{message}")
    try:
        with pytest.raises(InputError, match="the hub does not answer, and the file is not in"):
            found(tmp_path, {"path": "owner/name", "file": "turbo.safetensors"})
    finally:
        logger.remove(sink)
    assert lines and all(
        line.startswith("turbo.safetensors of owner/name: Retrying in") for line in lines
    )
    assert not [line for line in capfd.readouterr().err.splitlines() if line.startswith("Retr")]


@pytest.mark.parametrize(
    ("scheduler", "said"),
    [
        ({"class": "EulerDiscreteSchedular"}, r"did you mean 'EulerDiscreteScheduler'\?"),
        ({"class": "os.system"}, r"scheduler: class: unknown scheduler 'os\.system'; known are "),
        ({"_class_name": "DDIMScheduler"}, r"'_class_name' is no setting of a scheduler"),
        ({"shift": {"a": 1}}, r"shift: expected a number, .* \(found \{'a': 1\}\)"),
        ({"shift": float("nan")}, r"shift: expected a number"),
        ({"sigmas": []}, r"sigmas: expected a number"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused_by_main(
    scheduler: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        load_settings({"scheduler": scheduler})


@pytest.mark.parametrize(
    ("scheduler", "said"),
    [
        (
            {"shfit": 3.0},
            r"scheduler\.shfit: FlowMatch\w+ has no such setting; did you mean 'shift'",
        ),
        ({"class": "DDIMScheduler"}, r"DDIMScheduler does not go with a model .* FlowMatchLCMSch"),
        ({"class": "LCMScheduler", "shift": 1.0}, r"scheduler\.shift: LCMScheduler has no such"),
        ({"time_shift_type": "cubic"}, r"scheduler: FlowMatch\w+ refuses it: .*time_shift_type"),
    ],
)
def test_a_schedule_that_the_model_cannot_have_is_refused_by_name(
    tiny_model: Path, scheduler: dict[str, Any], said: str
) -> None:
    generator = NativeImageGenerator(
        replace(spec_for(str(tiny_model)), scheduler=scheduler), silent
    )
    with pytest.raises(InputError, match=said):
        generator.load()


def test_a_misspelt_setting_is_found_before_any_weights_are_loaded(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_load(*_: Any, **__: Any) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", no_load)
    spec = replace(spec_for(str(tiny_model)), scheduler={"shfit": 3.0})
    with pytest.raises(InputError, match="did you mean 'shift'"):
        NativeImageGenerator(spec, silent).load()


def test_every_class_that_the_setting_takes_is_one_of_diffusers() -> None:
    assert [name for name in CLASSES if not hasattr(diffusers, name)] == []


def test_a_schedule_changes_the_picture_and_is_told_with_it(tiny_model: Path) -> None:
    plain = NativeImageGenerator(spec_for(str(tiny_model)), silent)
    shifted = NativeImageGenerator(
        replace(spec_for(str(tiny_model)), scheduler={"shift": 7.0}), silent
    )
    lcm = {"class": "FlowMatchLCMScheduler"}
    other = NativeImageGenerator(replace(spec_for(str(tiny_model)), scheduler=lcm), silent)
    for generator in (plain, shifted, other):
        generator.load()
    assert not np.array_equal(drawn(plain), drawn(shifted))
    assert shifted.pipeline.scheduler.config["shift"] == 7.0
    used = shifted.run([lease()])[0].used
    assert used["scheduler"] == {"shift": 7.0} and used["sampler"] == "FlowMatchEulerDiscrete"
    assert other.run([lease()])[0].used["sampler"] == "FlowMatchLCM"
    assert "scheduler" not in plain.run([lease()])[0].used


# -- what is told ------------------------------------------------------------------------------


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> InlineCommand:
    monkeypatch.chdir(tmp_path)
    return InlineCommand(tmp_path, capfd)


KEPT = " What is replaced is kept in .replaced."


def test_the_plan_names_the_models_own_loras_and_what_changed_of_the_schedule(
    command: InlineCommand,
) -> None:
    for name in ("turbo", "other"):
        write_safetensors(command.folder / f"{name}.safetensors", f"{name}.lora_A")
    file = command.write("tweets.json", [{"prompt": "a house"}, {"prompt": "a tree"}])

    def plan(*loras: Any, **settings: Any) -> str:
        return command.plan(file, model_loras=list(loras), **settings)

    assert command.plan(file) == "2 new."
    assert plan() == "2 unchanged.", "a run without is as it was"
    turbo = {"path": "turbo.safetensors", "strength": 0.5}
    assert plan(turbo) == f"2 changed (model LoRA none -> turbo.safetensors at 0.5).{KEPT}"
    assert plan(turbo) == "2 unchanged."
    (command.folder / "loras").mkdir()
    moved = (command.folder / "turbo.safetensors").rename(command.folder / "loras" / "renamed")
    turbo["path"] = str(moved)
    assert plan(turbo) == "2 unchanged.", "its content counts, not its name"
    assert plan("other.safetensors", turbo).startswith(
        "2 changed (model LoRA turbo.safetensors at 0.5 -> other.safetensors at 1"
    )
    assert plan("other.safetensors", turbo, scheduler={"shift": 3.0}) == (
        f"2 changed (noise schedule shift as the model's -> shift 3.0).{KEPT}"
    )
    both = plan(
        "other.safetensors", scheduler={"shift": 1.0}, workers={"attention_backend": "sage"}
    )
    for part in ("model LoRA ", "noise schedule shift 3.0 -> shift 1.0", "backend auto -> sage"):
        assert part in both
    assert plan("other.safetensors", scheduler={"shift": 1.0, "shift_terminal": None},
                workers={"attention_backend": "sage"}).startswith(
        "2 changed (noise schedule shift_terminal as the model's -> shift_terminal null)."
    )  # fmt: skip
    end = plan(scheduler={"class": "DDIMScheduler", "beta_start": 1})
    assert "noise schedule: 2" in end and "model LoRA other.safetensors at 1 -> none" in end


def test_pictures_name_the_models_own_loras(command: InlineCommand) -> None:
    turbo = write_safetensors(command.folder / "turbo.safetensors", "turbo.lora_A")
    style = write_safetensors(command.folder / "style.safetensors", "style.lora_A")
    tweets = [{"prompt": "a house", "lora_path": "style.safetensors", "lora_strength": 0.5}]
    loras = [{"path": "turbo.safetensors", "strength": 0.8}]
    code, errors = command.run(command.write("tweets.json", tweets), model_loras=loras)
    assert code == 0 and "Model LoRAs: turbo.safetensors at 0.8." in errors
    [file] = command.out.rglob("*.png")
    text = Image.open(file).info["parameters"]
    assert text.splitlines()[0] == "a house <lora:turbo:0.8> <lora:style:0.5>"
    hashes = f"turbo: {content_hash(turbo)[:12]}, style: {content_hash(style)[:12]}"
    assert f'Lora hashes: "{hashes}"' in text
    assert read_provenance(file)["used"]["model_loras"] == [
        {"name": "turbo.safetensors", "sha256": content_hash(turbo), "strength": 0.8}
    ]


def test_an_identity_reads_as_it_was_written() -> None:
    identities = [
        Identity("demo-model#12ab"),
        Identity("my own folder#12ab", {"variant": "fp16", "memory": "nf4"}, backend="sage"),
        Identity("Qwen/Qwen-Image@v1", {}, ("12@1.0", "34@0.5"), {"shift": None, "class": "X"}),
        Identity("my folder scheduler=5#12ab"),  # a name may look like anything
    ]
    assert [Identity.read(str(identity)) for identity in identities] == identities


def test_the_benchmarks_editor_takes_loras_in_its_settings(project: Project) -> None:
    """Its own, and one for every pair; the table's line names both."""
    bench = Bench(project)
    bench.write_pairs([pair(0), pair(1)])
    loras = project.folder / "loras"
    loras.mkdir()
    for name in ("turbo", "style"):
        write_safetensors(loras / f"{name}.safetensors", f"{name}.lora_A")
    editor = {
        "model_loras": [{"path": "turbo.safetensors", "strength": 0.8}],
        "scheduler": {"shift": 3.0},
        "defaults": {"lora_path": "style.safetensors", "lora_strength": 0.5},
    }
    run = bench.run(editor=editor, lora_dir=str(loras))
    assert run.finish() == 0, run.errors
    edited_by = bench.summary()["edited_by"]
    assert [(x["name"], x["strength"]) for x in edited_by["model_loras"]] == [
        ("turbo.safetensors", 0.8)
    ]
    assert [(x["name"], x["strength"], x["edits"]) for x in edited_by["loras"]] == [
        ("style.safetensors", 0.5, 2)
    ]
    assert edited_by["scheduler"] == {"shift": 3.0}
    turbo = f"model LoRA turbo.safetensors #{edited_by['model_loras'][0]['sha256'][:8]} at 0.8"
    assert f', {turbo}, scheduler {{"shift":3.0}}, ' in EditedBy(**edited_by).line
    provenance = read_provenance(bench.edits()[0])
    assert provenance["task"]["lora_strength"] == 0.5 and provenance["lora_sha256"]
    run = bench.run(editor={**editor, "defaults": {"lora_path": "none.safetensors"}})
    assert run.finish() == 2
    assert "editor.defaults.lora_path: 'none.safetensors' is not a file" in run.errors
    run = bench.run(editor={"defaults": {"lora_strength": 0.5}})
    assert run.finish() == 2
    assert "lora_strength is of a lora_path, which is missing here" in run.errors
