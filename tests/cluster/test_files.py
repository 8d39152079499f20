"""Nodes that do not see main's folders: files come to them once, and results go back."""

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from queue import Queue
from typing import Any

import psutil
import pytest
from PIL import Image

from cluster.courier import Courier
from cluster.file_hashes import hash_of
from cluster.node_files import STILL_USED, NodeFiles, Wanted
from cluster.protocol import Send, Silent, Told
from core.engine.backend import Said
from core.messages import Done, Lease
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.processes.local_backend import LocalBackend
from core.tasks import GenerateTask
from tests.cluster.relayed import SETTINGS, Blind, PlayedBridge
from tests.conftest import PATIENCE, simulated, write_safetensors
from tests.inline_backend import InlineBackend

LIMIT = 1e9  # bytes
PICTURE = b"a picture"


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
    assert not [file for file in (cache / "on-their-way").rglob("*") if file.is_file()]


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


def test_a_task_whose_files_travel_for_longer_than_it_may_take_is_not_taken_for_hung(
    drawn: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive = Blind.receive

    def slowly(files: Blind, *arguments: Any) -> None:
        time.sleep(1.2)  # and twice: as where the answer was lost
        receive(files, *arguments)

    monkeypatch.setattr(Blind, "receive", slowly)
    lora = write_safetensors(tmp_path / "ink.safetensors")
    size = {"width": 64, "height": 64, "num_inference_steps": 1}
    tasks = [{"prompt": "a", "lora_path": str(lora), **size}]
    rules = {"task_timeout": 2.0}
    results, _, _ = drawn(tasks, processes=True, supervision=rules)
    assert [(result.status, result.attempts) for result in results] == [("done", 1)]


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


class Slow(NodeFiles):
    """A node that sees nothing, and on which nothing goes on until a test says so."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, LIMIT)
        self.asked, self.goes_on = threading.Event(), threading.Event()
        self.brings = True  # results are not held up

    def sees(self, path: str, word: str) -> bool:
        return False

    def find(self, wanted: Wanted) -> str | None:
        self.asked.set()
        assert self.goes_on.wait(PATIENCE)
        return wanted.path

    def take(self, path: str) -> bytes:
        if not self.brings:
            self.thread = threading.current_thread()
            self.asked.set()
            assert self.goes_on.wait(PATIENCE)
        return PICTURE


class Transfer:
    """A courier to such a node, and all that passes."""

    def __init__(self, folder: Path, brings: bool) -> None:
        self.node = Slow(folder / "cache")
        self.node.brings = brings
        self.told, self.sent = Queue[Any](), Queue[Any]()
        self.courier = Courier(self.node, self.node.make_spool(), self.sent.put, self.told.put)
        self._folder = folder

    def lease(self, slot: str, **more: Any) -> Path:
        """Lease a task; returns its partial file."""
        task = GenerateTask(prompt="a", task_id=slot, output_path=f"{slot}.png", seed=1, **more)
        partial = self._folder / f".partial-{slot}"
        lora = "1" * 64 if more else None
        lease = Lease(slot, 1, task, lora, "c0ffee", str(partial))
        self.courier.order(Send(slot, 1, lease))
        return partial

    def done(self, slot: str) -> Done:
        done = Done(slot, len(PICTURE), hashlib.sha256(PICTURE).hexdigest(), 0.0)
        self.courier.report(Told(slot, 1, Said(slot, done)))
        return done


@pytest.fixture
def transfer(tmp_path: Path) -> Iterator[Callable[[bool], Transfer]]:
    made: list[Transfer] = []

    def make(brings: bool) -> Transfer:
        made.append(Transfer(tmp_path, brings))
        return made[-1]

    yield make
    for one in made:
        one.node.goes_on.set()
        one.courier.close()


def test_a_result_of_a_node_that_is_lost_meanwhile_leaves_no_file(
    transfer: Callable[[bool], Transfer],
) -> None:
    way = transfer(False)
    partial = way.lease("cpu0")
    way.sent.get(timeout=PATIENCE)
    way.done("cpu0")
    assert way.node.asked.wait(PATIENCE)
    way.courier.close()
    way.node.goes_on.set()
    way.node.thread.join(PATIENCE)
    assert way.told.empty() and not partial.exists()
    way.lease("cpu1")  # as main has not heard of the loss yet
    assert way.sent.empty()


def test_a_worker_counts_as_silent_when_its_result_has_come_and_not_before(
    transfer: Callable[[bool], Transfer],
) -> None:
    """Else one would be killed as hung that is done."""
    way = transfer(False)
    partial = way.lease("cpu0")
    way.sent.get(timeout=PATIENCE)
    done = way.done("cpu0")
    assert way.node.asked.wait(PATIENCE)
    way.courier.report(Silent("cpu0", 1, 1))
    assert way.told.empty()
    way.node.goes_on.set()
    assert way.told.get(timeout=PATIENCE).report.message == done
    assert partial.read_bytes() == PICTURE
    assert isinstance(way.told.get(timeout=PATIENCE), Silent)


def test_a_file_that_is_used_for_long_is_looked_for_again_as_it_may_have_left_the_cache(
    transfer: Callable[[bool], Transfer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = transfer(True)
    way.node.goes_on.set()
    lora = str(write_safetensors(tmp_path / "ink.safetensors"))
    for again, seconds in ((True, 60.0), (False, 60.0), (True, 0.0)):
        monkeypatch.setattr("cluster.courier.LOOKED_FOR_AGAIN", seconds)
        way.node.asked.clear()
        way.lease("cpu0", lora_path=lora)
        way.sent.get(timeout=PATIENCE)
        assert way.node.asked.is_set() is again


def test_files_that_were_not_used_for_long_are_not_remembered_for_ever(
    transfer: Callable[[bool], Transfer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.courier.MOST_KNOWN", 2)
    way = transfer(True)
    way.node.goes_on.set()
    a, b, c = (
        str(write_safetensors(tmp_path / f"{n}.safetensors", size=100 + n)) for n in (1, 2, 3)
    )
    for lora, is_new in ((a, True), (b, True), (a, False), (c, True), (a, False), (b, True)):
        way.node.asked.clear()
        way.lease("cpu0", lora_path=lora)
        way.sent.get(timeout=PATIENCE)
        assert way.node.asked.is_set() is is_new


def test_results_come_while_many_workers_wait_for_one_file(
    transfer: Callable[[bool], Transfer], tmp_path: Path
) -> None:
    way = transfer(True)
    way.lease("done")
    way.sent.get(timeout=PATIENCE)
    lora = write_safetensors(tmp_path / "ink.safetensors")
    for n in range(16):
        way.lease(f"cpu{n}", lora_path=str(lora))
    assert way.node.asked.wait(PATIENCE)
    done = way.done("done")
    assert way.told.get(timeout=PATIENCE).report.message == done
    assert way.sent.empty()


def test_a_result_that_the_object_store_cannot_take_is_made_again_and_the_worker_goes_on(
    drawn: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    take, full = NodeFiles.take, iter([True])

    def taken(files: NodeFiles, path: str) -> bytes:
        if next(full, False):
            raise RuntimeError("the object store is full")
        return take(files, path)

    monkeypatch.setattr(NodeFiles, "take", taken)
    tasks = [{"prompt": f"{i}", "output_path": f"{i}.png"} for i in range(3)]
    results, _, _ = drawn(tasks)
    assert [result.status for result in results] == ["done"] * 3
    assert sorted(result.attempts for result in results) == [1, 1, 2]


def test_results_of_another_machine_in_a_shared_home_are_left_alone(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which process of that one is alive cannot be seen from here."""
    gone = psutil.Process().pid + 10_000_000
    for name in ("here", "elsewhere"):
        (cache / "on-their-way" / name / f"{gone}").mkdir(parents=True)
    monkeypatch.setattr("platform.node", lambda: "here")
    own = NodeFiles(cache, LIMIT).make_spool()
    left = {str(path) for path in (cache / "on-their-way").glob("*/*")}
    assert left == {own, str(cache / "on-their-way" / "elsewhere" / f"{gone}")}


def test_results_have_a_place_also_where_somebody_has_cleared_the_cache(cache: Path) -> None:
    files = NodeFiles(cache, LIMIT)
    place = files.make_spool()
    shutil.rmtree(cache)
    files.keep_spool()
    assert Path(place).is_dir()


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


def test_a_cache_that_is_not_full_is_not_counted_for_each_file_that_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = NodeFiles(tmp_path / "cache", 1000)
    looks: list[str] = []
    scandir = os.scandir

    def counted(path: Any) -> Any:
        looks.append(str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counted)
    for i in range(5):
        file = tmp_path / f"{i}"
        file.write_bytes(bytes([i]) * 100)
        bring(files, file)
    assert looks.count(str(tmp_path / "cache")) <= 1


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
