"""Which tasks one worker may run at once: those for which its model makes one batch.

Small pictures leave a GPU half idle, so batches of them pay; from about 1024 x 1024 on they gain
nothing. Captions of different length are the worker's affair: it alone has the tokenizer.
"""

from collections.abc import Hashable

from core.intake.admission import Admitted
from core.tasks import GenerateTask, ScoreTask

MOST_PIXELS = 512 * 512


def group_of(job: Admitted) -> Hashable | None:
    """Equal for jobs that may run together; None for one that runs alone."""
    task = job.task
    if isinstance(task, ScoreTask):
        return "score"
    if not isinstance(task, GenerateTask) or task.width is None or task.height is None:
        return None
    if task.width * task.height > MOST_PIXELS:
        return None
    return (
        tuple((lora.sha256, lora.strength) for lora in job.loras),
        task.width,
        task.height,
        task.num_inference_steps,
        task.guidance_scale,
        task.cfg,
        task.negative_prompt is None,
    )
