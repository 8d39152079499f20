"""The daemon does what its OpenAPI document says, and says all that it does: schemathesis asks.

It reads the document, sends what is allowed there and what is not, and follows ids from answer to
request; each answer must have a status, a type, a body and events as the document has them.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from torch import zeros

from apps.server.safety.keys import FILE_NAME, add_key
from tests.chaos.scale import FULL
from tests.conftest import PYTHONPATH, wait_until
from tests.server.conftest import Daemon, finished
from tests.server.in_process import OTHERS, Application, data_url

SETTINGS = Path(__file__).with_name("schemathesis.toml")
# What covers the borders of each operation's schemas, and what follows ids from answer to request;
# random examples of each operation are many, or not worth their time.
PHASES = "coverage,stateful,fuzzing" if FULL else "coverage,stateful"
EXAMPLES = 200 if FULL else 1
PATIENCE = 3 * 3600 if FULL else 600  # seconds
SMALL = {"width": 64, "height": 64, "num_inference_steps": 1}
METHODS = ("get", "put", "post", "delete", "patch", "head")


class Checked:
    """A daemon with API keys, and one of everything that its routes are about."""

    def __init__(self, folder: Path) -> None:
        loras = folder / "loras"
        loras.mkdir()
        save_file(
            {"unet.a.lora_A.weight": zeros(4, 8), "unet.a.lora_B.weight": zeros(8, 4)},
            loras / "ink.safetensors",
        )
        server = {"images": {"max_pixels": 65536}}
        self.daemon = Daemon(folder, server=server, lora_dir=str(loras), **OTHERS)
        self.daemon.output.mkdir()
        file = self.daemon.output / FILE_NAME
        self.key = add_key(file, "alice")
        self.operator_key = add_key(file, "root", operator=True)
        self.folder = folder

    def fill(self) -> None:
        """Start it and have something done, as `alice`."""
        self.daemon.start("--cpu-workers", "2")
        headers = {"Authorization": f"Bearer {self.key}"}
        with self.daemon.client(headers=headers) as client:
            tasks = [
                {"prompt": "a red house", **SMALL},
                {"instruction": "make it blue", "source_images": [data_url()], **SMALL},
                {"prompt": "", **SMALL},
            ]
            job = client.post("/v1/jobs", json={"tasks": tasks}).json()["id"]
            finished(client, job)
            asked = {"prompt": "a house", "size": "64x64", "response_format": "url"}
            drawn = client.post("/v1/images/generations", json=asked).raise_for_status().json()
            line = {
                "custom_id": "a",
                "method": "POST",
                "url": "/v1/images/generations",
                "body": {"prompt": "a house", "size": "64x64"},
            }
            sent = client.post(
                "/v1/files",
                data={"purpose": "batch"},
                files={"file": ("lines.jsonl", json.dumps(line).encode())},
            )
            batch = {
                "input_file_id": sent.json()["id"],
                "endpoint": line["url"],
                "completion_window": "24h",
            }
            made = client.post("/v1/batches", json=batch).raise_for_status().json()["id"]
            wait_until(
                lambda: client.get(f"/v1/batches/{made}").json()["status"] == "completed",
                "the batch",
            )
            workers = [worker["id"] for worker in client.get("/v1/workers").json()["data"]]
        self._write(
            jobs=[job],
            positions=[0, 1, 2],
            places=[0],
            files=[sent.json()["id"]],
            batches=[made],
            loras=["ink"],
            pictures=[drawn["data"][0]["url"].rpartition("/")[2]],
            workers=workers,
        )

    def _write(self, **dictionaries: list[Any]) -> None:
        parts = [
            f"[dictionaries.{name}]\nvalues = {json.dumps(values)}\n"
            for name, values in dictionaries.items()
        ]
        self.settings = self.folder / "schemathesis.toml"
        self.settings.write_text("\n".join([SETTINGS.read_text("utf-8"), *parts]), "utf-8")

    def ask(self, key: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Have schemathesis ask the daemon as whoever has a key."""
        command = ["--config-file", str(self.settings), "run", f"{self.daemon.url}/openapi.json"]
        return subprocess.run(
            [
                *(sys.executable, "-m", "tests.server.quick_schemathesis"),
                *command,
                *("--header", f"Authorization: Bearer {key}", "--seed", "1", "--no-color"),
                *("--phases", PHASES, "--max-examples", str(EXAMPLES), "--continue-on-failure"),
                *arguments,
            ],
            cwd=self.folder,
            env={**os.environ, "NO_PROXY": "*", "PYTHONPATH": PYTHONPATH},
            text=True,
            capture_output=True,
            timeout=PATIENCE,
        )


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checked]:
    checked = Checked(tmp_path_factory.mktemp("openapi"))
    checked.fill()
    yield checked
    checked.daemon.end()


@pytest.mark.slow
def test_every_answer_is_as_the_document_says(checked: Checked) -> None:
    """A caller like any other asks for all that there is."""
    run = checked.ask(checked.key)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "defect" not in checked.daemon.log
    assert "Traceback" not in checked.daemon.log


@pytest.mark.slow
def test_what_an_operator_does_to_workers_is_as_the_document_says(checked: Checked) -> None:
    run = checked.ask(checked.operator_key, "--include-path-regex", "^/v1/workers")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "defect" not in checked.daemon.log


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    with Application(tmp_path_factory.mktemp("in-process")) as application:
        yield application


def test_the_document_is_complete(application: Application) -> None:
    """Each operation has a name of its own, a word of what it does, and errors in one envelope."""
    with application.client() as client:
        document = client.get("/openapi.json").raise_for_status().json()
    tags = {tag["name"] for tag in document["tags"]}
    operations = [
        operation
        for path in document["paths"].values()
        for method, operation in path.items()
        if method in METHODS
    ]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names)) >= 36
    for operation in operations:
        assert operation["description"], operation["operationId"]
        assert operation["tags"] and set(operation["tags"]) <= tags, operation["operationId"]
        assert "422" not in operation["responses"]
        for status, answer in operation["responses"].items():
            assert answer["content"] and answer["description"], (operation["operationId"], status)
            if int(status) >= 400:
                schema = answer["content"]["application/json"]["schema"]
                assert {"$ref": "#/components/schemas/ErrorEnvelope"} in (
                    schema,
                    *schema.get("anyOf", ()),
                )
    for reference in _references(document):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from _references(each)


def test_a_path_says_all_methods_that_it_has(application: Application) -> None:
    with application.client() as client:
        answer = client.request("PATCH", "/v1/jobs")
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "GET, POST"
    assert answer.json()["error"]["message"] == "Method Not Allowed"


def test_parts_of_a_file_may_be_asked_for_and_impossible_ones_are_refused_as_usual(
    application: Application,
) -> None:
    with application.client() as client:
        content = bytes(range(100))
        sent = client.post(
            "/v1/files", data={"purpose": "vision"}, files={"file": ("a.bin", content)}
        )
        address = f"/v1/files/{sent.json()['id']}/content"
        part = client.get(address, headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, content[10:20])
        beyond = client.get(address, headers={"Range": "bytes=500-"})
        assert beyond.status_code == 416
        assert beyond.headers["Content-Range"] == "bytes */100"
        assert beyond.json()["error"]["code"] == "range_not_satisfiable"
        nonsense = client.get(address, headers={"Range": "bytes=x"})
        assert nonsense.status_code == 400
        assert nonsense.json()["error"]["param"] == "Range"
