"""Which judge scores. A new one is one new file and one line here."""

from core.worker_spec import WorkerSpec
from workers.models.base import Log, ModelFamily


def create_judge(spec: WorkerSpec, log: Log) -> ModelFamily:
    """The judge for a worker's settings, not loaded yet. Imports only what it needs."""
    assert spec.judge is not None
    match spec.judge.settings.type:
        case "vlm":
            from workers.judges.vlm import VlmJudge

            return VlmJudge(spec, log)
        case "vlm_logits":
            from workers.judges.vlm_logits import VlmLogitsJudge

            return VlmLogitsJudge(spec, log)
        case "clip":
            from workers.judges.clip import ClipJudge

            return ClipJudge(spec, log)
