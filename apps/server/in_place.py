"""Files of this machine that its own user names by their path, and that are read where they lie."""

import os

from apps.server.task_requests import LoraNames, Pictures
from core.worker_spec import Role


class PicturesInPlace:
    """Pictures by absolute path; and in every way in which others name them.

    What cannot be read is said by the engine, as to everybody who runs it.
    """

    def __init__(self, others: Pictures) -> None:
        self._others = others

    async def resolve(self, caller: str, reference: str, param: str) -> str:
        if os.path.isabs(reference) and os.path.exists(reference):
            return reference
        return await self._others.resolve(caller, reference, param)


class LorasInPlace:
    """LoRAs by absolute path, or by name."""

    def __init__(self, others: LoraNames) -> None:
        self._others = others

    def resolve(self, name: str, param: str, kind: Role) -> str:
        return name if os.path.isabs(name) else self._others.resolve(name, param, kind)
