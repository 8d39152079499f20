"""What a run with some settings would use: models, memory mode, devices and workers."""

from collections.abc import Iterator

from apps.doctor.finding import Finding
from core.dry_run.planned import PlannedModel
from core.errors import MultiGPUError
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.settings import Settings
from core.tasks import ROLES
from core.worker_spec import Role


def would_use(settings: Settings) -> Iterator[Finding]:
    """How the models of the settings would be loaded, each with what stands in its way."""
    own = settings.model_copy(update={"use_server": "never"})
    try:
        generator = MultiGPUImageGenerator(config=own, dry_run=True)
        plan = generator.plan([{"prompt": "a red house"}] * len(generator.devices))
    except MultiGPUError as error:
        yield Finding("problem", "generate", str(error))
        return
    yield from (_of_model(model) for model in plan.models)
    for task in plan.unusable:
        yield Finding("problem", "generate", str(task.error))
    for role in ROLES:
        if role != "generate":
            yield _of_role(generator, role)
    workers = settings.workers
    method = {"auto": "forkserver, or spawn where a package would open a GPU"}
    start = method.get(workers.start_method, workers.start_method)
    yield Finding("ok", "workers start", f"{start}.", facts={"start_method": workers.start_method})


def _of_model(model: PlannedModel) -> Finding:
    workers = [worker.name for worker in model.workers]
    facts = {
        "model": model.name,
        "files": model.files,
        "memory": model.memory,
        "needs": dict(model.needs),
        "workers": workers,
    }
    if model.problems:
        return Finding("problem", model.kind, " ".join(model.problems), facts=facts)
    text = f"{model.why} Files: {model.files}. Memory: {model.memory.rstrip('.')}."
    return Finding("ok", model.kind, text, facts=facts)


def _of_role(generator: MultiGPUImageGenerator, role: Role) -> Finding:
    """A model that only runs which edit or score need: where it cannot be used, others can."""
    try:
        model = generator.model_of(role)
    except MultiGPUError as error:
        return Finding("note", role, f"No such task can be done: {error}")
    return Finding("ok", role, model.reason, facts={"model": model.identity.partition("#")[0]})
