"""What belongs to one API key is nobody else's; the openai client keeps its files."""

import base64
import io
import re
from collections.abc import Iterator
from typing import Any, Literal

import httpx2
import openai
import pytest
from openai import OpenAI
from PIL import Image

from apps.server.safety.keys import FILE_NAME, add_key, revoke_key, rotate_key
from core.remote.server import KEY_VARIABLE
from core.remote.socket_place import FOLDER, NAME
from tests.conftest import Project, simulated, wait_until
from tests.server.batch_files import ended, request, text_of
from tests.server.conftest import Daemon, finished

SECRET = "a lighthouse that nobody may know of"
SMALL = {"width": 64, "height": 64, "num_inference_steps": 1}
LIMITS = {"files_gib_per_key": 0.001, "files_per_key": 3, "inbox_gib": 1}


class Keyed:
    """A daemon with API keys, and whose keys these are."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.file = daemon.output / FILE_NAME
        self.keys = {name: add_key(self.file, name) for name in ("alice", "bob", "carol")}

    def openai(self, name: str) -> OpenAI:
        return OpenAI(
            api_key=self.keys[name],
            base_url=f"{self.daemon.url}/v1",
            max_retries=0,
            http_client=openai.DefaultHttpxClient(trust_env=False, verify=False),
        )

    def client(self, name: str | None) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {self.keys[name]}"} if name else {}
        return self.daemon.client(headers=headers)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    folder = tmp_path_factory.mktemp("keyed")
    speed = {"seconds_per_megapixel_step": 0.01}
    daemon = Daemon(
        folder, editor={"model": "simulated"}, server={"limits": LIMITS}, simulated=speed
    )
    keyed = Keyed(daemon)
    daemon.start().found()
    yield keyed
    daemon.end()


def picture(colour: str = "red") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(stream, "PNG")
    return stream.getvalue()


def test_without_a_key_nothing_is_told(keyed: Keyed) -> None:
    for sent in ({}, {"Authorization": "Bearer sk-wrong"}, {"Authorization": "Basic YTpi"}):
        with keyed.daemon.client(headers=sent) as client:
            for path in ("/v1/files", "/v1/jobs/job_1", "/v1/loras", "/openapi.json", "/nothing"):
                answer = client.get(path)
                assert answer.status_code == 401, path
                assert answer.json()["error"]["code"] == "invalid_api_key"
                assert answer.headers["www-authenticate"] == "Bearer"
    with keyed.client(None) as client:
        assert client.get("/healthz").status_code != 401  # probes have no keys
        assert client.get("/").status_code != 401
    wrong = keyed.openai("alice").with_options(api_key="sk-wrong")
    with pytest.raises(openai.AuthenticationError) as caught:
        wrong.files.list()
    assert caught.value.code == "invalid_api_key"


@pytest.mark.parametrize("key", [None, "sk-wrong"])
def test_who_asks_by_a_url_hears_where_the_key_is_read_from(
    keyed: Keyed, project: Project, key: str | None
) -> None:
    project.write_tweets([{"prompt": "a house"}])
    project.environment = {} if key is None else {KEY_VARIABLE: key}
    refused = project.run(["tweets.json", "--server", keyed.daemon.url], simulated())
    assert refused.process.wait() == 2
    assert f"asks for an API key, which is read from the environment variable {KEY_VARIABLE}" in (
        refused.errors
    )


def test_the_openai_client_keeps_files(keyed: Keyed) -> None:
    client = keyed.openai("carol")
    content = picture()
    made = client.files.create(file=("../../etc/red.png", content), purpose="vision")
    assert (made.filename, made.bytes, made.purpose) == ("red.png", len(content), "vision")
    assert made.status == "processed" and made.expires_at is None
    lines = b'{"custom_id": "1"}\n'
    batch = client.files.create(
        file=("jobs.jsonl", lines),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert batch.expires_at == batch.created_at + 3600
    third = client.files.create(file=("more.jsonl", lines), purpose="batch")
    assert third.expires_at == third.created_at + 30 * 24 * 3600
    assert client.files.retrieve(made.id) == made
    assert client.files.content(batch.id).content == lines
    assert [file.id for file in client.files.list(limit=2)] == [third.id, batch.id, made.id]
    first = client.files.list(order="asc", purpose="batch", limit=1)
    assert first.data == [batch] and first.has_next_page()
    with pytest.raises(openai.RateLimitError) as caught:
        client.files.create(file=("one.jsonl", lines), purpose="batch")
    assert caught.value.code == "storage_quota_exceeded"
    assert client.files.delete(third.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(third.id)
    with pytest.raises(openai.RateLimitError):
        client.files.create(file=("large.jsonl", b"x" * 2_000_000), purpose="batch")
    with pytest.raises(openai.BadRequestError) as unknown:
        client.files.create(file=("a.jsonl", lines), purpose="fine-tune")
    assert unknown.value.param == "purpose"
    for file in (made, batch):
        client.files.delete(file.id)
    assert client.files.list().data == []


def test_events_are_of_ones_own_jobs_alone(keyed: Keyed) -> None:
    with (
        keyed.client("alice") as alice,
        keyed.client("bob") as bob,
        bob.stream("GET", "/v1/events") as stream,
    ):
        lines = stream.iter_lines()
        assert next(lines) == "event: open"
        hers = alice.post("/v1/jobs", json={"tasks": [{"prompt": SECRET, **SMALL}]}).json()["id"]
        finished(alice, hers)
        his = bob.post("/v1/jobs", json={"tasks": [{"prompt": "his", **SMALL}]}).json()["id"]
        seen = ""
        while his not in seen:
            seen += next(lines)
        assert hers not in seen and SECRET not in seen


def test_one_key_sees_nothing_of_another(keyed: Keyed) -> None:
    with keyed.client("alice") as alice, keyed.client("bob") as bob:
        task = {"prompt": SECRET, **SMALL}
        job = alice.post("/v1/jobs", json={"tasks": [task]}).raise_for_status().json()["id"]
        finished(alice, job)
        upload = {"file": ("alice.png", picture("blue"))}
        sent = alice.post("/v1/files", files=upload, data={"purpose": "vision"})
        file = sent.raise_for_status().json()["id"]
        own = {"job": job, "file": file, "batch": "batch_1"}
        routes = alice.get("/openapi.json").json()["paths"]
        asked = 0
        routes.pop("/v1/events")  # never ends, and has a test of its own
        for path, methods in routes.items():
            for method in methods:
                answer = bob.request(method, filled(path, own), json={})
                for word in (job, file, SECRET, "alice"):
                    assert "{" in path or word not in answer.text, (method, path)
                if whose(path) in own:
                    asked += 1
                    assert answer.status_code in (404, 400), (method, path, answer.text)
                    assert SECRET not in answer.text and "alice" not in answer.text
        assert asked >= 6
        # Nor does a name of hers lead to her pictures.
        for reference in (f"{job}/0", file):
            edit = {"instruction": "x", "source_images": [reference], **SMALL}
            asked_for = bob.post("/v1/jobs", json={"tasks": [edit]}).json()["id"]
            assert finished(bob, asked_for)["status"] == "failed"
            (result,) = bob.get(f"/v1/jobs/{asked_for}/results").json()["data"]
            assert f"there is no {reference}" in result["error"]
            image = {"prompt": "x", "images": [{"image_url": reference}]}
            assert bob.post("/v1/images/edits", json=image).status_code in (400, 404)
        assert alice.get(f"/v1/jobs/{job}").json()["status"] == "completed"
        assert alice.get(f"/v1/files/{file}/content").content == picture("blue")
        assert alice.delete(f"/v1/files/{file}").json()["deleted"]


def test_one_key_sees_nothing_of_anothers_files_and_batches(keyed: Keyed) -> None:
    """Neither the files that were sent nor those of results, and by no route."""
    keyed.keys["erin"] = add_key(keyed.file, "erin")
    with keyed.client("erin") as new:
        wait_until(lambda: new.get("/v1/files").status_code == 200, "the new key")
    erin = keyed.openai("erin")
    lines = text_of([request(SECRET, prompt=SECRET), request("refused", prompt="")]).encode()
    sent = erin.files.create(file=(f"{SECRET}.jsonl", lines), purpose="batch")
    made = erin.batches.create(
        input_file_id=sent.id,
        endpoint="/v1/images/generations",
        completion_window="24h",
        metadata={"note": SECRET},
    )
    batch = ended(erin, made)
    files = [sent.id, str(batch.output_file_id), str(batch.error_file_id)]
    assert erin.files.content(files[1]).text.count("\n") == 1
    with keyed.client("erin") as own:
        (job,) = own.get("/v1/jobs").json()["data"]

    def tell(answer: httpx2.Response, asked: str, unknown: str) -> str:
        """An answer, as if it had been asked about another name."""
        return f"{answer.status_code} {answer.text}".replace(asked, unknown)

    with keyed.client("bob") as bob, keyed.client(None) as nobody:
        routes = bob.get("/openapi.json").json()["paths"]
        hers = [*(("/v1/files/{id}", id) for id in files), ("/v1/batches/{id}", batch.id)]
        hers.append(("/v1/jobs/{id}", job["id"]))
        asked = 0
        for start, id in hers:
            for path in (path for path in routes if path.startswith(start)):
                for method in routes[path]:
                    place = re.sub(r"\{\w+\}", "0", path.replace("{id}", id))
                    answer = bob.request(method, place, json={})
                    unknown = bob.request(method, place.replace(id, "x"), json={})
                    assert answer.status_code == 404, (method, place, answer.text)
                    assert tell(answer, id, "x") == tell(unknown, "x", "x")
                    assert nobody.request(method, place, json={}).status_code == 401
                    asked += 1
        assert asked >= 16
        for listing in ("/v1/files", "/v1/batches", "/v1/jobs", "/v1/results"):
            text = bob.get(listing).raise_for_status().text
            assert not [word for word in (*files, batch.id, job["id"], SECRET) if word in text]
        assert bob.get("/v1/batches", params={"after": batch.id}).status_code == 404
        assert bob.get("/v1/files", params={"after": sent.id}).status_code == 404
        for id in files:
            body = {"input_file_id": id, "endpoint": "/v1/images/generations"}
            refused = bob.post("/v1/batches", json={**body, "completion_window": "24h"})
            assert refused.json()["error"]["code"] == "file_not_found"
            edit = {"prompt": "x", "images": [{"file_id": id}]}
            assert bob.post("/v1/images/edits", json=edit).status_code in (400, 404)
    # Nor does a line of a batch of his lead to what is hers.
    his = keyed.openai("bob")
    edits: Literal["/v1/images/edits"] = "/v1/images/edits"
    naming = [
        request(str(n), edits, images=[name]) for n, name in enumerate([*files, f"{job['id']}/0"])
    ]
    upload = his.files.create(file=("his.jsonl", text_of(naming).encode()), purpose="batch")
    done = ended(
        his,
        his.batches.create(input_file_id=upload.id, endpoint=edits, completion_window="24h"),
    )
    assert done.output_file_id is None and done.error_file_id is not None
    told = his.files.content(done.error_file_id).text
    assert told.count("image_not_found") == len(naming) and SECRET not in told
    for file in (upload.id, done.error_file_id):
        his.files.delete(file)
    # All that he tried has changed nothing.
    assert erin.batches.retrieve(batch.id) == batch
    assert [file.id for file in erin.files.list(order="asc")] == files
    for id in files:
        erin.files.delete(id)


def whose(path: str) -> str:
    """What a route's path names: job, file, or something that all callers share."""
    for start, kind in (("/v1/jobs/{", "job"), ("/v1/files/{", "file"), ("/v1/batches/{", "batch")):
        if path.startswith(start):
            return kind
    return ""


