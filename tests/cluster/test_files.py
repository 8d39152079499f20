"""Nodes that do not see main's folders: files come to them once, and results go back."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cluster.file_hashes import hash_of
from cluster.node_files import STILL_USED, NodeFiles, Wanted
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.processes.local_backend import LocalBackend
from tests.cluster.relayed import SETTINGS, Blind, PlayedBridge
from tests.conftest import simulated, write_safetensors
from tests.inline_backend import InlineBackend

LIMIT = 1e9  # bytes


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def drawn(tmp_path: Path, cache: Path) -> Callable[..., Any]:
    """Does tasks on a node that sees nothing; returns results, their folder, the node's files."""

    def draw(tasks: list[dict[str, Any]], processes: bool = False, **settings: Any) -> Any:
        files = Blind(cache, LIMIT)

        def make_backend() -> Any:
            if processes:
                return LocalBackend("forkserver", SETTINGS.supervision)
            return InlineBackend()

        backend = PlayedBridge(make_backend, ["a"], files).backend
        out = tmp_path / f"out{len(list(tmp_path.glob('out*')))}"
        generator = MultiGPUImageGenerator(
            1, config=simulated(**settings), output_dir=out, backend=backend
        )
        with generator:
            results = generator.generate_batch(tasks)
        return results, out, files

    return draw


def test_pictures_come_back_whole_and_nothing_stays_on_the_node(
    drawn: Callable[..., Any], cache: Path
) -> None:
    tasks = [{"prompt": f"{i}", "output_path": f"{i % 2}/{i}.png"} for i in range(6)]
    results, out, _ = drawn(tasks, processes=True)
    assert [result.status for result in results] == ["done"] * 6
    for i in range(6):
        with Image.open(out / f"{i % 2}/{i}.png") as image:
            image.load()
    assert not list(out.rglob(".partial*"))
    assert not [file for file in (cache / "results").rglob("*") if file.is_file()]


def test_a_lora_and_a_source_picture_travel_once_by_their_content(
    drawn: Callable[..., Any], tmp_path: Path
) -> None:
    lora = write_safetensors(tmp_path / "ink.safetensors", size=40_000)
    source = tmp_path / "source.png"
    Image.new("RGB", (64, 64), (200, 90, 40)).save(source)
    tasks: list[dict[str, Any]] = [{"prompt": f"{i}", "lora_path": str(lora)} for i in range(3)]
    tasks += [{"instruction": f"{i}", "source_images": [str(source)]} for i in range(3)]
    settings = {"editor": {"model": "simulated"}}
    results, _, files = drawn(tasks, processes=True, **settings)
    assert [result.error for result in results] == [None] * 6
    size = lora.stat().st_size + source.stat().st_size
    assert files.came == size
    again, _, files = drawn(tasks, processes=True, **settings)
    assert {result.status for result in again} == {"done"} and files.came == 0


def test_a_picture_is_the_same_whether_the_node_sees_the_folder_or_not(
    drawn: Callable[..., Any], tmp_path: Path
) -> None:
    lora = write_safetensors(tmp_path / "ink.safetensors")
    task = {"prompt": "a", "output_path": "a.png", "seed": 1, "lora_path": str(lora)}
    _, there, _ = drawn([task])
    here = tmp_path / "here"
    with MultiGPUImageGenerator(
        1, config=simulated(), output_dir=here, backend=InlineBackend()
    ) as generator:
        generator.generate_batch([task])
    assert (there / "a.png").read_bytes() == (here / "a.png").read_bytes()


def test_a_result_that_is_torn_on_its_way_is_no_result(
    drawn: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    take = NodeFiles.take
    monkeypatch.setattr(NodeFiles, "take", lambda files, path: take(files, path)[:-1])
    results, out, _ = drawn([{"prompt": "a", "output_path": "a.png"}])
    assert results[0].status == "failed" and "could not be brought here" in results[0].error
    assert not list(out.rglob("*.png"))


def test_what_lies_at_the_same_place_on_the_node_is_not_brought_there(tmp_path: Path) -> None:
    file = write_safetensors(tmp_path / "ink.safetensors")
    wanted = Wanted("lora", str(file), hash_of("lora", str(file)))
    files = NodeFiles(tmp_path / "cache", LIMIT)
    assert files.find(wanted) == str(file)
    other = replace(wanted, key="0" * 64)
    assert files.find(other) is None, "another content under the same name"


def bring(files: NodeFiles, path: Path) -> str:
    wanted = Wanted("picture", f"/nowhere/{path.name}", hash_of("picture", str(path)))
    files.begin(path.name, path.stat().st_size)
    files.receive(path.name, path.name, 0, path.read_bytes())
    return files.finish(path.name, wanted)


def test_the_cache_is_bounded_and_what_was_not_used_for_longest_leaves(tmp_path: Path) -> None:
    files = NodeFiles(tmp_path / "cache", 250)
    places = []
    for i in range(3):
        file = tmp_path / f"{i}"
        file.write_bytes(bytes([i]) * 100)
        places.append(Path(bring(files, file)))
        used = os.stat(places[0].parent).st_mtime - 3 * STILL_USED + i
        os.utime(places[-1].parent, (used, used))
        if i == 1:  # 0 is used again, so that 1 is older
            os.utime(places[0].parent, (used + 1, used + 1))
    assert [place.exists() for place in places] == [True, False, True]


def test_what_is_in_use_stays_in_a_cache_that_is_too_small(tmp_path: Path) -> None:
    files = NodeFiles(tmp_path / "cache", 10)
    for i in range(3):
        file = tmp_path / f"{i}"
        file.write_bytes(bytes([i]) * 100)
        bring(files, file)
    assert len([f for f in (tmp_path / "cache").iterdir() if f.is_dir()]) == 3


def test_a_model_folder_is_known_by_its_files(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder / "vae").mkdir(parents=True)
        (tmp_path / folder / "vae" / "w.safetensors").write_bytes(b"1" * 100)
    first = hash_of("model", str(tmp_path / "a" / "vae"))
    assert first == hash_of("model", str(tmp_path / "b" / "vae"))
    (tmp_path / "b" / "vae" / "w.safetensors").write_bytes(b"1" * 99 + b"2")
    assert first != hash_of("model", str(tmp_path / "b" / "vae"))
