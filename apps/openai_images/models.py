"""Models as requests call them."""

import re
from collections.abc import Collection

from apps.openai_images.errors import SERVER, ApiError, bad_value
from core.devices.model_choice import ModelChoice, is_hub_model
from core.worker_spec import Role

DOES = {"generate": "draws pictures", "edit": "edits pictures", "score": "scores edits"}
AUTO = "auto"
_HASH = re.compile(r"#[0-9a-f]{16}$")


def name_of(model: ModelChoice) -> str:
    """What clients call a model: its hub id, or the name of its folder or file."""
    if is_hub_model(model.path_or_id):
        return model.path_or_id
    return _HASH.sub("", model.identity)


def check_model(name: str, role: Role, serving: str, others: Collection[str]) -> None:
    """Refuse a model that is not the one for a kind of task.

    Args:
        name: as a request says it; `auto` for whichever is served.
        serving: the name of the model for the kind of task.
        others: names of all models that are served.

    Raises:
        ApiError: 404 for a model that is not served, 400 for one of another kind of task.
    """
    if name in (AUTO, serving):
        return
    if name in others:
        message = f"The model '{name}' is not the one that {DOES[role]}; that is '{serving}'."
        raise bad_value("model", message, "model_not_supported")
    raise unknown_model(name)


def unknown_model(name: str) -> ApiError:
    """404: no such model is served."""
    return ApiError(
        404,
        f"The model `{name}` does not exist or you do not have access to it.",
        "model_not_found",
        "model",
    )


def no_model(role: Role, why: str) -> ApiError:
    """503: the model for a kind of task cannot be used as it is set."""
    message = f"No model here {DOES[role]}: {why}"
    return ApiError(503, message, "model_unavailable", "model", SERVER)
