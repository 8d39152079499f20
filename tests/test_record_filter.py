"""Conditions on records: which hold, and what is said of those that are none."""

from typing import Any

import pytest

from apps.record_filter import FAILED, all_hold, read_condition, view_of
from core.errors import InputError
from core.store.ledger_entry import Entry, State


def entry(state: State = "done", **task: Any) -> Entry:
    fields = {"prompt": "A red House", "seed": 7, "metadata": {"mood": "calm"}, **task}
    used = {"model": "demo-model", "num_inference_steps": 8, "width": 64}
    return Entry("k", 0, "t_00", "t_00.png", "f", state, fields, "gpu1", "out of memory", 2.5,
                 used=used)  # fmt: skip


STACK: dict[str, Any] = {"loras": [{"path": "/l/ink.safetensors"}, {"path": "snow.safetensors"}]}


@pytest.mark.parametrize(
    ("text", "record", "holds"),
    [
        ("status=done", entry(), True),
        ("Status = FAILED", entry("failed"), True),
        ("status!=done", entry(), False),
        ("status=unfinished", entry("leased"), True),
        ("failed=yes", entry("quarantined"), True),
        ("prompt~red house", entry(), True),
        ("prompt!~boat", entry(), True),
        ("prompt=a red*", entry(), True),
        ("prompt=a red", entry(), False),
        ("prompt=a [r]ed house", entry(), False),
        ("seed=7", entry(), True),
        ("noise_seed=7.0", entry(), True),
        ("steps=8", entry(), True),
        ("steps>=9", entry(), False),
        ("seconds>2", entry(), True),
        ("elapsed<2", entry(), False),
        ("lora=ink", entry(**STACK), True),
        ("lora=snow.safetensors", entry(**STACK), True),
        ("lora=/l/ink.safetensors", entry(**STACK), True),
        ("lora!=ink", entry(**STACK), False),
        ("lora=wash", entry(lora_path="/l/wash/adapter_model.safetensors"), True),
        ("lora=none", entry(), True),
        ("lora=none", entry(lora_path="ink.safetensors"), False),
        ("worker=gpu*", entry(), True),
        ("error~memory", entry("failed"), True),
        ("metadata.mood=calm", entry(), True),
        ("cfg>1", entry(), False),
        ("model=demo-model", entry(), True),
        ("id=t_0*", entry(), True),
        ("file=*.png", entry(), True),
    ],
)
def test_a_condition_holds_for_what_the_record_says(text: str, record: Entry, holds: bool) -> None:
    assert read_condition(text).holds(view_of(record, {})) is holds


def test_a_task_without_a_record_is_new_and_says_what_it_asks_for() -> None:
    view = view_of(None, {"prompt": "a", "num_inference_steps": "4"}, "x")
    assert all_hold([read_condition("status=new"), read_condition("steps=4")], view)
    assert not FAILED.holds(view) and FAILED.holds(view_of(entry("failed"), {}))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected FIELD=VALUE, like status=failed"),
        ("status", "expected FIELD=VALUE"),
        ("status=", "expected FIELD=VALUE"),
        ("__import__('os')=1", "expected FIELD=VALUE"),
        ("status=faild", "status is one of new, done, failed, quarantined, unfinished"),
        ("colour=red", "'colour' is no field of a record; records have "),
        ("stattus=failed", "'stattus' is no field of a record; did you mean 'status'?"),
        ("xyzzy=1", "records have status, id, prompt"),
        ("seconds>long", "> compares numbers (found 'long')"),
    ],
)
def test_what_is_no_condition_says_what_would_be_one(text: str, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        read_condition(text)
    assert reason in str(caught.value)
