"""The page while there is work: pictures on their way, the queue, workers that are taken out, keys
that end."""

import asyncio
import re
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import APIResponse, Browser, Locator, Page, Route, expect

from apps.server.records import StoredJob
from apps.server.safety.keys import add_key, revoke_key
from tests.conftest import PATIENCE, wait_until
from tests.server.browser import COUNT_TILES, Watched, picture, shown
from tests.server.conftest import Daemon
from tests.server.in_process import Application, data_url
from tests.server.sketching import STEPS, Sketching

COUNT_NEWS = """() => {
    window.told = [];
    const news = document.getElementById("news");
    new MutationObserver(() => window.told.push(news.textContent))
        .observe(news, { childList: true });
}"""

COUNT_REMOVED = """() => {
    window.removed = 0;
    new MutationObserver((changes) => {
        for (const { removedNodes } of changes) window.removed += removedNodes.length;
    }).observe(document.getElementById("queue"), { childList: true });
}"""


IN_THE_BACKGROUND = """
    window.away = true;
    Object.defineProperty(document, "hidden", { get: () => window.away });
    window.turn = (away) => {
        window.away = away;
        document.dispatchEvent(new Event("visibilitychange"));
    };
"""
CONNECTIONS = 6  # of a browser's tabs together, to one server


def draw(page: Page, prompt: str) -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.keyboard.press("Control+Enter")


def tile(page: Page, prompt: str, doing: str = "Being drawn") -> Locator:
    """The tile of a picture on its way."""
    return page.locator("#pictures").get_by_role("button", name=f"{doing}: {prompt}", exact=True)


def test_a_tile_shows_a_picture_on_its_way_and_then_the_picture_in_its_place(
    sketching: tuple[Sketching, Application, httpx2.Client], pages: Watched
) -> None:
    played, application, _ = sketching
    page = pages.open(application.url)
    page.evaluate(COUNT_NEWS)
    draw(page, "a slow house")
    on_its_way = tile(page, "a slow house")
    expect(on_its_way).to_contain_text(f"Step 1 of {STEPS}")
    newest = re.compile("/results/0/preview[?]number=3$")
    expect(on_its_way.locator("img")).to_have_attribute("src", newest)
    shown(on_its_way.locator("img"))
    assert on_its_way.locator("img").get_attribute("alt") == ""  # the tile's name says it
    place = page.locator("#pictures li")
    id = place.get_attribute("data-id")
    page.reload()  # what is on its way is there for those who come later, too
    shown(tile(page, "a slow house").locator("img"))
    page.evaluate(COUNT_NEWS)

    played.turns.release()
    shown(picture(page, "a slow house"))
    expect(place).to_have_count(1)
    assert place.get_attribute("data-id") == id
    expect(place.locator("img")).to_have_count(1)  # no preview below it
    expect(page.locator("#news")).to_have_text("1 picture finished.")
    assert page.evaluate("window.told") == ["1 picture finished."]
    regions = "[aria-live], [role=status], [role=alert], [role=log]"
    assert page.locator(regions).locator("#pictures, .tile").count() == 0
    picture(page, "a slow house").click()
    expect(page.get_by_role("dialog")).to_be_visible()


