"""One section of a YAML file as a validated model."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of settings: unknown keys are refused, and what is read does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
