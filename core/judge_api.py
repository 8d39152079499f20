"""Settings of a judge that somebody serves over the network, by OpenAI's chat completions API."""

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from core.errors import InputError
from core.fields import Quality
from core.section import Section

Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _http(value: str) -> str:
    address = urlsplit(value)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ValueError("expected an address such as http://127.0.0.1:8000/v1")
    if address.username or address.password or address.query:
        raise ValueError("keys do not belong into the address; name their variable: key_variable")
    return value.rstrip("/")


class ApiSettings(Section):
    """Where a judge is served, and how it is asked; see config/edit_benchmark.yaml."""

    base_url: Annotated[str, AfterValidator(_http)] | None
    key_variable: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")] | None
    concurrency: Annotated[int, Field(ge=1, le=256)]
    requests_per_minute: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    retries: Annotated[int, Field(ge=0, le=100)]
    longest_wait: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    limit_field: Annotated[str, Field(pattern=r"^\w+$")]
    send_seed: bool
    picture_format: Literal["png", "jpeg"]
    picture_quality: Quality
    picture_detail: Literal["low", "high", "auto"] | None
    extra: dict[str, Any]
    price_in: Price | None
    price_out: Price | None

    @property
    def deciding(self) -> dict[str, Any]:
        """What may change an answer; where the judge is served stands in its model's identity."""
        names = {"limit_field", "send_seed", "picture_format", "picture_detail", "extra"}
        lossy = {"picture_quality"} if self.picture_format == "jpeg" else set()
        return self.model_dump(include=names | lossy)

    def key(self, environment: Mapping[str, str] = os.environ) -> str | None:
        """The key that the server asks for, from the environment.

        Raises:
            InputError: the variable that is named is not set, or holds what is no key.
        """
        if self.key_variable is None:
            return None
        key = environment.get(self.key_variable, "").strip()
        if not key:
            raise InputError(
                f"judge.api.key_variable: the environment variable {self.key_variable} is not set; "
                "it has to hold the key of the judge's server."
            )
        if any(not "!" <= letter <= "~" for letter in key):
            raise InputError(
                f"judge.api.key_variable: the environment variable {self.key_variable} holds line "
                "breaks, blanks or letters that no key has; it has to hold the key alone."
            )
        return key

    def cost(self, tokens_in: int, tokens_out: int) -> float | None:
        """What so many tokens cost; None where the settings give no prices."""
        if self.price_in is None and self.price_out is None:
            return None
        return (tokens_in * (self.price_in or 0) + tokens_out * (self.price_out or 0)) / 1e6
