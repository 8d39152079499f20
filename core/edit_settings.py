"""Settings of the models that edit and score; config/edit_benchmark.yaml holds every default."""

from typing import Self

from core.model_settings import Count, DrawingModel
from core.section import Section
from core.settings import (
    PROJECT_DIR,
    EditDefaults,
    JudgeSettings,
    Matching,
    ModelEditDefaults,
    Settings,
    best_match,
)
from core.settings_file import overlaid

USUAL_PROTOCOL = "default"  # in place of a data set's name
BENCHMARK_FILE = PROJECT_DIR / "config" / "edit_benchmark.yaml"


class EditorSettings(DrawingModel):
    """What edits, and with which fields where a task gives none."""

    defaults: EditDefaults
    model_defaults: list[ModelEditDefaults]

    def layers(self, *models: str) -> list[EditDefaults]:
        """Defaults for the names of a model, the first to count first."""
        return [self.defaults, best_match(self.model_defaults, *models) or EditDefaults()]


class ModelJudgeDefaults(Matching):
    """Judge settings of the models that `match` fits."""

    image_area: int | None = None
    prompts: str | None = None
    max_new_tokens: Count | None = None


class EditModels(Section):
    """The models that edit and judge; see config/edit_benchmark.yaml."""

    editor: EditorSettings
    judge: JudgeSettings
    judge_model_defaults: list[ModelJudgeDefaults]
    judge_protocols: dict[str, str]

    def for_data_set(self, name: str) -> Self:
        """A copy whose usual protocol is the one of a data set, if that has one of its own."""
        protocol = self.judge_protocols.get(name, self.usual_protocol)
        protocols = {USUAL_PROTOCOL: protocol} if protocol else {}
        return self.model_copy(update={"judge_protocols": protocols})

    @property
    def usual_protocol(self) -> str | None:
        """The prompt file where neither settings, nor the judge's type or model, name one."""
        return self.judge_protocols.get(USUAL_PROTOCOL)


def edit_models(settings: Settings) -> EditModels:
    """The models that edit and score: what the user says of them over what is shipped.

    Raises:
        InputError: names the key, the value and what would be right.
    """
    said = {name: getattr(settings, name) for name in EditModels.model_fields}
    given = {name: section for name, section in said.items() if section is not None}
    return overlaid(EditModels, [BENCHMARK_FILE], given)
