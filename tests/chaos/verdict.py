"""What an attack did and what it found, counted alike for every engine."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Verdict:
    """Counts of one attack.

    Attributes:
        promise: what the attack is meant to break.
        attempts: faults that really happened.
        violations: by kind, what was found against the promise:

            lost        inputs without a terminal record, or done without their picture
            duplicate   records of an input beyond its first
            wrong       records with another outcome than the input deserves
            innocent    quarantined tasks that harm nobody
            unrecorded  results that the ledger does not know, or not as they lie there
            torn        pictures or records that cannot be read whole
            leftover    temporary files
            orphan      processes that outlived their main process by more than the limit
            hang        runs that made no progress for longer than the engine's patience
            rerun       attempts beyond what was in flight when something died
            crash       crashes of a poisonous task beyond the limit
            late        hangs whose worker was not replaced in time
            unpinned    LoRAs that are pinned no more, and harm nobody
            slowed      hangs that took more than a tenth of the other workers' throughput
        log: what the program said in the end, and who outlived it.
    """

    promise: str
    attack: str
    attempts: int = 0
    violations: Counter[str] = field(default_factory=Counter)
    log: str = ""

    def found(self, kind: str, count: int = 1) -> None:
        """Count violations of one kind."""
        if count > 0:
            self.violations[kind] += count
