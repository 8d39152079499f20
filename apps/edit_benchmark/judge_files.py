"""Whether the judge's model can be had, for a dry run.

A run edits in any case, warns early, and has its scores from the same command another time.
"""

from contextlib import suppress

from core.checkpoints.hub_state import state_of
from core.devices.model_choice import ModelChoice, is_hub_model
from core.index_files import MODEL_INDEX


def missing_files(model: ModelChoice) -> str | None:
    """Why the judge could not load its model; None where it can, or is said to be downloadable.

    A model of which anything is in the cache is left to the judge: its own library knows best
    which files it needs.
    """
    name = model.base_model or model.path_or_id
    if not model.has_files or not is_hub_model(name):
        return None
    if _is_begun(name, model.revision):
        return None
    state = state_of(name, model.revision, model.variant, MODEL_INDEX)
    if state.kind in ("cached", "download"):
        return None
    if state.kind == "refused":
        return f"judge.model: {name}: {state.why}"
    return (
        f"judge.model: {name} is not in the cache, and {state.why.rstrip('.')}. Run it again when "
        f"the hub answers, or `hf download {name}` first."
    )


def _is_begun(name: str, revision: str | None) -> bool:
    from huggingface_hub import try_to_load_from_cache

    with suppress(ValueError):  # no name that a hub knows
        return isinstance(try_to_load_from_cache(name, MODEL_INDEX, revision=revision), str)
    return False
