"""LoRAs by their names: those of one folder, and nothing beyond it."""

import asyncio
import json
import struct
import threading
from pathlib import Path
from typing import cast

import pytest
from loguru import logger

from apps.server.errors import ApiError
from apps.server.lora_models import LoraModels
from apps.server.loras import Loras, view
from apps.server.task_requests import CheckedTasks, Pictures, TaskRequests
from core import MultiGPUImageGenerator
from tests.conftest import PATIENCE, PROJECT


def write(file: Path, tensors: dict[str, list[int]] | None = None, **said: str) -> Path:
    """A file in safetensors form, LoRA or not."""
    tensors = {"a.lora_A.weight": [4, 8], "a.lora_B.weight": [8, 4]} if tensors is None else tensors
    header: dict[str, object] = {"__metadata__": said}
    end = 0
    for name, shape in tensors.items():
        size = 4 * shape[0] * shape[1]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * end)
    return file


def test_loras_are_listed_with_what_their_files_say(tmp_path: Path) -> None:
    folder = tmp_path / "loras"
    write(folder / "ink.safetensors", ss_base_model_version="zimage")
    write(folder / "paper" / "adapter_model.safetensors")
    write(folder / "whole.safetensors", {"a.weight": [2, 2]})
    (folder / "pickle.safetensors").write_bytes(b"\x80\x04" + b"\0" * 100)
    (folder / "notes.txt").write_text("x")
    loras = Loras(folder)
    assert loras.names() == ["ink", "paper"]
    shown = {name: view(entry) for name, entry in loras.entries().items()}
    assert shown["ink"]["rank"] == 4 and shown["ink"]["layers"] == 1
    assert shown["ink"]["base_model"] == "zimage" and shown["ink"]["usable"]
    assert "no LoRA tensors" in str(shown["whole"]["problem"])
    assert "pickle" in str(shown["pickle"]["problem"])
    assert str(tmp_path) not in json.dumps(shown)
    for name in ("ink", "ink.safetensors"):
        assert loras.resolve(name, "loras") == str(folder / "ink.safetensors")


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../outside", "../outside.safetensors", "inner/deep", "linked", "away/x", "",
     ".", "..", "whole", "ink/", "./ink", "INK", "ink\0", "a" * 5000],
)  # fmt: skip
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "loras"
    outside = write(tmp_path / "outside.safetensors")
    write(folder / "ink.safetensors")
    write(folder / "inner" / "deep.safetensors")
    write(folder / "whole.safetensors", {"a.weight": [2, 2]})
    (folder / "linked.safetensors").symlink_to(outside)
    (folder / "away").symlink_to(tmp_path)
    with pytest.raises(ApiError) as caught:
        Loras(folder).resolve(name, "loras")
    assert caught.value.status == 400 and caught.value.param == "loras"
    assert str(tmp_path) not in str(caught.value)


def test_a_folder_that_is_not_there_has_no_loras(tmp_path: Path) -> None:
    assert Loras(tmp_path / "none").names() == []


def test_loras_of_another_model_are_not_offered_and_one_line_names_them(tmp_path: Path) -> None:
    model = tmp_path / "Painter"
    layer = {"blocks.0.to_q.weight": [96, 96], "blocks.0.ff.weight": [96, 384]}
    write(model / "transformer" / "diffusion_pytorch_model.safetensors", layer)
    (model / "model_index.json").write_text('{"_class_name": "ZImagePipeline"}')
    own = {"blocks.0.to_q.lora_A.weight": [4, 96], "blocks.0.to_q.lora_B.weight": [96, 4]}
    folder = tmp_path / "loras"
    write(folder / "own.safetensors", own)
    for demo in (PROJECT / "demo_model" / "loras").glob("*.safetensors"):
        (folder / demo.name).write_bytes(demo.read_bytes())
    foreign = sorted(file.stem for file in folder.glob("*.safetensors") if file.stem != "own")
    said: list[str] = []
    sink = logger.add(said.append, format="{message}")
    try:
        generator = MultiGPUImageGenerator(1, config={"model": str(model)}, dry_run=True)
        loras = Loras(folder, LoraModels(generator))
        assert loras.names() == ["own"]
        assert [*loras.entries()] == sorted([*foreign, "own"]), "the others are listed, with why"
    finally:
        logger.remove(sink)
    assert [line.strip() for line in said if "Not offered" in line] == [
        f"Not offered, as made for another model than Painter: {len(foreign)} LoRAs of {folder} "
        f"({', '.join(foreign)})."
    ]
    with pytest.raises(ApiError, match=r"does not fit Painter: .* it was made for another model"):
        loras.resolve(foreign[0], "lora", "generate")
    assert loras.resolve("own", "lora", "generate") == str(folder / "own.safetensors")


