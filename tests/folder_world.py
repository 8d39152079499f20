"""An output folder in which several batches are admitted and planned, without any worker."""

from pathlib import Path
from typing import Any

from core.checkpoints.lora_files import LoraInspector
from core.intake.admission import Admission
from core.intake.kinds.generate import GenerateKind
from core.intake.planning import Plan, Planner
from core.intake.task_kinds import LoraFinder
from core.settings import load_settings
from core.store.claims import BatchClaims, Claims
from core.store.ledger import Ledger
from core.store.outputs import OutputRoot


class Folder:
    """An output folder in which batches are admitted and planned."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self.root = OutputRoot(folder)
        self.ledger = ledger
        self.claims = Claims()
        self.planner = Planner(ledger, self.root, overwrite=False, retry_quarantined=False)

    def admission(self, claims: BatchClaims, count: int = 1) -> Admission:
        settings = load_settings({})
        first = self.claims.reserve_numbers(count)
        return Admission(
            GenerateKind([settings.defaults], LoraFinder([], LoraInspector())),
            "org/model",
            settings.dtype,
            self.root,
            lambda position: f"image_{first + position:04d}.png",
            settings.seed,
            claims=claims,
        )

    def plan(self, *names: str) -> Plan:
        claims = self.claims.begin()
        admission = self.admission(claims, len(names))
        admitted = [admission.admit(i, task(name)) for i, name in enumerate(names)]
        return self.planner.begin(admitted, claims=claims)


def task(name: str | None) -> dict[str, Any]:
    """A task whose picture has this name, or a default one."""
    return {"prompt": "a", "seed": 1} | ({} if name is None else {"output_path": name})
