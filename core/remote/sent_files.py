"""Tasks as a daemon is given them: every field said, and their files where it can read them."""

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.intake.admission import Admitted
from core.lora_paths import name_of
from core.remote.server import Server, ServerBusy, ServerLost, ServerRefusal
from core.tasks import fields_of, with_paths

# Names and notes decide nothing, and the result's own text is written here.
_OWN = ("output_path", "task_id", "metadata", "seed_is_random")


class SentFiles:
    """Makes requests of tasks.

    By a socket the daemon reads this machine's files in place. Elsewhere pictures are sent, each
    once, and LoRAs are named: what lies under a name there is checked by its content afterwards.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._sent: dict[str, str] = {}  # ids of files by their content
        self._sending = threading.Lock()

    def request(self, admitted: Admitted, name: str) -> dict[str, Any]:
        """One task of a job.

        Raises:
            ServerLost, ServerBusy, ServerRefusal: a picture cannot be sent.
        """
        task = admitted.task
        if self._server.is_local:
            task = with_paths(task, os.path.abspath)
        else:
            pictures = admitted.contents.pictures
            task = with_paths(task, lambda path: self._elsewhere(path, pictures))
        fields = {k: v for k, v in fields_of(task).items() if k not in _OWN and v is not None}
        loras = fields.pop("loras", ())
        if loras:
            fields["loras"] = [vars(lora) for lora in loras]
            fields.pop("lora_path", None)
        if not fields.get("lora_path"):
            fields.pop("lora_strength", None)
        return {**fields, "kind": task.role, "task_id": name}

    def _elsewhere(self, path: str, pictures: Mapping[str, str]) -> str:
        sha256 = pictures.get(path)
        if sha256 is None:
            return name_of(path)
        with self._sending:
            if sha256 not in self._sent:
                try:
                    data = Path(path).read_bytes()
                except OSError as error:
                    raise ServerRefusal(f"{path} cannot be read: {error.strerror}.", 0) from None
                kept = self._server.upload("/v1/files", "picture", data)
                self._sent[sha256] = str(kept["id"])
            return self._sent[sha256]

    def remove(self) -> None:
        """Have the daemon remove what was sent, as far as it can be reached."""
        for id in self._sent.values():
            try:
                self._server.call("DELETE", f"/v1/files/{id}", timeout=2.0)
            except ServerRefusal:
                continue
            except (ServerLost, ServerBusy):
                return
        self._sent.clear()
