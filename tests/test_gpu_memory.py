"""What a worker may take of its GPUs' memory: a share of one, or the least that several leave."""

from dataclasses import replace

import pytest
import torch

from tests.pretend_gpus import pretend_memory
from tests.test_native_image_generator import spec_for
from workers.batch_limit import BatchLimit
from workers.torch_device import memory_left, prepare_torch

GIB = 1024**3
GPUS = [torch.device("cuda", i) for i in range(2)]


@pytest.mark.parametrize(
    ("share", "most"),
    [(10 * GIB, 9.5), (0, 11.5)],  # as main worked it out; an equal part where NVML says nothing
)
def test_a_worker_of_a_shared_gpu_keeps_to_its_share(
    monkeypatch: pytest.MonkeyPatch, share: int, most: float
) -> None:
    pretend_memory(monkeypatch, [24 * GIB])
    limits: list[float] = []
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda part, device: limits.append(part)
    )
    alone = replace(spec_for("model"), device="cuda")
    prepare_torch(alone)
    assert limits == []
    prepare_torch(replace(alone, sharers=2, memory_share=share))
    assert limits == [pytest.approx(most / 24)]


def test_what_is_left_is_the_share_less_what_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_memory(monkeypatch, [20 * GIB])
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: 0.5)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 6 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 5 * GIB)
    assert memory_left(GPUS[0]) == 5 * GIB  # 4 to come, and 1 in reserve


def test_pictures_at_once_go_by_the_gpu_that_has_the_least_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend_memory(monkeypatch, [80 * GIB, 8 * GIB])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: GIB)
    limit = BatchLimit(GPUS)
    assert limit.pictures(1024) == 1  # nothing is known yet
    limit.begin(1)
    limit.end(1024)
    assert limit.pictures(1024) == 6
    assert BatchLimit([torch.device("cpu")]).pictures(1024) > 100
