"""LoRA files are known by their content, and pictures call them by the name that the user gave."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from apps.gallery.records.command import main as records
from core.checkpoints.lora_files import LoraInspector, find_lora
from core.checkpoints.lora_fit import widths_of
from core.errors import LoraError
from core.events import Event, TaskStarted
from core.lora_paths import file_or_folder, lora_name, name_of
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from tests.conftest import write_safetensors
from tests.inline_backend import InlineBackend
from tests.test_native_image_generator import SMALL

PICKLE = b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00\x8c\x08rubbish\x94."


def header_length(file: Path) -> int:
    return int.from_bytes(file.read_bytes()[:8], "little")


def with_header_of(length: int, source: Path, target: Path) -> Path:
    """The same file with spaces behind its header, which the format allows."""
    data = source.read_bytes()
    old = header_length(source)
    header = data[8 : 8 + old].rstrip()
    assert len(header) <= length
    target.write_bytes(length.to_bytes(8, "little") + header.ljust(length) + data[8 + old :])
    return target


@pytest.fixture
def cached(tiny_loras: list[Path], tmp_path: Path) -> Path:
    """A LoRA as the Hugging Face cache has it: a link to a file that is called by its hash."""
    folder = tmp_path / "hub" / "models--somebody--style"
    blob = folder / "blobs" / ("0a1b" * 16)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(tiny_loras[0].read_bytes())
    link = folder / "snapshots" / ("c0de" * 10) / "style.v2.safetensors"
    link.parent.mkdir(parents=True)
    link.symlink_to(os.path.relpath(blob, link.parent))
    return link


def test_whatever_a_lora_is_called_it_is_loaded_and_called_so_in_its_picture(
    tiny_model: Path, tiny_loras: list[Path], cached: Path, tmp_path: Path
) -> None:
    content = tiny_loras[0].read_bytes()
    names = {
        "STYLE.SAFETENSORS": "STYLE",
        "no_ending_v1.5": "no_ending_v1.5",
        "style.ckpt": "style",
        "style two.pt": "style two",
    }
    for name in names:
        (tmp_path / name).write_bytes(content)
    # Lengths that begin as pickles of old and new protocols do, and as a zip.
    length = header_length(tiny_loras[0])
    as_pickle = with_header_of(-(-length // 256) * 256 + 0x80, tiny_loras[0], tmp_path / "0x80.st")
    assert as_pickle.read_bytes()[:1] == b"\x80"
    names |= {str(cached): "style.v2", str(as_pickle): "0x80"}
    tasks: list[dict[str, Any]] = [
        {"prompt": "a red house", "seed": 1, "lora_path": str(tmp_path / name)} for name in names
    ]
    config = {"model": str(tiny_model), "defaults": SMALL}
    folder = tmp_path / "out"
    with MultiGPUImageGenerator(1, config=config, output_dir=folder) as generator:
        results = generator.generate_batch([*tasks, {**tasks[0], "lora_strength": 0.0}])
    assert [r.error for r in results] == [None] * len(results)
    *pictures, plain = [np.asarray(Image.open(str(r.output_path))) for r in results]
    for result, picture, name in zip(results, pictures, names.values(), strict=False):
        assert np.array_equal(picture, pictures[0]) and not np.array_equal(picture, plain)
        text = Image.open(str(result.output_path)).info["parameters"]
        assert f"<lora:{name}:1>" in text and f'Lora hashes: "{name}: ' in text
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    wanted = [Path(name).name for name in names]
    assert [row["lora"] for row in rows] == [*wanted, wanted[0]]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/b/style.safetensors", "style"),
        ("STYLE.SafeTensors", "STYLE"),
        ("folder\\style.safetensors", "style"),
        ("style.v1.5", "style.v1.5"),
        ("style.sft", "style"),
        (".safetensors", ".safetensors"),
        ("c0dec0de", "c0dec0de"),
    ],
)
def test_a_lora_is_called_by_its_file_less_the_ending_of_weights(path: str, name: str) -> None:
    assert lora_name(path) == name


@pytest.mark.parametrize(
    ("path", "name", "with_ending"),
    [
        ("/a/ink/adapter_model.safetensors", "ink", "ink"),
        ("ink\\adapter_model.safetensors", "ink", "ink"),
        ("adapter_model.safetensors", "adapter_model", "adapter_model.safetensors"),
        ("/hub/models--me--ink-v2/snapshots/c0de/adapter_model.safetensors", "ink-v2", "ink-v2"),
        ("/a/ink.safetensors", "ink", "ink.safetensors"),
    ],
)
def test_a_lora_of_peft_is_called_by_its_folder(path: str, name: str, with_ending: str) -> None:
    assert (name_of(path), file_or_folder(path)) == (name, with_ending)


def test_loras_of_peft_are_told_apart_wherever_they_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["ink", "wash"]
    for name in names:
        (tmp_path / name).mkdir()
        write_safetensors(tmp_path / name / "adapter_model.safetensors", f"{name}.lora_A")
    tasks: list[dict[str, Any]] = [
        {"prompt": "a cat", "output_path": f"{n}.png", "lora_path": str(tmp_path / n), **SMALL}
        for n in names
    ]
    heard: list[Event] = []
    with MultiGPUImageGenerator(
        1,
        config={"model": "simulated"},
        output_dir=tmp_path / "out",
        backend=InlineBackend(),
        listener=heard.append,
    ) as generator:
        plan = generator.plan(tasks)
        generator.generate_batch(tasks)
        [_, change] = generator.plan([tasks[0], {**tasks[0], "output_path": "wash.png"}]).tasks
    assert [lora.name for model in plan.models for lora in model.loras] == names
    assert [(made.what, made.values) for made in change.changes] == [("LoRA", ("wash", "ink"))]
    rows = [json.loads(line) for line in (tmp_path / "out/metadata.jsonl").read_text().splitlines()]
    assert [row["lora"] for row in rows] == names
    assert [json.loads(row["loras"])[0]["lora"] for row in rows] == names
    started = [event for event in heard if isinstance(event, TaskStarted)]
    assert [event.shape.loras for event in started] == [("ink",), ("wash",)]
    capsys.readouterr()
    assert records([str(tmp_path / "out"), "by-lora"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == names


def test_a_link_keeps_its_name_and_means_its_file(cached: Path, tmp_path: Path) -> None:
    found = find_lora(cached.name, [cached.parent])
    assert found == cached and found.is_absolute()
    other = tmp_path / "other.safetensors"
    other.write_bytes(cached.read_bytes())
    inspector = LoraInspector()
    assert inspector.sha256(found) == inspector.sha256(other)


def test_a_folder_of_peft_is_a_lora_and_gives_it_its_name(
    tiny_model: Path, tiny_loras: list[Path], tmp_path: Path
) -> None:
    file = tmp_path / "ink" / "adapter_model.safetensors"
    file.parent.mkdir()
    file.write_bytes(tiny_loras[0].read_bytes())
    task = {"prompt": "a cat", "lora_path": str(file.parent), **SMALL}
    with MultiGPUImageGenerator(
        1, config={"model": str(tiny_model)}, output_dir=tmp_path / "out"
    ) as generator:
        [result] = generator.generate_batch([task])
    assert result.output_path is not None, result.error
    with Image.open(result.output_path) as picture:
        assert "<lora:ink:1>" in picture.info["parameters"]


def test_a_folder_without_a_lora_is_told_as_one(tmp_path: Path) -> None:
    (tmp_path / "styles").mkdir()
    with pytest.raises(LoraError, match="is a folder without adapter_model"):
        find_lora("styles", [tmp_path])


@pytest.mark.parametrize("content", [PICKLE, b"\x80\x02}q\x00.", b"PK\x03\x04" + b"\0" * 40])
def test_a_pickle_is_refused_whatever_it_is_called(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "style.safetensors"
    file.write_bytes(content * 40)
    with pytest.raises(LoraError, match="is a pickle file whatever its name says"):
        LoraInspector().sha256(file)


def test_a_pickle_with_a_bracket_where_a_header_would_begin_is_no_lora(tmp_path: Path) -> None:
    file = tmp_path / "style.safetensors"
    file.write_bytes(b"\x80\x02\0\0\0\0\0\0{" + b"0" * 1000)
    with pytest.raises(LoraError, match="damaged safetensors header"):
        LoraInspector().sha256(file)


@pytest.mark.parametrize(
    ("end", "method"),
    [
        ("hada_w1_a", "LoHa"),
        ("oft_blocks", "OFT"),
        ("on_input", r"\(IA\)3"),
        ("diff", "full weight difference"),
    ],
)
def test_what_is_not_supported_is_refused_by_its_name_before_anything_is_drawn(
    tiny_loras: list[Path], tmp_path: Path, end: str, method: str
) -> None:
    tensors = load_file(tiny_loras[0])
    [*_, last] = tensors
    file = tmp_path / "style.safetensors"
    save_file({**tensors, f"layers.0.attention.to_k.{end}": tensors[last] + 1}, file)
    with pytest.raises(LoraError, match=f"{method} is not supported"):
        LoraInspector().sha256(file)


@pytest.mark.parametrize(
    ("name", "dtype", "known"),
    [
        ("cond.text_model.embeddings.position_ids", "I64", True),  # as CLIP's files have it
        ("blocks.1.ff.weight", "U8", False),
        ("blocks.1.ff.qweight", "I32", False),
    ],
)
def test_the_layers_of_a_model_in_one_file_are_known_unless_its_weights_are_packed(
    tmp_path: Path, name: str, dtype: str, known: bool
) -> None:
    header = {
        "blocks.0.ff.weight": {"dtype": "BF16", "shape": [96, 64], "data_offsets": [0, 0]},
        name: {"dtype": dtype, "shape": [1, 77], "data_offsets": [0, 0]},
    }
    raw = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw)
    widths = widths_of(tmp_path / "model.safetensors")
    assert (widths is not None and 64 in widths) is known
