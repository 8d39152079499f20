"""LoRAs that somebody asks for before any task does: who is told, when, and what becomes of it."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from loguru import logger
from PIL import Image

from core.checkpoints.lora_files import content_hash
from core.engine.snapshot import LoraSnapshot
from core.errors import InputError, LoraError
from core.messages import Kept, Load, Loaded, Ready, Stop
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from tests.conftest import simulated, wait_until, write_safetensors
from tests.stub_backend import StubBackend, StubWorker


class World:
    """A generator whose workers the test plays, and some LoRAs."""

    def __init__(self, folder: Path, workers: int = 1, ready: bool = True, **settings: Any) -> None:
        self.folder = folder
        self.backend = StubBackend(ready)
        self.lines: list[str] = []
        self.files = [
            write_safetensors(folder / f"style{n}.safetensors", f"{n}.lora_A.weight")
            for n in range(5)
        ]
        self.hashes = [content_hash(file) for file in self.files]
        self.generator = MultiGPUImageGenerator(
            workers,
            config=simulated(lora_dir=str(folder), **settings),
            output_dir=folder / "out",
            backend=self.backend,
        )
        self.stack = ExitStack()
        self.stack.enter_context(self.generator)
        sink = logger.add(self.lines.append, format="{level} {message}", level="WARNING")
        self.stack.callback(logger.remove, sink)

    def worker(self, slot: str = "cpu0", incarnation: int = 1) -> StubWorker:
        return self.backend.worker(slot, incarnation)

    def lora(self, number: int = 0) -> LoraSnapshot | None:
        """What is told of one of the LoRAs."""
        found = self.generator.snapshot().result().loras
        return next((lora for lora in found if lora.sha256 == self.hashes[number]), None)

    def known(self, number: int = 0) -> LoraSnapshot:
        found = self.lora(number)
        assert found is not None
        return found

    @property
    def given_up(self) -> str | None:
        """Why nobody draws any more."""
        return self.generator.snapshot().result().models[0].given_up

    def edit(self) -> None:
        """Hand in a task for the other model."""
        source = self.folder / "source.png"
        Image.new("RGB", (8, 8)).save(source)
        self.generator.submit([{"instruction": "x", "source_images": [str(source)]}])

    def end(self) -> None:
        self.generator.stop(at_once=True)
        self.stack.close()

    def draw(self, *loras: int) -> Any:
        """Hand in a task for each of these LoRAs."""
        tasks = [{"prompt": "x", "lora_path": str(self.files[number])} for number in loras]
        return self.generator.submit(tasks)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.end()


@pytest.fixture
def two(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, 2)
    yield world
    world.end()


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[World]:
    """One whose worker has a second for what it did before; and a task, one try."""
    world = World(tmp_path, supervision={"task_timeout_minimum": 1.0, "max_attempts": 1})
    yield world
    world.end()


def test_a_lora_is_read_by_every_worker_before_its_first_task(world: World) -> None:
    world.generator.load_loras("style0.safetensors")
    worker = world.worker().serve()
    order = worker.hear_keep()
    assert (order.sha256, order.path, order.way) == (world.hashes[0], str(world.files[0]), "load")
    job = world.draw(0)
    world.backend.let_the_engine_act()
    assert not worker.has_mail, "it got a task while it was loading"
    worker.keep(order, order.sha256)
    worker.finish(worker.hear_lease(), loras=world.hashes[:1])
    assert job.results()[0].success
    assert world.known().workers == ("cpu0",) and not world.known().pinned
    assert world.generator.lora_counts == (1, 0)


def test_a_busy_worker_reads_it_after_its_task(world: World) -> None:
    worker = world.worker().serve()
    job = world.generator.submit([{"prompt": f"{n}"} for n in range(2)])
    lease = worker.hear_lease()
    world.generator.load_loras(world.files[0])
    world.backend.let_the_engine_act()
    assert not worker.has_mail
    worker.draw(lease)
    order = worker.hear_keep()  # while the picture is saved, and before the next task
    worker.save(lease)
    worker.keep(order, order.sha256)
    worker.finish(worker.hear_lease())
    assert [r.status for r in job.results()] == ["done", "done"]


def test_what_a_worker_holds_decides_which_task_it_gets(two: World) -> None:
    first, second = two.worker("cpu0").serve(), two.worker("cpu1").serve()
    two.generator.load_loras(two.files[:2])
    for worker, refused in ((first, 1), (second, 0)):
        for _ in range(2):
            order = worker.hear_keep()
            if order.sha256 == two.hashes[refused]:
                worker.refuse(order, "error", "busy", two.hashes[1 - refused])
            else:
                worker.keep(order, order.sha256)
    two.backend.let_the_engine_act()
    two.draw(1, 0)
    assert first.hear_lease().lora_sha256 == two.hashes[0]
    assert second.hear_lease().lora_sha256 == two.hashes[1]


def test_a_pinned_lora_is_read_again_by_each_worker_that_takes_its_place(world: World) -> None:
    worker = world.worker().serve()
    world.generator.load_loras(world.files[0], pin=True)
    order = worker.hear_keep()
    assert order.way == "pin"
    worker.keep(order, order.sha256)
    wait_until(lambda: world.known().workers == ("cpu0",), "the LoRA")
    job = world.draw(0)
    worker.hear_lease()
    worker.die(-signal.SIGKILL)
    again = world.worker(incarnation=2).serve()
    assert again.hear_keep() == order
    assert world.known().pinned and not world.known().workers
    again.keep(order, order.sha256)
    again.finish(again.hear_lease(), loras=world.hashes[:1])
    assert job.results()[0].success
    assert not world.known().problems


def test_a_lora_that_is_only_loaded_goes_with_its_worker(world: World) -> None:
    worker = world.worker().serve()
    world.generator.load_loras(world.files[0])
    worker.keep(worker.hear_keep(), world.hashes[0])
    wait_until(lambda: world.lora(), "the LoRA")
    worker.die()
    world.worker(incarnation=2).serve()
    world.backend.let_the_engine_act()
    assert not world.worker(incarnation=2).has_mail and world.lora() is None


def test_what_a_worker_was_not_told_before_its_death_its_successor_is_told(world: World) -> None:
    worker = world.worker().serve()
    world.generator.load_loras(world.files[2])
    worker.keep(worker.hear_keep(), world.hashes[2])
    job = world.generator.submit([{"prompt": "x"}])
    lease = worker.hear_lease()
    world.generator.load_loras(world.files[0])
    world.generator.load_loras(world.files[1], pin=True)
    world.generator.unload_loras(world.files[2])
    worker.die()
    again = world.worker(incarnation=2).serve()
    orders = [again.hear_keep()]
    again.keep(orders[0], world.hashes[0])
    orders.append(again.hear_keep())
    again.keep(orders[1], *world.hashes[:2])
    assert [(order.sha256, order.way) for order in orders] == [
        (world.hashes[0], "load"),
        (world.hashes[1], "pin"),
    ]
    lease = again.hear_lease()
    again.finish(lease, loras=world.hashes[:2])
    assert job.results()[0].success
    assert world.known(0).workers == world.known(1).workers == ("cpu0",)


def test_a_load_in_hand_goes_to_the_successor_of_a_worker_that_died_of_something_else(
    world: World,
) -> None:
    worker = world.worker().serve()
    world.generator.load_loras(world.files[0])
    worker.hear_keep()
    worker.die(blameless=True)
    again = world.worker(incarnation=2).serve()
    assert again.hear_keep().sha256 == world.hashes[0]


def test_a_load_for_a_worker_that_comes_no_more_is_told_as_missing(tmp_path: Path) -> None:
    world = World(tmp_path, 2, supervision={"restarts_before_retirement": 1})
    try:
        first, _ = world.worker().serve(), world.worker("cpu1").serve()
        world.generator.load_loras(world.files[0])
        first.hear_keep()  # cpu1 does not answer either, so both stay with the first order
        world.generator.load_loras(world.files[1])
        world.backend.refusals = [OSError("no process to spare")] * 4
        first.die(blameless=True)
        found = wait_until(lambda: world.lora(1), "the answer")
        assert found.problems == {"cpu0": "the worker was given up before it had loaded it"}
    finally:
        world.end()


def test_a_load_that_ends_with_its_worker_is_told_until_a_task_brings_the_lora(
    world: World,
) -> None:
    worker = world.worker().serve()
    world.generator.load_loras(world.files[0])
    worker.hear_keep()
    worker.die(-signal.SIGKILL)
    again = world.worker(incarnation=2).serve()
    world.backend.let_the_engine_act()
    assert not again.has_mail
    assert "died while it loaded it" in world.known().problems["cpu0"]
    job = world.draw(0)
    again.finish(again.hear_lease(), loras=world.hashes[:1])
    assert job.results()[0].success
    assert world.known().workers == ("cpu0",) and not world.known().problems


def test_an_unloaded_lora_is_pinned_no_more_even_if_its_file_is_gone(world: World) -> None:
    worker = world.worker().serve()
    world.generator.load_loras(world.files[:2], pin=True)
    for number in range(2):
        worker.keep(worker.hear_keep(), *world.hashes[: number + 1])
    wait_until(lambda: world.lora(1) and world.known(1).workers, "the LoRAs")
    world.files[0].unlink()
    world.generator.unload_loras("style0.safetensors")
    order = worker.hear_keep()
    assert (order.sha256, order.way) == (world.hashes[0], "unload")
    worker.keep(order, world.hashes[1])
    wait_until(lambda: world.lora(0) is None, "its end")
    worker.die()
    again = world.worker(incarnation=2).serve()
    order = again.hear_keep()
    again.keep(order, order.sha256)
    world.backend.let_the_engine_act()
    assert order.sha256 == world.hashes[1] and not again.has_mail


def test_more_loras_than_the_cache_has_places_are_refused_before_anybody_is_told(
    world: World,
) -> None:
    worker = world.worker().serve()
    with pytest.raises(InputError, match=r"keeps 4 LoRAs .*max_resident_loras.* these 5 do not"):
        world.generator.load_loras(world.files, pin=True)
    world.generator.load_loras(world.files[:3], pin=True)
    with pytest.raises(InputError, match="these 2 do not fit beside the 3 that are pinned"):
        world.generator.load_loras(world.files[3:])
    world.generator.load_loras(world.files[1:4])
    ways = []
    for _ in range(4):
        order = worker.hear_keep()
        ways.append(order.way)
        worker.keep(order)
    assert sorted(ways) == ["load", "pin", "pin", "pin"], "what is pinned stays so"


def test_what_cannot_be_asked_for_is_said_at_once(world: World, tmp_path: Path) -> None:
    no_lora = tmp_path / "notes.safetensors"
    no_lora.write_bytes(b"x")
    for wrong, why in (
        ("nowhere.safetensors", "'nowhere.safetensors' is not a file .looked in"),
        (str(no_lora), "notes.safetensors .*safetensors"),
    ):
        with pytest.raises(LoraError, match=why):
            world.generator.load_loras(wrong)
    for role, why in (("score", "have no LoRAs"), ("sing", "no tasks of the kind 'sing'")):
        for call in (world.generator.load_loras, world.generator.unload_loras):
            with pytest.raises(InputError, match=why):
                call(world.files[0], role=role)
    world.generator.unload_loras("nowhere.safetensors")  # nobody holds it: that is what was asked


def test_for_a_model_that_nobody_has_loras_can_be_pinned_and_no_more(tmp_path: Path) -> None:
    world = World(tmp_path, editor={"model": "simulated"})
    try:
        with pytest.raises(InputError, match="No worker has the model to edit with"):
            world.generator.load_loras(world.files[0], role="edit")
        world.generator.load_loras(world.files[0], pin=True, role="edit")
        drawing = world.worker().serve()
        assert not drawing.has_mail
        world.edit()
        assert isinstance(drawing.hear(), Stop)
        drawing.die(0)
        editing = world.worker(incarnation=2).serve()
        assert editing.spec.role == "edit" and editing.hear_keep().sha256 == world.hashes[0]
    finally:
        world.end()


def test_what_was_asked_of_one_model_is_not_asked_of_another(tmp_path: Path) -> None:
    """No worker could be started for the one, which is given up; then one can for the other."""
    rules = {"restarts_before_retirement": 1}
    world = World(tmp_path, ready=False, editor={"model": "simulated"}, supervision=rules)
    try:
        world.generator.load_loras(world.files[0])
        world.backend.refusals = [OSError("no process to spare")] * 4
        world.backend.becomes_ready()
        wait_until(lambda: "no process to spare" in str(world.given_up), "the end of its tries")
        with pytest.raises(InputError, match="No worker is left"):
            world.generator.load_loras(world.files[0], pin=True)
        world.edit()
        worker = world.worker().serve()
        assert worker.spec.role == "edit"
        worker.hear_lease()
    finally:
        world.end()


# -- what goes wrong ---------------------------------------------------------------------------


def test_a_lora_that_does_not_fit_is_told_and_costs_no_worker(world: World) -> None:
    worker = world.worker().serve()
    world.generator.load_loras(world.files[0], pin=True)
    worker.refuse(worker.hear_keep(), "lora", "style0 does not fit")
    job = world.generator.submit([{"prompt": "x"}])
    worker.finish(worker.hear_lease())
    assert job.results()[0].success
    assert world.known().problems == {"cpu0": "style0 does not fit"} and not world.known().pinned
    [line] = world.lines
    assert "ERROR LoRA style0 is pinned no more: cpu0: style0 does not fit" in line
    world.generator.load_loras(world.files[0])  # asked for anew, nothing is known against it
    assert world.lora() is None
    worker.keep(worker.hear_keep(), world.hashes[0])
    wait_until(lambda: world.known().workers, "the LoRA")


def test_a_worker_without_memory_for_a_pinned_lora_goes_on_without_it(two: World) -> None:
    first, second = two.worker("cpu0").serve(), two.worker("cpu1").serve()
    two.generator.load_loras(two.files[0], pin=True)
    first.refuse(first.hear_keep(), "out_of_memory", "Out of memory: 1 GiB")
    second.keep(second.hear_keep(), two.hashes[0])
    wait_until(lambda: two.known().workers == ("cpu1",), "the LoRA")
    assert two.known().pinned and two.known().problems == {"cpu0": "Out of memory: 1 GiB"}
    first.die()
    again = two.worker("cpu0", 2).serve()
    again.keep(again.hear_keep(), two.hashes[0])
    wait_until(lambda: two.known().workers == ("cpu0", "cpu1"), "the LoRA")
    assert not two.known().problems


def test_a_pin_that_a_worker_drops_for_want_of_memory_is_told(world: World) -> None:
    worker = world.worker().serve()
    world.generator.load_loras(world.files[0], pin=True)
    worker.keep(worker.hear_keep(), world.hashes[0])
    job = world.generator.submit([{"prompt": "x"}])
    worker.finish(worker.hear_lease())  # which says that no LoRA is there
    assert job.results()[0].success
    assert world.known().pinned and not world.known().workers
    assert "the worker let it go" in world.known().problems["cpu0"]


def test_a_crash_over_a_pinned_lora_ends_the_pin_and_not_the_worker(two: World) -> None:
    first, second = two.worker("cpu0").serve(), two.worker("cpu1").serve()
    two.generator.load_loras(two.files[0], pin=True)
    second.keep(second.hear_keep(), two.hashes[0])
    first.hear_keep()
    first.die(-signal.SIGSEGV)
    again = two.worker("cpu0", 2).serve()
    released = second.hear_keep()
    assert released.way == "load", "where it is held, others may displace it now"
    second.keep(released, two.hashes[0])
    job = two.generator.submit([{"prompt": f"{n}"} for n in range(2)])
    for worker in (again, second):
        worker.finish(worker.hear_lease())
    assert [r.status for r in job.results()] == ["done"] * 2
    assert not two.known().pinned and "SIGSEGV" in two.known().problems["cpu0"]
    [line] = [line for line in two.lines if "pinned no more" in line]
    assert "cpu0 died over it: its process was ended by SIGSEGV" in line


def test_a_pin_outlives_kills_by_somebody_else_but_not_three_in_a_row(world: World) -> None:
    world.generator.load_loras(world.files[0], pin=True)
    for incarnation in (1, 2):
        worker = world.worker(incarnation=incarnation).serve()
        worker.hear_keep()
        worker.die(-signal.SIGKILL)
    worker = world.worker(incarnation=3).serve()
    worker.keep(worker.hear_keep(), world.hashes[0])
    wait_until(lambda: world.known().workers, "the LoRA")
    worker.die(-signal.SIGKILL)
    for incarnation in (4, 5, 6):
        worker = world.worker(incarnation=incarnation).serve()
        worker.hear_keep()
        worker.die(-signal.SIGKILL)
    worker = world.worker(incarnation=7).serve()
    job = world.generator.submit([{"prompt": "x"}])
    worker.finish(worker.hear_lease())
    assert job.results()[0].success and not world.known().pinned


def test_a_load_that_hangs_is_ended_at_its_deadline(hasty: World) -> None:
    worker = hasty.worker().serve()
    hasty.generator.load_loras(hasty.files[1])
    worker.keep(worker.hear_keep(), hasty.hashes[1])  # so it is known how long one takes
    job = hasty.generator.submit([{"prompt": "x"}])
    lease = worker.hear_lease()
    hasty.generator.load_loras(hasty.files[0], pin=True)
    hasty.backend.let_the_engine_act()
    worker.draw(lease, loras=hasty.hashes[1:2])
    worker.hear_keep()
    worker.save(lease)  # the end of this gives it no more time
    wait_until(lambda: worker.killed, "its end")
    assert job.results()[0].success
    hasty.worker(incarnation=2).serve()
    hasty.backend.let_the_engine_act()
    assert not hasty.worker(incarnation=2).has_mail and not hasty.known().pinned
    assert "loading it took longer than allowed" in hasty.known().problems["cpu0"]
    assert [line for line in hasty.lines if "cpu0: loading a LoRA took longer than allo" in line]


def test_a_lost_device_is_not_the_loras_fault_at_once(world: World) -> None:
    world.generator.load_loras(world.files[0], pin=True)
    worker = world.worker().serve()
    order = worker.hear_keep()
    last = Kept(order.sha256, 0.1, kind="device", error="The device failed: CUDA error")
    worker.die(3, last)
    again = world.worker(incarnation=2).serve()
    assert again.hear_keep() == order
    again.keep(order, order.sha256)
    wait_until(lambda: world.known().workers, "the LoRA")
    assert world.known().pinned


def test_a_picture_that_is_saved_meanwhile_is_not_blamed_for_a_hang(hasty: World) -> None:
    worker = hasty.worker().serve()
    hasty.generator.load_loras(hasty.files[1])
    worker.keep(worker.hear_keep(), hasty.hashes[1])
    job = hasty.generator.submit([{"prompt": "x"}])
    lease = worker.hear_lease()
    hasty.generator.load_loras(hasty.files[0])
    hasty.backend.let_the_engine_act()
    worker.draw(lease)
    worker.hear_keep()
    wait_until(lambda: worker.killed, "its end")
    again = hasty.worker(incarnation=2).serve()
    again.finish(again.hear_lease())
    assert job.results()[0].success, (
        "it was counted as the task's failure, of which one is too many"
    )


def test_a_worker_that_is_to_leave_finishes_its_load_first(world: World) -> None:
    worker = world.worker().serve()
    world.generator.load_loras(world.files[:2])
    order = worker.hear_keep()
    world.generator.drain("cpu0")
    world.backend.let_the_engine_act()
    assert not worker.has_mail
    worker.keep(order, order.sha256)
    assert isinstance(worker.hear(), Stop)
    worker.die(0)
    world.generator.undrain("cpu0")
    again = world.worker(incarnation=2)
    again.say(Ready(again.pid, "stub", "STUB", None, 0.0))
    assert isinstance(again.hear(), Load)
    again.say(Loaded("Stub", 0.0))
    world.backend.let_the_engine_act()
    assert not again.has_mail, "what was only to be loaded went with its worker"
