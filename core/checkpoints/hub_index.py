"""The index of a model on the hub, from the cache or by small requests; weights stay there.

Asked before workers start. A hub that does not answer in time, or refuses, is no failure here:
the need is not known then, and whoever loads the model meets the reason and says it.
"""

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi, get_session, get_token, hf_hub_url, try_to_load_from_cache
from huggingface_hub.constants import is_offline_mode

from core.checkpoints.checkpoint import (
    MAX_JSON_BYTES,
    Checkpoint,
    checkpoint_of_folder,
    component_of,
    is_whole,
    judge_checkpoint,
    parts_of,
)
from core.checkpoints.safetensors_header import LENGTH_BYTES
from core.checkpoints.weights import Tensor, chosen_files, tensors_in
from core.index_files import MODEL_INDEX, PIPELINE_INDEX

REQUEST_TIMEOUT = 5.0  # seconds for one answer
WHOLE_TIMEOUT = 20.0  # seconds for all of them
AT_ONCE = 8  # requests
FIRST_BYTES = 100_000  # of a safetensors file: its header is mostly smaller


def checkpoint_of_hub(
    name: str,
    revision: str | None,
    variant: str | None,
    index_file: str = PIPELINE_INDEX,
    ask: bool = True,
) -> Checkpoint | None:
    """The checkpoint of a hub's model; None where neither cache nor hub tells.

    Args:
        ask: the hub, where the cache does not have the whole model.
    """
    cached = _cached(name, revision, variant, index_file)
    if cached is not None or not ask or is_offline_mode():
        return cached
    try:
        return _Questions(name, revision, variant).ask(index_file)
    except Exception:  # whatever a network, a proxy and strangers' files come to
        return None


def _cached(
    name: str, revision: str | None, variant: str | None, index_file: str
) -> Checkpoint | None:
    """Read a model's index from the cache, if the whole model is there."""
    try:
        found = try_to_load_from_cache(name, index_file, revision=revision)
    except ValueError:  # no name that a hub knows
        return None
    return checkpoint_of_folder(Path(found).parent, variant) if isinstance(found, str) else None


class _Questions:
    """A model's questions to the hub, each with a limit of its own and all with one."""

    def __init__(self, name: str, revision: str | None, variant: str | None) -> None:
        self._name = name
        self._revision = revision
        self._variant = variant

    def ask(self, index_file: str) -> Checkpoint | None:
        info = HfApi().model_info(self._name, revision=self._revision, timeout=REQUEST_TIMEOUT)
        self._revision = info.sha or self._revision  # the same for all that follows
        names = [sibling.rfilename for sibling in info.siblings or []]
        if index_file == PIPELINE_INDEX:
            return self._pipeline(names)
        files = self._files(names, "")
        answers = self._all([(self._json, MODEL_INDEX), *((self._tensors, f) for f in files)])
        tensors = [tensor for answer in answers[1:] for tensor in answer]
        return judge_checkpoint(answers[0], tensors) if tensors else None

    def _pipeline(self, names: list[str]) -> Checkpoint | None:
        index = self._json(PIPELINE_INDEX)
        classes = parts_of(index)
        files = {part: self._files(names, part) for part in classes}
        if not is_whole(files):
            return None
        files = {part: of_part for part, of_part in files.items() if of_part}
        questions: list[tuple[Callable[[str], Any], str]] = []
        for part, of_part in files.items():
            questions.append((self._json, f"{part}/config.json"))
            questions += [(self._tensors, file) for file in of_part]
        answers = iter(self._all(questions))
        components = []
        for part, of_part in files.items():
            config = next(answers)
            tensors = [tensor for _ in of_part for tensor in next(answers)]
            components.append(component_of(part, classes[part], tensors, config))
        return Checkpoint(str(index.get("_class_name", "")), tuple(components))

    def _files(self, names: list[str], folder: str) -> list[str]:
        start = f"{folder}/" if folder else ""
        inside = [n[len(start) :] for n in names if n.startswith(start)]
        inside = [n for n in inside if "/" not in n]
        return [start + name for name in chosen_files(sorted(inside), self._variant)]

    def _all(self, questions: list[tuple[Callable[[str], Any], str]]) -> list[Any]:
        """The answers to questions that are asked side by side.

        Raises:
            TimeoutError: they took too long together.
        """
        executor = ThreadPoolExecutor(AT_ONCE)
        try:
            return list(executor.map(_answer, questions, timeout=WHOLE_TIMEOUT))
        finally:
            executor.shutdown(wait=False, cancel_futures=True)

    def _json(self, file: str) -> Mapping[str, Any]:
        found = json.loads(self._start_of(file, MAX_JSON_BYTES))
        return found if isinstance(found, dict) else {}

    def _tensors(self, file: str) -> list[Tensor]:
        """Read the tensors' names and sizes from the header of a safetensors file on the hub."""
        start = self._start_of(file, FIRST_BYTES)
        end = LENGTH_BYTES + int.from_bytes(start[:LENGTH_BYTES], "little")
        if end > MAX_JSON_BYTES:
            raise ValueError(f"{file} is no safetensors file")
        if len(start) < end:
            start = self._start_of(file, end)
        return list(tensors_in(json.loads(start[LENGTH_BYTES:end])))

    def _start_of(self, file: str, size: int) -> bytes:
        """At most `size` bytes; a server that knows no ranges would send all: it is hung up on."""
        headers = {"Range": f"bytes=0-{size - 1}"}
        if token := get_token():
            headers["Authorization"] = f"Bearer {token}"
        url = hf_hub_url(self._name, file, revision=self._revision)
        timeout = httpx2.Timeout(REQUEST_TIMEOUT)
        with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
            response.raise_for_status()
            found = bytearray()
            for chunk in response.iter_bytes():
                found += chunk
                if len(found) >= size:
                    break
            return bytes(found[:size])


def _answer(question: tuple[Callable[[str], Any], str]) -> Any:
    ask, file = question
    return ask(file)
