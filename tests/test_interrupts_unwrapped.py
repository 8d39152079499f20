"""A Ctrl-C that comes while a library is at work, which makes an error of its own of it."""

from typing import Any

import pytest
from pydantic import BaseModel, field_serializer

from apps.interrupts import unwrapped


class _Interrupted(BaseModel):
    name: str = "a"

    @field_serializer("name")
    def _written(self, _: str) -> Any:
        raise KeyboardInterrupt


def test_a_ctrl_c_while_settings_are_copied_is_a_ctrl_c() -> None:
    with pytest.raises(KeyboardInterrupt), unwrapped():
        _Interrupted().model_dump()


def test_other_errors_stay_as_they_are() -> None:
    with pytest.raises(ValueError, match="mine"), unwrapped():
        raise ValueError("mine")
