"""The LoRAs that operators have pinned, in a file, so that the daemon's next process has them, too.

It says what is wanted: a LoRA that did not come to be pinned is tried again by the next process.
"""

import asyncio
import json
from pathlib import Path

from loguru import logger
from pydantic import TypeAdapter, ValidationError

from apps.server.errors import ApiError
from apps.server.loras import Loras
from core import MultiGPUImageGenerator
from core.errors import MultiGPUError
from core.store.outputs import write_atomically
from core.worker_spec import Role

FILE = "pinned-loras.json"
_FORM = TypeAdapter(dict[Role, list[str]])


class PinnedLoras:
    """Names of pinned LoRAs by kind of task.

    Args:
        folder: the daemon's.

    Attributes:
        changing: held from what workers are told of pins until that is noted, so that the file
            says what was told last.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self.changing = asyncio.Lock()
        self._ending = False
        self._restoring: asyncio.Task[None] | None = None

    def note(self, kind: Role, name: str, pinned: bool) -> None:
        """Note that a LoRA is pinned, or is not any more; it waits for the disk.

        Raises:
            StorageError: the disk refuses it.
        """
        known = self._read()
        names = [other for other in known.get(kind, []) if other != name]
        changed = {**known, kind: [*names, name] if pinned else names}
        if changed != known:
            write_atomically(self._file, json.dumps(changed, ensure_ascii=False, indent=1))

    def restore(self, generator: MultiGPUImageGenerator, loras: Loras) -> asyncio.Task[None]:
        """Pin what the process before had pinned, in the background."""
        self._restoring = asyncio.create_task(self._restore(generator, loras))
        return self._restoring

    async def end(self) -> None:
        """Pin nothing more; on return nothing is about to be pinned."""
        self._ending = True
        if self._restoring is not None:
            await self._restoring

    async def _restore(self, generator: MultiGPUImageGenerator, loras: Loras) -> None:
        for kind, names in (await asyncio.to_thread(self._read)).items():
            for name in names:
                async with self.changing:
                    if not self._ending:
                        await asyncio.to_thread(self._pin_again, kind, name, generator, loras)

    def _pin_again(
        self, kind: Role, name: str, generator: MultiGPUImageGenerator, loras: Loras
    ) -> None:
        if name not in self._read().get(kind, ()):
            return  # somebody has unloaded it meanwhile
        try:
            generator.load_loras(loras.resolve(name, "name", kind), True, kind)
        except (ApiError, MultiGPUError) as error:
            logger.warning(f"LoRA {name} is not pinned again to {kind} with: {error}")
        except Exception:
            logger.exception(f"LoRA {name} is not pinned again; this is a defect.")

    def _read(self) -> dict[Role, list[str]]:
        try:
            return _FORM.validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError) as error:
            logger.warning(f"Pinned LoRAs are forgotten: {self._file} cannot be read ({error}).")
            return {}
