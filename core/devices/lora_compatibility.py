"""Which LoRA files can be of a chosen model, told by the files of both; nothing is loaded."""

from pathlib import Path

from core.checkpoints.hub_state import state_of
from core.checkpoints.lora_fit import widths_in
from core.devices.model_choice import SIMULATED, ModelChoice, is_hub_model
from core.index_files import PIPELINE_INDEX


def known_widths(model: ModelChoice) -> frozenset[int] | None:
    """Numbers of inputs of a model's layers; None where not all of its files are here.

    Nobody is asked: a hub's model that is not in the cache is not known.
    """
    if model.path_or_id == SIMULATED or not model.has_files:
        return None
    name = model.base_model or model.path_or_id
    own = () if model.base_model is None else (Path(model.path_or_id),)
    if not is_hub_model(name):
        return widths_in((*own, Path(name)))
    folder = state_of(name, model.revision, model.variant, PIPELINE_INDEX, ask=False).folder
    return None if folder is None else widths_in((*own, folder))
