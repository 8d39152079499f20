"""A plan as text: what is to be done, with what, how long it takes, and what is wrong."""

from collections.abc import Iterator

from core.byte_sizes import shown_bytes
from core.dry_run.planned import PlannedLora, PlannedModel, PlannedRun
from core.dry_run.span import Span, shown_seconds
from core.errors import one_line

MOST_LISTED = 20  # unusable inputs, LoRAs
HEAD = "Dry run: nothing is drawn, written, downloaded or started."


def report(plan: PlannedRun) -> str:
    """Everything about a plan, in lines."""
    return "\n".join(_lines(plan))


def _lines(plan: PlannedRun) -> Iterator[str]:
    yield HEAD
    for title, summary in plan.summaries:
        yield summary.line(plan.noun, title)
    for task in plan.unusable[:MOST_LISTED]:
        yield one_line(f"  unusable  {task.task_id}: {task.error}")
    if len(plan.unusable) > MOST_LISTED:
        yield f"  and {len(plan.unusable) - MOST_LISTED} more that cannot be used"
    if plan.folder is not None:
        yield one_line(f"Output folder: {plan.folder}")
    if plan.server is not None:
        yield one_line(
            f"Server: {plan.server} would do the work, and other jobs of it may come in between."
        )
    for model in plan.models:
        yield ""
        yield from _of_model(model)
    if plan.models:
        yield ""
        yield from _totals(plan)
    for note in plan.notes:
        yield one_line(f"Note: {note}")
    yield from _verdict(plan)


def _of_model(model: PlannedModel) -> Iterator[str]:
    tasks = "1 task" if model.tasks == 1 else f"{model.tasks} tasks"
    yield one_line(f"{model.kind.capitalize()}: {tasks}. {model.why}")
    yield one_line(f"  files     {model.files}")
    yield f"  memory    {model.memory}"
    yield from (f"            {line}" for line in model.memory_table.splitlines())
    yield f"  workers   {', '.join(worker.name for worker in model.workers)}"
    for lora in model.loras[:MOST_LISTED]:
        yield one_line(f"  LoRA      {_lora(lora)}")
    if len(model.loras) > MOST_LISTED:
        yield f"            and {len(model.loras) - MOST_LISTED} more"
    if model.loras:
        yield f"            about {model.loads} loads by all workers together"
    if model.working is None:
        yield f"  time      not known before the first results: {model.basis}"
    else:
        loading = f"; loading before, {_seconds(model.loading)}" if model.loading else ""
        yield f"  time      {_seconds(model.working)} for all of them{loading}"
        yield f"            from {model.basis}"
    yield f"  disk      {_bytes(model.bytes)}, from {model.bytes_basis}"


def _lora(lora: PlannedLora) -> str:
    tasks = "1 task" if lora.tasks == 1 else f"{lora.tasks} tasks"
    found = "fits the model's layers" if lora.checked else "its worker says whether it fits"
    return f"{lora.name} for {tasks}: {lora.problem or found}"


def _totals(plan: PlannedRun) -> Iterator[str]:
    seconds = plan.seconds
    if seconds is not None:
        first = " after the download" if any(m.fetch != 0 for m in plan.models) else ""
        yield f"Time: {_seconds(seconds)}{first}."
    free = "" if plan.free is None else f" of {shown_bytes(plan.free)} that are free"
    yield f"Disk: {_bytes(plan.bytes)}{free}."


def _verdict(plan: PlannedRun) -> Iterator[str]:
    problems = plan.all_problems
    for problem in problems:
        yield one_line(f"Problem: {problem}")
    if plan.unusable and not problems:
        if plan.to_do:
            yield "The run would do the others: mend what is unusable, or leave it out."
        elif len(plan.unusable) < len(plan.tasks):
            yield "There is nothing else to do: mend what is unusable, or leave it out."
        else:
            yield "The run would do nothing: mend what is unusable."
    elif problems:
        yield "The run should not start as it is."
    elif not plan.to_do:
        yield "There is nothing to do."
    else:
        yield "Nothing stands in the way of the run."


def _seconds(span: Span | None) -> str:
    if span is None:
        return "not known"
    return _between(*map(shown_seconds, (span.low, span.likely, span.high)))


def _bytes(span: Span) -> str:
    return _between(*map(shown_bytes, (span.low, span.likely, span.high)))


def _between(low: str, likely: str, high: str) -> str:
    return f"about {likely}" if low == high else f"about {likely} ({low} to {high})"