def filled(path: str, own: dict[str, str]) -> str:
    start, _, rest = path.partition("{")
    end = rest.partition("}")[2]
    name = own.get(whose(path), "x")
    return filled(f"{start}{name}{end}", own) if rest else path


def test_keys_change_while_the_daemon_runs(keyed: Keyed) -> None:
    keyed.keys["dave"] = add_key(keyed.file, "dave")

    def status(name: str) -> int:
        with keyed.client(name) as client:
            return client.get("/v1/files").status_code

    wait_until(lambda: status("dave") == 200, "the new key")
    with keyed.client("dave") as client:
        upload = {"file": ("a.txt", b"x")}
        client.post("/v1/files", files=upload, data={"purpose": "user_data"}).raise_for_status()
    old = keyed.keys["dave"]
    keyed.keys["dave"] = rotate_key(keyed.file, "dave")
    wait_until(lambda: status("dave") == 200, "the key that replaces it")
    with keyed.client("dave") as client:
        assert len(client.get("/v1/files").json()["data"]) == 1
    keyed.keys["dave before"] = old
    assert status("dave before") == 401
    revoke_key(keyed.file, "dave")
    wait_until(lambda: status("dave") == 401, "the end of the key")
    keyed.file.chmod(0o666)  # whoever could write it could be anybody
    said = "API keys stay as they were"
    wait_until(lambda: status("alice") == 200 and said in keyed.daemon.log, "a word about the file")
    keyed.file.chmod(0o600)


