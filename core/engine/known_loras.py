"""What is known of a model's LoRAs: where they lie, which are pinned, and where one is missing."""

from collections import Counter, defaultdict
from collections.abc import Collection

from core.lora_paths import name_of

MOST_STRIKES = 3  # deaths of workers while they load a LoRA, before it is given up


class KnownLoras:
    """LoRAs of one model, by their content hashes. All workers of the model hold those pinned.

    Attributes:
        paths: where each LoRA that workers were told of was last found.
        pinned: where those lie that stay in memory.
        problems: by LoRA and worker, why that worker does not hold it as it should.
    """

    def __init__(self) -> None:
        self.paths: dict[str, str] = {}
        self.pinned: dict[str, str] = {}
        self.problems: dict[str, dict[str, str]] = defaultdict(dict)
        self._strikes: Counter[str] = Counter()

    def name(self, sha256: str) -> str:
        """What users call a LoRA."""
        path = self.paths.get(sha256)
        return sha256[:12] if path is None else name_of(path)

    def at(self, paths: Collection[str]) -> set[str]:
        """Whatever was found at these paths, even if that has changed since."""
        known = {**self.paths, **self.pinned}
        return {sha256 for sha256, path in known.items() if path in paths}

    def forget_problems(self, sha256: str) -> None:
        """Give a LoRA another chance."""
        self.problems.pop(sha256, None)
        del self._strikes[sha256]

    def went_well(self, sha256: str, worker: str) -> None:
        """A worker did as it was told."""
        del self._strikes[sha256]
        self._solve(sha256, worker)

    def came(self, hashes: Collection[str], worker: str) -> None:
        """A worker holds LoRAs; all is well with those that are not pinned."""
        for sha256 in self.problems.keys() & hashes:
            if sha256 not in self.pinned:
                self._solve(sha256, worker)

    def starts_anew(self, worker: str) -> None:
        """Nothing is known against a worker that has just loaded its model."""
        for sha256 in list(self.problems):
            if sha256 in self.pinned:
                self._solve(sha256, worker)

    def strike(self, sha256: str, weight: int = 1) -> bool:
        """A worker died while it loaded a LoRA; True if that was once too often."""
        self._strikes[sha256] += weight
        if self._strikes[sha256] < MOST_STRIKES:
            return False
        del self._strikes[sha256]
        return True

    def _solve(self, sha256: str, worker: str) -> None:
        problems = self.problems.get(sha256, {})
        problems.pop(worker, None)
        if not problems:
            self.problems.pop(sha256, None)
