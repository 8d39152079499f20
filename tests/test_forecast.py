"""What may be said of workers' near future."""

from types import SimpleNamespace
from typing import Any

from core.devices.device import Device
from core.engine.forecast import surely_busy_until
from core.engine.task_times import TaskTimes
from core.engine.worker_slot import WorkerSlot
from core.settings import load_settings

START = 100.0  # when the worker began what it runs: ten units of work, of a second each


def attempt(work: float, sent: bool = True) -> Any:
    return SimpleNamespace(admitted=SimpleNamespace(work=work), sent=sent)


def slot_with(running: Any = None, ahead: Any = None) -> WorkerSlot:
    slot = WorkerSlot(Device("cpu", 0, ""))
    slot.busy_since = START
    slot.running = {"now": running} if running else {}
    slot.ahead = {"next": ahead} if ahead else {}
    return slot


def surely_busy(slot: WorkerSlot, elapsed: float, tasks_before: int = 3) -> bool:
    times = TaskTimes(load_settings({}).supervision)
    for _ in range(tasks_before):
        times.learn("cpu0", 1.0, 1.0)
    return START + elapsed + 0.01 < surely_busy_until(slot, times, 0.01)


def test_a_worker_is_busy_through_half_of_what_its_task_should_take() -> None:
    slot = slot_with(attempt(10.0))
    assert surely_busy(slot, elapsed=4.9)
    assert not surely_busy(slot, elapsed=5.0)


def test_a_worker_that_has_its_next_task_is_busy_even_when_the_present_one_ends() -> None:
    assert surely_busy(slot_with(attempt(10.0), attempt(10.0)), elapsed=9.9)
    assert not surely_busy(slot_with(attempt(10.0), attempt(10.0, sent=False)), elapsed=9.9)
    assert not surely_busy(slot_with(attempt(10.0), attempt(0.01)), elapsed=9.9)


def test_a_worker_that_was_not_sent_its_task_yet_is_not_busy() -> None:
    assert not surely_busy(slot_with(attempt(10.0, sent=False)), elapsed=0.0)


def test_nothing_is_sure_of_an_idle_worker_or_of_one_that_is_not_known_yet() -> None:
    assert not surely_busy(slot_with(), elapsed=0.0)
    assert not surely_busy(slot_with(attempt(10.0)), elapsed=0.0, tasks_before=2)