def test_who_follows_what_happens_hears_nothing_more_when_the_key_ends(keyed: Keyed) -> None:
    keyed.keys["frank"] = add_key(keyed.file, "frank")

    def events(job: str, client: httpx2.Client) -> Iterator[str]:
        with client.stream("GET", f"/v1/jobs/{job}/events") as answer:
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    yield line.removeprefix("event: ")

    with keyed.client("frank") as frank:
        wait_until(lambda: frank.get("/v1/files").status_code == 200, "the new key")
        slow = {"width": 1024, "height": 1024, "num_inference_steps": 12}  # 0.3 s a step
        task = {**slow, "prompt": "!slow a house"}
        job = frank.post("/v1/jobs", json={"tasks": [task]}).json()["id"]
        heard = events(job, frank)
        assert next(heard) == "job"
        revoke_key(keyed.file, "frank")
        assert "end" not in list(heard)
        assert frank.get(f"/v1/jobs/{job}").status_code == 401


def test_only_an_operators_key_changes_how_others_are_served(keyed: Keyed) -> None:
    keyed.keys["root"] = add_key(keyed.file, "root", operator=True)
    with keyed.client("alice") as alice, keyed.client("root") as root:
        routes = alice.get("/openapi.json").json()["paths"]
        ways = ("/v1/workers", "/v1/loras")
        changes = [path for path in routes if path.startswith(ways) and "post" in routes[path]]
        assert len(changes) >= 5
        for path in changes:
            order = {"name": "x", "action": "pin"} if path == "/v1/loras" else {"kind": "generate"}
            answer = alice.post(path.replace("{name}", "cpu0"), json=order)
            assert answer.status_code == 403, path
            assert answer.json()["error"]["code"] == "insufficient_permissions"
        assert alice.get("/v1/workers").status_code == 200
        wait_until(lambda: root.get("/v1/files").status_code == 200, "the new key")
        none = root.post("/v1/workers/none/drain")
        assert none.json()["error"]["code"] == "worker_not_found"


