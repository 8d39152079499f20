"""What is simulated: tasks, made piece by piece as the engine has room for them, and devices."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from core.feeding import MOST_WAITING
from core.intake.admission import Admitted
from core.intake.task_kinds import NO_FILES, Contents
from core.store.outputs import OutputPath
from core.tasks import GenerateTask

SIDES = ((512, 512), (1024, 1024), (1536, 1536))  # 0.25, 1 and 2.25 of the work of a megapixel
STEPS = 8
MEGAPIXEL = 1024 * 1024


@dataclass(frozen=True)
class Workload:
    """Pictures of three sizes, each as often as the others.

    Attributes:
        loras: how many different ones the tasks name; 0 for none.
        poison: tasks of a million that kill each worker that runs them.
        seed: of sizes and LoRAs.
    """

    tasks: int
    loras: int = 0
    poison: int = 0
    seed: int = 0

    def admitted(self, folder: Path) -> Iterator[Admitted]:
        """The tasks in their order, as admission makes them of a user's input."""
        draw = random.Random(self.seed)
        inside = str(folder)
        files = [Contents(lora=f"{number:064x}") for number in range(1, self.loras + 1)]
        for position in range(self.tasks):
            width, height = draw.choice(SIDES)
            number = draw.randrange(self.loras) if self.loras else None
            name = f"generate_{position:08d}"
            task = GenerateTask(
                prompt=f"house number {position} by the river, in the evening, oil on canvas",
                width=width,
                height=height,
                num_inference_steps=STEPS,
                seed=42 + position,
                lora_path=None if number is None else f"loras/{number}.safetensors",
                output_path=f"{name}.png",
                task_id=name,
            )
            yield Admitted(
                position,
                task,
                name,
                OutputPath(f"{name}.png", inside, f"{name}.png"),
                position.to_bytes(32, "big"),
                NO_FILES if number is None else files[number],
                width * height / MEGAPIXEL,
                "simulated",
                "bfloat16",
            )

    def is_poison(self, position: int) -> bool:
        """Whether the task at a place kills its workers."""
        return position * self.poison % 1_000_000 < self.poison


@dataclass(frozen=True)
class Speeds:
    """Seconds that things take.

    Attributes:
        megapixel: device time of a task of one megapixel.
        jitter: part of it by which a task may take more or less.
        lora: to load one; a device keeps one.
        start: from a worker's start to its first task.
        between_deaths: from one death of a worker to its next, on average; 0 for none.
        slow: part of the devices that is half as fast.
        saving: of a picture, beside the next task.
    """

    megapixel: float = 3.0
    jitter: float = 0.05
    lora: float = 2.0
    start: float = 25.0
    between_deaths: float = 0.0
    slow: float = 0.0
    saving: float = 0.3


@dataclass(frozen=True)
class Case:
    """What is simulated.

    Attributes:
        most_waiting: tasks in memory, at most.
    """

    gpus: int
    workload: Workload
    speeds: Speeds = field(default_factory=Speeds)
    most_waiting: int = MOST_WAITING
