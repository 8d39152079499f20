"""The page at `/`, as its users see it: in a real browser, on a daemon with simulated devices."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Browser, FilePayload, Locator, expect

from apps.server.safety.keys import add_key
from tests.conftest import wait_until
from tests.server.browser import Watched, picture, shown
from tests.server.conftest import Daemon, finished
from tests.server.image_clients import mask, png
from tests.server.test_lora_names import write as write_lora

LORAS = 500
SLOW = {"width": 512, "height": 512, "num_inference_steps": 20}  # 5 s
MARKUP = '<img src=x onerror="window.hacked=1"><script>window.hacked=2</script>'


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("page")
    for number in range(LORAS):
        write_lora(folder / "loras" / f"style-{number:03}.safetensors")
    daemon = Daemon(
        folder,
        lora_dir=str(folder / "loras"),
        editor={"model": "simulated"},
        simulated={"seconds_per_megapixel_step": 1.0},
    )
    daemon.start("--cpu-workers", "2")
    yield daemon
    daemon.end()


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[httpx2.Client]:
    with daemon.client() as client:
        yield client


def run(client: httpx2.Client, *tasks: dict[str, Any]) -> str:
    id = str(client.post("/v1/jobs", json={"tasks": tasks}).raise_for_status().json()["id"])
    finished(client, id)
    return id


def newest(client: httpx2.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/v1/results", params={"limit": 1}).json()["data"][0]
    return found


def upload_of(name: str, content: bytes, kind: str) -> FilePayload:
    return FilePayload(name=name, mimeType=kind, buffer=content)


def loras(result: dict[str, Any]) -> list[tuple[str, float]]:
    task = result["task"]
    if "lora_path" in task:
        return [(task["lora_path"], task.get("lora_strength", 1))]
    return [(lora["path"], lora["strength"]) for lora in task["loras"]]


def test_its_files_are_checked_for_changes_and_run_nothing_from_elsewhere(
    client: httpx2.Client,
) -> None:
    first = client.get("/")
    policy = first.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy
    assert "unsafe" not in policy and "http" not in policy
    again = client.get("/", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/static/main.js").headers["content-type"].startswith("text/javascript")
    for name in ("..%2fpage.py", "page.py", "%2e%2e/page.py", "none.js"):
        assert client.get(f"/static/{name}").status_code == 404


def test_an_empty_gallery_invites_and_draws_its_example(browser: Browser, tmp_path: Path) -> None:
    daemon, pages = Daemon(tmp_path, lora_dir=str(tmp_path / "none")), Watched(browser)
    try:
        page = pages.open(daemon.start().url)
        expect(page.get_by_text("None yet. Put .safetensors files")).to_be_visible()
        page.get_by_role("button", name="Try “").click()
        prompt = page.get_by_label("Prompt", exact=True)
        expect(prompt).to_be_focused()
        page.keyboard.press("Control+Enter")
        shown(picture(page, prompt.input_value()))
        expect(page.get_by_text("No pictures yet")).to_be_hidden()
        expect(page.get_by_text("In the queue")).to_be_hidden()  # it is not there any more

        daemon.kill()
        expect(page.get_by_text("The server does not answer")).to_be_visible()
        daemon.start("--port", daemon.url.rpartition(":")[2])
        expect(page.get_by_text("The server does not answer")).to_be_hidden()
        with daemon.client() as client:
            run(client, {"prompt": "after the break"})
        shown(picture(page, "after the break"))
    finally:
        pages.close()
        daemon.end()
    assert pages.problems == []


def test_where_keys_are_used_the_page_asks_for_one(browser: Browser, tmp_path: Path) -> None:
    daemon, pages = Daemon(tmp_path), Watched(browser)
    key = add_key(daemon.output / "api-keys.json", "me")
    try:
        daemon.start()
        with daemon.client(headers={"Authorization": f"Bearer {key}"}) as client:
            run(client, {"prompt": "mine alone"})
        page = pages.open(daemon.url)
        page.get_by_label("Key", exact=True).fill("sk-wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_text("Incorrect API key provided.")).to_be_visible()
        page.get_by_label("Key", exact=True).fill(key)
        page.keyboard.press("Enter")
        shown(picture(page, "mine alone"))
        kept = page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]")
        assert kept == [1, 0, ""]
        page.reload()
        shown(picture(page, "mine alone"))
    finally:
        pages.close()
        daemon.end()
    assert pages.problems == []


def test_prompts_and_reasons_are_text_and_nothing_else(
    daemon: Daemon, client: httpx2.Client, pages: Watched
) -> None:
    run(client, {"prompt": MARKUP}, {"prompt": f"!nan {MARKUP}"}, {"prompt": "bad", "size": MARKUP})
    page = pages.open(daemon.url)
    expect(page.locator("#failures").get_by_text(f"!nan {MARKUP}")).to_be_visible()
    picture(page, MARKUP).first.click()
    expect(page.get_by_role("dialog").get_by_text(MARKUP)).to_be_visible()
    assert page.evaluate("window.hacked") is None
    assert page.locator("script:not([src])").count() == 0


def test_failures_come_first_with_reason_and_advice(
    daemon: Daemon, client: httpx2.Client, pages: Watched
) -> None:
    page = pages.open(daemon.url)
    narrow = [{"prompt": f"too narrow {n}", "width": 17} for n in range(9)]
    run(client, {"prompt": "!nan a house"}, *narrow)
    failures = page.get_by_role("region", name="Failed")
    failed = failures.get_by_role("listitem").filter(has_text="!nan a house")
    expect(failed).to_contain_text("a simulated failure that a retry would repeat")
    expect(failed).to_contain_text("Change what it asks for")
    assert box(failures)["y"] < box(page.get_by_role("region", name="Pictures"))["y"]
    failed.get_by_role("button", name="Change").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("!nan a house")
    refused = failures.get_by_role("listitem").filter(has_text="too narrow 0")
    expect(refused).to_contain_text("So did 8 other tasks of this job: numbers 2, 3, 4, 5, 6, ….")
    expect(failures.get_by_text("too narrow")).to_have_count(1)
    expect(refused.get_by_role("button", name="Run again")).to_have_count(0)
    failures.get_by_role("button", name="Hide these").click()
    expect(failures).to_be_hidden()
    page.reload()
    expect(page.locator("#summary")).to_contain_text("workers")
    expect(failures).to_be_hidden()


def box(locator: Locator) -> Any:
    found = locator.bounding_box()
    assert found is not None
    return found


def test_a_picture_tells_its_parameters_and_runs_again(
    daemon: Daemon, client: httpx2.Client, pages: Watched
) -> None:
    seed = 2**63 + 1  # more than numbers of a browser hold
    first = run(client, {"prompt": "twice", "seed": seed, "width": 96, "loras": ["style-007"]})
    page = pages.open(daemon.url)
    picture(page, "twice").click()
    dialog = page.get_by_role("dialog")
    for text in (str(seed), "96 × auto", "style-007 (1)"):
        expect(dialog.get_by_text(text, exact=True)).to_be_visible()
    dialog.get_by_role("button", name="Run again").click()
    wait_until(lambda: not newest(client)["id"].startswith(first), "the second picture")
    again = newest(client)
    assert again["task"]["seed"] == seed and loras(again) == [("style-007", 1)]
    dialog.get_by_role("button", name="With a new seed").click()
    wait_until(lambda: newest(client)["job"] not in (first, again["job"]), "the third picture")
    assert newest(client)["task"]["seed"] != seed
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_an_edit_is_asked_for_with_an_upload_and_a_lora(
    daemon: Daemon, client: httpx2.Client, pages: Watched
) -> None:
    page = pages.open(daemon.url)
    page.get_by_text("Edit", exact=True).first.click()
    page.get_by_role("button", name="Edit").click()
    expect(page.get_by_role("alert").filter(has_text="Say what to change.")).to_be_visible()
    page.get_by_label("Instruction").fill("paint it green")
    page.get_by_label("Choose pictures").set_input_files(upload_of(*png((250, 0, 0))))
    expect(page.get_by_placeholder(f"Choose of {LORAS}")).to_be_visible()
    page.get_by_label("Add a LoRA").fill("no such style")
    page.keyboard.press("Enter")
    expect(page.get_by_text("There is no LoRA called “no such style”.")).to_be_visible()
    page.get_by_label("Add a LoRA").fill("style-123")
    page.keyboard.press("Enter")
    page.get_by_label("Strength of style-123").fill("0.7")
    page.get_by_text("Options").click()
    page.get_by_label("Steps", exact=True).fill("3")
    page.get_by_role("button", name="Edit").click()
    picture(page, "paint it green").click()
    shown(page.get_by_alt_text("Picture 1 that was edited"))
    task = newest(client)["task"]
    assert loras(newest(client)) == [("style-123", 0.7)]
    assert (task["kind"], task["num_inference_steps"]) == ("edit", 3)


def test_an_edit_is_kept_within_a_mask(
    daemon: Daemon, client: httpx2.Client, pages: Watched
) -> None:
    page = pages.open(daemon.url)
    page.get_by_text("Edit", exact=True).first.click()
    page.get_by_label("Instruction").fill("paint a part of it")
    page.get_by_label("Choose pictures").set_input_files(upload_of(*png((250, 0, 0))))
    page.get_by_label("Choose a mask").set_input_files(upload_of(*mask(10)))
    page.get_by_label("Choose a mask").set_input_files(upload_of(*mask(24)))  # in its place
    expect(page.get_by_role("list", name="Mask").get_by_role("img")).to_have_count(1)
    page.get_by_role("button", name="Edit").click()
    picture(page, "paint a part of it").click()
    dialog = page.get_by_role("dialog")
    shown(dialog.get_by_alt_text("Mask"))
    first = newest(client)
    assert first["task"]["mask"] == f"{first['id']}/sources/1"
    dialog.get_by_role("button", name="Change").click()
    expect(page.get_by_role("list", name="Mask").get_by_role("img")).to_have_count(1)
    page.get_by_label("Instruction").fill("paint it once more")
    page.get_by_role("button", name="Edit").click()
    shown(picture(page, "paint it once more"))
    assert newest(client)["task"]["mask"]
    page.get_by_role("button", name=f"Remove {first['task']['mask']}").click()
    page.get_by_label("Instruction").fill("paint all of it")
    page.get_by_role("button", name="Edit").click()
    shown(picture(page, "paint all of it"))
    assert "mask" not in newest(client)["task"]


def test_a_picture_is_edited_without_what_it_was_drawn_with(
    daemon: Daemon, client: httpx2.Client, pages: Watched
) -> None:
    run(client, {"prompt": "to be edited"})
    page = pages.open(daemon.url)
    page.get_by_label("Add a LoRA").fill("style-001")
    page.keyboard.press("Enter")
    page.get_by_text("Options").click()
    page.get_by_label("Steps", exact=True).fill("7")
    page.get_by_label("how many").fill("2")
    picture(page, "to be edited").click()
    page.get_by_role("button", name="Edit this picture").click()
    expect(page.get_by_label("Instruction")).to_be_focused()
    page.keyboard.type("now blue")
    page.keyboard.press("Control+Enter")
    shown(picture(page, "now blue"))
    result = newest(client)
    assert {"loras", "lora_path", "num_inference_steps"}.isdisjoint(result["task"])
    assert client.get(f"/v1/jobs/{result['job']}").json()["counts"]["total"] == 1


def test_what_is_wrong_in_the_form_is_said_where_it_is(daemon: Daemon, pages: Watched) -> None:
    page = pages.open(daemon.url)
    page.get_by_label("Prompt", exact=True).fill("a house")
    page.get_by_text("Options").click()
    page.get_by_label("Width").fill("17")
    page.get_by_role("button", name="Draw").click()
    expect(page.locator("#compose-error")).to_contain_text("Width:")
    expect(page.get_by_label("Width")).to_be_focused()


def test_workers_and_queue_are_live_and_a_job_can_be_cancelled(
    daemon: Daemon, client: httpx2.Client, pages: Watched
) -> None:
    page = pages.open(daemon.url)
    page.get_by_label("Prompt", exact=True).fill("slow " * 300)
    page.get_by_text("Options").click()
    for label, name in (("Width", "width"), ("Height", "height")):
        page.get_by_label(label).fill(str(SLOW[name]))
    page.get_by_label("Steps", exact=True).fill("20")
    page.get_by_label("how many").fill("100")  # minutes of work
    page.get_by_role("button", name="Draw 100").click()
    workers = page.get_by_role("region", name="Workers")
    expect(workers.get_by_text("of 20").first).to_contain_text("step")
    expect(workers.get_by_text("working")).to_have_count(2)
    queue = page.get_by_role("region", name="Queue")
    expect(queue.get_by_text("slow slow").first).to_be_visible()
    button = queue.get_by_role("button", name="Cancel")

    def is_cancelled() -> bool:
        """Two presses that come soon after each other; whoever is held up presses again."""
        for _ in range(2):
            if button.count() and button.is_enabled():
                button.click()
        job = client.get("/v1/jobs?limit=1").json()["data"][0]
        return bool(job.get("cancelling") or job["ended_at"])

    wait_until(is_cancelled, "the cancelling")
    expect(queue.get_by_text("Nothing waits.")).to_be_visible()
    # What the workers have is finished: two tasks that run, and perhaps the next one of each.
    assert len(client.get("/v1/results", params={"outcome": "cancelled"}).json()["data"]) >= 2


def test_news_wait_for_whoever_looks_further_down_and_are_told_sparingly(
    daemon: Daemon, client: httpx2.Client, pages: Watched
) -> None:
    run(client, *({"prompt": f"pile {n}"} for n in range(60)))
    page = pages.open(daemon.url, height=500)
    expect(page.locator("#pictures li").first).to_be_visible()
    page.evaluate(
        """() => {
            window.told = 0;
            window.began = performance.now();
            const news = document.getElementById("news");
            new MutationObserver(() => window.told++).observe(news, { childList: true });
            window.scrollTo(0, 1500);
        }"""
    )
    run(client, *({"prompt": f"fresh {n}"} for n in range(40)))
    expect(page.get_by_role("button", name="Show 40 new pictures")).to_be_visible()
    expect(picture(page, "fresh 39")).to_have_count(0)
    page.get_by_role("button", name="Show 40 new pictures").click()
    expect(picture(page, "fresh 39")).to_be_visible()
    expect(page.locator("#news")).to_contain_text("pictures finished")
    told, seconds = page.evaluate("[window.told, (performance.now() - window.began) / 1000]")
    assert told <= 1 + seconds / 5
