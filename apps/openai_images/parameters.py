"""The parameters of the Images API that have a meaning here, and their limits."""

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from apps.openai_images.rules import Quality
from core.fields import (
    MAX_SIDE,
    MIN_SIDE,
    MOST_SOURCES,
    Prompt,
    Scale,
    SeedOrRandom,
    Shape,
    Steps,
    Text,
)
from core.fields import Strength as LoraStrength
from core.tasks import MOST_LORAS

MOST_PICTURES = 10  # of one request, as at OpenAI; a job takes more
MOST_PROMPT = 32_000  # characters, as at OpenAI
MOST_IDENTIFIER = 512  # characters
AUTO = "auto"
Format = Literal["png", "webp", "jpeg"]
_SIDES = "([1-9][0-9]{0,4})x([1-9][0-9]{0,4})"
_SIZE = re.compile(_SIDES)

# Parameters that OpenAI has for some of its models. A null is as good as nothing.
_NEVER_MEANT = ("style", "svg", "frame_count", "frame_duration_ms", "complexity", "input_fidelity",
                "markup", "prompt_rewriter")  # fmt: skip


def _named(value: Any) -> Any:
    """A name alone may stand for a LoRA of full strength."""
    return {"name": value} if isinstance(value, str) else value


def _size(value: str) -> str:
    if value == AUTO:
        return value
    found = _SIZE.fullmatch(value)
    if found is None:
        raise ValueError("expected 'auto', or a width and a height like '1024x768'")
    for side in map(int, found.groups()):
        if side % MIN_SIDE:
            raise ValueError(f"width and height must both be divisible by {MIN_SIDE}")
        if side > MAX_SIDE:
            raise ValueError(f"width and height must be at most {MAX_SIDE} pixels")
    return value


def _opaque(value: Any) -> Any:
    if value == "transparent":
        raise ValueError("the models here draw no transparent backgrounds; use 'opaque' or 'auto'")
    return value


class Lora(BaseModel):
    """A LoRA of the server's folder.

    Attributes:
        name: as the server lists it.
        strength: 1.0 is the LoRA as trained, 0.0 is without it.
    """

    model_config = ConfigDict(extra="forbid")

    name: Annotated[Text, Field(min_length=1)]
    strength: LoraStrength = 1.0


class Reference(BaseModel):
    """A picture that a JSON request names instead of sending it: one of the two.

    Attributes:
        image_url: a data URL, or where the server allows it an address.
        file_id: of a file that was sent before.
    """

    model_config = ConfigDict(extra="forbid")

    image_url: Annotated[str, Field(min_length=1)] | None = None
    file_id: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> "Reference":
        if (self.image_url is None) == (self.file_id is None):
            raise ValueError("give either 'image_url' or 'file_id'")
        return self

    @property
    def text(self) -> str:
        """What it says, whichever way it says it."""
        return self.image_url or self.file_id or ""


def _referred(value: Any) -> Any:
    return {"image_url": value} if isinstance(value, str) else value


class ImageParameters(BaseModel):
    """What both kinds of request may say. What is not said is for the model's defaults.

    Attributes:
        meaningless: names that other servers know, and that are refused here.
        model: the name of a served model, or `auto`.
        n: pictures; they get the seeds `seed`, `seed` + 1, ...
        size: `auto`, or width x height in pixels.
        quality: `auto`, or a word that the server's settings give a meaning.
        output_compression: percent of the quality of webp and jpeg; webp at 100 is lossless.
        user, safety_identifier: whom the client draws for; kept with the job.
        partial_images: previews of a picture before it is done, in a stream.
        seed: of the first picture; -1 or nothing for a random one.
        true_cfg_scale: classifier-free guidance, 1.0 = none.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())
    meaningless: ClassVar[tuple[str, ...]] = _NEVER_MEANT

    prompt: Annotated[Prompt, Field(max_length=MOST_PROMPT)]
    model: Annotated[str, Field(max_length=MOST_IDENTIFIER)] = AUTO
    n: Annotated[int, Field(ge=1, le=MOST_PICTURES)] = 1
    size: Annotated[str, AfterValidator(_size), Shape(f"^({AUTO}|{_SIDES})$")] = AUTO
    quality: Literal["auto", Quality] = "auto"
    background: Annotated[Literal["auto", "opaque"], BeforeValidator(_opaque)] = "auto"
    response_format: Literal["b64_json", "url"] = "b64_json"
    output_format: Format = "png"
    output_compression: Annotated[int, Field(ge=0, le=100)] = 100
    user: Annotated[Text, Field(max_length=MOST_IDENTIFIER)] = ""
    safety_identifier: Annotated[Text, Field(max_length=MOST_IDENTIFIER)] = ""
    stream: bool = False
    partial_images: Annotated[int, Field(ge=0, le=3)] = 0

    seed: SeedOrRandom | None = None
    negative_prompt: Annotated[Text, Field(max_length=MOST_PROMPT)] | None = None
    num_inference_steps: Steps | None = None
    guidance_scale: Scale | None = None
    true_cfg_scale: Scale | None = None
    loras: Annotated[
        list[Annotated[Lora, BeforeValidator(_named, json_schema_input_type=Lora | str)]],
        Field(max_length=MOST_LORAS),
    ] = []

    @property
    def sides(self) -> tuple[int, int] | None:
        """Width and height in pixels; None where the model decides."""
        if self.size == AUTO:
            return None
        width, _, height = self.size.partition("x")
        return int(width), int(height)

    @property
    def identifier(self) -> str | None:
        """Whom the client draws for."""
        return self.safety_identifier or self.user or None


class GenerationParameters(ImageParameters):
    """A picture from a prompt. Nothing is moderated here, which both values allow."""

    moderation: Literal["auto", "low"] = "auto"


class EditParameters(ImageParameters):
    """A picture changed as the prompt says; its pictures and mask come beside it, or here.

    Attributes:
        mask: a picture of the first one's size, transparent where that one is to be changed.
    """

    images: (
        Annotated[
            list[
                Annotated[
                    Reference,
                    BeforeValidator(_referred, json_schema_input_type=Reference | str),
                ]
            ],
            Field(min_length=1, max_length=MOST_SOURCES),
        ]
        | None
    ) = None
    mask: (
        Annotated[Reference, BeforeValidator(_referred, json_schema_input_type=Reference | str)]
        | None
    ) = None
