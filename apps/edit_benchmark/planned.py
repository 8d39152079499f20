"""The plan of a benchmark: of its edits, and of the scores that follow them."""

from collections.abc import Sequence
from dataclasses import replace

from apps.edit_benchmark.settings import BenchmarkSettings
from core.dry_run.model_plan import ToDo
from core.dry_run.planner import (
    Standings,
    planned_model,
    planned_task,
    quiet,
    tasks_to_do,
    whole_plan,
)
from core.dry_run.run_plan import RunPlan
from core.intake.plan_summary import PlanSummary
from core.role_model import RoleModel
from core.session import Session

TITLES = ("Plan for edits", "Plan for scores")
USUAL_PICTURES = 2.0  # of a score: the source and the edit


def plan_benchmark(
    edits: Standings,
    summaries: Sequence[PlanSummary],
    roles: Sequence[RoleModel],
    settings: BenchmarkSettings,
    session: Session,
    server: str | None,
    unjudged: str | None,
) -> RunPlan:
    """Plan edits and scores.

    Args:
        edits: how the pairs stand.
        summaries: of edits and of scores.
        roles: what edits, if anything does, and what scores.
        unjudged: why some pairs will have no score; None if all can be judged.
    """
    counts = summaries[1].counts
    to_score = [ToDo(USUAL_PICTURES, suffix=".json")] * (counts.total() - counts["unchanged"])
    to_do = {"edit": tasks_to_do(edits).get("edit", []), "score": to_score}
    served = server is not None
    with quiet():
        models = [
            planned_model(role, to_do[role.role], settings, session, served)
            for role in roles
            if to_do[role.role]
        ]
    plan = whole_plan(
        list(zip(TITLES, summaries, strict=True)),
        [planned_task(*one) for one in edits],
        models,
        session,
        server,
        "pairs",
    )
    return plan if unjudged is None else replace(plan, problems=[*plan.problems, unjudged])
