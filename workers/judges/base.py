"""What all judges share: their settings, their device, and the form of a verdict."""

import math
from typing import Any

from core.errors import InputError, MultiGPUError
from core.judge import Judge
from core.memory_modes import changes_pixels
from core.model_identity import loaded_as
from core.worker_spec import WorkerSpec
from workers.judges import memory
from workers.judges.lora import merged
from workers.made_with import made_with
from workers.models.base import Log, ModelFamily, Verdict
from workers.spread import load_spread_model
from workers.torch_device import (
    dtype_of,
    freeze,
    identity_of,
    prepare_torch,
    torch_device,
)


class JudgeFamily(ModelFamily):
    """A judge on one worker's device, not loaded yet."""

    def __init__(self, spec: WorkerSpec, log: Log) -> None:
        assert spec.judge is not None
        self.spec = spec
        self.log = log
        self.judge: Judge = spec.judge
        self.device = torch_device(spec)
        self.model: Any = None
        prepare_torch(spec)

    def device_identity(self) -> tuple[str, str]:
        return identity_of(self.device, self.spec)

    def load_model(self, kind: Any, **more: Any) -> Any:
        """The judge's model, in memory as the worker's mode says.

        Args:
            kind: the class of transformers that loads it.
            more: arguments of its `from_pretrained`.
        """
        dtype = dtype_of(self.spec, self.device)
        if self.spec.device_count > 1:
            model = load_spread_model(self.spec, kind, self.log, **more)
        else:
            model = kind.from_pretrained(
                self.spec.model,
                revision=self.spec.revision,
                variant=self.spec.variant,
                dtype=dtype,
                use_safetensors=True,
                **memory.arguments(self.spec, kind, dtype),
                **more,
            )
        for lora in self.spec.model_loras:
            if changes_pixels(self.spec.memory):
                raise InputError(
                    f"judge.lora: it cannot be put into a model in memory mode {self.spec.memory}; "
                    "set judge.memory: full, or an offload mode."
                )
            model = merged(model, lora)
        freeze(model.eval())
        return memory.settle(model, self.spec, dtype, self.device)

    def verdict(
        self,
        scores: dict[str, float] | None,
        calls: list[dict[str, Any]],
        more: dict[str, Any] | None = None,
    ) -> Verdict:
        """Scores, and with them all about the judge that decides them.

        Args:
            more: what else to record of how they were found.

        Raises:
            MultiGPUError: a score is not finite.
        """
        if not all(map(math.isfinite, (scores or {}).values())):
            raise MultiGPUError("The judge computed NaN instead of a score; try dtype float32.")
        loras = self.spec.model_loras
        used = {
            "scores": scores,
            "judge": self.judge.name(self.spec.model_identity),
            "model": self.spec.model_identity,
            **loaded_as(self.spec.variant, self.spec.memory),
            "prompt_hash": self.judge.prompt_hash,
            **({"model_loras": [x.record for x in loras]} if loras else {}),
            **(more or {}),
            **made_with(self.device, self.device_identity()[0]),
        }
        return Verdict(used, {"calls": calls})
