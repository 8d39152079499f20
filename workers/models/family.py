"""What a family of models needs beyond what diffusers settles; each has a file in `families`.

Any pipeline of diffusers is served as it is: a family that needs nothing has no file.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from core.registry import Registry
from core.tasks import EditTask

if TYPE_CHECKING:  # what looks a family up need not import torch
    import torch

    from workers.calls import Call
    from workers.prompt_cuts import PromptCuts

PACKAGE = "workers.models.families"


def _nothing(*_: Any) -> None: ...


def _as_it_is(_: Any) -> dict[str, int]:
    return {}


@dataclass(frozen=True)
class Family:
    """Pipelines whose class names begin alike.

    Attributes:
        guidance: `usual` is ComfyUI's formula, uncond + g * (cond - uncond); `offset` is
            cond + g * (cond - uncond); `distilled` takes its guidance as an input of the model.
        prepare: is given the loaded pipeline, and the cuts of prompts to note its own in.
        encoder: the method that encodes prompts, whose results are remembered.
        sequence_length: the pipeline's `max_sequence_length` as an argument; empty where its own
            default is right.
        check_size: raises InputError for a width and height that the model has no positions for.
        encode_alone: the embeddings of one prompt, of pipelines that take a list of such.
        caption_bucket: tokens; captions are filled up to multiples of it.
        set_area: brings an edit's areas to where the pipeline looks for them; None where the
            source itself is brought to the size.
        several_pictures: an editor that looks at several pictures at once.
        mag_ratios: of the cache `mag`, where diffusers has some.
    """

    guidance: Literal["usual", "offset", "distilled"] = "usual"
    prepare: "Callable[[Any, PromptCuts], None]" = _nothing
    encoder: str = "encode_prompt"
    sequence_length: Callable[[Any], dict[str, int]] = _as_it_is
    check_size: Callable[[Any, int, int], None] = _nothing
    encode_alone: "Callable[[Any, str, torch.device], torch.Tensor] | None" = None
    caption_bucket: int = 1
    set_area: Callable[[Any, EditTask], None] | None = None
    several_pictures: bool = False
    mag_ratios: Any = None


@dataclass(frozen=True)
class Denoiser:
    """A class of transformers or UNets.

    Attributes:
        any_length: its captions have many lengths, so its blocks are compiled for any at once.
        step_caches: kinds of `step_cache` that diffusers' code does right with it.
        before_caching: mends what diffusers' caches do not find by themselves.
        apart: puts a forward pass in front of its own that draws captions of different length one
            after the other, for attention that takes no masks.
        other_names: what other programs call its layers; see `workers.lora_aliases`.
        usual_names: others name its layers as diffusers does.
    """

    any_length: bool = False
    step_caches: frozenset[str] = frozenset()
    before_caching: Callable[[], None] = _nothing
    apart: "Callable[[Call], Call] | None" = None
    other_names: Callable[[Any, Mapping[str, Any]], Iterator[Any]] | None = None
    usual_names: bool = False


FAMILIES: Registry[Family] = Registry("family", PACKAGE)
"""By the beginning of the pipelines' class names; the longest that fits counts."""
DENOISERS: Registry[Denoiser] = Registry("denoiser", PACKAGE)
"""By the name of the class."""


def family_of(pipeline_class: str) -> Family:
    fitting = [name for name in FAMILIES if pipeline_class.startswith(name)]
    return FAMILIES[max(fitting, key=len)] if fitting else Family()


def denoiser_of(model: Any) -> Denoiser:
    name = type(model).__name__
    return DENOISERS[name] if name in DENOISERS else Denoiser()
