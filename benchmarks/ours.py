"""This project's engine on simulated devices, for comparison with `benchmarks.peers`."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from loguru import logger
from safetensors.numpy import save_file

from benchmarks.peers import LORA_LOAD, Work
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.tasks import Result

SIDE = 64  # pixels of a picture: device time is a sleep, whatever its size
STEP = 0.001  # seconds


class Engine(AbstractContextManager["Engine"]):
    """Warm workers in a folder of their own; every run is a resumable batch.

    Args:
        resident: LoRAs that a worker keeps.
        loras: how many different ones the tasks may name.
    """

    def __init__(self, workers: int, resident: int = 1, loras: int = 0, **settings: Any) -> None:
        logger.remove()
        self._folder = TemporaryDirectory(prefix="bench-")
        self._loras = [self._lora(number) for number in range(loras)]
        self._runs = 0
        self.generator = MultiGPUImageGenerator(
            workers,
            config={
                "model": "simulated",
                "device": "cpu",
                "workers": {"max_resident_loras": resident},
                "simulated": {
                    "seconds_per_megapixel_step": STEP / (SIDE * SIDE / 1e6),
                    "lora_load_seconds": LORA_LOAD,
                },
                **settings,
            },
            output_dir=self._folder.name,
        )
        self.generator.start()
        self.run([Work(0.5)] * workers)

    def __exit__(self, *_: Any) -> None:
        self.generator.stop()
        self._folder.cleanup()

    def run(self, tasks: Sequence[Work]) -> None:
        """From tasks to published pictures and their records."""
        results = self.results(tasks)
        assert all(r.success for r in results), next(r.error for r in results if not r.success)

    def results(self, tasks: Sequence[Work]) -> list[Result]:
        """The same, whatever becomes of them."""
        self._runs += 1
        return self.generator.generate_batch([self._task(n, work) for n, work in enumerate(tasks)])

    def _task(self, number: int, work: Work) -> dict[str, Any]:
        return {
            "prompt": f"{self._runs}",
            "output_path": f"{self._runs}/{number}.png",
            "width": SIDE,
            "height": SIDE,
            "num_inference_steps": round(work.seconds / STEP),
            "lora_path": None if work.lora is None else self._loras[work.lora],
        }

    def _lora(self, number: int) -> str:
        file = Path(self._folder.name) / f"{number}.safetensors"
        tensor = np.full((1, 1), number, np.float32)
        save_file({"transformer.x.lora_A.weight": tensor}, file)
        return str(file)