def test_a_key_asks_for_as_high_a_priority_as_it_may(keyed: Keyed) -> None:
    """By whatever route; lower ones are for everybody, and the machine's own user has no bound."""
    keyed.keys["ci"] = add_key(keyed.file, "ci", max_priority=-4)
    keyed.keys["vip"] = add_key(keyed.file, "vip", max_priority=5)
    keyed.keys["boss"] = add_key(keyed.file, "boss", operator=True)
    task = {"prompt": "a house", **SMALL}

    def priority(client: httpx2.Client, asked: int | None, route: str = "/v1/jobs") -> Any:
        """The priority that a job gets, or the error that it gets instead."""
        more = {"owner": "x", "suffixes": [".png"]} if "engine" in route else {}
        given = {} if asked is None else {"priority": asked}
        answer = client.post(route, json={"tasks": [task], **given, **more})
        if answer.status_code == 202:
            return answer.json()["priority"]
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (403, "priority"), answer.text
        return error["message"]

    with keyed.client("boss") as boss:
        wait_until(lambda: boss.get("/v1/jobs").status_code == 200, "the new keys")
        assert priority(boss, 10) == 10
    for route in ("/v1/jobs", "/v1/engine/jobs"):
        with keyed.client("alice") as alice, keyed.client("vip") as vip, keyed.client("ci") as ci:
            assert [priority(alice, p, route) for p in (None, 0, -10)] == [0, 0, -10]
            assert "may ask for 0 at most, and this job asks for 1" in priority(alice, 1, route)
            assert priority(vip, 5, route) == 5
            assert "may ask for 5 at most" in priority(vip, 6, route)
            assert [priority(ci, p, route) for p in (None, -4, -10)] == [-4, -4, -10]
            assert "may ask for -4 at most" in priority(ci, 0, route)
    for name, of_images, of_batches in (("alice", 0, -1), ("ci", -4, -4)):
        client = keyed.openai(name)
        client.images.generate(prompt="a house", size="32x32")
        lines = text_of([request("a")]).encode()
        file = client.files.create(file=("b.jsonl", lines), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/images/generations", completion_window="24h"
        )
        done = ended(client, batch)
        with keyed.client(name) as plain:
            jobs = plain.get("/v1/jobs").json()["data"]
        by_source = {job["source"]: job["priority"] for job in reversed(jobs)}
        assert (by_source["images"], by_source["batch"]) == (of_images, of_batches)
        for id in (file.id, done.output_file_id or ""):
            client.files.delete(id)
    by_socket = httpx2.HTTPTransport(uds=str(keyed.daemon.runtime / FOLDER / NAME))
    with httpx2.Client(transport=by_socket, base_url="http://localhost") as own:
        assert priority(own, 10) == 10


def test_pictures_in_tasks_become_the_callers_own_files(keyed: Keyed) -> None:
    with keyed.client("alice") as client:
        url = f"data:image/png;base64,{base64.b64encode(picture('green')).decode()}"
        upload = {"file": ("a.png", picture("green"))}
        file = client.post("/v1/files", files=upload, data={"purpose": "vision"}).json()["id"]
        edit: dict[str, Any] = {"instruction": "x", **SMALL}
        for reference in (url, url.partition(",")[2], file):
            job = client.post("/v1/jobs", json={"tasks": [{**edit, "source_images": [reference]}]})
            assert job.status_code == 202, job.text
            client.delete(f"/v1/jobs/{job.json()['id']}").raise_for_status()
        client.delete(f"/v1/files/{file}")
    kept = [
        f for f in (keyed.daemon.output / "inbox").iterdir() if f.read_bytes() == picture("green")
    ]
    assert len(kept) == 1