def painter(folder: Path, width: int, name: str, **config: object) -> dict[str, str]:
    """The settings of a model whose layers have so many inputs."""
    layer = {"blocks.0.to_q.weight": [width, width]}
    write(folder / name / "transformer" / "diffusion_pytorch_model.safetensors", layer)
    (folder / name / "transformer" / "config.json").write_text(json.dumps(config))
    (folder / name / "model_index.json").write_text('{"_class_name": "QwenImageEditPlusPipeline"}')
    return {"model": str(folder / name)}


def own(file: Path, width: int) -> Path:
    """A LoRA for such a model."""
    down, up = "blocks.0.to_q.lora_A.weight", "blocks.0.to_q.lora_B.weight"
    return write(file, {down: [4, width], up: [width, 4]})


def test_a_lora_may_be_of_an_editor_whose_layers_cannot_be_told(tmp_path: Path) -> None:
    packed = painter(tmp_path, 64, "Packed", quantization_config={"quant_method": "bitsandbytes"})
    settings = {**painter(tmp_path, 96, "Painter"), "editor": packed}
    generator = MultiGPUImageGenerator(1, config=settings, dry_run=True)
    file = own(tmp_path / "loras" / "night.safetensors", 64)
    loras = Loras(file.parent, LoraModels(generator))
    assert loras.names() == ["night"] and loras.resolve("night", "lora", "edit") == str(file)
    with pytest.raises(ApiError, match="night does not fit Painter"):
        loras.resolve("night", "lora", "generate")


def test_each_kind_of_task_is_refused_what_its_own_model_cannot_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.server.loras.LOOK_AGAIN", 0.0)
    settings = {**painter(tmp_path, 96, "Painter"), "editor": painter(tmp_path, 64, "Editor")}
    generator = MultiGPUImageGenerator(1, config=settings, dry_run=True)
    folder = tmp_path / "loras"
    for name, width in (("drawn", 96), ("edited", 64), ("neither", 32)):
        own(folder / f"{name}.safetensors", width)
    loras = Loras(folder, LoraModels(generator))
    assert loras.names() == ["drawn", "edited"]
    refused = {
        "generate": {"edited": "edited does not fit Painter", "neither": "does not fit Painter"},
        "edit": {"drawn": "drawn does not fit Editor", "neither": "does not fit Editor"},
    }
    for kind, names in refused.items():
        for name, why in names.items():
            with pytest.raises(ApiError, match=why):
                loras.resolve(name, "lora", kind)
    assert loras.resolve("drawn", "lora", "generate") and loras.resolve("edited", "lora", "edit")
    assert loras.resolve("neither", "lora"), "it may be unloaded, whoever pinned it"
    own(folder / "neither.safetensors", 96)
    assert loras.resolve("neither", "lora", "generate"), "it is another file now"


def test_others_are_served_while_a_lora_is_looked_for(tmp_path: Path) -> None:
    served = threading.Event()

    class Busy:
        """The models are not known before others were served, as where a batch is being planned."""

        def resolve(self, name: str, param: str, kind: str) -> str:
            assert served.wait(PATIENCE), "nobody was served meanwhile"
            return f"/loras/{name}"

    async def check() -> CheckedTasks:
        tasks = [
            {"prompt": "a", "lora_path": "x"},
            {"prompt": "b", "loras": [{"path": "y"}, {"path": "z"}]},
        ]
        requests = TaskRequests(cast(Pictures, None), Busy(), seed=0)
        checking = asyncio.create_task(requests.check("me", tasks, "jobs/1"))
        for _ in range(3):
            await asyncio.sleep(0)
        served.set()
        return await checking

    first, second = asyncio.run(check()).tasks
    assert first["lora_path"] == "/loras/x" and second["loras"][1]["path"] == "/loras/z"


def test_the_demo_models_own_loras_are_all_offered(tmp_path: Path) -> None:
    generator = MultiGPUImageGenerator(
        1, config={"model": str(PROJECT / "demo_model" / "checkpoint")}, dry_run=True
    )
    folder = PROJECT / "demo_model" / "loras"
    names = sorted(file.stem for file in folder.glob("*.safetensors"))
    assert Loras(folder, LoraModels(generator)).names() == names