def test_a_picture_whose_news_come_after_the_queue_was_read_stays_where_it_is(
    sketching: tuple[Sketching, Application, httpx2.Client],
    pages: Watched,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    played, application, client = sketching
    read = application.service.task
    may_be_told = threading.Event()

    async def late(job: StoredJob, position: int) -> dict[str, object] | None:
        await asyncio.to_thread(may_be_told.wait, PATIENCE)
        return await read(job, position)

    monkeypatch.setattr(application.service, "task", late)
    page = pages.open(application.url, constants={"ON_ITS_WAY": 3_600_000})
    tasks = [{"prompt": "a slow house"}, {"prompt": "a slower one"}]
    client.post("/v1/jobs", json={"tasks": tasks}).raise_for_status()
    expect(tile(page, "a slow house")).to_contain_text("Step 1")
    page.evaluate(COUNT_TILES)
    played.turns.release()
    expect(page.get_by_role("region", name="Queue")).to_contain_text("1 of 2 pictures")
    expect(tile(page, "a slower one")).to_be_visible()
    may_be_told.set()
    shown(picture(page, "a slow house"))
    assert page.evaluate("window.made") == 1  # the other one


def test_a_picture_whose_end_was_not_heard_of_is_not_drawn_for_ever(
    sketching: tuple[Sketching, Application, httpx2.Client],
    pages: Watched,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    played, application, _ = sketching
    page = pages.open(application.url, constants={"ON_ITS_WAY": 1_000})
    draw(page, "a slow house")
    expect(tile(page, "a slow house")).to_contain_text("Step 1")
    monkeypatch.setattr(application.service.feed, "tell", lambda *_: None)
    played.turns.release()
    expect(tile(page, "a slow house")).to_have_count(0)


def test_a_picture_that_could_not_be_had_is_asked_for_again(
    sketching: tuple[Sketching, Application, httpx2.Client], pages: Watched
) -> None:
    played, application, _ = sketching
    page = pages.open(application.url)
    asked: list[Route] = []

    def refuse_once(route: Route) -> None:
        asked.append(route)
        if len(asked) == 1:
            route.abort()
        else:
            route.continue_()

    page.route("**/thumbnail", refuse_once)
    played.turns.release()
    draw(page, "a slow house")
    shown(picture(page, "a slow house"))
    assert len(asked) == 2
    expect(picture(page, "a slow house")).not_to_have_class("gone")


def test_pictures_on_their_way_follow_the_filter(
    sketching: tuple[Sketching, Application, httpx2.Client], pages: Watched
) -> None:
    played, application, _ = sketching
    page = pages.open(application.url)
    draw(page, "a red house")
    expect(tile(page, "a red house")).to_be_visible()
    page.get_by_label("Search in prompts").fill("blue")
    expect(page.get_by_text("No picture fits this search.")).to_be_visible()
    page.get_by_label("Search in prompts").fill("RED")
    expect(tile(page, "a red house")).to_be_visible()
    page.get_by_label("Search in prompts").fill("")
    played.turns.release()
    shown(picture(page, "a red house"))


def test_the_queue_says_what_jobs_are_about(
    sketching: tuple[Sketching, Application, httpx2.Client], pages: Watched
) -> None:
    _, application, client = sketching
    edit = {"instruction": "make it <b>snow</b>", "source_images": [data_url()]}
    for tasks in ([{"prompt": "a red house"}] * 3, [edit] * 2, [{"prompt": "both"}, edit]):
        client.post("/v1/jobs", json={"tasks": tasks}).raise_for_status()
    page = pages.open(application.url)
    jobs = page.get_by_role("region", name="Queue").get_by_role("listitem")
    expect(jobs).to_have_count(3)
    expect(jobs.nth(0)).to_contain_text("a red house")
    expect(jobs.nth(0)).to_contain_text("0 of 3 pictures")
    expect(jobs.nth(1)).to_contain_text("make it <b>snow</b>")
    expect(jobs.nth(1)).to_contain_text("0 of 2 edits")
    expect(jobs.nth(1)).to_contain_text("3 tasks ahead")
    expect(jobs.nth(2)).to_contain_text("0 of 2 tasks · 1 picture, 1 edit")


def test_an_answer_that_comes_late_takes_nothing_newer_away(
    sketching: tuple[Sketching, Application, httpx2.Client], pages: Watched
) -> None:
    _, application, client = sketching
    page = pages.open(application.url)
    queue = page.get_by_role("region", name="Queue")
    expect(queue.get_by_text("Nothing waits.")).to_be_visible()
    asked: list[Route] = []
    held: list[tuple[Route, APIResponse]] = []

    def hold(route: Route) -> None:
        asked.append(route)
        if len(asked) == 1:
            held.append((route, route.fetch()))  # others come meanwhile
        else:
            route.continue_()

    page.route("**/v1/jobs?status=queued*", hold)
    client.post("/v1/jobs", json={"tasks": [{"prompt": "first"}]}).raise_for_status()
    wait_until(lambda: page.evaluate("true") and held, "the answer that will be late")
    client.post("/v1/jobs", json={"tasks": [{"prompt": "second"}]}).raise_for_status()
    expect(queue.get_by_text("second")).to_be_visible()
    [(late, answer)] = held
    page.evaluate(COUNT_REMOVED)  # a later look brings back what was taken away
    with page.expect_event("requestfinished", lambda request: request == late.request):
        late.fulfill(response=answer)
    with page.expect_request("**/v1/jobs?status=queued*"):
        pass  # of the next look: until then the late answer has been read
    assert page.evaluate("window.removed") == 0


def test_the_queue_says_how_long_it_takes(
    sketching: tuple[Sketching, Application, httpx2.Client], pages: Watched
) -> None:
    """As the server expects it: what it expects is a matter of tests/server/test_estimates.py."""
    _, application, client = sketching
    client.post("/v1/jobs", json={"tasks": [{"prompt": "first"}]}).raise_for_status()
    client.post("/v1/jobs", json={"tasks": [{"prompt": "later"}]}).raise_for_status()
    page = pages.open(application.url)
    now = datetime(2026, 3, 4, 12)
    page.clock.set_fixed_time(now)  # however long an answer is on its way

    def with_times(route: Any) -> None:
        answer = route.fetch()
        body = answer.json()
        for job in body["data"]:
            times = {"created_at": -180, "expected_start_at": 40, "expected_end_at": 240}
            job.update({name: now.timestamp() + seconds for name, seconds in times.items()})
        route.fulfill(response=answer, json=body)

    page.route("**/v1/jobs?status=queued*", with_times)
    page.reload()
    later = page.get_by_role("region", name="Queue").get_by_role("listitem").nth(1)
    expect(later).to_contain_text("later")
    for words in (
        "1 task ahead",
        "waits for 3 min",
        "starts in about 40 s",
        "done in about 4 min, at ",
    ):
        expect(later).to_contain_text(words)


def test_a_worker_is_taken_out_and_brought_back_and_the_page_says_when_none_is_left(
    browser: Browser, tmp_path: Path
) -> None:
    daemon, pages = Daemon(tmp_path), Watched(browser)
    key = add_key(daemon.output / "api-keys.json", "me")
    boss = add_key(daemon.output / "api-keys.json", "boss", operator=True)
    try:
        daemon.start("--cpu-workers", "1")
        page = pages.open(daemon.url)
        page.get_by_label("Key", exact=True).fill(key)
        page.keyboard.press("Enter")
        draw(page, "!nan a house")
        failures = page.get_by_role("region", name="Failed")
        failures.get_by_role("button", name="Run again").click()
        expect(failures.get_by_role("heading")).to_have_text("Failed: 2")
        expect(page.locator("#pictures li")).to_have_count(0)

        workers = page.get_by_role("region", name="Workers")
        workers.get_by_role("button", name="Drain cpu0").click()
        expect(workers.get_by_role("alert")).to_contain_text("Your API key may not do this")
        # Its key ends: whatever is asked for next asks for another one, and then goes on. That may
        # be a look at the workers; then the form is behind the dialog, and no key reaches it.
        page.get_by_label("Prompt", exact=True).fill("with another key")
        revoke_key(daemon.output / "api-keys.json", "me")
        client = daemon.client(headers={"Authorization": f"Bearer {key}"})
        wait_until(lambda: client.get("/v1/workers").status_code == 401, "the end of the key")
        client.close()
        page.locator("#compose").evaluate("form => form.requestSubmit()")
        dialog = page.get_by_role("dialog", name="API key")
        expect(dialog).to_be_visible()
        expect(dialog.get_by_role("alert")).to_contain_text("Incorrect API key provided.")
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
        expect(dialog).to_be_visible()  # there is nothing to see without one
        dialog.get_by_label("Key", exact=True).fill(boss)
        page.keyboard.press("Enter")
        expect(dialog).to_be_hidden()
        shown(picture(page, "with another key"))  # what was asked for is not asked for again

        workers.get_by_role("button", name="Drain cpu0").click()
        expect(workers.get_by_text("drained")).to_be_visible()
        drained = page.get_by_text("All workers are drained.")
        expect(drained).to_be_visible()
        draw(page, "one that waits")
        job = page.get_by_role("region", name="Queue").get_by_role("listitem")
        expect(job).to_contain_text("cpu0 is drained")
        workers.get_by_role("button", name="Resume cpu0").click()
        expect(workers.get_by_text("ready")).to_be_visible()
        expect(drained).to_be_hidden()
        shown(picture(page, "one that waits"))
    finally:
        pages.close()
        daemon.end()
    assert pages.problems == []


def test_tabs_in_the_background_leave_the_others_connections(
    browser: Browser, tmp_path: Path
) -> None:
    daemon = Daemon(tmp_path).start("--cpu-workers", "1")
    context = browser.new_context()  # whose tabs share their connections
    try:
        tabs = [context.new_page() for _ in range(CONNECTIONS)]
        for tab in tabs:
            tab.add_init_script(IN_THE_BACKGROUND)
            tab.goto(daemon.url)
        front = context.new_page()
        front.goto(daemon.url)
        draw(front, "drawn meanwhile")
        shown(picture(front, "drawn meanwhile"))
        tabs[0].evaluate("turn(false)")  # it is looked at
        shown(picture(tabs[0], "drawn meanwhile"))
        with tabs[0].expect_event(
            "requestfailed", lambda request: request.url.endswith("/v1/events")
        ):
            tabs[0].evaluate("turn(true)")
        expect(tabs[0].get_by_text("The server does not answer")).to_be_hidden()
        draw(front, "drawn after that")
        tabs[0].evaluate("turn(false)")
        shown(picture(tabs[0], "drawn after that"))
    finally:
        context.close()
        daemon.end()
