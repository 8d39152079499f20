"""Verdicts on edits."""

from collections.abc import Hashable, Sequence

from core.intake.task_kinds import TaskKind, task_kind
from core.lora_stack import CheckedLora
from core.tasks import ScoreTask


@task_kind
class ScoreKind(TaskKind[ScoreTask]):
    """How an edit is judged is a matter of the judge; all of them may be judged together."""

    task = ScoreTask
    needed = "instruction"
    signs = ("edited_image",)
    version = 3
    undeciding = ("more_asks",)
    suffixes = (".json",)
    small_results = True

    def work(self, task: ScoreTask) -> float:
        return float((1 + len(task.source_images)) * (1 + task.more_asks))

    @classmethod
    def group_of(cls, task: ScoreTask, loras: Sequence[CheckedLora]) -> Hashable | None:
        return cls.task.role
