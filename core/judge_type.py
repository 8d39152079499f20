"""What the program has to know of a type of judge; each has a file in `core.judges`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from core.registry import Registry

if TYPE_CHECKING:
    from core.judge_protocol import JudgePrompts


@dataclass(frozen=True)
class JudgeType:
    """One way of judging.

    Attributes:
        served_by: the worker's class, a `workers.models.base.ModelFamily`, as `module:Class`.
        chats: its model is a chat model that is shown pictures and asked the questions of a
            prompt file. Others embed, and have `prompts` that nobody is asked.
        prompts: the names of its scores, where no prompt file says them.
        usual_prompts: the prompt file where the settings name none.
        needs: fields that every call of a prompt file has to set.
        own_settings: fields of the judge's settings that decide scores of this type only.
        new_tokens: of an answer, where that is no matter of settings.
        varies: to ask again may give another answer.
        named_by: settings of which one at least has to name the judge; where there are none,
            `model: auto` is a judge of this type.
        loads: its workers load a model, and need a device. Others ask somebody else's server.
        usual_temperature: at which it is asked where neither settings nor prompt file say it; None
            leaves it to whoever serves the model.
        networks: which models it takes, in words, where they are no chat models.
        packages: optional ones that its workers import: module, and what pip calls it.
        from_zero: its numbers are 0 and above, whatever the prompt file.
    """

    served_by: str
    chats: bool = True
    prompts: "JudgePrompts | None" = None
    usual_prompts: str | None = None
    needs: tuple[str, ...] = ()
    own_settings: frozenset[str] = frozenset()
    new_tokens: int | None = None
    varies: bool = False
    named_by: tuple[str, ...] = ()
    loads: bool = True
    usual_temperature: float | None = 0.0
    networks: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    from_zero: bool = True

    def missing_in(self, prompts: "JudgePrompts") -> str | None:
        """The fields that calls have to set, in words, if one of them does not."""
        if all(getattr(form, name) for form in prompts.forms for name in self.needs):
            return None
        return " and ".join(f"`{name}`" for name in self.needs)


JUDGES: Registry[JudgeType] = Registry("type of judge", "core.judges")
