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
    places = []
    name = model.base_model or model.path_or_id
    if model.base_model is not None:
        places.append(Path(model.path_or_id))
    if is_hub_model(name):
        state = state_of(name, model.revision, model.variant, PIPELINE_INDEX, ask=False)
        if state.folder is None:
            return None
        places.append(state.folder)
    else:
        places.append(Path(name))
    return widths_in(places)
