"""A gallery of thousands of pictures: counted in elements and requests, whatever else runs.

The counts are by the number of pictures, so that 2,000 of them show what 10,000 do.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from apps.server.journal import Journal
from apps.server.records import NewJob, record_of
from core import Result
from tests.chaos.scale import FULL
from tests.conftest import wait_until
from tests.server.browser import COUNT_TILES, Watched, picture, shown
from tests.server.conftest import finished
from tests.server.in_process import Application

PICTURES = 10_000 if FULL else 2_000
JOBS = 10
ROWS_NEAR = 1 + (900 + 2 * 800) // 178  # of tiles, in a window of 900 pixels


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    folder = tmp_path_factory.mktemp("many")
    draw_all(folder)
    with Application(folder) as application, application.client() as client:
        yield client


def draw_all(folder: Path) -> None:
    """What a daemon leaves that has drawn them."""
    journal = Journal(folder)
    Image.new("RGB", (64, 64), "teal").save(folder / "picture.png")
    each = PICTURES // JOBS
    for number in range(JOBS):
        job = NewJob("local", ())
        tasks = [
            {
                "prompt": f"house {number * each + place}",
                "output_path": f"jobs/{job.id}/{place}.png",
            }
            for place in range(each)
        ]
        stored, _ = journal.accept(NewJob("local", tuple(tasks), id=job.id)).result()
        (folder / "jobs" / job.id).mkdir(parents=True)
        records = []
        for place, task in enumerate(tasks):
            os.link(folder / "picture.png", folder / task["output_path"])
            result = Result(place, str(place), "done", task["output_path"], elapsed=0.1)
            records.append((place, record_of(result, place, "generate")))
        journal.settle(stored.number, records).result()
    journal.close()


def place_of(tile: Locator) -> int:
    return int(str(tile.locator("..").get_attribute("aria-posinset")))


def columns(page: Page) -> int:
    style = "getComputedStyle(document.getElementById('pictures')).gridTemplateColumns"
    return len(str(page.evaluate(style)).split())


def test_thousands_of_pictures_take_the_elements_and_requests_of_what_is_seen(
    client: httpx2.Client, pages: Watched
) -> None:
    page = pages.open(str(client.base_url))
    tiles = page.locator("#pictures li")
    shown(picture(page, f"house {PICTURES - 1}"))
    most = ROWS_NEAR * columns(page)
    listings = [path for path in pages.asked if path.startswith("/v1/results?outcome=done")]
    assert len(listings) == 1 and tiles.count() <= most

    focused = page.locator(":focus")
    tiles.first.get_by_role("button").focus()
    last = 1

    def further_down() -> bool:
        page.keyboard.press("End")  # leads to the last one that was read; then more are
        return place_of(focused) > last

    while last < PICTURES:
        wait_until(further_down, "older pictures")
        last = place_of(focused)
        assert tiles.count() <= most
    expect(focused).to_have_attribute("title", "house 0")
    expect(page.get_by_role("button", name="Show older pictures")).to_be_hidden()
    listings = [path for path in pages.asked if path.startswith("/v1/results?outcome=done")]
    assert len(listings) <= 1 + (PICTURES - 60) // 200 + 1
    thumbnails = [path for path in pages.asked if path.endswith("/thumbnail")]
    assert len(thumbnails) <= (len(listings) + 1) * most  # of what was passed on the way
    nodes = int(str(page.evaluate("document.querySelectorAll('*').length")))
    assert nodes <= 400 + 5 * most
    shown(picture(page, "house 0"))

    page.keyboard.press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Previous picture").click()
    page.keyboard.press("Escape")
    expect(focused).to_have_attribute("title", "house 1")
    page.keyboard.press("Home")
    expect(focused).to_have_attribute("title", f"house {PICTURES - 1}")


def test_the_filter_looks_through_all_of_them_at_once(
    client: httpx2.Client, pages: Watched
) -> None:
    page = pages.open(str(client.base_url))
    expect(page.locator("#pictures li").first).to_be_visible()
    page.get_by_label("Search in prompts").fill("house 12")
    first = page.locator("#pictures li").first
    expect(first.locator("img")).to_have_attribute("alt", "house 1299")
    first.get_by_role("button").focus()
    page.keyboard.press("End")
    expect(page.locator("#pictures li[aria-setsize='111']").first).to_be_visible()
    page.keyboard.press("End")
    shown(picture(page, "house 12"))
    listings = [path for path in pages.asked if path.startswith("/v1/results?outcome=done")]
    assert len(listings) == 3  # the first page of all; of those that fit, the first and the rest
    page.get_by_label("Search in prompts").fill("no such house")
    expect(page.get_by_text("No picture fits this search.")).to_be_visible()


def test_a_picture_that_comes_is_one_new_tile_and_asks_for_no_list(
    client: httpx2.Client, pages: Watched
) -> None:
    page = pages.open(str(client.base_url))
    shown(picture(page, f"house {PICTURES - 1}"))
    page.evaluate(COUNT_TILES)
    before = len(pages.asked)
    for number in range(5):
        body = {"tasks": [{"prompt": f"late {number}"}]}
        finished(client, client.post("/v1/jobs", json=body).raise_for_status().json()["id"])
        shown(picture(page, f"late {number}"))
    assert page.evaluate("window.made") == 5
    asked = pages.asked[before:]
    assert len([path for path in asked if path.endswith("/thumbnail")]) == 5
    assert not [path for path in asked if path.startswith("/v1/results?outcome=done")]
